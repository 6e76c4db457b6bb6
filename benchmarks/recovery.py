"""From a worker's kill -9 until every book is LIVE again, with and without standby replicas, in the same run.

    python benchmarks/recovery.py [--books 500] [--levels 400] [--rate 1500] [--kills 4]

Two workers share the partitions of one synthetic venue; one of them is killed and started again a moment later, by
turns of both settings on one broker. What is timed begins with the kill: it holds the time after which Kafka gives a
silent worker up (``processor.session_timeout_s``). Beside it, what keeping the other's checkpoints costs: the CPU of
both workers over ten seconds without a fault.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mirror_stack import cpu_s, log_to
from benchmarks.results import Results, json_option
from benchmarks.table import print_table
from cli.stack import Child, Stack, free_port, private_broker
from cli.views import ViewError, Views
from config.settings import Settings, VenueSettings, load_settings

VENUE = "bench"
STEADY_S = 10.0
LIVE_S = 300.0


class Pair:
    """Two workers of one group."""

    def __init__(self, settings: Settings, stack: Stack, books: int, standby: int, work: Path) -> None:
        self.stack, self.books, self.standby = stack, books, standby
        section = settings.processor.model_copy(
            update={"app_id": f"bench-{standby}-{time.time_ns()}", "standby_replicas": standby, "data_dir": work / "faust"}
        )
        self._settings = settings.model_copy(update={"processor": section})
        self.workers: dict[int, Child] = {}

    async def start(self, port: int) -> None:
        """Start one."""
        own = self._settings.processor.model_copy(update={"web_port": port})
        settings = self._settings.model_copy(update={"processor": own})
        self.workers[port] = await self.stack.start(f"worker-{self.standby}-{port}", "process", settings=settings)

    async def live(self) -> None:
        """Wait until the workers together hold every book LIVE."""
        deadline = time.monotonic() + LIVE_S
        while time.monotonic() < deadline:
            for port in self.workers:
                async with Views(f"http://127.0.0.1:{port}") as views:
                    with contextlib.suppress(ViewError, TimeoutError):
                        status = await asyncio.wait_for(views.get("/status"), 5)
                        if status["states"].get("LIVE", 0) >= self.books and not status["silent"]:
                            return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"not every book was LIVE within {LIVE_S:g} s")

    async def steady(self) -> float:
        """Share of a core that both workers take together."""
        pids = [child.process.pid for child in self.workers.values()]
        before = sum(map(cpu_s, pids))
        await asyncio.sleep(STEADY_S)
        return (sum(map(cpu_s, pids)) - before) / STEADY_S

    async def kill(self, chance: random.Random) -> float:
        """Kill one, start it again, wait; gives the seconds from the kill on."""
        port = chance.choice(sorted(self.workers))
        child = self.workers[port]
        self.stack.children.remove(child)
        started = time.monotonic()
        os.kill(child.process.pid, signal.SIGKILL)
        await child.process.wait()
        await self.start(port)
        await self.live()
        return time.monotonic() - started

    async def stop(self) -> None:
        """End both."""
        for child in self.workers.values():
            await self.stack.stop(child)


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=500)
    parser.add_argument("--levels", type=int, default=400)
    parser.add_argument("--rate", type=float, default=1500)
    parser.add_argument("--kills", type=int, default=4)
    json_option(parser)
    options = parser.parse_args()
    times: dict[int, list[float]] = {0: [], 1: []}
    cost: dict[int, float] = {}
    chance = random.Random(5)
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        work = Path(temporary)
        async with private_broker(load_settings(), log_to) as settings:
            port = free_port()
            address = f"127.0.0.1:{port}"
            venue = VenueSettings(  # pyright: ignore[reportCallIssue]
                adapter="binance-usdm", rest_url=f"http://{address}", ws_url=f"ws://{address}", rest_weight_per_minute=10_000_000
            )
            collector = settings.collector.model_copy(update={"metrics_port": free_port()})
            own = settings.model_copy(update={"venues": {VENUE: venue}, "collector": collector})
            async with Stack(own, work) as stack:
                await stack.start(
                    "venue", "simulate", "synthetic", "--adapter", "binance-usdm", "--instruments", str(options.books),
                    "--rate", str(options.rate), "--port", str(port), "--levels", str(options.levels),
                )  # fmt: skip
                await stack.start("collector", "collect", VENUE)
                for standby in (0, 1):
                    pair = Pair(own, stack, options.books, standby, work)
                    for _ in range(2):
                        await pair.start(free_port())
                    await pair.live()
                    await asyncio.sleep(5)
                    cost[standby] = await pair.steady()
                    for number in range(options.kills):
                        times[standby].append(await pair.kill(chance))
                        log_to(f"standby {standby}, kill {number + 1}/{options.kills}: {times[standby][-1]:.1f} s")
                        await asyncio.sleep(3)
                    await pair.stop()
    means = {standby: sum(ts) / len(ts) for standby, ts in times.items()}
    print_table(
        f"{options.books} books × {options.levels} levels a side, {options.rate:g} events/s, two workers, "
        f"a silent one is given up after {settings.processor.session_timeout_s:g} s",
        ("processor.standby_replicas", "until LIVE, mean", "longest", "CPU of both workers"),
        [(str(n), f"{means[n]:.1f} s", f"{max(times[n]):.1f} s", f"{cost[n]:.0%}") for n in times],
    )
    told = Results("recovery")
    told.add("kill -9 until LIVE, with one standby", means[1], "s", theirs=means[0], alternative="without a standby")
    told.add("CPU of two workers, with one standby", 100 * cost[1], "%", theirs=100 * cost[0], alternative="without a standby")
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
