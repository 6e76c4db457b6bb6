"""Venues of several protocols that fail in every way they know, while the mirror's LIVE books are held against their own.

    python -m tests.chaos.fault_run --seconds 600 --instruments 200 --rate 80 --seed 1

Real processes on a real Kafka: a collector for each venue and one processor; the venues live in this process, so that
their truth is read at once. A seeded script for each venue commands the faults. All along, LIVE books are fetched from
the processor and compared, whole, with the venue's own book at the same sequence number (at the same time of the venue's
clock where it has no numbers). At the end: every listed instrument LIVE and equal, every lost frame of a LIVE book told
as a change of its state (but where a venue has no sequence numbers and its next change wrote the same levels: that is
counted apart), no process ended by itself, memory bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from bus.consumer import TailReader
from cli.stack import free_port, private_broker
from cli.views import ViewError
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import STATUS
from simulator.fault_script import KINDS, FaultScript
from simulator.faults import Injected
from simulator.synthetic import SyntheticVenue
from simulator.truth import TruthError
from simulator.wire import Wire
from tests.e2e.rooms import Rooms, rooms_of, section

PROTOCOLS = ("okx", "kraken", "bybit-linear", "coinbase", "deribit")
LOST = ("drop", "frozen frame", "reorder", "checksum")
"""What a client has to find out when it hits a LIVE book. (A late frame may be the next one all the same.)"""
LEVELS = 12
FIRST_LIVE_S = 300.0
HEAL_S = 300.0
"""After the last fault: reconnects back off up to 45 s."""
JUDGE_S = 90.0
"""Patience with books that cannot be told at the moment, at the end."""
SAMPLERS, SAMPLE_PAUSE_S = 3, 0.01
HIT_LATELY = 40
"""Half of the samples look at books that one of this many last faults has hit."""
GROWTH_MB = 150
"""A process may grow by so much between the middle of the run and its end, storms of listings included."""


@dataclass
class Report:
    """What was seen. ``problems`` is empty when all was right."""

    seconds: float = 0.0
    first_live_s: float = 0.0
    healed_s: float = 0.0
    samples: Counter[str] = field(default_factory=Counter[str])
    """``compared`` (equal), ``mismatched``, another state than LIVE, ``not comparable`` (too long ago, delisted)."""
    by_venue: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    injected: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    commanded: Counter[str] = field(default_factory=Counter[str])
    """By the scripts; ``injected`` is what came of it."""
    lost_while_live: int = 0
    told_within_s: float = 0.0
    """The longest time from a lost frame to the state that said so."""
    untold: int = 0
    hidden: int = 0
    """Of a venue without sequence numbers: the book's next change wrote the lost one's levels anew, so no book was wrong."""
    collectors: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    memory_mb: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Of each process: at the start of the faults, in the middle, at the end."""
    books_at_end: int = 0
    problems: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        """For people."""
        lines = [f"{self.seconds:.0f} s of faults; all LIVE first after {self.first_live_s:.1f} s, again "
                 f"{self.healed_s:.1f} s after the last; {self.books_at_end} books LIVE and equal at the end"]  # fmt: skip
        for venue, seen in self.by_venue.items():
            told = " ".join(f"{what}={count}" for what, count in sorted(self.injected[venue].items()))
            lines += [f"{venue:13} samples: {dict(seen)}", f"{'':13} injected: {told}"]
            lines += [f"{'':13} collector: {self.collectors.get(venue, {})}"]
        lines.append(f"lost while LIVE: {self.lost_while_live}, told within {self.told_within_s:.1f} s, untold: {self.untold}, "
                     f"made good by the next change: {self.hidden}")  # fmt: skip
        lines += [f"memory of {name}: {mb} MB" for name, mb in self.memory_mb.items()]
        return "\n".join(lines + [f"PROBLEM {problem}" for problem in self.problems])


