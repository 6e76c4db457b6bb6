"""The whole mirror at a steady rate for a long time: memory, lag and mismatches of every process, sampled and judged.

    python -m tests.chaos.soak --minutes 60 --rate 650 --out results/soak

A venue with frames as large as its busy instruments' (simulator/load_venue.py; 650 book events a second are 8 GB of
them an hour), its collector, two processors and the archiver on one embedded broker. Every sample is a line of JSON in
``OUT/soak.jsonl``; at the end the slopes are judged and, where matplotlib is installed, drawn to ``OUT/soak.png``. Flat
means: the line fitted through a process's memory after the first fifth grows by less than GROWTH of its level in an hour,
and by less than NOISE_MB over what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.all import RESULTS, busy_percent, machine, write
from benchmarks.page import number as three_digits
from benchmarks.results import Aim, Results
from benchmarks.throughput import FLOOR_GB_H
from bus.broker import EmbeddedBroker
from cli.stack import Stack, free_port, private_broker
from cli.views import ViewError, Views
from config.settings import load_settings
from simulator.load_venue import LoadVenue
from tests.chaos.cluster_checks import Findings, Mirrored, Prober
from tests.chaos.cluster_rooms import resident_mb
from tests.e2e.rooms import section

GROWTH, NOISE_MB = 0.10, 12.0
WARM = 0.2
"""Share of the samples at the beginning that are not judged: caches and tables fill."""
LAG_MAX = 2.0
"""Seconds of the offered rate that may be unread at the end more than after the warm part."""

ROOT = Path(__file__).resolve().parent.parent.parent
Sample = dict[str, Any]


def slope_per_hour(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line through (seconds, value)."""
    n = len(points)
    if n < 2:
        return 0.0
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def judge(samples: list[Sample], rate: float) -> Results:
    """What was seen, as rows with aims; a missed one fails the soak. Raises SystemExit where there is too little to judge."""
    told, warm = Results("soak"), samples[int(len(samples) * WARM) :]
    if len(warm) < 4:
        raise SystemExit("error: too few samples to judge; give it more --minutes")
    first, last = samples[0], samples[-1]
    hours, took_s = (warm[-1]["s"] - warm[0]["s"]) / 3600, last["s"] - first["s"]
    volume, events = ((last[name] - first[name]) / took_s for name in ("frame_bytes", "events"))
    told.add("raw venue messages", volume * 3600 / 1e9, "GB/h", theirs=FLOOR_GB_H, better="higher",
             alternative="the floor of 4 GB an hour")  # fmt: skip
    told.add("book events a second", events, "events/s", theirs=rate, better="higher", alternative="the rate of the venue")
    for name in last["memory_mb"]:
        points = [(s["s"], float(s["memory_mb"][name])) for s in warm if s["memory_mb"].get(name)]
        level = sum(y for _, y in points) / max(1, len(points))
        told.add(f"memory of {name}", level, "MB")
        told.add(f"memory of {name}: growth", slope_per_hour(points), "MB/h",
                 aim=Aim("≤", round(max(GROWTH * level, NOISE_MB / hours), 1)))  # fmt: skip
    lags = [(s["s"], s["lag"]) for s in warm if s["lag"] is not None]
    told.add("records not yet read", sum(y for _, y in lags) / max(1, len(lags)), "records")
    told.add("records not yet read: growth", slope_per_hour(lags), "records/h", aim=Aim("≤", round(LAG_MAX * rate / hours)))
    told.add("answers of the views LIVE and equal to the venue's own", last["probes"], "answers", aim=Aim("≥", 1))
    told.add("answers that were wrong", last["wrong"], "answers", aim=Aim("≤", 0))
    told.add("key frames equal to the book", last["keyframes_ok"], "key frames", aim=Aim("≥", 1))
    for what, name in (
        ("key frames other than the book", "keyframes_bad"), ("gaps", "gaps"), ("audits that differed", "audit_mismatches"),
    ):  # fmt: skip
        told.add(what, last[name], "books", aim=Aim("≤", 0))
    return told


def add_to_page(told: Results, samples: list[Sample], command: str, busy: int) -> None:
    """Put the rows and the plot into BENCHMARKS.md."""
    draw(samples, ROOT / "docs" / "images" / "soak.png")
    entry = {
        "benchmark": told.benchmark, "command": command, "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "about": (__doc__ or "").partition("\n")[0], "seconds": round(samples[-1]["s"]), "busy_before": busy, "failure": "",
        "machine": machine(), "rows": [asdict(row) for row in told.rows],
    }  # fmt: skip
    found = [one for one in json.loads(RESULTS.read_text("utf-8")) if one["benchmark"] != told.benchmark]
    RESULTS.write_text(json.dumps([*found, entry], ensure_ascii=False, indent=1) + "\n", "utf-8")
    write([*found, entry])


