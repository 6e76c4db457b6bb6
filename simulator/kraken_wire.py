"""Kraken's websocket v2 from the venue's side: ``book`` with CRC32 and without sequence numbers, JSON numbers for prices."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zlib import crc32

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument, decimal_text
from simulator.order_flow import Changes
from simulator.stream_server import Client
from simulator.wire import Change, Wire, answer, bases, best, checked_base, compact, iso_us

DEPTHS = (10, 25, 100, 500, 1000)
CHECKED = 10
SAFE = 4
"""Levels from the touch in which the loss of a change must break the next checksum: no event moves one out of CHECKED."""
CHANNELS = ("book", "trade", "ticker", "instrument", "status")
OLD_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
"""REST and websocket v1 call them so, websocket v2 does not. Source: Kraken WebSocket v2, "Symbology"."""


class KrakenWire(Wire):
    """Source: Kraken WebSocket API v2, "Book (Level 2)", "Book checksum (v2)" (top 10 asks, then bids, price and quantity
    at full precision without point and leading zeros; a client cuts what falls out of its depth), "Trades", "Instruments",
    "Heartbeat", "Ping"; REST, "Get Tradable Asset Pairs", "Get Order Book"."""

    ws_paths = ("/v2",)
    unknown_deletes = False
    has_checksum = True
    loss_shows = False
    by_time = True
    trading, halted = "online", "cancel_only"

    def names(self) -> Iterator[Name]:
        return (self._name(base) for base in bases())

    def name_of(self, native: str) -> Name:
        base, _, quote = native.partition("/")
        if quote != "USD":
            raise ControlError(f"a symbol here is BASE/USD, {native!r} is not")
        return self._name(checked_base(native, base, "/USD"))

    def _name(self, base: str) -> Name:
        return Name(f"{base}/USD", base, "USD", f"{base}/USD")

    def refusal(self, status: int) -> dict[str, Any]:
        return {"error": ["EService:Unavailable" if status == 503 else "EAPI:Rate limit exceeded"]}

    def farewell(self) -> bytes:
        return self._status("maintenance")

    def greet(self, client: Client) -> None:
        client.put(self._status("online"))

    def _status(self, system: str) -> bytes:
        data = {"version": "2.0.10", "system": system, "api_version": "v2", "connection_id": 13834774380200032777}
        return compact({"channel": "status", "type": "update", "data": [data]})

    def tick(self, client: Client) -> None:
        # About once a second, when something is subscribed.
        if client.streams:
            client.put(b'{"channel":"heartbeat"}')

    def provable(self, change: Change) -> bool:
        """No number says that an update is missing; a checksum over ten levels does, if the change is among them."""
        for changes, top in zip((change.bids, change.asks), best(change.one, SAFE), strict=True):
            if not top or any(abs(p - top[0][0]) > abs(top[-1][0] - top[0][0]) for p, _ in changes):
                return False
        return True

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        return [
            ("/0/public/AssetPairs", self._pairs),
            ("/0/public/Depth", self._depth),
            ("/0/public/SystemStatus", self._system),
            ("/0/public/Time", self._time),
        ]

    async def _pairs(self, request: web.Request) -> web.Response:
        wanted = set(filter(None, request.query.get("pair", "").split(",")))
        pairs = {_rest_name(one): _pair(one) for one in self.venue.instruments.values()}
        found = {n: p for n, p in pairs.items() if not wanted or wanted & {n, p["altname"], p["wsname"]}}
        if not found:
            return answer({"error": ["EQuery:Unknown asset pair"]})
        return answer({"error": [], "result": found})

    async def _depth(self, request: web.Request) -> web.Response:
        pair, count = request.query.get("pair", ""), request.query.get("count", "100")
        for one in self.venue.instruments.values():
            if pair in (_rest_name(one), _pair(one)["altname"], _pair(one)["wsname"]):
                bids, asks = best(one, min(500, int(count)) if count.isdigit() else 100)
                now_s = self.venue.now_us() // 1_000_000
                book = {
                    "asks": [[one.price(p), one.size(s), now_s] for p, s in asks],
                    "bids": [[one.price(p), one.size(s), now_s] for p, s in bids],
                }
                return answer({"error": [], "result": {_rest_name(one): book}})
        return answer({"error": ["EQuery:Unknown asset pair"]})

    async def _system(self, _: web.Request) -> web.Response:
        status = {"status": "online", "timestamp": iso_us(self.venue.now_us())}
        return answer({"error": [], "result": status})

    async def _time(self, _: web.Request) -> web.Response:
        return answer({"error": [], "result": {"unixtime": self.venue.now_us() // 1_000_000}})

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        time_in = iso_us(self.venue.now_us())
        try:
            message = json.loads(text)
            method, params = message["method"], message.get("params", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply(client, {}, {"error": "Malformed request", "success": False}, time_in)
            return
        if method == "ping":
            self._reply(client, message, {"method": "pong"}, time_in)
            return
        if method not in ("subscribe", "unsubscribe") or not isinstance(params, dict):
            self._reply(client, message, {"error": f"Unsupported method {method}", "success": False}, time_in)
            return
        channel = params.get("channel")
        if channel not in CHANNELS:
            error = {"error": f"Channel {channel} not supported", "method": method, "success": False}
            self._reply(client, message, error, time_in)
            return
        if channel in ("instrument", "status"):
            result = {"channel": channel, "snapshot": True}
            self._reply(client, message, {"method": method, "result": result, "success": True}, time_in)
            if channel == "instrument" and method == "subscribe":
                client.put(self._instruments())
            return
        symbols = params.get("symbol")
        for symbol in symbols if isinstance(symbols, list) else []:
            self._subscription(client, message, params, symbol, time_in)
        self.stream.changed()

    def _subscription(
        self, client: Client, message: Mapping[str, Any], params: Mapping[str, Any], symbol: Any, time_in: str
    ) -> None:
        """Each symbol is answered alone."""
        method, channel = message["method"], params["channel"]
        one, depth = self.listed(symbol), params.get("depth", CHECKED)
        if one is None and method == "subscribe":
            error = {"error": f"Currency pair not supported {symbol}", "method": method, "success": False, "symbol": symbol}
            self._reply(client, message, error, time_in)
            return
        if channel == "book" and depth not in DEPTHS:
            error = {"error": f"Depth {depth} not supported", "method": method, "success": False, "symbol": symbol}
            self._reply(client, message, error, time_in)
            return
        result = {"channel": channel, "snapshot": True, "symbol": symbol} | ({"depth": depth} if channel == "book" else {})
        self._reply(client, message, {"method": method, "result": result, "success": True}, time_in)
        stream = f"book{depth}:{symbol}" if channel == "book" else f"{channel}:{symbol}"
        if method == "unsubscribe":
            self.stream.unsubscribe(client, stream)
        elif one is not None and channel == "book":
            _, bids, asks = self.open_book(client, stream, one, depth, says_fallen=False)
            client.put(self._book(one, "snapshot", bids, asks, one.truth.ts_us))
        else:
            self.stream.subscribe(client, stream)

    def _reply(self, client: Client, message: Mapping[str, Any], body: Mapping[str, Any], time_in: str) -> None:
        number = {"req_id": message["req_id"]} if "req_id" in message else {}
        client.put(compact({**body, **number, "time_in": time_in, "time_out": iso_us(self.venue.now_us())}))

    def _instruments(self) -> bytes:
        ones = self.venue.instruments.values()
        pairs = ",".join(
            f'{{"symbol":"{one.native}","base":"{one.base}","quote":"{one.quote}","status":"{one.status}",'
            f'"qty_precision":{one.size_decimals},"qty_increment":{decimal_text(1, one.size_decimals)},'
            f'"price_precision":{one.price_decimals},"cost_precision":5,"marginable":false,"has_index":true,'
            f'"cost_min":0.50,"price_increment":{decimal_text(1, one.price_decimals)},'
            f'"qty_min":{decimal_text(1, one.size_decimals)}}}'
            for one in ones
        )
        return f'{{"channel":"instrument","type":"snapshot","data":{{"assets":[],"pairs":[{pairs}]}}}}'.encode()

    def _book(self, one: SyntheticInstrument, kind: str, bids: Changes, asks: Changes, ts_us: int) -> bytes:
        value = checksum(*best(one, CHECKED))
        if kind == "update" and self.venue.faults.spoil_checksum(one.native, one.last_u):
            value ^= 1
        return (
            f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{one.native}","bids":[{_levels(one, bids)}],'
            f'"asks":[{_levels(one, asks)}],"checksum":{value},"timestamp":"{iso_us(ts_us)}"}}]}}'
        ).encode()

    def publish(self, change: Change) -> None:
        one = change.one
        for depth in DEPTHS:
            stream = f"book{depth}:{one.native}"
            if self.stream.wanted(stream) and (told := self.told(stream, change)) is not None:
                _, bids, asks = told
                self.send_book(stream, self._book(one, "update", bids, asks, change.ts_us), change)
        if change.trade is not None and self.stream.wanted(f"trade:{one.native}"):
            price, size, buyer_is_maker = change.trade
            frame = (
                f'{{"channel":"trade","type":"update","data":[{{"symbol":"{one.native}",'
                f'"side":"{"sell" if buyer_is_maker else "buy"}","price":{one.price(price)},'
                f'"qty":{one.size(size)},"ord_type":"limit","trade_id":{one.trade_id},'
                f'"timestamp":"{iso_us(change.ts_us)}"}}]}}'
            )
            self.stream.send(f"trade:{one.native}", frame.encode())
        if self.stream.wanted(f"ticker:{one.native}"):
            self.stream.send(f"ticker:{one.native}", _ticker(one, change.ts_us))

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(name: str, checksum: str) -> bytes:
            book = f'{{"symbol":"{name}","bids":[],"asks":[],"checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}'
            return f'{{"channel":"book","type":"update","data":[{book}]}}'.encode()

        return frame(native, '"not a number"'), frame("NOBODY/USD", "1")


def checksum(bids: Changes, asks: Changes) -> int:
    """Of the best ten levels a side in ticks and lots: such a number, written, has neither point nor leading zeros."""
    return crc32("".join(f"{p}{s}" for p, s in (*asks, *bids)).encode())


def _levels(one: SyntheticInstrument, levels: Sequence[tuple[int, int]]) -> str:
    # "pushed onto the wire containing full precision": zeros at the end too, as the checksum needs them.
    return ",".join(f'{{"price":{one.price(p)},"qty":{one.size(s)}}}' for p, s in levels)


def _ticker(one: SyntheticInstrument, ts_us: int) -> bytes:
    flow = one.flow
    bid, ask = one.price(flow.best_bid), one.price(flow.best_ask)
    return (
        f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{one.native}","bid":{bid},'
        f'"bid_qty":{one.size(flow.bids[flow.best_bid])},"ask":{ask},'
        f'"ask_qty":{one.size(flow.asks[flow.best_ask])},"last":{bid},"volume":1000.5,"vwap":{bid},"low":{bid},'
        f'"high":{ask},"change":0.0,"change_pct":0.0,"timestamp":"{iso_us(ts_us)}"}}]}}'
    ).encode()


def _rest_name(one: SyntheticInstrument) -> str:
    """XXBTZUSD, XXDGZUSD, SOLUSD: old assets carry a letter for their class."""
    old = OLD_NAMES.get(one.base)
    return f"X{old}ZUSD" if old else f"{one.base}USD"


def _pair(one: SyntheticInstrument) -> dict[str, Any]:
    old = OLD_NAMES.get(one.base)
    return {
        "altname": f"{old or one.base}USD", "wsname": f"{old or one.base}/USD", "aclass_base": "currency",
        "base": f"X{old}" if old else one.base, "aclass_quote": "currency", "quote": "ZUSD", "lot": "unit",
        "cost_decimals": 5, "pair_decimals": one.price_decimals, "lot_decimals": one.size_decimals, "lot_multiplier": 1,
        "leverage_buy": [], "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]],
        "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40,
        "ordermin": decimal_text(1, one.size_decimals), "costmin": "0.5",
        "tick_size": decimal_text(1, one.price_decimals), "status": one.status,
    }  # fmt: skip