class States:
    """Every state that was written for a book: (venue, symbol) → [(since_ns, state)]."""

    def __init__(self, settings: Settings) -> None:
        self._reader = TailReader(settings, [STATUS.name], start="end")
        self._decode = codec("BookStatus").decode
        self.history: dict[tuple[str, str], list[tuple[int, str]]] = {}

    async def follow(self) -> None:
        """Read until cancelled."""
        while True:
            for message in await asyncio.to_thread(self._reader.poll, 5000, 0.5):
                said = self._decode(message.value())
                self.history.setdefault((said["venue"], said["symbol"]), []).append((said["since_ns"], said["state"]))

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()

    def told_after_s(self, key: tuple[str, str], ts_ns: int) -> float | None:
        """Seconds until a book that was LIVE then was not any more; 0: it was not LIVE; None: nobody said so."""
        state = ""
        for since_ns, then in sorted(self.history.get(key, ())):
            if since_ns <= ts_ns:
                state = then
            elif state != "LIVE":
                return 0.0
            elif then != "LIVE":
                return (since_ns - ts_ns) / 1e9
        return None if state == "LIVE" else 0.0


def _can(venue: SyntheticVenue, kind: str) -> bool:
    """Whether the venue's protocol knows such a fault."""
    if kind == "restart":
        return type(venue.wire).restart is not Wire.restart
    return kind != "checksum" or venue.wire.has_checksum


def _shows(venue: SyntheticVenue, fault: Injected, gone: set[int]) -> bool:
    """Whether a client can know of this lost frame: by a number, or because its book is unlike the venue's at the next."""
    if venue.wire.loss_shows:
        return True
    try:
        return venue.books[fault.native].shows(fault.seq, gone)
    except TruthError:
        return True


