"""Serves a capture as the venue itself would: REST exchange info and depth, and the stream, to any number of clients.

The stream begins when a client has subscribed. At the capture's own snapshot it stops until a client has asked for the
depth, and answers with exactly that snapshot; later questions (a resynchronisation) get the venue's own book at the
stream's present position, in full depth.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from simulator.binance_wire import instrument_entry
from simulator.capture_file import CaptureError, CaptureLine, read_capture
from simulator.truth import TruthBook
from simulator.venue_server import SimulatedVenue

log = logging.getLogger(__name__)

STREAM = re.compile(rb'^\{"stream":"([^"@]+)@([^"]+)"')
QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "USD", "BTC", "ETH", "BNB", "EUR", "TRY", "JPY")
AHEAD = 2000
"""Frames that may wait for a client when playing as fast as it reads."""
ASK_PATIENCE_S = 5.0
UNDROPPED_TAIL = 50
"""The last depth frames are never dropped: with nothing after it, no client could find the hole."""


class CaptureVenue(SimulatedVenue):
    """One market's captures. ``speed`` 0: as fast as the clients read; ``drop_every`` N: one depth frame in N is lost."""

    def __init__(self, paths: Sequence[Path], *, speed: float = 0.0, drop_every: int = 0, seed: int = 0) -> None:
        self._paths = [Path(p) for p in paths]
        self._decimals: dict[str, tuple[int, int]] = {}
        self._symbol_of_file: dict[Path, str] = {}
        self._depth_frames = 0
        super().__init__(self._survey())
        self.speed = speed
        self.drop_every = drop_every
        self.done = asyncio.Event()
        """Set when the last frame has been sent."""
        self.lines_played = 0
        self._random = random.Random(seed)  # noqa: S311 - which frames to lose, not a secret
        self._books = {native: TruthBook() for native in self._decimals}
        self._last_u: dict[str, int] = {}
        self._loaded: dict[str, asyncio.Event] = {native: asyncio.Event() for native in self._decimals}
        self._asked: dict[str, asyncio.Event] = {native: asyncio.Event() for native in self._decimals}
        self._verbatim: dict[str, bytes] = {}
        self._begin = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._depth_seen = 0
        self._next_drop = 0

    @property
    def symbols(self) -> list[str]:
        """The venue's names of the instruments in the capture."""
        return sorted(self._decimals)

    @property
    def books(self) -> Mapping[str, TruthBook]:
        return self._books

    def _survey(self) -> str:
        """Which market and instruments the files are of; reads them once."""
        adapters: dict[str, Path] = {}
        for path in self._paths:
            symbols: list[str] = []
            snapshot: dict[str, Any] | None = None
            for line in read_capture([path]):
                if line.kind == "rest":
                    snapshot = json.loads(line.data)
                    continue
                match = STREAM.match(line.data)
                if match is None or not match[2].startswith(b"depth"):
                    continue
                self._depth_frames += 1
                native = match[1].decode().upper()
                if native not in symbols:
                    symbols.append(native)
                    kind = "coinm" if b'"ps":' in line.data else "usdm" if b'"pu":' in line.data else "spot"
                    adapters.setdefault(f"binance-{kind}", path)
            if not symbols:
                raise CaptureError(f"{path}: no Binance depth frame in it; only Binance's captures can be served")
            if snapshot is None:
                raise CaptureError(f"{path}: no depth snapshot in it: the books cannot start")
            self._symbol_of_file[path] = symbols[0]
            for native in symbols:
                self._decimals[native] = (
                    _decimals([p for side in ("bids", "asks") for p, _ in snapshot[side]]),
                    _decimals([s for side in ("bids", "asks") for _, s in snapshot[side]]),
                )
        if len(adapters) != 1:
            found = ", ".join(f"{name} ({path.name})" for name, path in adapters.items()) or "none"
            raise CaptureError(f"one capture venue serves one market; these files are of: {found}")
        return next(iter(adapters))

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        await super().start(host, port)
        self._task = asyncio.create_task(self._play())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await super().stop()

    def truth(self, native: str) -> dict[str, Any]:
        """The venue's own book now, as ``/truth/NATIVE`` gives it."""
        seq, bids, asks = self._books[native].at()
        return {"seq": seq, "bids": bids, "asks": asks}

    def entries(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for native, (prices, sizes) in sorted(self._decimals.items()):
            pair = native.partition("_")[0]
            quote = next((q for q in QUOTES if pair.endswith(q) and len(pair) > len(q)), pair[-3:])
            out.append(instrument_entry(self.market, native, pair[: -len(quote)], quote, _step(prices), _step(sizes)))
        return out

    async def snapshot(self, native: str, limit: int) -> web.Response:
        self._asked[native].set()
        try:
            await asyncio.wait_for(self._loaded[native].wait(), ASK_PATIENCE_S)
        except TimeoutError:
            return web.json_response(
                {"code": -1001, "msg": "Internal error; unable to process your request."}, status=503
            )
        if (verbatim := self._verbatim.pop(native, None)) is not None:
            return web.Response(body=verbatim, content_type="application/json")
        seq, bids, asks = self._books[native].at()
        now_ms = time.time_ns() // 1_000_000
        return web.json_response({"lastUpdateId": seq, "E": now_ms, "T": now_ms, "bids": bids, "asks": asks})

    def on_clients(self) -> None:
        if any("@depth" in name for client in self.stream.clients for name in client.streams):
            self._begin.set()

    def stats(self) -> dict[str, Any]:
        return super().stats() | {"done": self.done.is_set(), "lines_played": self.lines_played}

    async def _play(self) -> None:
        try:
            await self._begin.wait()
            await asyncio.sleep(0.05)  # let a client's other subscriptions arrive too
            first_ns, started = 0, time.monotonic()
            for path in self._paths:
                for line in read_capture([path]):
                    if self.speed > 0:
                        first_ns = first_ns or line.ts_ns
                        wait_s = (line.ts_ns - first_ns) / 1e9 / self.speed - (time.monotonic() - started)
                        if wait_s > 0:
                            await asyncio.sleep(wait_s)
                    await self._play_line(path, line)
                    self.lines_played += 1
                    if self.lines_played % 200 == 0:
                        await self._let_clients_read()
            await self._let_clients_read(0)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the capture could not be played to its end")
        self.done.set()

    async def _let_clients_read(self, most: int = AHEAD) -> None:
        await asyncio.sleep(0)
        while any(len(client.queue) > most for client in self.stream.clients):
            await asyncio.sleep(0.002)

    async def _play_line(self, path: Path, line: CaptureLine) -> None:
        if line.kind == "rest":
            await self._reach_snapshot(path, line.data)
            return
        match = STREAM.match(line.data)
        if line.kind != "frame" or match is None:
            return
        stream = f"{match[1].decode()}@{match[2].decode()}"
        if match[2].startswith(b"depth") and self._take_depth(match[1].decode().upper(), line.data):
            self.dropped += 1
            return
        self.frames_sent += self.stream.send(stream, line.data)

    async def _reach_snapshot(self, path: Path, body: bytes) -> None:
        answer = json.loads(body)
        native = answer.get("symbol") or self._symbol_of_file[path]
        if self._loaded[native].is_set():
            return  # a second snapshot of a book that is followed already
        while not self._asked[native].is_set():
            await self._let_clients_read(0)
            await asyncio.sleep(0.005)
        self._books[native].load(answer["lastUpdateId"], answer["bids"], answer["asks"])
        self._last_u.pop(native, None)
        self._verbatim[native] = body
        self._loaded[native].set()

    def _take_depth(self, native: str, frame: bytes) -> bool:
        """Bring the truth up to date; gives whether the frame is to be lost."""
        self._depth_seen += 1
        if not self._loaded[native].is_set():
            return False
        data = json.loads(frame)["data"]
        book, last = self._books[native], self._last_u.get(native)
        if last is None:
            if data["u"] < book.seq or (not self.market.futures and data["u"] <= book.seq):
                return False
        elif (data["pu"] if self.market.futures else data["U"] - 1) != last:
            # A hole in the recording itself: nothing is true until its next snapshot.
            self._loaded[native].clear()
            self._asked[native].clear()
            return False
        self._last_u[native] = data["u"]
        book.apply(data["u"], data["b"], data["a"])
        return self._chosen()

    def _chosen(self) -> bool:
        if not self.drop_every or self._depth_seen > self._depth_frames - UNDROPPED_TAIL:
            return False
        if not self._next_drop:
            self._next_drop = self._depth_seen + self._random.randint(2, self.drop_every)
        if self._depth_seen < self._next_drop:
            return False
        # One in each stretch of drop_every frames, anywhere in it.
        self._next_drop += self._random.randint(max(1, self.drop_every // 2), self.drop_every * 3 // 2)
        return True


def _decimals(texts: Sequence[str]) -> int:
    return max((len(t.partition(".")[2].rstrip("0")) for t in texts), default=0)


def _step(decimals: int) -> str:
    return "1" if not decimals else "0." + "0" * (decimals - 1) + "1"
