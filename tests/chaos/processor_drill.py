"""The crash drill: processors are killed, stopped and paused, brokers restarted, while a prober asks all the time.

    python -m tests.chaos.processor_drill --faults 20 --books 1000 --rate 1500 --seed 1

After each fault every book has to be LIVE again and the venue's own at its sequence number. At no time may a view give
a LIVE book that is another than the venue's, or one without an event that the venue sent longer ago than the bound by
which the book has to say LAGGING.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus.broker import EmbeddedBroker
from bus.log_reader import read_all
from cli.stack import Child, Stack, free_port, private_broker
from cli.views import ViewError, Views
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import BBO, BOOK
from simulator.synthetic import SyntheticVenue
from simulator.truth import TruthError
from tests.e2e.rooms import section, unified

Say = Callable[[str], None]
FAULTS = ("kill", "kill", "restart", "pause", "broker")
PAUSE_S = 10.0
STALE_S = 10.0
"""Kafka's silence is noticed after three seconds, a lag after two; the rest is a slow machine's."""
SAMPLE_S = 0.5
RECOVER_S = 400.0
TELL_S = 15.0
"""Between two lines of what is still awaited."""
ASKED_AT_ONCE = 8
"""Books that are compared at the same time; the prober asks beside them."""


@dataclass
class Report:
    """What the drill saw."""

    probes: int = 0
    live_probes: int = 0
    refused_probes: int = 0
    wrong: list[str] = field(default_factory=list[str])
    recoveries_s: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    compared: int = 0
    unequal: list[str] = field(default_factory=list[str])
    derived: int = 0
    dangling: list[str] = field(default_factory=list[str])
    gaps: int = 0

    def lines(self) -> list[str]:
        """For people."""
        times = sorted(t for ts in self.recoveries_s.values() for t in ts)
        out = [
            f"probes: {self.probes}, of which LIVE {self.live_probes}, refused or unreachable {self.refused_probes}",
            f"wrong LIVE answers: {len(self.wrong)} {self.wrong[:3]}",
            f"books compared after faults: {self.compared}, unequal: {len(self.unequal)} {self.unequal[:3]}",
            f"derived records checked: {self.derived}, of events that do not exist: {len(self.dangling)} {self.dangling[:3]}",
        ]
        if times:
            out.append(f"recovery of all books: p50 {times[len(times) // 2]:.1f} s, p99 {times[-1]:.1f} s ({len(times)} faults)")
        out += [f"  {kind}: {', '.join(f'{t:.1f}' for t in ts)} s" for kind, ts in self.recoveries_s.items()]
        return out

    @property
    def clean(self) -> bool:
        """Nothing wrong was seen, and something was looked at."""
        return not (self.wrong or self.unequal or self.dangling) and bool(self.live_probes and self.compared and self.derived)


class Drill:
    """One drill over running rooms."""

    def __init__(
        self, settings: Settings, stack: Stack, venue: SyntheticVenue, name: str, workers: int, seed: int, say: Say
    ) -> None:
        self._say = say
        self.settings, self.stack, self.venue, self.name = settings, stack, venue, name
        self.report = Report()
        self._chance = random.Random(seed)
        self._ports = [free_port() for _ in range(workers)]
        self._children: dict[int, Child] = {}
        self._started = 0
        self._fault, self._fault_s = "the start", time.monotonic()
        self._natives = {unified(n): n for n in venue.books}
        self._sent: dict[str, deque[tuple[float, int]]] = {n: deque(maxlen=600) for n in venue.books}
        """(moment, sequence number that the venue had reached by then) of each book."""

    async def start_worker(self, port: int) -> None:
        """Start the processor of this port."""
        own = self.settings.processor.model_copy(update={"web_port": port})
        self._started += 1
        child = await self.stack.start(
            f"worker-{self._started}", "process", settings=self.settings.model_copy(update={"processor": own})
        )
        self.stack.children.remove(child)  # its death is the drill's business
        self._children[port] = child

    async def start(self) -> None:
        """All workers, until every book is LIVE."""
        for port in self._ports:
            await self.start_worker(port)
        await self.until_live()

    async def until_live(self) -> None:
        """Wait until some worker says that every book of all workers is LIVE; worker processes that died are started again."""
        deadline = time.monotonic() + RECOVER_S
        told_s, seen = time.monotonic(), dict[int, Any]()
        while time.monotonic() < deadline:
            await self._revive()
            if time.monotonic() - told_s >= TELL_S:
                told_s = time.monotonic()
                self._say(f"  {told_s - self._fault_s:.0f} s after {self._fault}: {seen} {await self._reasons()}")
                seen.clear()
            for port in self._ports:
                async with Views(f"http://127.0.0.1:{port}") as views:
                    with contextlib.suppress(ViewError, TimeoutError):
                        seen[port] = "no answer"
                        status = await asyncio.wait_for(views.get("/status"), 5)
                        seen[port] = status["states"]
                        if status["states"].get("LIVE", 0) >= len(self._natives) and not status["silent"]:
                            return
            await asyncio.sleep(0.2)
        tails = "\n".join(c.tail(5) for c in self._children.values())
        raise AssertionError(f"not every book was LIVE again within {RECOVER_S:g} s\n{tails}")

    async def _reasons(self) -> set[str]:
        """Why some books are not LIVE, as some worker says."""
        reasons = set[str]()
        async with Views(f"http://127.0.0.1:{self._ports[0]}") as views:
            for state in ("LAGGING", "RECOVERING", "SYNCING", "STALE", "GAP"):
                with contextlib.suppress(ViewError, TimeoutError):
                    status = await asyncio.wait_for(views.get(f"/status?state={state}"), 5)
                    reasons |= {f"{state}: {book['reason']}" for book in status["books"][:3]}
        return reasons

    async def _revive(self) -> None:
        """What a supervisor does: a worker that ended is started again."""
        for port, child in list(self._children.items()):
            if child.process.returncode is not None:
                await self.start_worker(port)

    async def fault(self, kind: str, broker: EmbeddedBroker | None) -> None:
        """Do it, then wait until all is well, and compare every book."""
        port = self._chance.choice(self._ports)
        child = self._children[port]
        started = self._fault_s = time.monotonic()
        self._fault = f"{kind} of {port}"
        if kind == "kill":
            os.kill(child.process.pid, signal.SIGKILL)
            await child.process.wait()
        elif kind == "restart":
            child.process.terminate()
            await asyncio.wait_for(child.process.wait(), 60)
        elif kind == "pause":
            os.kill(child.process.pid, signal.SIGSTOP)
            await asyncio.sleep(PAUSE_S)
            os.kill(child.process.pid, signal.SIGCONT)
            started = time.monotonic()
            await asyncio.sleep(0.5)
        elif broker is not None:
            await asyncio.to_thread(broker.kill if self._chance.random() < 0.5 else broker.stop)
            await asyncio.sleep(self._chance.random() * 4)
            await asyncio.to_thread(broker.start)
        await self.until_live()
        self.report.recoveries_s.setdefault(kind, []).append(time.monotonic() - started)
        await self.compare_every_book()

    async def compare_every_book(self) -> None:
        """Each book, as any of the workers answers, with the venue's own."""
        async with contextlib.AsyncExitStack() as stack:
            views = [await stack.enter_async_context(Views(f"http://127.0.0.1:{port}")) for port in self._ports]
            symbols = iter(self._natives)
            await asyncio.gather(*(self._compare_all(symbols, views) for _ in range(ASKED_AT_ONCE)))

    async def _compare_all(self, symbols: Iterator[str], views: list[Views]) -> None:
        for symbol in symbols:
            await self._compare(symbol, views)

    async def _compare(self, symbol: str, views: list[Views]) -> None:
        for _ in range(600):
            with contextlib.suppress(ViewError):
                asked_s = time.monotonic()
                book = await self._chance.choice(views).book(self.name, symbol)
                if book["state"] == "LIVE":
                    self.report.compared += 1
                    if (problem := self._judge(book, asked_s)) is not None:
                        self.report.unequal.append(problem)
                    return
            await asyncio.sleep(0.2)
        self.report.unequal.append(f"{symbol} was not LIVE")

    async def note_what_is_sent(self, stop: asyncio.Event) -> None:
        """Note how far the venue is, again and again."""
        while not stop.is_set():
            now = time.monotonic()
            for native, truth in self.venue.books.items():
                self._sent[native].append((now, truth.seq))
            await asyncio.sleep(SAMPLE_S)

    def _judge(self, book: dict[str, Any], asked_s: float) -> str | None:
        """What is wrong with a book that is said to be LIVE."""
        native = self._natives[book["symbol"]]
        try:
            _, bids, asks = self.venue.books[native].at(book["venue_seq"])
        except TruthError as error:
            return f"{book['symbol']} {book['epoch']}/{book['index']}: {error}"
        if (book["bids"], book["asks"]) != (bids, asks):
            return f"{book['symbol']} {book['epoch']}/{book['index']} is not the venue's book"
        for moment_s, seq in self._sent[native]:
            if seq > book["venue_seq"] and asked_s - moment_s > STALE_S:
                late_s = asked_s - moment_s
                taken_ms = book["ts_received_ns"] // 1_000_000 - book["ts_venue_us"] // 1000
                return (
                    f"{book['symbol']} {book['epoch']}/{book['index']} is LIVE without what was sent {late_s:.1f} s before; "
                    f"its last event took {taken_ms} ms to the collector; {asked_s - self._fault_s:.1f} s after {self._fault}"
                )
        return None

    async def probe(self, stop: asyncio.Event) -> None:
        """Ask any worker for any book until told to stop."""
        symbols = list(self._natives)
        while not stop.is_set():
            async with Views(f"http://127.0.0.1:{self._chance.choice(self._ports)}") as views:
                self.report.probes += 1
                asked_s = time.monotonic()
                try:
                    book = await asyncio.wait_for(views.book(self.name, self._chance.choice(symbols)), 15)
                except (ViewError, TimeoutError):
                    self.report.refused_probes += 1
                    book = None
                if book is not None and book["state"] == "LIVE":
                    self.report.live_probes += 1
                    if (problem := self._judge(book, asked_s)) is not None:
                        self.report.wrong.append(problem)
            await asyncio.sleep(0.01)

    def check_derived(self) -> None:
        """Every derived.bbo is of a book event that exists."""
        derived = read_all(self.settings, BBO.name, timeout_s=300)  # first: the log of events goes on meanwhile
        events: dict[tuple[int, int], tuple[int, int]] = {}
        for record in read_all(self.settings, BOOK.name, timeout_s=300):
            if (record.key or b"").startswith(self.name.encode()):
                event = codec("BookEvent").decode(record.value or b"")
                events[(record.partition, record.offset)] = event["epoch"], event["index"]
        for record in derived:
            bbo = codec("Bbo").decode(record.value or b"")
            if bbo["venue"] == self.name and bbo["epoch"] >= 0:
                self.report.derived += 1
                place = bbo["partition"], bbo["offset"]
                if events.get(place) != (bbo["epoch"], bbo["index"]):
                    self.report.dangling.append(f"{bbo['symbol']} {place} {bbo['epoch']}/{bbo['index']}: {events.get(place)}")

    async def stop(self) -> None:
        """End the workers."""
        for child in self._children.values():
            if child.process.returncode is None:
                child.process.send_signal(signal.SIGCONT)
                child.process.terminate()
        for child in self._children.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.process.wait(), 30)
            if child.process.returncode is None:
                child.process.kill()
                await child.process.wait()


