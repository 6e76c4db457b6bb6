"""A venue with generated order flow that speaks Binance's protocol, knows its own exact books, and fails on command."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from simulator.binance_wire import instrument_entry
from simulator.faults import VERBS, ControlError, Faults
from simulator.order_flow import Changes, OrderFlow
from simulator.truth import TruthBook
from simulator.venue_server import SimulatedVenue

log = logging.getLogger(__name__)

TURN_S = 0.01
BASES = [
    "BTC",
    "ETH",
    "SOL",
    "XRP",
    "BNB",
    "DOGE",
    "ADA",
    "TRX",
    "AVAX",
    "LINK",
    "DOT",
    "LTC",
    "BCH",
    "UNI",
    "ATOM",
    "XLM",
    "ETC",
    "FIL",
    "APT",
    "ARB",
    "OP",
    "INJ",
    "SUI",
    "TIA",
    "SEI",
    "NEAR",
    "ICP",
    "HBAR",
    "VET",
    "AAVE",
    "MKR",
    "RUNE",
    "GRT",
    "ALGO",
    "EGLD",
    "FTM",
    "SAND",
    "MANA",
    "AXS",
    "THETA",
    "XTZ",
    "EOS",
    "FLOW",
    "KAVA",
    "ZEC",
    "DASH",
    "COMP",
    "SNX",
    "CRV",
    "LDO",
    "RPL",
    "GMX",
    "DYDX",
    "ENS",
    "IMX",
    "STX",
    "MINA",
    "ROSE",
    "CHZ",
    "ONE",
]
TICKS = ((2, 5), (1, 3), (4, 2), (3, 1), (5, 0))
"""(decimals of a price, decimals of a size), in turn."""


class _Instrument:
    def __init__(self, number: int, native: str, base: str, quote: str, seed: int, levels: int) -> None:
        self.native, self.base, self.quote = native, base, quote
        self.stream = native.lower()
        self.price_decimals, self.size_decimals = TICKS[number % len(TICKS)]
        self.flow = OrderFlow(seed * 1_000_003 + number, 10_000 + 997 * (number % 50), levels)
        self.truth = TruthBook()
        self.status = "TRADING"
        self.last_u = 0
        self.trade_id = 0

    def price(self, ticks: int) -> str:
        return _text(ticks, self.price_decimals)

    def size(self, lots: int) -> str:
        return _text(lots, self.size_decimals)

    def texts(self, changes: Changes) -> list[tuple[str, str]]:
        return [(self.price(p), self.size(s)) for p, s in changes]


class SyntheticVenue(SimulatedVenue):
    """``instruments`` books, ``rate`` book events a second over all of them, each ``levels`` deep a side at first.

    Faults and listings come by ``POST /control/VERB`` (``GET /control`` lists them) or by ``control(verb, **values)``.
    """

    def __init__(
        self,
        adapter: str = "binance-spot",
        *,
        instruments: int = 60,
        rate: float = 2000.0,
        levels: int = 100,
        seed: int = 1,
    ) -> None:
        super().__init__(adapter)
        self.rate = rate
        self.levels = levels
        self.seed = seed
        self.events = 0
        self.faults = Faults()
        self.instruments: dict[str, _Instrument] = {}
        self._next_id = 1_000_000
        self._turn: Iterator[_Instrument] = iter(())
        self._task: asyncio.Task[None] | None = None
        names = self._names()
        for _ in range(instruments):
            self._add(*next(names))

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return {native: one.truth for native, one in self.instruments.items()}

    def _names(self) -> Iterator[tuple[str, str, str]]:
        """(native, base, quote), without end."""
        number = 0
        while True:
            base = BASES[number % len(BASES)] + (str(number // len(BASES)) if number >= len(BASES) else "")
            quote = "USD" if self.market.inverse else "USDT"
            yield (f"{base}{quote}_PERP" if self.market.inverse else f"{base}{quote}"), base, quote
            number += 1

    def _add(self, native: str, base: str, quote: str) -> _Instrument:
        one = _Instrument(len(self.instruments), native, base, quote, self.seed, self.levels)
        self._next_id += 7
        one.last_u = self._next_id
        bids = [[one.price(p), one.size(s)] for p, s in one.flow.bids.items()]
        asks = [[one.price(p), one.size(s)] for p, s in one.flow.asks.items()]
        one.truth.load(one.last_u, bids, asks)
        self.instruments[native] = one
        return one

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)
        self._task = asyncio.create_task(self._generate())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().stop()

    def entries(self) -> list[dict[str, Any]]:
        return [
            instrument_entry(
                self.market, one.native, one.base, one.quote, _text(1, one.price_decimals), _text(1, one.size_decimals),
                one.status,
            )
            for one in self.instruments.values()
        ]  # fmt: skip

    def knows_stream(self, name: str) -> bool:
        return "@" in name

    def intercept(self) -> web.Response | None:
        f = self.faults
        if f.ratelimit <= 0:
            return None
        f.ratelimit -= 1
        body = {"code": -1003, "msg": "Too much request weight used"}
        return web.json_response(body, status=429, headers={"Retry-After": f"{f.retry_after_s:g}"})

    async def snapshot(self, native: str, limit: int) -> web.Response:
        f, truth, seq = self.faults, self.instruments[native].truth, None
        if f.stale_snapshots > 0:
            f.stale_snapshots -= 1
            seq = truth.seq_behind(f.behind)
        at, bids, asks = truth.at(seq)
        now_ms = time.time_ns() // 1_000_000
        answer = {"lastUpdateId": at, "E": now_ms, "T": now_ms, "bids": bids[:limit], "asks": asks[:limit]}
        return web.json_response(answer)

    def more_routes(self) -> list[web.RouteDef]:
        return [web.get("/control", self._list_verbs), web.post("/control/{verb}", self._control)]

    def stats(self) -> dict[str, Any]:
        return super().stats() | {"events": self.events, "instruments": len(self.instruments), "rate": self.rate}

    # Commands.

    def control(self, verb: str, **values: Any) -> None:
        """Do what VERBS says; raises ControlError."""
        f = self.faults
        count = int(values.get("n", 1))
        match verb:
            case "list":
                self._list(_needed(values, "symbol"))
            case "delist":
                self.instruments.pop(self._known(values).native)
                self._turn = iter(())
            case "halt":
                self._known(values).status = "PENDING_TRADING" if self.market.futures else "BREAK"
            case "resume":
                self._known(values).status = "TRADING"
            case "rate":
                self.rate = float(_needed(values, "rate"))
            case "drop":
                f.drop_every = int(values.get("every", 0))
                f.drop_next += 0 if f.drop_every else count
            case "duplicate":
                f.duplicate += count
            case "reorder":
                f.reorder += count
            case "garbage":
                for i in range(count):
                    self._to_all((b"\x00\xff not json", b'{"stream":"btcusdt@depth@100ms","data":{', b"[]")[i % 3])
            case "wrongtype":
                for _ in range(count):
                    self._to_all(self._wrong_frame(next(iter(self.instruments.values())), u="not a number"))
            case "unknown":
                for _ in range(count):
                    self._to_all(self._wrong_frame(next(iter(self.instruments.values())), s="NOBODYUSDT", u=1))
            case "ratelimit":
                f.ratelimit, f.retry_after_s = count, float(values.get("retry_after", 1))
            case "stale_snapshot":
                f.stale_snapshots, f.behind = count, int(values.get("behind", 50))
            case "silence":
                f.silent_until_s[self._known(values).native] = time.monotonic() + float(values.get("seconds", 5))
            case "cut":
                asyncio.get_running_loop().create_task(self.stream.cut())
            case _:
                raise ControlError(f"no command {verb!r}; there are: {', '.join(VERBS)}")

    def _list(self, native: str) -> None:
        if native in self.instruments:
            raise ControlError(f"{native} is listed already")
        pair = native.partition("_")[0]
        quote = "USD" if self.market.inverse else "USDT"
        if not pair.endswith(quote) or len(pair) == len(quote):
            raise ControlError(f"a symbol here ends in {quote}, {native!r} does not")
        self._add(native, pair[: -len(quote)], quote)
        self._turn = iter(())

    def _known(self, values: Mapping[str, Any]) -> _Instrument:
        native = _needed(values, "symbol")
        if native not in self.instruments:
            raise ControlError(f"{native} is not listed")
        return self.instruments[native]

    async def _list_verbs(self, _: web.Request) -> web.Response:
        return web.json_response(VERBS)

    async def _control(self, request: web.Request) -> web.Response:
        try:
            values = dict(request.query)
            if request.can_read_body:
                values |= await request.json()
            self.control(request.match_info["verb"], **values)
        except (ControlError, ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"done": request.match_info["verb"]})

    # The flow.

    async def _generate(self) -> None:
        owed, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TURN_S)
            now = time.monotonic()
            # What a busy machine could not send in time is not owed for ever.
            owed = min(owed + (now - last) * self.rate, self.rate)
            last = now
            while owed >= 1:
                owed -= 1
                self._event()

    def _next(self) -> _Instrument | None:
        for _ in range(2):
            for one in self._turn:
                if one.status == "TRADING":
                    return one
            self._turn = iter(list(self.instruments.values()))
        return None

    def _event(self) -> None:
        one = self._next()
        if one is None or time.monotonic() < self.faults.silent_until_s.get(one.native, 0):
            return
        step = one.flow.step()
        bids, asks = one.texts(step.bids), one.texts(step.asks)
        now_ms = time.time_ns() // 1_000_000
        first, previous = self._ids(one)
        one.truth.apply(one.last_u, bids, asks)
        self.events += 1
        data: dict[str, Any] = {"e": "depthUpdate", "E": now_ms, "s": one.native, "U": first, "u": one.last_u}
        if self.market.futures:
            data |= {"T": now_ms, "pu": previous}
        if self.market.inverse:
            data["ps"] = one.native.partition("_")[0]
        self._send_depth(one, data | {"b": bids, "a": asks})
        if step.trade is not None:
            price, size, buyer_is_maker = step.trade
            one.trade_id += 1
            trade = {
                "e": "trade", "E": now_ms, "T": now_ms, "s": one.native, "t": one.trade_id, "p": one.price(price),
                "q": one.size(size), "m": buyer_is_maker,
            }  # fmt: skip
            self._send(f"{one.stream}@trade", _frame(f"{one.stream}@trade", trade))
        self._send_ticker(one, now_ms)

    def _ids(self, one: _Instrument) -> tuple[int, int]:
        """(first id, last id before) of the next event; futures share their ids, so there they jump."""
        previous, span = one.last_u, 1 + self.events % 4
        if self.market.futures:
            self._next_id += span
            one.last_u = self._next_id
            return self._next_id - span + 1, previous
        one.last_u += span
        return previous + 1, previous

    def _send_ticker(self, one: _Instrument, now_ms: int) -> None:
        name = f"{one.stream}@bookTicker"
        if not self.stream.subscribers(name):
            return
        flow = one.flow
        ticker: dict[str, Any] = {
            "u": one.last_u, "s": one.native, "b": one.price(flow.best_bid), "B": one.size(flow.bids[flow.best_bid]),
            "a": one.price(flow.best_ask), "A": one.size(flow.asks[flow.best_ask]),
        }  # fmt: skip
        if self.market.futures:
            ticker |= {"e": "bookTicker", "T": now_ms, "E": now_ms}
        self._send(name, _frame(name, ticker))

    def _send_depth(self, one: _Instrument, data: dict[str, Any]) -> None:
        name, f = f"{one.stream}@{self.market.depth_stream}", self.faults
        frame = _frame(name, data)
        if f.drop_next > 0 or (f.drop_every and self.events % f.drop_every == 0):
            f.drop_next = max(0, f.drop_next - 1)
            self.dropped += 1
            return
        if f.held and f.held[0][0] == name:
            self._send(name, frame)
            self._send(*f.held.pop())
            return
        if f.reorder > 0 and not f.held:
            f.reorder -= 1
            f.held.append((name, frame))
            return
        self._send(name, frame)
        if f.duplicate > 0:
            f.duplicate -= 1
            self._send(name, frame)

    def _send(self, stream: str, frame: bytes) -> None:
        self.frames_sent += self.stream.send(stream, frame)

    def _to_all(self, frame: bytes) -> None:
        for client in self.stream.clients:
            client.put(frame)

    def _wrong_frame(self, one: _Instrument, **wrong: Any) -> bytes:
        data = {"e": "depthUpdate", "E": 1, "s": one.native, "U": 1, "u": 1, "pu": 1, "b": [], "a": []}
        return _frame(f"{one.stream}@{self.market.depth_stream}", data | wrong)


def _frame(stream: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def _text(mantissa: int, decimals: int) -> str:
    if not decimals:
        return str(mantissa)
    digits = str(mantissa).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def _needed(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise ControlError(f"this command needs {name}")
    return values[name]