def draw(samples: list[Sample], to: Path) -> None:
    """Memory, lag and events a second over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (memory, lag, rate) = plt.subplots(3, 1, figsize=(9, 8), sharex=True, constrained_layout=True)
    minutes = [s["s"] / 60 for s in samples]
    for name in samples[-1]["memory_mb"]:
        memory.plot(minutes, [s["memory_mb"].get(name) for s in samples], label=name)
    memory.set_ylabel("resident memory, MB")
    memory.set_ylim(bottom=0)
    memory.legend(fontsize=8, ncols=3)
    lag.plot(minutes, [s["lag"] for s in samples])
    lag.set_ylabel("records not yet read")
    lag.set_ylim(bottom=0)
    rate.plot(minutes[1:], [s["events_per_s"] for s in samples[1:]])
    rate.set_ylabel("book events a second")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("minutes")
    for axis in (memory, lag, rate):
        axis.grid(alpha=0.3)
    figure.savefig(to, dpi=110)
    figure.savefig(to.with_suffix(".svg"), metadata={"Date": None})


async def main() -> int:
    """The command; 0 when all was flat and nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=650, help="book events a second, of about 3.6 kB with what comes between")
    parser.add_argument("--instruments", type=int, default=100)
    parser.add_argument("--every", type=float, default=5, help="seconds between two samples")
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    parser.add_argument("--page", action="store_true", help="put the result and the plot into BENCHMARKS.md")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    busy = await asyncio.to_thread(busy_percent)
    me = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel if me is not None else sys.exit)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="venue-mirror-soak-") as temporary:
        work = Path(temporary)
        base = load_settings(
            None, processor={"app_id": f"soak-{int(time.time())}", "data_dir": work / "faust"},
            history={"root": str(work / "history"), "topics": ("market.book",), "flush_s": 20.0},
        )  # fmt: skip
        async with private_broker(base, say) as settings:
            broker = EmbeddedBroker(settings.broker).status()
            venue = LoadVenue(instruments=given.instruments, rate=given.rate)
            await venue.start()
            collected = section(venue.adapter, venue, channels=("book", "trade", "ticker"))
            settings = settings.model_copy(update={"venues": {"soak": collected}})
            findings = Findings()
            async with Stack(settings, work / "logs") as stack:
                ports, metrics = [free_port(), free_port()], free_port()
                collector = settings.collector.model_copy(update={"metrics_port": metrics})
                await stack.start("collector", "collect", "soak", settings=settings.model_copy(update={"collector": collector}))
                for number, port in enumerate(ports, 1):
                    own = settings.processor.model_copy(update={"web_port": port})
                    await stack.start(f"processor {number}", "process", settings=settings.model_copy(update={"processor": own}))
                await stack.start("archiver", "archive")
                mirrored = Mirrored("soak", lambda: venue.books, venue.natives_by_symbol, venue.wire.by_time)
                prober = Prober(ports, [mirrored], findings, 1)
                say(f"{given.instruments} books LIVE and equal after {await prober.until_all_equal(240):.0f} s")
                probing = asyncio.create_task(prober.run())
                pids = {child.name: child.process.pid for child in stack.children} | ({"kafka": broker.pid} if broker else {})
                samples = await _sample(given, stack, pids, ports, metrics, findings)
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
            await venue.stop()
    told = judge(samples, given.rate)
    print(f"{samples[-1]['s'] / 60:.1f} minutes, {given.instruments} books")
    for row in told.rows:
        verdict = {True: f" (aim {row.aim})", False: f", NOT {row.aim}", None: ""}[row.met]
        print(f"{row.row}: {three_digits(row.ours)} {row.unit}{verdict}")
    print(f"probes: {dict(findings.looked)} {findings.problems[:3]}")
    with contextlib.suppress(ImportError):
        draw(samples, given.out / "soak.png")
    if given.page:
        add_to_page(told, samples, " ".join(["python -m tests.chaos.soak", *sys.argv[1:]]), busy)
    return int(any(row.met is False for row in told.rows))


async def _sample(
    given: argparse.Namespace, stack: Stack, pids: dict[str, int], ports: list[int], metrics: int, findings: Findings
) -> list[Sample]:
    samples: list[Sample] = []
    started = time.monotonic()
    with (given.out / "soak.jsonl").open("w", encoding="utf-8") as out:
        while (now := time.monotonic() - started) < given.minutes * 60:
            stack.check()
            processors, collected = dict[str, float](), dict[str, float]()
            async with Views(f"http://127.0.0.1:{ports[0]}") as views:
                with contextlib.suppress(ViewError):
                    collected = await views.metrics(f"http://127.0.0.1:{metrics}/metrics")
                    for port in ports:
                        for name, value in (await views.metrics(f"http://127.0.0.1:{port}/metrics")).items():
                            processors[name] = processors.get(name, 0.0) + value
            events = processors.get("processor_events_total", samples[-1]["events"] if samples else 0.0)
            before = samples[-1] if samples else {"s": now, "events": events}
            sample = {
                "s": round(now, 1), "memory_mb": {name: resident_mb(pid) for name, pid in pids.items()},
                "lag": processors.get("processor_lag"), "events": events,
                "events_per_s": (events - before["events"]) / max(0.001, now - before["s"]),
                "queue": collected.get("collector_producer_queue"), "gaps": processors.get("processor_gaps_total", 0),
                "keyframes_ok": processors.get("processor_keyframes_ok_total", 0),
                "keyframes_bad": processors.get("processor_keyframes_bad_total", 0),
                "frame_bytes": collected.get("collector_frame_bytes_total", samples[-1]["frame_bytes"] if samples else 0),
                "audit_mismatches": collected.get("collector_audit_mismatches_total", 0),
                "probes": findings.looked["LIVE and equal"], "wrong": len(findings.problems),
            }  # fmt: skip
            samples.append(sample)
            out.write(json.dumps(sample) + "\n")
            out.flush()
            await asyncio.sleep(given.every)
    return samples


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
