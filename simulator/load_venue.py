"""Binance USD-M under the load of the real one, at a cost so small that what reads it is measured and not this.

A busy instrument's frames are large: between two depth frames of the real BTCUSDT (August 2024; 68 levels each, 1.6 kB)
came ten of the best bid and offer and three trades. Here such frames are written once, as a score that ends with the book
that it began with, and then played round and round under new numbers. So the truth is known at every one of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

from aiohttp import web

from simulator.binance_wire import MARKETS, BinanceWire, instrument_entry
from simulator.instrument import TICKS, Name, decimal_text
from simulator.order_flow import Changes, OrderFlow
from simulator.stream_server import Client, text_frame
from simulator.truth import Texts, TooOld, TruthBook, TruthError, plain
from simulator.venue_server import SimulatedVenue
from simulator.wire import answer, compact

ADAPTER = "binance-usdm"
LEVELS_A_FRAME, TICKERS, TRADES = 68, 10, 3
"""Of one depth frame, and between two of them, as measured from the real venue's capture; trades are as many on average."""
BOOK_LEVELS = 400
"""Of a side at first; at most twice that later, which one snapshot holds."""
SCORES, EVENTS = 5, 400
"""Scores that the instruments share, one for each pair of decimals, and the events of each."""
IDS = 1000
"""Update ids that one event covers."""
TURN_S, DEBT_S = 0.002, 0.25
BUFFER_MAX = 64 * 1024 * 1024
"""Bytes that wait for one slow client before it is disconnected."""

DEPTH = b'{"stream":"%s@depth@0ms","data":{"e":"depthUpdate","E":%d,"T":%d,"s":"%s","U":%d,"u":%d,"pu":%d,%s'
TICKER = b'{"stream":"%s@bookTicker","data":{"e":"bookTicker","u":%d,"s":"%s",%s,"T":%d,"E":%d}}'
TRADE = b'{"stream":"%s@trade","data":{"e":"trade","E":%d,"T":%d,"s":"%s","t":%d,%s,"X":"MARKET","m":%s}}'

Sides = tuple[dict[int, int], dict[int, int]]


class Score:
    """Frames of one instrument without their numbers, and the books behind them in ticks and lots."""

    def __init__(self, seed: int, decimals: tuple[int, int], events: int = EVENTS, levels: int = LEVELS_A_FRAME) -> None:
        self.price_decimals, self.size_decimals = decimals
        flow = OrderFlow(seed, 10_000 + 8 * BOOK_LEVELS, BOOK_LEVELS)
        self.start: Sides = (dict(flow.bids), dict(flow.asks))
        self.changes: list[tuple[Changes, Changes]] = []
        self.depths: list[bytes] = []
        """The tail of each depth frame."""
        self.tickers: list[list[bytes]] = []
        self.trades: list[list[tuple[bytes, bytes]]] = []
        """(price and size, who made it) of each event's trades."""
        self._owed = 0.0
        """Trades for so many levels that changed, not told yet."""
        while len(self.changes) < events - 1:
            self._event(flow, levels)
        # The way back: what differs from the beginning.
        back = tuple(
            [(p, now.get(p, 0)) for p in {**now, **then} if now.get(p, 0) != then.get(p, 0)]
            for now, then in zip(self.start, (flow.bids, flow.asks), strict=True)
        )
        self._add((back[0], back[1]), [], [])

    def _event(self, flow: OrderFlow, levels: int) -> None:
        bids, asks = dict[int, int](), dict[int, int]()
        tickers: list[bytes] = []
        trades: list[tuple[bytes, bytes]] = []
        while len(bids) + len(asks) < levels:
            step = flow.step()
            bids |= dict(step.bids)
            asks |= dict(step.asks)
            bid, ask = flow.best_bid, flow.best_ask
            tickers.append(
                b'"b":"%s","B":"%s","a":"%s","A":"%s"'
                % (self._price(bid), self._size(flow.bids[bid]), self._price(ask), self._size(flow.asks[ask]))
            )
            if step.trade is not None:
                price, size, buyer_is_maker = step.trade
                trades.append((b'"p":"%s","q":"%s"' % (self._price(price), self._size(size)),
                               b"true" if buyer_is_maker else b"false"))  # fmt: skip
        self._owed += TRADES * levels / LEVELS_A_FRAME
        kept = trades[: int(self._owed)]
        self._owed -= len(kept)
        self._add((list(bids.items()), list(asks.items())), tickers[-TICKERS:], kept)

    def _add(self, changes: tuple[Changes, Changes], tickers: list[bytes], trades: list[tuple[bytes, bytes]]) -> None:
        self.changes.append(changes)
        bids, asks = ([[self._price(p).decode(), self._size(s).decode()] for p, s in side] for side in changes)
        self.depths.append(b'"b":%s,"a":%s}}' % (compact(bids), compact(asks)))
        self.tickers.append(tickers)
        self.trades.append(trades)

    def _price(self, ticks: int) -> bytes:
        return decimal_text(ticks, self.price_decimals).encode()

    def _size(self, lots: int) -> bytes:
        return decimal_text(lots, self.size_decimals).encode()

    def book(self, event: int) -> tuple[Texts, Texts]:
        """(bids, asks) after so many events, best first."""
        sides = (dict(self.start[0]), dict(self.start[1]))
        for changes in islice(self.changes, event % len(self.changes)):
            for side, changed in zip(sides, changes, strict=True):
                for price, size in changed:
                    if size:
                        side[price] = size
                    else:
                        side.pop(price, None)
        bids, asks = (
            [[self._plain(p, self.price_decimals), self._plain(side[p], self.size_decimals)] for p in sorted(side)]
            for side in sides
        )
        return bids[::-1], asks

    @staticmethod
    def _plain(mantissa: int, decimals: int) -> str:
        return plain(Decimal(decimal_text(mantissa, decimals)))


