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
from simulator.control import Control
from simulator.faults import ControlError, Faults
from simulator.instrument import SyntheticInstrument, decimal_text, names
from simulator.truth import TruthBook
from simulator.venue_server import SimulatedVenue

log = logging.getLogger(__name__)

TURN_S = 0.01
DEBT_S = 0.25
"""What a busy machine could not send in this time is not owed for ever."""
REMEMBERED_EVENTS = 200_000
"""Past events of all books together, about 1 kB each, by which a truth can be rewound."""
REMEMBERED_EACH = (200, 20_000)


class SyntheticVenue(SimulatedVenue):
    """``instruments`` books, ``rate`` book events a second over all of them, each ``levels`` deep a side at first and
    at most twice that later. The flow is the same for the same ``seed``.

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
        self.instruments: dict[str, SyntheticInstrument] = {}
        fewest, most = REMEMBERED_EACH
        self._remember = min(most, max(fewest, REMEMBERED_EVENTS // max(1, instruments)))
        self._control = Control(self)
        self._books: dict[str, TruthBook] = {}
        self._listed = 0
        self._next_id = 1_000_000
        self._turn: Iterator[SyntheticInstrument] = iter(())
        self._task: asyncio.Task[None] | None = None
        for (native, base, quote), _ in zip(names(self.market.inverse), range(instruments), strict=False):
            self._add(native, base, quote)

    @property
    def symbols(self) -> list[str]:
        """The venue's names of what is listed now."""
        return sorted(self.instruments)

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return self._books

    def control(self, verb: str, **values: Any) -> None:
        """Do what VERBS says; raises ControlError."""
        self._control.obey(verb, values)

    def list_instrument(self, native: str) -> None:
        """List a new one, trading at once; raises ControlError."""
        if native in self.instruments:
            raise ControlError(f"{native} is listed already")
        ending = "USD_PERP" if self.market.inverse else "USDT"
        base = native.removesuffix(ending)
        if not base or base == native or not (base.isascii() and base.isalnum() and base.isupper()):
            raise ControlError(f"a symbol here is capitals and digits before {ending}, {native!r} is not")
        self._add(native, base, ending.partition("_")[0])

    def delist_instrument(self, native: str) -> None:
        """Forget one; raises KeyError."""
        one = self.instruments.pop(native)
        del self._books[native]
        self.faults.held.pop(f"{one.stream}@{self.market.depth_stream}", None)
        # Should it come back, its numbers go on and never repeat.
        self._next_id = max(self._next_id, one.last_u)
        self._turn = iter(())

    def _add(self, native: str, base: str, quote: str) -> None:
        self._next_id += 7
        one = SyntheticInstrument(
            self._listed, native, base, quote,
            seed=self.seed, levels=self.levels, first_u=self._next_id, remember=self._remember,
        )  # fmt: skip
        self._listed += 1
        self.instruments[native] = one
        self._books[native] = one.truth
        self._turn = iter(())

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
                self.market, one.native, one.base, one.quote,
                decimal_text(1, one.price_decimals), decimal_text(1, one.size_decimals), one.status,
            )
            for one in self.instruments.values()
        ]  # fmt: skip

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
        answer: dict[str, Any] = {"lastUpdateId": at, "bids": bids[:limit], "asks": asks[:limit]}
        if self.market.futures:
            answer |= {"E": now_ms, "T": now_ms}
        return web.json_response(answer)

    def more_routes(self) -> list[web.RouteDef]:
        return self._control.routes()

    def stats(self) -> dict[str, Any]:
        return super().stats() | {"events": self.events, "instruments": len(self.instruments), "rate": self.rate}

    async def _generate(self) -> None:
        owed, last = 0.0, time.monotonic()
        try:
            while True:
                await asyncio.sleep(TURN_S)
                now = time.monotonic()
                owed = min(owed + (now - last) * self.rate, max(1.0, self.rate * DEBT_S))
                last = now
                while owed >= 1:
                    owed -= 1
                    self.event()
        except Exception:
            log.exception("no more order flow: a venue that stands still without saying so would look like a quiet one")
            raise

    def _next(self) -> SyntheticInstrument | None:
        for _ in range(2):
            for one in self._turn:
                if one.status == "TRADING":
                    return one
            self._turn = iter(list(self.instruments.values()))
        return None

    def event(self) -> None:
        """One book event of the instrument whose turn it is, with its trade and its ticker."""
        one = self._next()
        if one is None or time.monotonic() < one.silent_until_s:
            return
        step = one.flow.step()
        bids, asks = one.texts(step.bids), one.texts(step.asks)
        now_ms = time.time_ns() // 1_000_000
        first, previous = self._ids(one)
        one.truth.apply(one.last_u, bids, asks)
        self.events += 1
        self._send_depth(one, now_ms, first, previous, bids, asks)
        if step.trade is not None:
            price, size, buyer_is_maker = step.trade
            one.trade_id += 1
            trade = {
                "e": "trade", "E": now_ms, "T": now_ms, "s": one.native, "t": one.trade_id, "p": one.price(price),
                "q": one.size(size), "m": buyer_is_maker,
            }  # fmt: skip
            self._send(f"{one.stream}@trade", trade)
        self._send_ticker(one, now_ms)

    def _ids(self, one: SyntheticInstrument) -> tuple[int, int]:
        """(first id, last id before) of the next event; futures share their ids, so there they jump."""
        previous, span = one.last_u, 1 + self.events % 4
        if self.market.futures:
            self._next_id += span
            one.last_u = self._next_id
            return self._next_id - span + 1, previous
        one.last_u += span
        return previous + 1, previous

    def _send_depth(
        self, one: SyntheticInstrument, now_ms: int, first: int, previous: int,
        bids: list[tuple[str, str]], asks: list[tuple[str, str]],
    ) -> None:  # fmt: skip
        data: dict[str, Any] = {"e": "depthUpdate", "E": now_ms}
        if self.market.futures:
            data["T"] = now_ms
        data["s"] = one.native
        if self.market.inverse:
            data["ps"] = one.native.partition("_")[0]
        data |= {"U": first, "u": one.last_u}
        if self.market.futures:
            data["pu"] = previous
        stream = f"{one.stream}@{self.market.depth_stream}"
        for frame in self.faults.to_send(stream, _frame(stream, data | {"b": bids, "a": asks})):
            self.frames_sent += self.stream.send(stream, frame)
        self.dropped = self.faults.dropped

    def _send_ticker(self, one: SyntheticInstrument, now_ms: int) -> None:
        flow = one.flow
        ticker: dict[str, Any] = {
            "u": one.last_u, "s": one.native, "b": one.price(flow.best_bid), "B": one.size(flow.bids[flow.best_bid]),
            "a": one.price(flow.best_ask), "A": one.size(flow.asks[flow.best_ask]),
        }  # fmt: skip
        if self.market.futures:
            ticker = {"e": "bookTicker"} | ticker | {"T": now_ms, "E": now_ms}
        self._send(f"{one.stream}@bookTicker", ticker)

    def _send(self, stream: str, data: Mapping[str, Any]) -> None:
        if self.stream.subscribers(stream):
            self.frames_sent += self.stream.send(stream, _frame(stream, data))


def _frame(stream: str, data: Mapping[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()
