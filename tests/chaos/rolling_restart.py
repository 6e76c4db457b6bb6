"""A rolling restart of every process under load: collectors, processors and the console, one after the other.

    python -m tests.chaos.rolling_restart --books 500 --rate 1500 --rounds 2

While it goes on a prober asks any processor for any book: a LIVE one must be the venue's own. Each process must end with
code 0 within the bound, must not be ready before it can answer, and says how long it took. At the end the log is read
from its beginning: inside each epoch every index is there, once, and no processor missed one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bus.log_reader import read_all
from cli.stack import STOP_S, Child, Stack, free_port, private_broker
from cli.views import ViewError, Views
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import BOOK
from simulator.synthetic import SyntheticVenue
from tests.chaos.processor_drill import Drill
from tests.e2e.rooms import section


@dataclass
class Restarts:
    """What was seen beside the prober's own report."""

    ready_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Start to ready, by room."""
    stop_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    live_s: list[float] = field(default_factory=list[float])
    """SIGTERM to a processor or collector until every book was LIVE again."""
    codes: list[int] = field(default_factory=list[int])
    dishonest: list[str] = field(default_factory=list[str])
    """Answers of processors that said that they are ready."""
    asked_ready: int = 0
    events: int = 0
    holes: list[str] = field(default_factory=list[str])
    gaps: float = 0
    """Indexes that processors missed."""

    def lines(self) -> list[str]:
        """For people."""
        out = [
            f"{room}: {len(times)} restarts, stopped within {max(self.stop_s[room]):.1f} s, ready after "
            + ", ".join(f"{t:.1f}" for t in times) + " s"
            for room, times in self.ready_s.items()
        ]  # fmt: skip
        return [
            *out,
            f"every book LIVE again after {', '.join(f'{t:.1f}' for t in self.live_s)} s",
            f"exit codes: {sorted(set(self.codes))}",
            f"asked {self.asked_ready} processors that said ready, unable to answer: {len(self.dishonest)} {self.dishonest[:3]}",
            f"events in the log: {self.events}, missing or twice: {len(self.holes)} {self.holes[:3]}; "
            f"missed by processors: {self.gaps:.0f}",
        ]


class Rolling:
    """The processes, and what is done to them."""

    def __init__(self, drill: Drill, say: Callable[[str], None]) -> None:
        self.drill, self.say, self.seen = drill, say, Restarts()
        self._ids = itertools.count(1)
        self._collectors: list[Child] = []
        self._console: Child | None = None
        self._console_port = free_port()

    async def start(self) -> None:
        """All of them, until every book is LIVE."""
        await self._collector()
        await self._collector()
        await self._start_console()
        await self.drill.start()

    async def _spawn(self, room: str, *arguments: str, settings: Settings | None = None) -> Child:
        child = await self.drill.stack.start(f"{room}-{next(self._ids)}", *arguments, settings=settings)
        self.drill.stack.children.remove(child)
        return child

    async def _collector(self) -> None:
        self._collectors.append(await self._spawn("collector", "collect", self.drill.name))

    async def _start_console(self) -> None:
        own = self.drill.settings
        console = own.console.model_copy(update={"web_port": self._console_port})
        self._console = await self._spawn("console", "console", settings=own.model_copy(update={"console": console}))

    async def _end(self, room: str, child: Child) -> None:
        started = time.monotonic()
        child.process.terminate()
        await asyncio.wait_for(child.process.wait(), STOP_S * 3)
        self.seen.stop_s.setdefault(room, []).append(time.monotonic() - started)
        self.seen.codes.append(child.process.returncode or 0)

    async def _ready(self, room: str, url: str) -> None:
        """Wait until the page answers 200."""
        started = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            while time.monotonic() - started < 180:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(url) as answer:
                        if answer.status == 200:
                            self.seen.ready_s.setdefault(room, []).append(time.monotonic() - started)
                            return
                await asyncio.sleep(0.05)
        raise AssertionError(f"{url} was not ready within 180 s")

    async def all_once(self) -> None:
        """Restart each process, the next one when every book is LIVE again."""
        drill = self.drill
        for port in drill._ports:
            began = time.monotonic()
            self.seen.gaps += await self._gaps(port)
            await self._end("processor", drill._children[port])
            await drill.start_worker(port)
            await self._ready("processor", f"http://127.0.0.1:{port}/readyz")
            await drill.until_live()
            self._told("processor", began)
        for _ in range(len(self._collectors)):
            began = time.monotonic()
            # As a cluster does it: the new one is there before the old one leaves.
            await self._collector()
            old = self._collectors.pop(0)
            await self._end("collector", old)
            started = time.monotonic()
            await drill.until_live()
            self.seen.ready_s.setdefault("collector", []).append(time.monotonic() - started)
            self._told("collector", began)
        assert self._console is not None
        began = time.monotonic()
        await self._end("console", self._console)
        await self._start_console()
        await self._ready("console", f"http://127.0.0.1:{self._console_port}/readyz")
        self._told("console", began, live=False)

    def _told(self, room: str, began: float, *, live: bool = True) -> None:
        took = time.monotonic() - began
        if live:
            self.seen.live_s.append(took)
        self.say(f"{room}: ready after {self.seen.ready_s[room][-1]:.1f} s, all well after {took:.1f} s")

    async def _gaps(self, port: int) -> float:
        async with Views(f"http://127.0.0.1:{port}") as views:
            return (await views.metrics()).get("processor_gaps_total", 0.0)

    async def watch_readiness(self, stop: asyncio.Event) -> None:
        """Whoever says that it is ready must be able to answer for its books, or no longer say so."""
        while not stop.is_set():
            for port in self.drill._ports:
                async with Views(f"http://127.0.0.1:{port}") as views:
                    try:
                        if not await views.ready():
                            continue
                        self.seen.asked_ready += 1
                        await views.get("/books")
                    except (ViewError, TimeoutError) as error:
                        with contextlib.suppress(ViewError, TimeoutError):
                            if await views.ready():
                                self.seen.dishonest.append(f"{port}: {error}")
            await asyncio.sleep(0.1)

    def check_log(self) -> None:
        """Inside each epoch of each book the indexes run from its snapshot on without a hole or a repetition."""
        at: dict[bytes, tuple[int, int]] = {}
        for record in read_all(self.drill.settings, BOOK.name, timeout_s=300):
            key = record.key or b""
            if not key.startswith(self.drill.name.encode() + b"|"):
                continue
            event = codec("BookEvent").decode(record.value or b"")
            self.seen.events += 1
            epoch, index = at.get(key, (0, -1))
            if event["epoch"] < epoch:
                continue  # what the old owner still wrote when the new one had begun: fenced off by every reader
            if event["epoch"] > epoch:
                wanted, kinds = 0, ("SNAPSHOT",)
            elif event["kind"] == "KEYFRAME":
                wanted, kinds = index, ("KEYFRAME",)
            else:
                wanted, kinds = index + 1, ("DELTA",)
            if event["index"] != wanted or event["kind"] not in kinds:
                self.seen.holes.append(f"{key.decode()} {event['epoch']}/{event['index']} {event['kind']} after {epoch}/{index}")
            at[key] = event["epoch"], event["index"]

    async def finish(self) -> None:
        """Count what the processors missed, and end what runs."""
        for port in self.drill._ports:
            self.seen.gaps += await self._gaps(port)
        await asyncio.to_thread(self.check_log)

    async def stop(self) -> None:
        """End everything."""
        await self.drill.stop()
        for child in (*self._collectors, *([self._console] if self._console else [])):
            await self.drill.stack.stop(child)


async def run(
    settings: Settings, work: Path, *, name: str, books: int, rate: float, rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> Rolling:  # fmt: skip
    """The whole of it on a broker that runs and has its topics; what was seen is in ``seen`` and ``drill.report``."""
    venue = SyntheticVenue("binance-usdm", instruments=books, rate=rate, levels=50, seed=1)
    await venue.start()
    own = settings.model_copy(update={"venues": {**settings.venues, name: section("binance-usdm", venue)}})
    try:
        async with Stack(own, work) as stack:
            # Only what a LIVE book holds is judged: between two owners of an instrument nothing new comes, however long it
            # takes, so nobody notes here what the venue sent since (``note_what_is_sent``).
            rolling = Rolling(Drill(own, stack, venue, name, 2, 1, say), say)
            stop = asyncio.Event()
            watchers: list[asyncio.Task[None]] = []
            try:
                await rolling.start()
                say(f"{books} books LIVE")
                watchers = [asyncio.create_task(w(stop)) for w in (rolling.drill.probe, rolling.watch_readiness)]
                for _ in range(rounds):
                    await rolling.all_once()
                stop.set()
                await asyncio.gather(*watchers)
                await rolling.drill.compare_every_book()
                await rolling.finish()
            finally:
                stop.set()
                await rolling.stop()
            return rolling
    finally:
        await venue.stop()


async def main() -> int:
    """The long one, on a broker of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=500)
    parser.add_argument("--rate", type=float, default=1500)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="venue-mirror-rolling-") as temporary:
        async with private_broker(load_settings(), say) as settings:
            section_ = settings.processor.model_copy(update={"data_dir": Path(temporary) / "faust"})
            own = settings.model_copy(update={"processor": section_})
            rolling = await run(
                own, Path(temporary), name="rolling", books=options.books, rate=options.rate, rounds=options.rounds, say=say
            )
    seen, report = rolling.seen, rolling.drill.report
    print("\n".join([*seen.lines(), *report.lines()[:3]]))
    return 0 if not (seen.dishonest or seen.holes or seen.gaps or any(seen.codes) or report.wrong or report.unequal) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