class FaultRun:
    """One run; ``await run()`` gives its report."""

    def __init__(
        self, settings: Settings, logs: Path, *, seconds: float, instruments: int, rate: float, seed: int,
        every_s: float, storm: int, protocols: tuple[str, ...] = PROTOCOLS, prefix: str = "",
    ) -> None:  # fmt: skip
        self.report = Report(seconds)
        self._seconds, self._seed, self._every_s, self._storm = seconds, seed, every_s, storm
        self._logs = logs
        self._random = random.Random(seed)
        self._venues = {
            f"{prefix}{name}": SyntheticVenue(name, instruments=instruments, rate=rate, levels=LEVELS, seed=seed + i)
            for i, name in enumerate(protocols)
        }
        self._settings = settings
        self._depth: dict[str, int | None] = {}

    async def run(self) -> Report:
        """Start everything, break it for a while, let it heal, judge it."""
        for venue in self._venues.values():
            await venue.start()
        sections = {name: section(venue.adapter, venue) for name, venue in self._venues.items()}
        collector = self._settings.collector.model_copy(
            update={"discovery_s": 4.0, "stale_connection_s": 8.0, "stale_s": 20.0, "keyframe_max_s": 20.0}
        )
        settings = self._settings.model_copy(update={"venues": sections, "collector": collector})
        try:
            async with rooms_of(settings, self._logs) as rooms:
                states = await asyncio.to_thread(States, settings)
                following = asyncio.create_task(states.follow())
                try:
                    await self._through(rooms, states)
                finally:
                    following.cancel()
                    await asyncio.gather(following, return_exceptions=True)
                    states.close()
        finally:
            for venue in self._venues.values():
                await venue.stop()
        return self.report

    async def _through(self, rooms: Rooms, states: States) -> None:
        report, started = self.report, time.monotonic()
        await rooms.processor()
        for name in self._venues:
            await rooms.collector(name, name)
        await rooms.stack.until("all LIVE at first", lambda: self._all_live(rooms), FIRST_LIVE_S, 0.5)
        report.first_live_s = time.monotonic() - started
        self._remember_memory(rooms)
        sampling = asyncio.gather(*(self._sample_for_ever(rooms) for _ in range(SAMPLERS)))
        shares = self._shares()
        scripts = {
            name: FaultScript(self._seed + i, self._seconds, self._every_s, shares[name])
            for i, name in enumerate(self._venues)
        }
        running = [asyncio.create_task(scripts[name].run(venue)) for name, venue in self._venues.items()]
        running.append(asyncio.create_task(self._storm_once()))
        half = asyncio.create_task(self._at_half(rooms))
        while not all(task.done() for task in running):
            await asyncio.sleep(0.2)
            rooms.stack.check()
            if sampling.done():
                sampling.result()
        for task in (*running, half):
            task.result()
        ended = time.monotonic()
        for script in scripts.values():
            report.commanded.update(fault.what for fault in script.done)
        for venue in self._venues.values():
            venue.control("calm")
        # What was lost last shows in the book's next frame: each has one in a round.
        await asyncio.sleep(2 + max(1.5 * len(venue.instruments) / venue.rate for venue in self._venues.values()))
        with contextlib.suppress(Exception):
            await rooms.stack.until("all LIVE again", lambda: self._all_live(rooms), HEAL_S, 0.5)
        report.healed_s = time.monotonic() - ended
        rooms.stack.check()
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        self._remember_memory(rooms)
        await self._judge_the_end(rooms)
        await asyncio.sleep(1)  # the last states
        self._judge_losses(states)
        for name, venue in self._venues.items():
            report.injected[name] = Counter(venue.faults.counts)
            report.collectors[name] = {
                what: await rooms.count(what, name)
                for what in ("gaps", "checksum_bad", "resyncs", "reconnects", "stale", "dead_letters", "internal_errors")
            }
            if report.collectors[name]["internal_errors"]:
                report.problems.append(f"{name}: {report.collectors[name]['internal_errors']} errors that nobody foresaw")
        self._judge_memory()

    def _shares(self) -> dict[str, tuple[str, ...]]:
        """The kinds of each venue's script: all that it can; in a short run they are shared out, so that none is missing."""
        able = {name: [kind for kind in KINDS if _can(venue, kind)] for name, venue in self._venues.items()}
        room = int(self._seconds / self._every_s)
        if room >= len(KINDS):
            return {name: tuple(kinds) for name, kinds in able.items()}
        shares: dict[str, list[str]] = {name: [] for name in self._venues}
        # The choosy kinds first; each goes to the venue that has the fewest yet.
        for kind in sorted(KINDS, key=lambda kind: sum(kind in kinds for kinds in able.values())) * 2:
            names = [name for name, kinds in able.items() if kind in kinds and kind not in shares[name]]
            shares[min(names, key=lambda name: len(shares[name]))].append(kind)
        return {name: tuple(kinds) for name, kinds in shares.items()}

    async def _at_half(self, rooms: Rooms) -> None:
        await asyncio.sleep(self._seconds / 2)
        self._remember_memory(rooms)

    async def _storm_once(self) -> None:
        """A storm of listings, early enough for memory to be judged behind it."""
        await asyncio.sleep(self._seconds / 4)
        if self._storm:
            self._random.choice(list(self._venues.values())).control("storm", n=self._storm)

    # Samples.

    def _expected(self) -> set[tuple[str, str]]:
        return {(name, symbol) for name, venue in self._venues.items() for symbol in venue.natives_by_symbol()}

    async def _all_live(self, rooms: Rooms) -> bool:
        with contextlib.suppress(ViewError):
            live = {(b["venue"], b["symbol"]) for b in await rooms.views.books() if b["state"] == "LIVE"}
            return self._expected() <= live
        return False

    async def _sample_for_ever(self, rooms: Rooms) -> None:
        while True:
            names = list(self._venues)
            self._random.shuffle(names)
            for name in names:
                symbol = self._choose(self._venues[name])
                with contextlib.suppress(ViewError):  # not known to the processor yet
                    what = await self._sample(rooms, name, symbol)
                    self.report.samples[what] += 1
                    self.report.by_venue.setdefault(name, Counter())[what] += 1
                await asyncio.sleep(SAMPLE_PAUSE_S)

    def _choose(self, venue: SyntheticVenue) -> str:
        """A symbol to look at."""
        last = list(itertools.islice(reversed(venue.faults.injected), HIT_LATELY))
        hit = [fault.native for fault in last if fault.native in venue.instruments]
        native = self._random.choice(hit if hit and self._random.random() < 0.5 else venue.symbols)
        return venue.instruments[native].name.symbol

    async def _sample(self, rooms: Rooms, name: str, symbol: str) -> str:
        venue = self._venues[name]
        mirrored = await rooms.views.book(name, symbol)
        if mirrored["state"] != "LIVE":
            return mirrored["state"]
        truth = venue.books.get(venue.natives_by_symbol().get(symbol, ""))
        if truth is None:
            return "not comparable"
        try:
            seq = truth.seq_at_time(mirrored["ts_venue_us"]) if venue.wire.by_time else mirrored["venue_seq"]
            _, bids, asks = truth.at(seq)
        except TruthError:
            return "not comparable"
        if (mirrored["bids"], mirrored["asks"]) == (bids, asks):
            return "compared"
        if len(self.report.problems) < 50:
            self.report.problems.append(
                f"{name} {symbol}: LIVE and wrong at {seq}: epoch {mirrored['epoch']}, index {mirrored['index']}"
            )
        return "mismatched"

    # Verdicts.

    async def _judge_the_end(self, rooms: Rooms) -> None:
        """Every listed instrument: LIVE and equal, asked again and again until it can be told or patience is over."""
        left, deadline = self._expected(), time.monotonic() + JUDGE_S
        found: dict[tuple[str, str], str] = {}
        while left and time.monotonic() < deadline:
            for key in sorted(left):
                try:
                    found[key] = await self._sample(rooms, *key)
                except ViewError as error:
                    found[key] = str(error)[:100]
                if found[key] in ("compared", "mismatched"):
                    left.discard(key)
            await asyncio.sleep(0.2)
        self.report.books_at_end = sum(what == "compared" for what in found.values())
        wrong = {key: what for key, what in found.items() if what != "compared"}
        for (name, symbol), what in list(wrong.items())[:50]:
            with contextlib.suppress(ViewError):
                book = await rooms.views.book(name, symbol)
                what = f"{what} ({book['state']} now: {book['reason']})"
            self.report.problems.append(f"{name} {symbol}: {what} at the end")
        unwell = Counter((name, what) for (name, _), what in wrong.items())
        self.report.problems += [f"{name}: {count} books {what} at the end" for (name, what), count in unwell.items()]

    def _judge_losses(self, states: States) -> None:
        for name, venue in self._venues.items():
            symbols = {native: symbol for symbol, native in venue.natives_by_symbol().items()}
            gone: defaultdict[str, set[int]] = defaultdict(set)
            for fault in venue.faults.injected:
                if fault.verb == "drop":
                    gone[fault.native].add(fault.seq)
            for fault in venue.faults.injected:
                if fault.verb not in LOST or fault.native not in symbols:
                    continue
                after_s = states.told_after_s((name, symbols[fault.native]), fault.ts_ns)
                if after_s is None and fault.verb == "drop" and not _shows(venue, fault, gone[fault.native]):
                    self.report.hidden += 1
                elif after_s is None:
                    self.report.untold += 1
                    self.report.problems.append(
                        f"{name} {fault.native}: {fault.verb} at {fault.seq} hit a LIVE book, and no state said so"
                    )
                elif after_s:
                    self.report.lost_while_live += 1
                    self.report.told_within_s = max(self.report.told_within_s, after_s)

    def _remember_memory(self, rooms: Rooms) -> None:
        for child in rooms.stack.children:
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{child.process.pid}/status").read_text("utf-8").splitlines()
                resident = next(line for line in lines if line.startswith("VmRSS:"))
                self.report.memory_mb.setdefault(child.name, []).append(int(resident.split()[1]) // 1024)

    def _judge_memory(self) -> None:
        for name, seen in self.report.memory_mb.items():
            if len(seen) == 3 and seen[2] > seen[1] + GROWTH_MB:
                self.report.problems.append(f"{name} grew from {seen[1]} to {seen[2]} MB in the second half")


async def main(arguments: list[str]) -> int:
    """The command; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--instruments", type=int, default=200)
    parser.add_argument("--rate", type=float, default=80, help="book events a second of each venue")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=5, help="seconds between two faults of a venue, on average")
    parser.add_argument("--storm", type=int, default=500, help="instruments listed at once, once; 0: none")
    parser.add_argument("--json", type=Path, help="write the report there too")
    given = parser.parse_args(arguments)
    me = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Cancelled, it stops what it started; killed, it would not.
        asyncio.get_running_loop().add_signal_handler(number, me.cancel if me is not None else sys.exit)
    with tempfile.TemporaryDirectory(prefix="fault-run-") as temporary:
        work = Path(temporary)
        processor = {"app_id": f"fault-run-{int(time.time())}", "data_dir": work / "faust"}

        def say(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        async with private_broker(load_settings(None, processor=processor), say) as settings:
            # Chosen now: starting a broker takes long enough for a free port to be taken.
            free = settings.processor.model_copy(update={"web_port": free_port()})
            run = FaultRun(
                settings.model_copy(update={"processor": free}), work / "logs", seconds=given.seconds,
                instruments=given.instruments, rate=given.rate, seed=given.seed, every_s=given.every, storm=given.storm,
                prefix=f"{int(time.time()) % 100_000}-",
            )  # fmt: skip
            report = await run.run()
    print(report.text(), flush=True)
    if given.json:
        given.json.write_text(json.dumps(report.__dict__, indent=1, default=str), "utf-8")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
