"""Raw venue bytes an hour through collector, Kafka and processor, sustained, with the lag not growing.

    python benchmarks/throughput.py [--rate 700] [--instruments 100] [--seconds 300] [--small]

Frames are as those of the real venue's busy instruments: 68 levels in each of the depth's, and ten of the best bid and
offer and three trades between two of them (simulator/load_venue.py). ``--small``: three levels a frame and now and then a
trade, as of quiet ones, which cost the most for their bytes. ``--rate`` counts book events.

Beside it, the share of the CPU that each process takes, and what the same rate costs a bare collector (a loop of msgspec
decode and dict books, from benchmarks/bare_loop.py) would be told by benchmarks/collector.py. The ratio here is to the
floor that the mirror has to carry: 4 GB of market data an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.mirror_stack import broker_pid, cpu_s, log_to, mirror
from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from cli.stack import private_broker
from config.settings import load_settings

FLOOR_GB_H = 4


async def main() -> int:
    """Run and print; exit code 1 when the lag grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=700, help="book events a second")
    parser.add_argument("--instruments", type=int, default=100)
    parser.add_argument("--small", action="store_true", help="small frames, as quiet instruments have")
    parser.add_argument("--seconds", type=float, default=300)
    json_option(parser)
    options = parser.parse_args()
    lags: list[float] = []
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        async with (
            private_broker(load_settings(), log_to) as settings,
            mirror(
                settings, Path(temporary), instruments=options.instruments, rate=options.rate, busy=not options.small
            ) as running,
        ):
            await asyncio.sleep(5)
            pids = {
                "venue (simulated)": running.venue.process.pid, "collector": running.collector.process.pid,
                "processor": running.processor.process.pid,
            }  # fmt: skip
            if (pid := broker_pid(settings)) is not None:
                pids["Kafka"] = pid
            cpu, before, started = {n: cpu_s(p) for n, p in pids.items()}, await running.collector_metrics(), time.monotonic()
            while time.monotonic() - started < options.seconds:
                await asyncio.sleep(min(5.0, options.seconds / 4))
                running.stack.check()
                lags.append((await running.views.metrics()).get("processor_lag", 0.0))
            took = time.monotonic() - started
            after, processed = await running.collector_metrics(), await running.views.metrics()
            spent = {name: cpu_s(pid) - cpu[name] for name, pid in pids.items()}

    def rate(name: str) -> float:
        return (after[f"collector_{name}_total"] - before[f"collector_{name}_total"]) / took

    gb_h = rate("frame_bytes") * 3600 / 1e9
    third = max(1, len(lags) // 3)
    first, last = sum(lags[:third]) / third, sum(lags[-third:]) / third
    total = sum(spent.values())
    print_table(
        f"{took:.0f} s: {gb_h:.2f} GB/h of venue messages ({gb_h / FLOOR_GB_H:.2f} × the floor of {FLOOR_GB_H} GB/h), "
        f"{rate('frames'):,.0f} messages/s, {rate('book_events'):,.0f} book events/s; "
        f"waiting records: {first:,.0f} in the first third, {last:,.0f} in the last; "
        f"gaps {processed['processor_gaps_total']:.0f}, congestions {after['collector_congestions_total']:.0f}",
        ("process", "CPU of one core", "share"),
        [(name, f"{s / took:.0%}", f"{s / total:.0%}") for name, s in spent.items()],
    )
    told = Results("throughput")
    told.add(f"raw venue messages, {took:.0f} s", gb_h, "GB/h", better="higher", aim=Aim("≥", 10 * FLOOR_GB_H))
    told.add("records that wait, last third", last, "records", theirs=first, alternative="the first third")
    for name, s in spent.items():
        told.add(f"share of {name}", 100 * s / total, "%")
    told.write(options.json)
    return 1 if last > first * 2 + options.rate else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
