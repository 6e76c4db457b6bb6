"""What the web views cost the stream: one processor with and without requests, in the same run.

    python benchmarks/views.py [--books 1000] [--rate 500] [--events 150000] [--rounds 3]

First the stream at full speed: a log is written as fast as Kafka takes it, and the time until the processor has all of
it is taken, by turns without requests and with ``--rate`` requests a second from benchmarks/http_load.py. Then the
stream at 5,000 events a second, with requests: how long an answer takes. Of a hundred requests 60 are for a book of
twenty levels, 20 for /bbo, 18 for /cross, one for /status and one for /books.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mirror_stack import cpu_s, log_to
from benchmarks.processor import VENUE, Log
from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.producer import Producer
from cli.stack import Stack, free_port, private_broker
from cli.views import Views
from config.settings import Settings, load_settings

PACED = 5000
PACED_S = 20


def urls(address: str, books: int) -> list[str]:
    """A hundred requests."""
    symbols = [f"COIN{i % books}/USDT" for i in range(100)]
    out = [f"{address}/books/{VENUE}/{symbol}?depth=20" for symbol in symbols[:60]]
    out += [f"{address}/bbo?symbol={symbol}" for symbol in symbols[60:80]]
    out += [f"{address}/cross/{symbol}" for symbol in symbols[80:98]]
    return [*out, f"{address}/status?state=GAP", f"{address}/books"]


async def ask(rate: float, seconds: float, asked: list[str]) -> asyncio.subprocess.Process:
    """Start the load generator."""
    script = Path(__file__).with_name("http_load.py")
    return await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(rate), str(seconds), *asked, stdout=asyncio.subprocess.PIPE
    )


async def answers(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What the load generator saw."""
    out, _ = await process.communicate()
    return json.loads(out)


class Stream:
    """A log that is written, and the processor that reads it."""

    def __init__(self, settings: Settings, views: Views, stack: Stack, log: Log) -> None:
        self.views, self.stack, self.log = views, stack, log
        self.written = 0
        self._producer = Producer(settings, queue_max=2_000_000)

    def write(self, records: list[tuple[str, bytes]]) -> None:
        """As fast as Kafka takes it."""
        for key, value in records:
            self._producer.send("market.book", key, value)
        assert self._producer.flush(120) == 0
        self.written += len(records)

    async def read(self) -> None:
        """Wait until the processor has all of it."""

        async def all_of_it() -> bool:
            metrics = await self.views.metrics()
            assert metrics["processor_gaps_total"] == metrics["processor_dead_letters_total"] == 0, metrics
            return metrics["processor_events_total"] >= self.written

        await self.stack.until("all events", all_of_it, 300, pause_s=0.1)

    async def at_full_speed(self, events: int) -> float:
        """Events a second."""
        records = [self.log.delta() for _ in range(events)]
        started = time.monotonic()
        await asyncio.to_thread(self.write, records)
        await self.read()
        return events / (time.monotonic() - started)

    async def paced(self, seconds: float) -> None:
        """PACED events a second."""
        records = [[self.log.delta() for _ in range(PACED // 50)] for _ in range(int(seconds * 50))]
        due = time.monotonic()
        for part in records:
            await asyncio.to_thread(self.write, part)
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--events", type=int, default=150_000)
    parser.add_argument("--rounds", type=int, default=3)
    json_option(parser)
    options = parser.parse_args()
    alone: list[float] = []
    asked: list[float] = []
    loaded: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        async with private_broker(load_settings(), log_to) as settings:
            section = settings.processor.model_copy(
                update={
                    "app_id": f"bench-{time.time_ns()}", "web_port": free_port(), "data_dir": Path(temporary) / "faust",
                    "web_rate_per_s": 0,  # one address asks for all
                }
            )
            own, address = settings.model_copy(update={"processor": section}), f"http://127.0.0.1:{section.web_port}"
            async with Stack(own, Path(temporary)) as stack, Views(address) as views:
                child = await stack.start("processor", "process")
                await stack.until("the processor", views.ready, 120)
                log = Log(options.books, 7)
                stream = Stream(own, views, stack, log)
                await asyncio.to_thread(stream.write, log.snapshots())
                await stream.read()
                await stream.at_full_speed(options.events // 4)  # warm
                for number in range(options.rounds):
                    alone.append(await stream.at_full_speed(options.events))
                    log_to(f"{number + 1}/{options.rounds} alone: {alone[-1]:,.0f} events/s")
                    seconds = options.events / alone[-1] * 4 + 2
                    generator = await ask(options.rate, seconds, urls(address, options.books))
                    await asyncio.sleep(1.5)  # its own start
                    asked.append(await stream.at_full_speed(options.events))
                    loaded.append(await answers(generator))
                    log_to(f"{number + 1}/{options.rounds} asked: {asked[-1]:,.0f} events/s")
                # The same requests, the stream at an everyday rate.
                await stream.paced(2)
                before, spent = await views.metrics(), cpu_s(child.process.pid)
                await stream.paced(PACED_S)
                alone_s = cpu_s(child.process.pid) - spent
                generator, spent = await ask(options.rate, PACED_S, urls(address, options.books)), cpu_s(child.process.pid)
                await stream.paced(PACED_S)
                paced, asked_s = await answers(generator), cpu_s(child.process.pid) - spent
                after = await views.metrics()
    ms = paced["ms"]
    p50, p99 = ms[len(ms) // 2], ms[int(len(ms) * 0.99)]
    slow = sorted(m for one in loaded for m in one["ms"])
    without, during = sum(alone) / len(alone), sum(asked) / len(asked)
    print_table(
        f"{options.books} books; {options.rate:g} requests/s; answers {paced['statuses']}, errors {paced['errors']}",
        ("the stream", "without requests", "with requests", "of it is left"),
        [("at full speed, events/s", f"{without:,.0f}", f"{during:,.0f}", f"{during / without:.2f} ×"),
         (f"CPU of the processor at {PACED:,} events/s", f"{alone_s / PACED_S:.0%}", f"{asked_s / PACED_S:.0%}", "")],
    )  # fmt: skip
    print_table(
        "one answer", ("the stream", "p50", "p99", "longest"),
        [(f"{PACED:,} events/s", f"{p50:.1f} ms", f"{p99:.1f} ms", f"{ms[-1]:.1f} ms"),
         ("at full speed", f"{slow[len(slow) // 2]:.1f} ms", f"{slow[int(len(slow) * 0.99)]:.1f} ms", f"{slow[-1]:.1f} ms")],
    )  # fmt: skip
    checkpoints = after["processor_checkpoints_total"] - before["processor_checkpoints_total"]
    print(f"CPU of one request: {(asked_s - alone_s) / len(ms) * 1e6:,.0f} µs; checkpoints meanwhile: {checkpoints:,.0f}")
    told = Results("views")
    told.add(f"the stream under {options.rate:g} requests/s", during, "events/s", theirs=without,
             alternative="the stream without requests", better="higher", aim=Aim("≥", 0.7, "ratio"))  # fmt: skip
    told.add(f"an answer at {PACED} events/s, p99", p99, "ms", aim=Aim("≤", 50))
    told.add("an answer at full speed, p99", slow[int(len(slow) * 0.99)], "ms")
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
