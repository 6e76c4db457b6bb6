"""Serves a capture as the venue itself would: REST exchange info and depth, and the stream, to any number of clients.

The stream begins when clients have subscribed. At the capture's own snapshot it stops until a client has asked for the
depth, and answers with exactly that snapshot; later questions (a resynchronisation) get the venue's own book at the
stream's present position, in full depth.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from simulator.binance_wire import MARKETS, BinanceWire, instrument_entry
from simulator.capture_book import CapturedBook
from simulator.capture_file import CaptureLine, read_capture
from simulator.capture_survey import DIFF_DEPTH, STREAM, is_snapshot, survey
from simulator.stream_server import Client
from simulator.truth import TruthBook
from simulator.venue_server import SimulatedVenue

log = logging.getLogger(__name__)

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "BTC", "ETH", "BNB", "EUR", "TRY", "JPY")
AHEAD = 2000
"""Frames that may wait for a client when playing as fast as it reads."""
ASK_PATIENCE_S = 5.0
SUBSCRIBE_PATIENCE_S = 1.0
"""Without a new subscription for this long, the stream begins though some instruments have no subscriber."""
UNDROPPED_TAIL = 50
"""An instrument's last depth frames are never dropped: with nothing after it, no client could find the hole."""


class CaptureVenue(SimulatedVenue):
    """One market's captures. ``speed`` 0: as fast as the slowest client reads, 1: as recorded; ``drop_every`` N: one
    depth frame in N, chosen by ``seed``, is not sent, though the truth has it. Raises CaptureError."""

    def __init__(self, paths: Sequence[Path], *, speed: float = 0.0, drop_every: int = 0, seed: int = 0) -> None:
        self._paths = [Path(p) for p in paths]
        found = survey(self._paths)
        super().__init__(found.adapter)
        self.market = MARKETS[found.adapter]
        self.speak(BinanceWire(self, self.market))
        self.speed = speed
        self.drop_every = drop_every
        self.done = asyncio.Event()
        """Set when the last frame has been sent, or nothing more can be (see ``failure``)."""
        self.failure: Exception | None = None
        self.lines_played = 0
        self._random = random.Random(seed)  # noqa: S311 - which frames to lose, not a secret
        self._decimals = found.decimals
        self._owners = found.owners
        self._captured = {
            native: CapturedBook(self.market.futures, found.depth_frames[native]) for native in found.decimals
        }
        self._books = {native: book.truth for native, book in self._captured.items()}
        self._receivers: dict[bytes, list[Client]] = {}
        self._subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._until_drop = self._random.randint(1, max(1, drop_every))

    @property
    def symbols(self) -> list[str]:
        """The venue's names of the instruments in the capture."""
        return sorted(self._captured)

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return self._books

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)
        self._task = asyncio.create_task(self._play())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().stop()

    def entries(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for native, (prices, sizes) in sorted(self._decimals.items()):
            pair = native.partition("_")[0]
            quote = next((q for q in QUOTES if pair.endswith(q) and len(pair) > len(q)), pair[-3:])
            out.append(instrument_entry(self.market, native, pair[: -len(quote)], quote, _step(prices), _step(sizes)))
        return out

    async def snapshot(self, native: str, limit: int) -> web.Response:
        captured = self._captured[native]
        captured.asked.set()
        try:
            async with asyncio.timeout(ASK_PATIENCE_S):
                await captured.loaded.wait()
        except TimeoutError:
            return web.json_response({"code": -1001, "msg": "Internal error; unable to process your request."}, status=503)
        if (verbatim := captured.verbatim) is not None:
            captured.verbatim = None
            return web.Response(body=verbatim, content_type="application/json")
        seq, bids, asks = captured.truth.at()
        now_ms = time.time_ns() // 1_000_000
        return web.json_response({"lastUpdateId": seq, "E": now_ms, "T": now_ms, "bids": bids, "asks": asks})

    def on_clients(self) -> None:
        self._receivers.clear()
        self._subscribed.set()

    def stats(self) -> dict[str, Any]:
        return super().stats() | {"done": self.done.is_set(), "lines_played": self.lines_played}

    def _clients_of(self, stream: bytes) -> list[Client]:
        """Who gets this stream's frames. A book's changes reach its subscribers at whatever pace they asked for."""
        if (found := self._receivers.get(stream)) is not None:
            return found
        native, _, kind = stream.partition(b"@")
        if DIFF_DEPTH.match(kind):
            found = [c for c in self.stream.clients if any(_is_depth_of(native, name) for name in c.streams)]
        else:
            found = self.stream.subscribers(stream.decode())
        self._receivers[stream] = found
        return found

    def _depth_clients(self, native: str) -> list[Client]:
        return self._clients_of(f"{native.lower()}@depth".encode())

    async def _play(self) -> None:
        try:
            await self._until_subscribed()
            owners = iter(self._owners)
            first_ns, started = 0, time.monotonic()
            for line in read_capture(self._paths):
                if self.speed > 0:
                    first_ns = first_ns or line.ts_ns
                    wait_s = (line.ts_ns - first_ns) / 1e9 / self.speed - (time.monotonic() - started)
                    if wait_s > 0:
                        await asyncio.sleep(wait_s)
                if line.kind == "frame":
                    self._play_frame(line.data)
                elif is_snapshot(line):
                    await self._reach_snapshot(next(owners), line)
                self.lines_played += 1
                if self.lines_played % 200 == 0:
                    await self._let_clients_read()
            await self._let_clients_read(0)
        except Exception as error:
            log.exception("the capture could not be played to its end")
            self.failure = error
        self.done.set()

    async def _until_subscribed(self) -> None:
        """Until each book has a subscriber; or some have, and nobody has subscribed any more for a while."""
        while not all(wanted := [bool(self._depth_clients(native)) for native in self._captured]):
            self._subscribed.clear()
            try:
                async with asyncio.timeout(SUBSCRIBE_PATIENCE_S if any(wanted) else None):
                    await self._subscribed.wait()
            except TimeoutError:
                return

    async def _let_clients_read(self, most: int = AHEAD) -> None:
        await asyncio.sleep(0)
        # A poll: the queues have one reader each and no common event, and this is rare.
        while any(len(client.queue) > most for client in self.stream.clients):
            await asyncio.sleep(0.002)

    def _play_frame(self, frame: bytes) -> None:
        match = STREAM.match(frame)
        if match is None:
            return
        if DIFF_DEPTH.match(match[2]) and self._take_depth(match[1].decode().upper(), frame):
            self.dropped += 1
            return
        for client in self._clients_of(match[1] + b"@" + match[2]):
            client.put(frame)
            self.frames_sent += 1

    async def _reach_snapshot(self, native: str, line: CaptureLine) -> None:
        captured = self._captured[native]
        if captured.loaded.is_set():
            return  # a second snapshot of a book that is followed already
        # A poll: the wait ends by a question or by the last subscriber's leaving.
        while not captured.asked.is_set() and self._depth_clients(native):
            await asyncio.sleep(0.005)
        captured.load(line.data, json.loads(line.data))

    def _take_depth(self, native: str, frame: bytes) -> bool:
        """Bring the truth up to date; gives whether the frame is to be lost."""
        captured = self._captured[native]
        captured.depth_left -= 1
        if not captured.take(json.loads(frame)["data"]) or not self.drop_every:
            return False
        # Before the first snapshot has been fetched there is no book that could lose anything.
        if captured.verbatim is not None or captured.depth_left < UNDROPPED_TAIL:
            return False
        self._until_drop -= 1
        if self._until_drop > 0:
            return False
        # Anywhere in the next stretch, N frames apart on average.
        self._until_drop = self._random.randint(max(1, self.drop_every // 2), max(1, self.drop_every * 3 // 2))
        return True


def _is_depth_of(native: bytes, stream: str) -> bool:
    head, _, kind = stream.encode().partition(b"@")
    return head == native and DIFF_DEPTH.match(kind) is not None


def _step(decimals: int) -> str:
    return "1" if not decimals else "0." + "0" * (decimals - 1) + "1"
