"""OKX v5 from the venue's side: spot pairs and linear swaps, ``books`` with sequence numbers and CRC32."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument, decimal_text
from simulator.order_flow import Changes
from simulator.stream_server import Client
from simulator.wire import Change, Wire, World, answer, bases, best, checked_base, compact, signed_crc32

BOOK_DEPTH = 400
"""Levels a side of the channel ``books``."""
CHECKED = 25
"""Levels a side under the checksum."""
SWAP_ONLY = ("funding-rate", "mark-price", "open-interest")
ANY_INSTRUMENT = ("books", "trades", "tickers", "trades-all", "bbo-tbt", *SWAP_ONLY)
INDEX = "index-tickers"
"""Its instruments are indices: BASE-QUOTE, whether or not such a pair trades."""
BY_TYPE = ("liquidation-orders", "instruments", "status")
"""Channels that are subscribed by instType."""
TICKERS_EVERY = 4
"""Events of an instrument between two pushes of what changes slowly."""


class OkxWire(Wire):
    """Source: OKX API v5, "Order book channel" (400 levels; ``seqId``, ``prevSeqId``, -1 in a snapshot; checksum: CRC32 as
    a signed 32-bit number over 25 levels a side, ``bid:size:ask:size:…``), "Trades channel", "Subscribe", "Get
    instruments"."""

    ws_paths = ("/ws/v5/public",)
    has_checksum = True
    trading, halted = "live", "suspend"

    def __init__(self, venue: World) -> None:
        super().__init__(venue)
        self._restarted: set[str] = set()

    def restart(self, one: SyntheticInstrument) -> None:
        """Source: "Order book channel", "Sequence ID": after maintenance one update has a seqId below its prevSeqId."""
        self._restarted.add(one.native)

    def number(self, one: SyntheticInstrument) -> tuple[int, int]:
        if one.native in self._restarted:
            self._restarted.discard(one.native)
            return 1, one.last_u // 2
        return super().number(one)

    def names(self) -> Iterator[Name]:
        return (self._name(base, swap=bool(number % 2)) for number, base in enumerate(bases()))

    def name_of(self, native: str) -> Name:
        base, _, rest = native.partition("-")
        if rest not in ("USDT", "USDT-SWAP"):
            raise ControlError(f"a symbol here is BASE-USDT or BASE-USDT-SWAP, {native!r} is not")
        return self._name(checked_base(native, base, "-USDT"), swap=rest == "USDT-SWAP")

    def _name(self, base: str, *, swap: bool) -> Name:
        if swap:
            return Name(f"{base}-USDT-SWAP", base, "USDT", f"{base}/USDT:USDT", "linear")
        return Name(f"{base}-USDT", base, "USDT", f"{base}/USDT")

    def refusal(self, status: int) -> dict[str, Any]:
        if status == 503:
            return {"code": "50001", "msg": "Service temporarily unavailable. Please try again later", "data": []}
        return {"code": "50011", "msg": "Too Many Requests", "data": []}

    def farewell(self) -> bytes:
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return compact({"event": "notice", "code": "64008", "msg": text, "connId": "a4d3ae55"})

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        return [
            ("/api/v5/public/instruments", self._instruments),
            ("/api/v5/market/books", self._books),
            ("/api/v5/public/time", self._time),
            ("/api/v5/public/open-interest", self._open_interest),
        ]

    async def _instruments(self, request: web.Request) -> web.Response:
        kind = request.query.get("instType", "")
        if kind not in ("SPOT", "SWAP", "FUTURES", "OPTION", "MARGIN"):
            return answer({"code": "51000", "msg": "Parameter instType error", "data": []}, 400)
        if kind == "OPTION" and not request.query.keys() & {"uly", "instFamily"}:
            return answer({"code": "50015", "msg": "Either parameter uly or instFamily is required", "data": []}, 400)
        found = [_entry(one) for one in self.venue.instruments.values() if _type_of(one) == kind]
        return answer({"code": "0", "msg": "", "data": found})

    async def _books(self, request: web.Request) -> web.Response:
        one = self.listed(request.query.get("instId"))
        if one is None:
            return answer({"code": "51001", "msg": "Instrument ID doesn't exist", "data": []}, 400)
        size = request.query.get("sz", "1")
        bids, asks = best(one, min(BOOK_DEPTH, int(size)) if size.isdigit() else 1)
        book = {"asks": _levels(one, asks), "bids": _levels(one, bids), "ts": str(self.venue.now_us() // 1000)}
        return answer({"code": "0", "msg": "", "data": [book | {"seqId": one.last_u}]})

    async def _time(self, _: web.Request) -> web.Response:
        return answer({"code": "0", "msg": "", "data": [{"ts": str(self.venue.now_us() // 1000)}]})

    async def _open_interest(self, request: web.Request) -> web.Response:
        kind, now_us = request.query.get("instType", ""), self.venue.now_us()
        found = [_slow(one, "open-interest", now_us) for one in self.venue.instruments.values() if _type_of(one) == kind]
        return answer({"code": "0", "msg": "", "data": found})

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        if text == "ping":
            client.put(b"pong")
            return
        try:
            message = json.loads(text)
            operation, arguments = message["op"], message["args"]
        except (ValueError, KeyError, TypeError):
            self._refuse(client, {}, "60012", f"Invalid request: {text[:200]}")
            return
        if operation not in ("subscribe", "unsubscribe") or not isinstance(arguments, list):
            self._refuse(client, message, "60012", f"Invalid request: {text[:200]}")
            return
        for argument in arguments:
            self._subscription(client, message, operation, argument)
        self.stream.changed()

    def _subscription(self, client: Client, message: Mapping[str, Any], operation: str, argument: Any) -> None:
        """Each channel is answered alone; a refused one does not touch the others."""
        if not isinstance(argument, dict):
            self._refuse(client, message, "60012", "Invalid request: args")
            return
        channel, native = argument.get("channel"), argument.get("instId")
        one = self.listed(native)
        if channel not in (*ANY_INSTRUMENT, *BY_TYPE) and not (channel == INDEX and self._is_index(native)):
            self._refuse(client, message, "60018", f"Wrong URL or channel:{channel},instId:{native} doesn't exist.")
            return
        if operation == "subscribe" and channel in ANY_INSTRUMENT and (
            one is None or (channel in SWAP_ONLY and one.name.kind == "spot")
        ):  # fmt: skip
            self._refuse(client, message, "60018", f"Wrong URL or channel:{channel},instId:{native} doesn't exist.")
            return
        reply = {"event": operation, "arg": argument, "connId": f"{client.number:08x}"}
        client.put(compact({"id": message["id"], **reply} if "id" in message else reply))
        stream = f"{channel}:{native or argument.get('instType')}"
        if operation == "unsubscribe":
            self.stream.unsubscribe(client, stream)
        elif one is not None and channel == "books":
            seq, bids, asks = self.open_book(client, stream, one, BOOK_DEPTH)
            client.put(self._book(one, "snapshot", bids, asks, -1, seq, self.venue.now_us()))
        else:
            self.stream.subscribe(client, stream)
        if one is not None and channel in SWAP_ONLY:
            client.put(_push(channel, one, _slow(one, channel, self.venue.now_us())))

    def _is_index(self, native: Any) -> bool:
        return isinstance(native, str) and bool(self.listed(native) or self.listed(f"{native}-SWAP"))

    def _refuse(self, client: Client, message: Mapping[str, Any], code: str, text: str) -> None:
        reply = {"event": "error", "code": code, "msg": text, "connId": f"{client.number:08x}"}
        client.put(compact({"id": message["id"], **reply} if "id" in message else reply))

    def _book(
        self, one: SyntheticInstrument, action: str, bids: Changes, asks: Changes, previous: int, seq: int, ts_us: int
    ) -> bytes:
        book = {
            "asks": _levels(one, asks), "bids": _levels(one, bids), "ts": str(ts_us // 1000),
            "checksum": self._checksum(one, seq), "seqId": seq, "prevSeqId": previous,
        }  # fmt: skip
        return compact({"arg": {"channel": "books", "instId": one.native}, "action": action, "data": [book]})

    def _checksum(self, one: SyntheticInstrument, seq: int) -> int:
        bids, asks = best(one, CHECKED)
        value = checksum(one.texts(bids), one.texts(asks))
        return value ^ 1 if self.venue.faults.spoil_checksum(one.native, seq) else value

    def publish(self, change: Change) -> None:
        one = change.one
        stream = f"books:{one.native}"
        if self.stream.wanted(stream) and (told := self.told(stream, change)) is not None:
            previous, bids, asks = told
            frame = self._book(one, "update", bids, asks, previous, change.seq, change.ts_us)
            self.send_book(stream, frame, change)
        if change.trade is not None and self.stream.wanted(f"trades:{one.native}"):
            price, size, buyer_is_maker = change.trade
            trade = {
                "instId": one.native, "tradeId": str(one.trade_id), "px": one.price(price), "sz": one.size(size),
                "side": "sell" if buyer_is_maker else "buy", "ts": str(change.ts_us // 1000), "count": "1",
            }  # fmt: skip
            self.stream.send(f"trades:{one.native}", _push("trades", one, trade))
        if self.stream.wanted(f"bbo-tbt:{one.native}"):
            self.stream.send(f"bbo-tbt:{one.native}", _push("bbo-tbt", one, _bbo(one, change)))
        if self.stream.wanted(f"tickers:{one.native}"):
            self.stream.send(f"tickers:{one.native}", _push("tickers", one, _ticker(one, change.ts_us)))
        if one.name.kind != "spot" and one.events % TICKERS_EVERY == 0:
            index = f"{one.base}-{one.quote}"
            if self.stream.wanted(f"{INDEX}:{index}"):
                arg = {"channel": INDEX, "instId": index}
                data = {"instId": index, "idxPx": one.price(one.flow.best_bid), "ts": str(change.ts_us // 1000)}
                self.stream.send(f"{INDEX}:{index}", compact({"arg": arg, "data": [data]}))
            for channel in SWAP_ONLY:
                if self.stream.wanted(f"{channel}:{one.native}"):
                    self.stream.send(f"{channel}:{one.native}", _push(channel, one, _slow(one, channel, change.ts_us)))

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(name: str, seq: Any) -> bytes:
            book = {"asks": [], "bids": [], "ts": "1", "checksum": 0, "seqId": seq, "prevSeqId": 1}
            return compact({"arg": {"channel": "books", "instId": name}, "action": "update", "data": [book]})

        return frame(native, "not a number"), frame("NOBODY-USDT", 2)


def checksum(bids: Sequence[Sequence[str]], asks: Sequence[Sequence[str]]) -> int:
    """Of the best 25 levels a side: bid price:size:ask price:size:…; when one side runs out the other goes on alone."""
    parts: list[str] = []
    for i in range(max(len(bids), len(asks))):
        for side in (bids, asks):
            if i < len(side):
                parts += side[i][:2]
    return signed_crc32(":".join(parts))


def _type_of(one: SyntheticInstrument) -> str:
    return "SPOT" if one.name.kind == "spot" else "SWAP"


def _levels(one: SyntheticInstrument, levels: Changes) -> list[Sequence[str]]:
    """[price, size, "0" (deprecated), number of orders]."""
    return [(one.price(p), one.size(s), "0", "1" if s else "0") for p, s in levels]


def _push(channel: str, one: SyntheticInstrument, data: Mapping[str, Any]) -> bytes:
    return compact({"arg": {"channel": channel, "instId": one.native}, "data": [data]})


def _entry(one: SyntheticInstrument) -> dict[str, Any]:
    swap = one.name.kind != "spot"
    lot = decimal_text(1, one.size_decimals)
    return {
        "instType": _type_of(one), "instId": one.native, "instFamily": f"{one.base}-{one.quote}" if swap else "",
        "uly": f"{one.base}-{one.quote}" if swap else "", "baseCcy": "" if swap else one.base,
        "quoteCcy": "" if swap else one.quote, "settleCcy": one.quote if swap else "",
        "ctVal": "0.01" if swap else "", "ctMult": "1" if swap else "", "ctValCcy": one.base if swap else "",
        "ctType": "linear" if swap else "", "tickSz": decimal_text(1, one.price_decimals), "lotSz": lot, "minSz": lot,
        "listTime": "1548133413000", "expTime": "", "lever": "10", "optType": "", "stk": "", "alias": "",
        "state": one.status, "category": "1",
    }  # fmt: skip


def _bbo(one: SyntheticInstrument, change: Change) -> dict[str, Any]:
    bids, asks = best(one, 1)
    return {"asks": _levels(one, asks), "bids": _levels(one, bids), "ts": str(change.ts_us // 1000), "seqId": change.seq}


def _ticker(one: SyntheticInstrument, ts_us: int) -> dict[str, str]:
    flow = one.flow
    return {
        "instType": _type_of(one), "instId": one.native, "last": one.price(flow.best_bid), "lastSz": one.size(1),
        "askPx": one.price(flow.best_ask), "askSz": one.size(flow.asks[flow.best_ask]),
        "bidPx": one.price(flow.best_bid), "bidSz": one.size(flow.bids[flow.best_bid]), "open24h": one.price(1),
        "high24h": one.price(flow.best_ask), "low24h": one.price(1), "vol24h": "1000", "volCcy24h": "1000",
        "ts": str(ts_us // 1000),
    }  # fmt: skip


def _slow(one: SyntheticInstrument, channel: str, ts_us: int) -> dict[str, str]:
    """Funding rate, mark price or open interest."""
    now = str(ts_us // 1000)
    head = {"instType": "SWAP", "instId": one.native}
    if channel == "mark-price":
        return head | {"markPx": one.price(one.flow.best_bid), "ts": now}
    if channel == "open-interest":
        return head | {"oi": one.size(1_000_000 + one.trade_id), "oiCcy": one.size(10_000), "ts": now}
    period_ms = 8 * 3600 * 1000
    due_ms = (ts_us // 1000 // period_ms + 1) * period_ms
    return head | {
        "fundingRate": f"-0.0000{100 + one.trade_id % 900}", "fundingTime": str(due_ms),
        "nextFundingTime": str(due_ms + period_ms), "minFundingRate": "-0.00375", "maxFundingRate": "0.00375",
        "method": "current_period", "nextFundingRate": "", "settFundingRate": "0.0001", "settState": "settled", "ts": now,
    }  # fmt: skip
