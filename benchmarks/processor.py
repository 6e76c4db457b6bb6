"""Book events a second of one core: the processor against a plain Faust agent and quixstreams, on one topic in one run.

    python benchmarks/processor.py [--books 100] [--events 200000] [--plain-events 40000] [--no-peers]

The processor decodes every event, keeps the exact book, writes derived.bbo and its checkpoints. ``plain, usual way`` is
one agent that decodes, keeps the book, writes the top to a table and sends the best bid and offer for each event;
``plain, nothing written`` only decodes and keeps the book; ``quixstreams`` does the usual way's job with its own state
store (quix_agent.py), from an environment of its own. All use the same codec and the same book. Figures are events
by CPU second of the process (user and system), from its start of reading to the last event; starting up is left out.
The plain agents read the first part of the topic only, or it would take all day.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peer_process import PACKAGES, PeerError, interpreter
from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.producer import Producer
from cli.stack import Stack, free_port, private_broker
from cli.views import Views
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import market_key

VENUE = "bench"
QUIX = next(package.replace("==", " ") for package in PACKAGES if package.startswith("quixstreams"))
DEPTH = 200
"""Levels a side of each book."""
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Log:
    """A seeded stream of book events: snapshots, then deltas of one to three levels a side around each book's middle."""

    def __init__(self, books: int, seed: int) -> None:
        self._random = random.Random(seed)
        self._symbols = [f"COIN{i}/USDT" for i in range(books)]
        self._index = dict.fromkeys(self._symbols, 0)
        self._encode = codec("BookEvent").encode
        self._epoch = time.time_ns() // 1000

    def snapshots(self) -> list[tuple[str, bytes]]:
        """One for each book."""
        bids, asks = [10_000 - i for i in range(1, DEPTH + 1)], [10_000 + i for i in range(1, DEPTH + 1)]
        size = [1000] * DEPTH
        return [self._event(symbol, "SNAPSHOT", bids, size, asks, size) for symbol in self._symbols]

    def delta(self) -> tuple[str, bytes]:
        """The next event of a random book; both sides stay where they are, so that no book is ever crossed."""
        pick = self._random
        symbol = pick.choice(self._symbols)
        self._index[symbol] += 1
        bids = sorted({10_000 - min(DEPTH, int(pick.expovariate(0.1)) + 1) for _ in range(pick.randint(1, 3))})
        asks = sorted({10_000 + min(DEPTH, int(pick.expovariate(0.1)) + 1) for _ in range(pick.randint(1, 3))})
        bid_sizes = [pick.randint(0, 4) and pick.randint(1, 10**6) for _ in bids]
        ask_sizes = [pick.randint(0, 4) and pick.randint(1, 10**6) for _ in asks]
        return self._event(symbol, "DELTA", bids, bid_sizes, asks, ask_sizes)

    def _event(self, symbol: str, kind: str, bp: list[int], bs: list[int], ap: list[int], asz: list[int]) -> tuple[str, bytes]:
        index = self._index[symbol]
        now = time.time_ns()
        return market_key(VENUE, symbol), self._encode({
            "venue": VENUE, "symbol": symbol, "kind": kind, "epoch": self._epoch, "index": index, "venue_seq": index,
            "venue_prev_seq": index - 1, "ts_venue_us": now // 1000, "ts_received_ns": now, "price_exp": -2,
            "size_exp": -3, "bid_prices": bp, "bid_sizes": bs, "ask_prices": ap, "ask_sizes": asz,
            "venue_checksum": None,
        })  # fmt: skip


def fill(settings: Settings, records: list[tuple[str, bytes]]) -> None:
    """Write the whole log, as fast as Kafka takes it."""
    producer = Producer(settings, queue_max=2_000_000)
    for key, value in records:
        producer.send("market.book", key, value)
    assert producer.flush(120) == 0


async def ours(settings: Settings, log: Log, events: int, work: Path) -> tuple[int, float, float]:
    """(events, CPU seconds, seconds) of ``venue-mirror process`` over a log that is written once it is ready."""
    section = settings.processor.model_copy(
        update={"app_id": f"bench-{time.time_ns()}", "web_port": free_port(), "data_dir": work / "ours"}
    )
    tuned = settings.model_copy(update={"processor": section})
    async with Stack(tuned, work) as stack, Views(f"http://{section.web_host}:{section.web_port}") as views:
        child = await stack.start("processor", "process")
        await stack.until("the processor", views.ready, 60)
        pid = child.process.pid
        records = log.snapshots() + [log.delta() for _ in range(events)]
        before, started, total = cpu_s(pid), time.monotonic(), len(records)
        await asyncio.to_thread(fill, tuned, records)

        async def finished() -> bool:
            stack.check()
            metrics = await views.metrics()
            assert metrics["processor_gaps_total"] == metrics["processor_dead_letters_total"] == 0, metrics
            return metrics["processor_events_total"] >= total and not metrics["processor_producer_queue"]

        await stack.until("all events", finished, 600, pause_s=0.25)
        return total, cpu_s(pid) - before, time.monotonic() - started


