"""Deribit's JSON-RPC (API v2) from the venue's side: perpetuals and spot, ``book`` with change_id and prev_change_id."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument
from simulator.order_flow import Changes
from simulator.stream_server import Client
from simulator.wire import Change, Wire, answer, bases, best, checked_base, compact, json_number

INTERVALS = ("100ms", "agg2", "raw")
INVERSE = ("BTC", "ETH")
"""Bases of the perpetuals that are margined in the coin itself."""
HEARTBEAT_FROM_S = 10
CHANNELS_MAX = 500
"""In one call."""
TICKERS_EVERY = 4


class DeribitWire(Wire):
    """Source: Deribit API v2, "book.{instrument_name}.{interval}" (``change_id``, ``prev_change_id``; levels are [new,
    change or delete, price, amount]), "trades.{instrument_name}.{interval}", "ticker.{instrument_name}.{interval}",
    "public/subscribe", "public/set_heartbeat" (a test_request has to be answered by public/test),
    "public/get_instruments"."""

    ws_paths = ("/ws/api/v2",)
    unknown_deletes = False
    trading, halted = "open", "locked"

    def names(self) -> Iterator[Name]:
        spot = (Name(f"{base}_USDC", base, "USDC", f"{base}/USDC") for base in ("BTC", "ETH", "SOL", "XRP"))
        return chain((self._perpetual(base) for base in INVERSE), spot, (self._linear(base) for base in bases()))

    def name_of(self, native: str) -> Name:
        pair, _, rest = native.partition("-")
        base, _, quote = pair.partition("_")
        if rest == "PERPETUAL" and not quote:
            return self._perpetual(checked_base(native, base, "-PERPETUAL"))
        if quote == "USDC" and rest in ("", "PERPETUAL"):
            checked_base(native, base, "_USDC")
            return self._linear(base) if rest else Name(native, base, "USDC", f"{base}/USDC")
        raise ControlError(f"a symbol here is BASE-PERPETUAL, BASE_USDC-PERPETUAL or BASE_USDC, {native!r} is not")

    def _perpetual(self, base: str) -> Name:
        return Name(f"{base}-PERPETUAL", base, "USD", f"{base}/USD:{base}", "inverse")

    def _linear(self, base: str) -> Name:
        return Name(f"{base}_USDC-PERPETUAL", base, "USDC", f"{base}/USDC:USDC", "linear")

    def refusal(self, status: int) -> dict[str, Any]:
        code, text = (11051, "system_maintenance") if status == 503 else (10028, "too_many_requests")
        return {"jsonrpc": "2.0", "error": {"code": code, "message": text}}

    def tick(self, client: Client) -> None:
        """A heartbeat each interval; who does not answer its test_request by the next one is disconnected."""
        interval_s, now_s = client.memory.get("heartbeat_s", 0), time.monotonic()
        if not interval_s or now_s < client.memory["next_beat_s"]:
            return
        if client.memory.get("untested"):
            client.abort()
            return
        client.memory |= {"next_beat_s": now_s + interval_s, "untested": True}
        for kind in ("heartbeat", "test_request"):
            client.put(compact({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}}))

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        return [
            ("/api/v2/public/get_instruments", self._get_instruments),
            ("/api/v2/public/get_order_book", self._get_order_book),
            ("/api/v2/public/get_currencies", self._get_currencies),
            ("/api/v2/public/get_time", self._get_time),
            ("/api/v2/public/test", self._test),
        ]

    def _raw(self, result: str) -> web.Response:
        now_us = self.venue.now_us()
        text = f'{{"jsonrpc":"2.0","result":{result},"usIn":{now_us},"usOut":{now_us + 90},"usDiff":90,"testnet":false}}'
        return web.Response(body=text.encode(), content_type="application/json")

    async def _get_instruments(self, request: web.Request) -> web.Response:
        query = request.query
        currency, kind = query.get("currency", "any"), query.get("kind", "any")
        ones = [
            one for one in self.venue.instruments.values()
            if kind in ("any", _kind(one)) and currency in ("any", one.base if one.name.kind == "inverse" else one.quote)
        ]  # fmt: skip
        return self._raw("[" + ",".join(_entry(one) for one in ones) + "]")

    async def _get_order_book(self, request: web.Request) -> web.Response:
        one, depth = self.listed(request.query.get("instrument_name")), request.query.get("depth", "5")
        if one is None:
            error = {"code": 13020, "message": "instrument_not_found"}
            return answer({"jsonrpc": "2.0", "error": error}, 400)
        bids, asks = (_pairs(one, levels) for levels in best(one, int(depth) if depth.isdigit() else 5))
        return self._raw(
            f'{{"instrument_name":"{one.native}","change_id":{one.last_u},"timestamp":{self.venue.now_us() // 1000},'
            f'"state":"{one.status}","bids":[{bids}],"asks":[{asks}]}}'
        )

    async def _get_currencies(self, _: web.Request) -> web.Response:
        names = (*INVERSE, "USDC")
        return self._raw(json.dumps([{"currency": n, "currency_long": n, "coin_type": n} for n in names]))

    async def _get_time(self, _: web.Request) -> web.Response:
        return self._raw(str(self.venue.now_us() // 1000))

    async def _test(self, _: web.Request) -> web.Response:
        return self._raw('{"version":"1.2.26"}')

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        try:
            message = json.loads(text)
            method, params = message["method"], message.get("params") or {}
            number = message.get("id")
        except (ValueError, KeyError, TypeError, AttributeError):
            client.put(compact({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}}))
            return
        match method:
            case "public/subscribe" | "public/unsubscribe":
                self._subscriptions(client, number, method == "public/subscribe", params.get("channels"))
            case "public/unsubscribe_all":
                for stream in list(client.streams):
                    self.stream.unsubscribe(client, stream)
                self._result(client, number, "ok")
            case "public/set_heartbeat":
                interval_s = params.get("interval")
                if not isinstance(interval_s, int) or interval_s < HEARTBEAT_FROM_S:
                    self._error(client, number, -32602, "Invalid params")
                    return
                client.memory |= {"heartbeat_s": interval_s, "next_beat_s": time.monotonic() + interval_s}
                self._result(client, number, "ok")
            case "public/disable_heartbeat":
                client.memory.pop("heartbeat_s", None)
                self._result(client, number, "ok")
            case "public/test":
                client.memory["untested"] = False
                self._result(client, number, {"version": "1.2.26"})
            case "public/hello":
                self._result(client, number, {"version": "1.2.26"})
            case "public/get_time":
                self._result(client, number, self.venue.now_us() // 1000)
            case _:
                self._error(client, number, -32601, "Method not found")

    def _result(self, client: Client, number: Any, result: Any) -> None:
        now_us = self.venue.now_us()
        times = {"usIn": now_us, "usOut": now_us + 90, "usDiff": 90, "testnet": False}
        client.put(compact({"jsonrpc": "2.0", "id": number, "result": result, **times}))

    def _error(self, client: Client, number: Any, code: int, text: str) -> None:
        client.put(compact({"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}))

    def _subscriptions(self, client: Client, number: Any, wanted: bool, channels: Any) -> None:
        """The answer lists what was taken; a channel that cannot be is left out, or an error when none is left."""
        if not isinstance(channels, list) or not channels or not all(isinstance(c, str) for c in channels):
            self._error(client, number, -32602, "Invalid params")
            return
        if len(channels) > CHANNELS_MAX:
            self._error(client, number, 11056, "subscription_count_too_high")
            return
        taken = [channel for channel in channels if not wanted or self._parts(channel) is not None]
        for channel in taken if not wanted else ():
            self.stream.unsubscribe(client, channel)
        self._result(client, number, taken)
        for channel in taken if wanted else ():
            self.stream.subscribe(client, channel)
            kind, one = self._parts(channel) or ("", None)
            if kind == "book" and one is not None:
                bids, asks = best(one, 10**6)
                client.put(self._book(channel, one, "snapshot", (bids, asks), one.last_u, None, one.truth.ts_us))
            elif kind in ("ticker", "perpetual", "quote") and one is not None:
                client.put(_push(channel, _slow(kind, one, self.venue.now_us())))
        self.stream.changed()

    def _parts(self, channel: str) -> tuple[str, SyntheticInstrument | None] | None:
        """(kind, instrument) of a channel that exists."""
        kind, _, rest = channel.partition(".")
        if kind == "quote":
            return None if (one := self.listed(rest)) is None else (kind, one)
        native, _, interval = rest.rpartition(".")
        one = self.listed(native)
        if kind in ("book", "trades", "ticker", "perpetual") and one is not None and interval in INTERVALS:
            return kind, one
        if kind in ("instrument", "platform_state", "deribit_price_index", "trades"):
            return kind, None  # taken, though nothing is said there
        return None

    def _book(
        self, channel: str, one: SyntheticInstrument, kind: str, sides: tuple[Changes, Changes], change_id: int,
        previous: int | None, ts_us: int, held: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset()),
    ) -> bytes:  # fmt: skip
        bids, asks = (_levels(one, levels, before) for levels, before in zip(sides, held, strict=True))
        chained = "" if previous is None else f'"prev_change_id":{previous},'
        return _push(
            channel,
            f'{{"type":"{kind}","timestamp":{ts_us // 1000},{chained}"instrument_name":"{one.native}",'
            f'"change_id":{change_id},"bids":[{bids}],"asks":[{asks}]}}',
        )

    def publish(self, change: Change) -> None:
        one = change.one
        sides = (change.bids, change.asks)
        for interval in INTERVALS:
            channel = f"book.{one.native}.{interval}"
            if self.stream.wanted(channel):
                frame = self._book(channel, one, "change", sides, change.seq, change.previous, change.ts_us, change.held)
                self.send_book(channel, frame, change)
            channel = f"trades.{one.native}.{interval}"
            if change.trade is not None and self.stream.wanted(channel):
                self.stream.send(channel, _push(channel, f"[{_trade(change, *change.trade)}]"))
            if one.events % TICKERS_EVERY:
                continue  # these change slowly
            for kind in ("ticker", "perpetual"):
                channel = f"{kind}.{one.native}.{interval}"
                if self.stream.wanted(channel):
                    self.stream.send(channel, _push(channel, _slow(kind, one, change.ts_us)))

        channel = f"quote.{one.native}"
        if self.stream.wanted(channel):
            self.stream.send(channel, _push(channel, _slow("quote", one, change.ts_us)))

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(name: str, change_id: str) -> bytes:
            data = (
                f'{{"type":"change","timestamp":1,"prev_change_id":1,"instrument_name":"{name}","change_id":{change_id},'
                '"bids":[],"asks":[]}'
            )
            return _push(f"book.{name}.100ms", data)

        return frame(native, '"not a number"'), frame("NOBODY-PERPETUAL", "2")


def _push(channel: str, data: str) -> bytes:
    return (
        f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'
    ).encode()


def _kind(one: SyntheticInstrument) -> str:
    return "spot" if one.name.kind == "spot" else "future"


def _pairs(one: SyntheticInstrument, levels: Changes) -> str:
    pd, sd = one.price_decimals, one.size_decimals
    return ",".join(f"[{json_number(p, pd)},{json_number(s, sd)}]" for p, s in levels)


def _levels(one: SyntheticInstrument, levels: Changes, held: frozenset[int]) -> str:
    pd, sd = one.price_decimals, one.size_decimals
    parts: list[str] = []
    for price, size in levels:
        action = "delete" if not size else "change" if price in held else "new"
        parts.append(f'["{action}",{json_number(price, pd)},{json_number(size, sd)}]')
    return ",".join(parts)


def _trade(change: Change, price: int, size: int, buyer_is_maker: bool) -> str:
    one = change.one
    return (
        f'{{"trade_seq":{one.trade_id},"trade_id":"{one.base}-{one.trade_id}","timestamp":{change.ts_us // 1000},'
        f'"tick_direction":0,"price":{json_number(price, one.price_decimals)},'
        f'"mark_price":{json_number(price, one.price_decimals)},"instrument_name":"{one.native}",'
        f'"index_price":{json_number(price, one.price_decimals)},"direction":"{"sell" if buyer_is_maker else "buy"}",'
        f'"contracts":1.0,"amount":{json_number(size, one.size_decimals)}}}'
    )


def _slow(kind: str, one: SyntheticInstrument, ts_us: int) -> str:
    """A ticker, or what the channels ``perpetual`` and ``quote`` say."""
    pd, sd, flow = one.price_decimals, one.size_decimals, one.flow
    bid, ask = json_number(flow.best_bid, pd), json_number(flow.best_ask, pd)
    touch = (
        f'"best_bid_price":{bid},"best_bid_amount":{json_number(flow.bids[flow.best_bid], sd)},"best_ask_price":{ask},'
        f'"best_ask_amount":{json_number(flow.asks[flow.best_ask], sd)}'
    )
    if kind == "quote":
        return f'{{"timestamp":{ts_us // 1000},"instrument_name":"{one.native}",{touch}}}'
    if kind == "perpetual":
        return f'{{"timestamp":{ts_us // 1000},"interest":0.00000842,"index_price":{bid}}}'
    funding = "" if one.name.kind == "spot" else '"funding_8h":0.00001234,"current_funding":0.00000842,'
    return (
        f'{{"timestamp":{ts_us // 1000},"state":"{one.status}","instrument_name":"{one.native}",{funding}'
        f'"stats":{{"volume":100.5,"price_change":0.1,"low":{bid},"high":{ask}}},"settlement_price":{bid},'
        f'"open_interest":{json_number(1_000_000 + one.trade_id, sd)},"min_price":0.01,"max_price":1000000.0,'
        f'"mark_price":{bid},"last_price":{bid},"index_price":{bid},"estimated_delivery_price":{bid},'
        f"{touch}}}"
    )


def _entry(one: SyntheticInstrument) -> str:
    tick, lot = json_number(1, one.price_decimals), json_number(1, one.size_decimals)
    kind, inverse = _kind(one), one.name.kind == "inverse"
    active = "true" if one.status == DeribitWire.trading else "false"
    settle = one.base if inverse else one.quote
    more = "" if kind == "spot" else (
        f'"future_type":"{"reversed" if inverse else "linear"}","settlement_period":"perpetual",'
        f'"settlement_currency":"{settle}","max_leverage":50,"expiration_timestamp":32503708800000,'
    )  # fmt: skip
    return (
        f'{{"instrument_name":"{one.native}","kind":"{kind}","base_currency":"{one.base}","quote_currency":"{one.quote}",'
        f'"counter_currency":"{one.quote}","price_index":"{one.base.lower()}_{one.quote.lower()}","tick_size":{tick},'
        f'"tick_size_steps":[],"min_trade_amount":{lot},"contract_size":{lot},{more}"taker_commission":0.0005,'
        f'"maker_commission":0.0,"is_active":{active},"state":"{one.status}","rfq":false,"instrument_id":{one.number + 1},'
        f'"instrument_type":"{"reversed" if inverse else "linear"}","creation_timestamp":1534242287000,'
        f'"block_trade_commission":0.0003}}'
    )
