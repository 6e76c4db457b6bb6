"""Raw venue bytes an hour through collector, Kafka and processor, sustained, with the lag not growing.

    python benchmarks/throughput.py [--rate 1200] [--small-rate 4000] [--instruments 100] [--seconds 300]

Twice: with frames as those of the real venue's busy instruments, 68 levels in each of the depth's, and ten of the best bid
and offer and three trades between two of them (simulator/load_venue.py); and with small ones, three levels a frame and now
and then a trade, as of quiet instruments, which cost the most for their bytes. Rates count book events a second; 0 leaves
one out. Beside it, the share of the CPU that each process takes. The ratio is to the floor that the mirror has to carry:
4 GB of market data an hour.
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
from cli.stack import StackError, private_broker
from config.settings import load_settings

FLOOR_GB_H = 4


async def main() -> int:
    """Run and print; exit code 1 when a lag grew or a book stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[1200],
        help="book events a second of busy instruments; of several, the first that the machine holds",
    )  # fmt: skip
    parser.add_argument("--small-rate", type=float, default=4000, help="the same of quiet ones")
    parser.add_argument("--instruments", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=300, help="of each")
    json_option(parser)
    options = parser.parse_args()
    told, held = Results("throughput"), True
    for busy, rates in ((True, options.rate), (False, [options.small_rate])):
        for rate in filter(None, rates):
            found = Results("throughput")
            try:
                holds = await sustain(busy, rate, options.instruments, options.seconds, found)
            except StackError as error:  # its books never became LIVE
                holds = False
                log_to(str(error).partition("\n")[0])
            if holds or rate == rates[-1]:
                told.rows += found.rows
                held &= holds
                break
            log_to(f"{rate:g} book events a second are too many for this machine now")
    told.write(options.json)
    return int(not held)


async def sustain(busy: bool, rate: float, instruments: int, seconds: float, told: Results) -> bool:
    """One kind of frames at this rate; whether it held: no lag that grew, no book that stopped because Kafka was behind."""
    lags: list[float] = []
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        async with (
            private_broker(load_settings(), log_to) as settings,
            mirror(settings, Path(temporary), instruments=instruments, rate=rate, busy=busy) as running,
        ):
            await asyncio.sleep(5)
            pids = {
                "venue (simulated)": running.venue.process.pid, "collector": running.collector.process.pid,
                "processor": running.processor.process.pid,
            }  # fmt: skip
            if (pid := broker_pid(settings)) is not None:
                pids["Kafka"] = pid
            # The clock is read when an answer is there: on a full machine one takes seconds.
            before = await running.collector_metrics()
            cpu, started = {n: cpu_s(p) for n, p in pids.items()}, time.monotonic()
            while time.monotonic() - started < seconds:
                await asyncio.sleep(min(5.0, seconds / 4))
                running.stack.check()
                lags.append((await running.views.metrics()).get("processor_lag", 0.0))
            after = await running.collector_metrics()
            spent, took = {name: cpu_s(pid) - cpu[name] for name, pid in pids.items()}, time.monotonic() - started
            processed = await running.views.metrics()

    def each_s(name: str) -> float:
        return (after[f"collector_{name}_total"] - before[f"collector_{name}_total"]) / took

    gb_h = each_s("frame_bytes") * 3600 / 1e9
    third = max(1, len(lags) // 3)
    first, last = sum(lags[:third]) / third, sum(lags[-third:]) / third
    total, kind = sum(spent.values()), "busy instruments" if busy else "small frames"
    print_table(
        f"{kind}, {took:.0f} s: {gb_h:.2f} GB/h of venue messages ({gb_h / FLOOR_GB_H:.2f} × the floor of {FLOOR_GB_H} GB/h), "
        f"{each_s('frames'):,.0f} messages/s, {each_s('book_events'):,.0f} book events/s; "
        f"waiting records: {first:,.0f} in the first third, {last:,.0f} in the last; "
        f"gaps {processed['processor_gaps_total']:.0f}, congestions {after['collector_congestions_total']:.0f}",
        ("process", "CPU of one core", "share"),
        [(name, f"{s / took:.0%}", f"{s / total:.0%}") for name, s in spent.items()],
    )
    aim = Aim("≥", 10 * FLOOR_GB_H) if busy else None
    told.add(f"{kind}: raw venue messages, {took:.0f} s", gb_h, "GB/h", better="higher", theirs=FLOOR_GB_H,
             alternative="the floor of 4 GB an hour", aim=aim)  # fmt: skip
    told.add(f"{kind}: records that wait, last third", last, "records", theirs=first, alternative="the first third")
    for name, s in spent.items():
        told.add(f"{kind}: share of {name}", 100 * s / total, "%")
    congested = after["collector_congestions_total"] - before["collector_congestions_total"]
    return last <= first * 2 + rate and not congested


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
