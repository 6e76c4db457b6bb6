"""How the cost of one collector process grows with the number of its workers, on a synthetic venue of its own.

    python benchmarks/workers.py [--workers 500 1000 2000 5000] [--rate 500] [--seconds 10]

For each size: a venue of so many instruments in one process (Binance's futures protocol), one collector, the embedded
broker. Start: from the collector's first breath until every book is LIVE, REST snapshots included. Memory a worker is what
the process holds above one with ten workers. Then 100 listings and 100 delistings while it runs: all followed, and how many
other books were disturbed (their epoch changed). The venue's size and rate of events are named; ratios are to the first row.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp

from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.consumer import TailReader
from cli.stack import Child, Stack, free_port, private_broker
from cli.views import ViewError, Views
from config.settings import Settings, VenueSettings, load_settings
from schemas.codec import codec

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CHURN = 100
DISCOVERY_S = 10.0
SETTLE_S = 3.0
"""From the discovery that finds a listing, itself jittered, to its book being LIVE."""
FEW = 10


def cpu_s(pid: int) -> float:
    """User and system CPU seconds so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    """Bytes in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


class Run:
    """One size."""

    def __init__(self, settings: Settings, workers: int, rate: float, seconds: float, work: Path) -> None:
        self.workers = workers
        self.rate = rate
        self.seconds = seconds
        self.work = work / str(workers)
        self.port, self.metrics_port = free_port(), free_port()
        url = f"127.0.0.1:{self.port}"
        self.name = f"bench-{workers}-{time.time_ns()}"
        section = VenueSettings(
            adapter="binance-usdm", rest_url=f"http://{url}", ws_url=f"ws://{url}", rest_weight_per_minute=10_000_000
        )
        collector = settings.collector.model_copy(
            update={"metrics_port": self.metrics_port, "discovery_s": DISCOVERY_S, "audit_s": 0.0}
        )
        self.settings = settings.model_copy(update={"venues": {self.name: section}, "collector": collector})
        self.base = f"http://127.0.0.1:{self.metrics_port}"

    async def measure(self) -> dict[str, float]:
        """All figures of this size."""
        async with Stack(self.settings, self.work) as stack, Views(self.base) as views:
            venue = await stack.start(
                "venue", "simulate", "synthetic", "--adapter", "binance-usdm", "--instruments", str(self.workers),
                "--rate", str(self.rate), "--port", str(self.port),
            )  # fmt: skip
            await stack.until("the venue", self._venue_ready, 60)
            started = time.monotonic()
            child = await stack.start("collector", "collect", self.name)
            await stack.until("all LIVE", lambda: self._live(views, self.workers), 600, pause_s=0.2)
            live_s = time.monotonic() - started
            before, events = cpu_s(child.process.pid), await self._events(views)
            at = time.monotonic()
            await asyncio.sleep(self.seconds)
            share = (cpu_s(child.process.pid) - before) / (time.monotonic() - at)
            rate = (await self._events(views) - events) / (time.monotonic() - at)
            memory = resident(child.process.pid)
            churn = await self._churn(stack, views, child) if self.workers > FEW else {}
            del venue
            return {"live_s": live_s, "cpu": share, "rate": rate, "memory": memory, **churn}

    async def _churn(self, stack: Stack, views: Views, child: Child) -> dict[str, float]:
        """100 listings and 100 delistings at once."""
        before = await asyncio.to_thread(self._statuses)
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{self.port}"
            natives = sorted((await (await session.get(f"{url}/truth")).json())["symbols"])[:CHURN]
            for native in natives:
                (await session.post(f"{url}/control/delist", params={"symbol": native})).raise_for_status()
            (await session.post(f"{url}/control/storm", params={"n": str(CHURN)})).raise_for_status()
        started = time.monotonic()
        await asyncio.sleep(0.5)

        async def followed() -> bool:
            now = await asyncio.to_thread(self._statuses)
            gone = sum(state == "DELISTED" for state, _ in now.values())
            return gone == CHURN and len(now) == len(before) + CHURN and await self._live(views, self.workers)

        await stack.until("listings and delistings", followed, 6 * DISCOVERY_S, pause_s=0.5)
        took = time.monotonic() - started
        now = await asyncio.to_thread(self._statuses)
        disturbed = sum(
            now[symbol][1] != epoch for symbol, (_, epoch) in before.items() if now[symbol][0] != "DELISTED"
        )
        return {"churn_s": took, "disturbed": disturbed}

    def _statuses(self) -> dict[str, tuple[str, int]]:
        """(state, epoch) of every book of the venue, from market.status."""
        reader = TailReader(self.settings, ["market.status"], start="beginning")
        decode, out = codec("BookStatus").decode, {}
        for message in reader.read_to_end(60):
            record = decode(message.value())
            if record["venue"] == self.name:
                out[record["symbol"]] = (record["state"], record["epoch"])
        reader.close()
        return out

    async def _venue_ready(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        except OSError:
            return False

    async def _live(self, views: Views, count: int) -> bool:
        try:
            books = (await views.get("/healthz"))["books"]
        except ViewError:
            return False
        return books.get("LIVE", 0) == count == sum(books.values())

    async def _events(self, views: Views) -> float:
        m = await views.metrics()
        return sum(m.get(f"collector_{name}_total", 0) for name in ("book_events", "trades"))


def note(told: Results, n: int, r: dict[str, float], first: dict[str, float], floor: float, fewest: int) -> None:
    """The rows of one size."""
    same = f"the same with {fewest} workers"
    told.add(f"{n} workers: CPU of one core", 100 * r["cpu"], "%", theirs=100 * first["cpu"], alternative=same)
    told.add(f"{n} workers: memory a worker", (r["memory"] - floor) / n / 1024, "KB", aim=Aim("≤", 40))
    told.add(f"{n} workers: start to all LIVE", r["live_s"], "s")
    told.add(f"{n} workers: events", r["rate"], "events/s", better="higher")
    told.add(
        f"{n} workers: {CHURN} listed and {CHURN} delisted", r["churn_s"], "s", aim=Aim("≤", DISCOVERY_S * 1.2 + SETTLE_S)
    )  # fmt: skip
    told.add(f"{n} workers: others disturbed by that", r["disturbed"], "books", aim=Aim("≤", 0))


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[500, 1000, 2000, 5000])
    parser.add_argument("--rate", type=float, default=500, help="events a second of the whole venue")
    parser.add_argument("--seconds", type=float, default=10)
    json_option(parser)
    options = parser.parse_args()
    base = load_settings()
    say: Any = lambda text: print(text, file=sys.stderr)  # noqa: E731
    results: dict[int, dict[str, float]] = {}
    told = Results("workers")
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        async with private_broker(base, say) as settings:
            base_run = await Run(settings, FEW, options.rate, options.seconds, Path(temporary)).measure()
            floor = base_run["memory"]
            for workers in options.workers:
                r = results[workers] = await Run(settings, workers, options.rate, options.seconds, Path(temporary)).measure()
                say(f"{workers} workers: {r}")
                note(told, workers, r, results[options.workers[0]], floor, options.workers[0])
                told.write(options.json)  # after each size: the next may be cut off
    first = results[options.workers[0]]
    print_table(
        f"one collector process, {options.rate:g} events a second in all",
        ("workers", "all LIVE", "CPU share", "ratio", "KB a worker", "events/s",
         f"{CHURN} listed + {CHURN} delisted", "others disturbed"),
        [
            (str(n), f"{r['live_s']:.1f} s", f"{r['cpu']:.0%}", f"{r['cpu'] / first['cpu']:.2f} ×",
             f"{(r['memory'] - floor) / n / 1024:.0f}", f"{r['rate']:,.0f}", f"{r['churn_s']:.1f} s", f"{r['disturbed']:.0f}")
            for n, r in results.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
