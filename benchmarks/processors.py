"""One, two and four processors of one group on the same log: book events a second together, and of one core.

    python benchmarks/processors.py [--workers 1 2 4] [--books 1000] [--events 400000]

Each time a broker of its own holds twelve empty partitions, the workers share them, and then the whole log is written as
fast as Kafka takes it. Measured from the first record to the last event in a book: events a second, and events by CPU
second of all workers together. The first is near-linear while there are cores left for workers, broker and writer; the
second says what another worker costs, and stays as it is where nothing is done twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mirror_stack import cpu_s, log_to
from benchmarks.processor import DEPTH, Log, fill
from benchmarks.results import Results, json_option
from benchmarks.table import print_table
from cli.stack import Stack, free_port, private_broker
from cli.views import Views
from config.settings import Settings, load_settings

FAR_S = 600.0


async def together(settings: Settings, workers: int, records: list[tuple[str, bytes]], work: Path) -> tuple[float, float]:
    """(seconds, CPU seconds of all workers) until so many processors have every record in their books."""
    app_id, partitions = f"bench-{workers}-{time.time_ns()}", settings.kafka.market_partitions
    async with contextlib.AsyncExitStack() as open_:
        stack = await open_.enter_async_context(Stack(settings, work))
        views: list[Views] = []
        children = []
        for number in range(workers):
            section = settings.processor.model_copy(
                update={"app_id": app_id, "web_port": free_port(), "data_dir": work / f"faust-{number}"}
            )
            own = settings.model_copy(update={"processor": section})
            children.append(await stack.start(f"processor-{number}", "process", settings=own))
            views.append(await open_.enter_async_context(Views(f"http://{section.web_host}:{section.web_port}")))

        async def total(name: str) -> float:
            stack.check()
            return sum([(await view.metrics()).get(name, 0.0) for view in views])

        async def shared() -> bool:
            if not all([await view.ready() for view in views]):
                return False
            held = [(await view.metrics()).get("processor_partitions", 0.0) for view in views]
            return sum(held) == partitions and min(held) > 0

        await stack.until(f"{workers} processors with all partitions", shared, 180, pause_s=0.5)
        pids = [child.process.pid for child in children]
        spent, started = sum(map(cpu_s, pids)), time.monotonic()
        await asyncio.to_thread(fill, settings, records)

        async def finished() -> bool:
            return await total("processor_events_total") >= len(records)

        await stack.until("all events", finished, FAR_S, pause_s=0.25)
        took = time.monotonic() - started
        spent = sum(map(cpu_s, pids)) - spent
        if wrong := await total("processor_gaps_total") + await total("processor_dead_letters_total"):
            raise SystemExit(f"{wrong:.0f} gaps and dead letters")
        return took, spent


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--events", type=int, default=400_000)
    json_option(parser)
    options = parser.parse_args()
    log = Log(options.books, 7)
    records = log.snapshots() + [log.delta() for _ in range(options.events)]
    found: dict[int, tuple[float, float]] = {}
    for workers in options.workers:
        log_to(f"{workers} processors")
        with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
            async with private_broker(load_settings(), log_to) as settings:
                found[workers] = await together(settings, workers, records, Path(temporary))
    told, rows = Results("processors"), list[tuple[str, ...]]()
    least = min(found)
    peer = f"the same with {least}"
    first, first_core = (len(records) / value for value in found[least])
    for workers, (took, spent) in found.items():
        rate, core = len(records) / took, len(records) / spent
        rows.append((str(workers), f"{rate:,.0f}", f"{rate / first:.2f} ×", f"{core:,.0f}", f"{core / first_core:.2f} ×",
                     f"{spent / took:.2f}"))  # fmt: skip
        told.add(f"{workers} processors: together", rate, "events/s", better="higher", theirs=first, alternative=peer)
        told.add(f"{workers} processors: of one core", core, "events/s", better="higher", theirs=first_core, alternative=peer)
        told.add(f"{workers} processors: cores used", spent / took, "cores")
    print_table(
        f"{options.books:,} books of {DEPTH} levels a side, {len(records):,} records, {os.cpu_count()} cores for all",
        ("processors", "events/s together", f"to {least}", "events/s of one core", f"to {least}", "cores they used"), rows,
    )
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