class Played(TruthBook):
    """One instrument that plays a score: at ``seq`` = ``first`` + IDS × n it has played n events."""

    def __init__(self, name: Name, score: Score, number: int) -> None:
        super().__init__(1)
        self.name, self.score = name, score
        self.stream = name.native.lower()
        self.played = number % len(score.changes)  # not all at the same place
        self.first = 1_000_000 + 7 * number
        self.seq = self.first + IDS * self.played
        self.trade_id = 0

    def at(self, seq: int | None = None) -> tuple[int, Texts, Texts]:
        seq = self.seq if seq is None else seq
        events, inside = divmod(seq - self.first, IDS)
        if seq > self.seq:
            raise TruthError(f"{seq} is not reached yet, the venue is at {self.seq}")
        if events < 0:
            raise TooOld(f"{seq} lies before the first event")
        if inside:
            raise TruthError(f"{seq} lies inside of an event")
        return seq, *self.score.book(events)


class LoadVenue(SimulatedVenue):
    """``instruments`` of them, ``rate`` depth frames a second over all of them and in turn, with what comes between.

    ``levels`` change in each depth frame: as many as of a busy instrument, or few as of a quiet one.
    It fails never and lists nothing new: for that there is the synthetic venue. A client that does not read is cut off.
    """

    def __init__(
        self, *, instruments: int = 60, rate: float = 500.0, seed: int = 1, levels: int = LEVELS_A_FRAME
    ) -> None:
        super().__init__(ADAPTER)
        self.market = MARKETS[ADAPTER]
        self.speak(wire := BinanceWire(self, self.market))
        self.rate = rate
        self.bytes_sent = 0
        scores = [
            Score(seed * 1_000_003 + n, TICKS[n % len(TICKS)], levels=levels) for n in range(min(SCORES, instruments))
        ]
        self._books = {
            name.native: Played(name, scores[number % len(scores)], number)
            for number, name in enumerate(islice(wire.names(), instruments))
        }
        self._turn = iter(list(self._books.values()))
        self._task: asyncio.Task[None] | None = None

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return self._books

    def natives_by_symbol(self) -> Mapping[str, str]:
        return {one.name.symbol: native for native, one in self._books.items()}

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)
        self._task = asyncio.create_task(self._play())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().stop()

    def entries(self) -> list[dict[str, Any]]:
        return [
            instrument_entry(
                self.market, native, one.name.base, one.name.quote,
                decimal_text(1, one.score.price_decimals), decimal_text(1, one.score.size_decimals),
            )
            for native, one in self._books.items()
        ]  # fmt: skip

    async def snapshot(self, native: str, limit: int) -> web.Response:
        seq, bids, asks = self._books[native].at()
        now_ms = self.now_us() // 1000
        return answer({"lastUpdateId": seq, "E": now_ms, "T": now_ms, "bids": bids[:limit], "asks": asks[:limit]})

    def stats(self) -> dict[str, Any]:
        return super().stats() | {"events": self.events, "instruments": len(self._books), "bytes_sent": self.bytes_sent}

    async def _play(self) -> None:
        owed, last = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TURN_S)
            now = time.monotonic()
            owed = min(owed + (now - last) * self.rate, max(1.0, self.rate * DEBT_S))
            last = now
            out: dict[Client, list[bytes]] = {}
            for _ in range(int(owed)):
                self._event(self._next(), out)
            owed -= int(owed)
            for client, frames in out.items():
                self.bytes_sent += client.write(frames, BUFFER_MAX)

    def _next(self) -> Played:
        for one in self._turn:
            return one
        self._turn = iter(list(self._books.values()))
        return next(self._turn)

    def _event(self, one: Played, out: dict[Client, list[bytes]]) -> None:
        """One depth frame of this instrument, behind its trades and its best bids and offers."""
        score, at, now_ms = one.score, one.played % len(one.score.changes), self.now_us() // 1000
        stream, native, before = one.stream.encode(), one.name.native.encode(), one.seq
        one.played += 1
        one.seq = before + IDS
        self.events += 1
        if trades := self._to(one.stream, "trade", out):
            for text, maker in score.trades[at]:
                one.trade_id += 1
                self._put(trades, TRADE % (stream, now_ms, now_ms, native, one.trade_id, text, maker))
        if tickers := self._to(one.stream, "bookTicker", out):
            for number, text in enumerate(score.tickers[at], 1):
                self._put(tickers, TICKER % (stream, before + number, native, text, now_ms, now_ms))
        if books := self._to(one.stream, "depth@0ms", out):
            self._put(books, DEPTH % (stream, now_ms, now_ms, native, before + 1, one.seq, before, score.depths[at]))

    def _to(self, stream: str, kind: str, out: dict[Client, list[bytes]]) -> list[list[bytes]]:
        return [out.setdefault(client, []) for client in self.stream.subscribers(f"{stream}@{kind}")]

    def _put(self, clients: list[list[bytes]], payload: bytes) -> None:
        frame = text_frame(payload)
        for frames in clients:
            frames.append(frame)
            self.frames_sent += 1
