"""A venue with generated order flow that speaks any of the protocols, knows its own exact books, and fails on command."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import web

from simulator.binance_wire import BinanceWire
from simulator.control import Control
from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument
from simulator.order_flow import Changes
from simulator.protocols import wire_of
from simulator.stream_server import Client
from simulator.truth import TruthBook
from simulator.venue_server import Handler, SimulatedVenue
from simulator.wire import Change, answer

log = logging.getLogger(__name__)

TURN_S = 0.01
DEBT_S = 0.25
"""What a busy machine could not send in this time is not owed for ever."""
REMEMBERED_EVENTS = 200_000
"""Past events of all books together, about 1 kB each, by which a truth can be rewound."""
REMEMBERED_EACH = (100, 20_000)
DEEP_INSTRUMENTS = 500
"""More instruments than these have shallower books, unless it is said: 3,000 with 100 levels need 300 MB."""
LEVELS, LEVELS_OF_MANY = 100, 20


class SyntheticVenue(SimulatedVenue):
    """``instruments`` books, ``rate`` book events a second over all of them, each ``levels`` deep a side at first and
    at most twice that later. The flow is the same for the same ``seed``. With ``common`` prices follow the clock: around
    the path that all venues of this number share (common_price.py), with a noise of this venue's own seed.

    Faults and listings come by ``POST /control/VERB`` (``GET /control`` lists them) or by ``control(verb, **values)``.
    """

    def __init__(
        self,
        adapter: str = "binance-spot",
        *,
        instruments: int = 60,
        rate: float = 2000.0,
        levels: int | None = None,
        seed: int = 1,
        common: int = 0,
    ) -> None:
        super().__init__(adapter)
        self.speak(wire_of(adapter, self))
        self.rate = rate
        self.levels = levels or (LEVELS if instruments <= DEEP_INSTRUMENTS else LEVELS_OF_MANY)
        self.seed, self.common = seed, common
        self.random = random.Random(seed)  # noqa: S311 - which connection to hit, not a secret
        self._instruments: dict[str, SyntheticInstrument] = {}
        fewest, most = REMEMBERED_EACH
        self._remember = min(most, max(fewest, REMEMBERED_EVENTS // max(1, instruments)))
        self._control = Control(self)
        self._books: dict[str, TruthBook] = {}
        self._listed = 0
        self._names = self.wire.names()
        self._turn: Iterator[SyntheticInstrument] = iter(())
        self._tasks: list[asyncio.Task[None]] = []
        self.list_more(instruments)

    @property
    def symbols(self) -> list[str]:
        """The venue's names of what is listed now."""
        return sorted(self._instruments)

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return self._books

    @property
    def instruments(self) -> Mapping[str, SyntheticInstrument]:
        return self._instruments

    def natives_by_symbol(self) -> Mapping[str, str]:
        return {one.name.symbol: native for native, one in self._instruments.items()}

    def control(self, verb: str, **values: Any) -> None:
        """Do what VERBS says; raises ControlError."""
        self._control.obey(verb, values)

    def list_instrument(self, native: str) -> None:
        """List a new one, trading at once; raises ControlError."""
        if native in self._instruments:
            raise ControlError(f"{native} is listed already")
        self._add(self.wire.name_of(native))

    def list_more(self, count: int) -> list[str]:
        """List so many new ones at once; gives their names."""
        added: list[str] = []
        while len(added) < count:
            name = next(self._names)
            if name.native not in self._instruments:
                self._add(name)
                added.append(name.native)
        return added

    def delist_instrument(self, native: str) -> None:
        """Forget one; raises KeyError."""
        one = self._instruments.pop(native)
        del self._books[native]
        self.wire.forget(one)
        # Should it come back, its numbers go on and never repeat.
        self.next_id = max(self.next_id, one.last_u)
        self._turn = iter(())

    def _add(self, name: Name) -> None:
        self.next_id += 7
        one = SyntheticInstrument(
            self._listed, name, seed=self.seed, levels=self.levels, first_u=self.next_id, ts_us=self.now_us(),
            remember=self._remember, status=self.wire.trading, common=self.common,
        )  # fmt: skip
        self._listed += 1
        self._instruments[name.native] = one
        self._books[name.native] = one.truth
        self._turn = iter(())

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)
        self._tasks = [asyncio.create_task(self._generate()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        self._control.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().stop()

    # REST.

    def entries(self) -> list[dict[str, Any]]:
        """Binance's exchange info."""
        assert isinstance(self.wire, BinanceWire)
        return self.wire.synthetic_entries()

    async def snapshot(self, native: str, limit: int) -> web.Response:
        """Binance's depth answer."""
        at, bids, asks = self.past(native)
        found: dict[str, Any] = {"lastUpdateId": at, "bids": bids[:limit], "asks": asks[:limit]}
        if isinstance(self.wire, BinanceWire) and self.wire.market.futures:
            now_ms = self.now_us() // 1000
            found |= {"E": now_ms, "T": now_ms}
        return answer(found)

    def past(self, native: str) -> tuple[int, list[list[str]], list[list[str]]]:
        """(seq, bids, asks) for a depth request: now, or too old on purpose."""
        f, truth, seq = self.faults, self._instruments[native].truth, None
        if f.stale_snapshots > 0:
            f.stale_snapshots -= 1
            f.note("stale_snapshot", native)
            seq = truth.seq_behind(f.behind)
        return truth.at(seq)

    def guarded(self, handler: Handler) -> Handler:
        async def call(request: web.Request) -> web.StreamResponse:
            self.rest_calls += 1
            f = self.faults
            if time.monotonic() < f.maintenance_until_s:
                return answer(self.wire.refusal(503), 503)
            if f.ratelimit > 0:
                f.ratelimit -= 1
                f.note(f"rest {f.ratelimit_status}")
                refused = answer(self.wire.refusal(f.ratelimit_status), f.ratelimit_status)
                refused.headers["Retry-After"] = f"{f.retry_after_s:g}"
                return refused
            found = await handler(request)
            if f.slow_rest > 0 and isinstance(found, web.Response):
                f.slow_rest -= 1
                f.note("slow_rest")
                return await _dribble(request, found, f.slow_rest_s)
            return found

        return call

    def more_routes(self) -> list[web.RouteDef]:
        return self._control.routes()

    def stats(self) -> dict[str, Any]:
        injected = {"injected": dict(self.faults.counts)}
        return super().stats() | injected | {
            "events": self.events, "instruments": len(self._instruments), "rate": self.rate,
        }  # fmt: skip

    # The stream.

    async def _generate(self) -> None:
        owed, last = 0.0, time.monotonic()

        async def turn() -> None:
            nonlocal owed, last
            await asyncio.sleep(TURN_S)
            now = time.monotonic()
            owed = min(owed + (now - last) * self.rate, max(1.0, self.rate * DEBT_S))
            last = now
            while owed >= 1:
                owed -= 1
                self.event()

        await _again(turn)

    async def _beat(self) -> None:
        async def beat() -> None:
            await asyncio.sleep(1)
            if time.monotonic() >= self.faults.frozen_until_s:
                for client in self.stream.clients:
                    self.wire.tick(client)

        await _again(beat)

    def _next(self) -> SyntheticInstrument | None:
        for _ in range(2):
            for one in self._turn:
                if one.status == self.wire.trading:
                    return one
            self._turn = iter(list(self._instruments.values()))
        return None

    def event(self) -> None:
        """One book event of the instrument whose turn it is, with its trade and its ticker."""
        one = self._next()
        if one is None or time.monotonic() < one.silent_until_s:
            return
        step = one.flow.step()
        bids, asks = dict(step.bids), dict(step.asks)
        held = (
            frozenset(p for p in bids if one.truth.holds(one.price(p), bid=True)),
            frozenset(p for p in asks if one.truth.holds(one.price(p), bid=False)),
        )
        if not self.wire.unknown_deletes:
            bids = {p: s for p, s in bids.items() if s or p in held[0]}
            asks = {p: s for p, s in asks.items() if s or p in held[1]}
            if not bids and not asks:
                return
        previous = one.last_u
        first, one.last_u = self.wire.number(one)
        ts_us = self.now_us()
        if ts_us == one.truth.ts_us:
            ts_us += 1  # by it events are told apart where a venue has no numbers
        changed: tuple[Changes, Changes] = list(bids.items()), list(asks.items())
        one.truth.apply(one.last_u, one.texts(changed[0]), one.texts(changed[1]), ts_us)
        self.events += 1
        one.events += 1
        one.trade_id += step.trade is not None
        self.wire.publish(Change(one, first, one.last_u, previous, ts_us, *changed, step.trade, held))

    def book_frame(self, client: Client, stream: str, frame: bytes, change: Change) -> None:
        f, one, now = self.faults, change.one, time.monotonic()
        if client.half_open:
            return
        until_s = max(one.frozen_until_s, client.frozen_until_s, f.frozen_until_s)
        if now < until_s and self.wire.loss_shows:
            f.lose(client, one.native, change.seq)
        elif now < until_s or one.native in client.held:
            client.hold(one.native, frame, until_s)
        else:
            provable = self.wire.provable(change)
            for sent in f.to_send(client, stream, frame, one.native, change.seq, provable=provable):
                client.put(sent)
                self.frames_sent += 1
        self.dropped = f.dropped

    def on_clients(self) -> None:
        for client in {c for c, _ in self.faults.held} - self.stream.clients.keys():
            self.faults.forget_client(client)


async def _again(turn: Callable[[], Awaitable[None]]) -> None:
    try:
        while True:
            await turn()
    except Exception:
        log.exception("no more order flow: a venue that stands still without saying so would look like a quiet one")
        raise


async def _dribble(request: web.Request, whole: web.Response, seconds: float) -> web.StreamResponse:
    """Send the answer as a slow loris does."""
    body = whole.body if isinstance(whole.body, bytes) else b""
    slow = web.StreamResponse(status=whole.status, headers={"Content-Type": "application/json"})
    slow.content_length = len(body)
    await slow.prepare(request)
    step = max(1, len(body) // 20)
    for start in range(0, len(body), step):
        await slow.write(body[start : start + step])
        await asyncio.sleep(seconds / 20)
    await slow.write_eof()
    return slow