async def plain(settings: Settings, mode: str, events: int, work: Path, quix: Path | None = None) -> tuple[int, float, float]:
    """The same of a plain agent over the first ``events`` records; ``quix``: of quixstreams, by the Python that has it."""
    name = f"plain-{mode}-{time.time_ns()}"
    environment = os.environ | {
        "BENCH_BOOTSTRAP": settings.kafka.bootstrap_servers, "BENCH_EVENTS": str(events), "BENCH_MODE": mode,
        "BENCH_APP_ID": name, "BENCH_DATA_DIR": str(work / name), "PYTHONUNBUFFERED": "1",
        "BENCH_PARTITIONS": str(settings.kafka.market_partitions),
    }  # fmt: skip
    script = Path(__file__).with_name("quix_agent.py" if quix else "plain_agent.py")
    python = str(quix or sys.executable)
    idle = await _start_cost(python, script, environment)
    started = time.monotonic()
    with (work / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            python, str(script), *(() if quix else ("worker", "-l", "error", "--web-port", str(free_port()))),
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while (line := await asyncio.wait_for(process.stdout.readline(), 300)) and line.strip() != b"done":
                pass
            assert line, (work / f"{name}.log").read_text()[-2000:]
            spent = cpu_s(process.pid) - idle
        finally:
            process.terminate()
            await process.wait()
    return events, spent, time.monotonic() - started


async def _start_cost(python: str, script: Path, environment: dict[str, str]) -> float:
    """CPU seconds that importing alone takes, to be left out as it is for the processor."""
    process = await asyncio.create_subprocess_exec(
        python, "-c",
        f"import runpy, time; runpy.run_path({str(script)!r}); print(time.process_time())",
        env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return float(out.split()[-1])


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, nargs="*", default=[100])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--plain-events", type=int, default=40_000)
    parser.add_argument("--no-peers", action="store_true", help="without quixstreams, which is installed for it")
    json_option(parser)
    options = parser.parse_args()
    told = Results("processor")
    base = load_settings()
    try:
        quix = None if options.no_peers else interpreter(lambda text: print(text, file=sys.stderr))
    except PeerError as error:
        print(f"without quixstreams: {error}", file=sys.stderr)
        quix = None
    for books in options.books:
        results: dict[str, tuple[int, float, float]] = {}
        say: Any = lambda text: print(text, file=sys.stderr)  # noqa: E731
        with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
            work = Path(temporary)
            async with private_broker(base, say) as settings:
                say(f"{books} books: the processor")
                results["venue-mirror process"] = await ours(settings, Log(books, 7), options.events, work)
                for mode, label in (("bare", "plain agent, nothing written"), ("usual", "plain agent, the usual way")):
                    say(f"{books} books: {label}")
                    results[label] = await plain(settings, mode, options.plain_events, work)
                if quix is not None:
                    say(f"{books} books: {QUIX}")
                    results[QUIX] = await plain(settings, "quix", options.plain_events, work, quix)
        rates = {name: events / spent for name, (events, spent, _) in results.items()}
        own = rates["venue-mirror process"]
        print_table(
            f"{books} books of {DEPTH} levels a side, 2 levels a side an event",
            ("one process", "events", "events/s of one core", "µs an event", "venue-mirror is"),
            [
                (name, f"{results[name][0]:,}", f"{rate:,.0f}", f"{1e6 / rate:.1f}", f"{own / rate:.1f} ×")
                for name, rate in rates.items()
            ],
        )
        faust = version("faust-streaming")
        for name, rate in rates.items():
            if name != "venue-mirror process":
                told.add(
                    f"{books} books", own, "events/s of one core", theirs=rate,
                    alternative=name if name == QUIX else f"Faust {faust}, {name}",
                    better="higher", aim=Aim("≥", 15, "ratio") if "usual" in name else None,
                )  # fmt: skip
        told.add(f"{books} books, alone", own, "events/s of one core", better="higher", aim=Aim("≥", 40_000))
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