async def run_drill(
    settings: Settings, work: Path, faults: list[str], *, name: str, books: int, rate: float, workers: int, seed: int,
    broker: EmbeddedBroker | None = None, say: Say = lambda _: None,
) -> Report:  # fmt: skip
    """The whole drill on a broker that runs and has its topics; gives the report."""
    venue = SyntheticVenue("binance-usdm", instruments=books, rate=rate, levels=50, seed=seed)
    await venue.start()
    own = settings.model_copy(update={"venues": {**settings.venues, name: section("binance-usdm", venue)}})
    try:
        async with Stack(own, work) as stack:
            await stack.start("collector", "collect", name)
            drill = Drill(own, stack, venue, name, workers, seed, say)
            stop = asyncio.Event()
            noting = asyncio.create_task(drill.note_what_is_sent(stop))
            try:
                await drill.start()
                say(f"{books} books LIVE on {workers} workers")
                prober = asyncio.create_task(drill.probe(stop))
                for number, kind in enumerate(faults, 1):
                    await drill.fault(kind, broker)
                    say(f"{number}/{len(faults)} {kind}: all books exact after {drill.report.recoveries_s[kind][-1]:.1f} s")
                stop.set()
                await prober
                venue.control("rate", rate=0)  # what is read now has an end
                await asyncio.to_thread(drill.check_derived)
            finally:
                stop.set()
                await noting
                await drill.stop()
            return drill.report
    finally:
        await venue.stop()


async def main() -> int:
    """The long drill, on a broker of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1500)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    faults = [chance.choice(FAULTS) for _ in range(options.faults)]

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="venue-mirror-drill-") as temporary:
        async with private_broker(load_settings(), say) as settings:
            section_ = settings.processor.model_copy(update={"data_dir": Path(temporary) / "faust"})
            own = settings.model_copy(update={"processor": section_})
            report = await run_drill(
                own, Path(temporary), faults, name="drill", books=options.books, rate=options.rate,
                workers=options.workers, seed=options.seed, broker=EmbeddedBroker(own.broker), say=say,
            )  # fmt: skip
    print("\n".join(report.lines()))
    return 0 if report.clean else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
