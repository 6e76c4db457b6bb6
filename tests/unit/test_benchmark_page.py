"""The page of numbers: what is not ahead stands first, and the committed page is the one that the results give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.all import kill_rest, names
from benchmarks.page import page
from benchmarks.plots import write_plots
from benchmarks.results import Aim, Results


def found(results: Results, failure: str = "") -> dict[str, Any]:
    """As benchmarks/all.py makes it."""
    rows = [vars(row) for row in results.rows]
    return {
        "benchmark": results.benchmark, "command": f"python benchmarks/{results.benchmark}.py", "date": "2026-01-02",
        "seconds": 3, "busy_before": 0, "failure": failure, "machine": {"processor": "two cores"}, "rows": rows,
    }  # fmt: skip


def some() -> list[dict[str, Any]]:
    collector, workers = Results("collector"), Results("workers")
    collector.add("okx: parse + book", 2.0, "µs a frame", theirs=8.0, alternative="cryptofeed 2.4.1: parse + book",
                  aim=Aim("≥", 3, "ratio"))  # fmt: skip
    collector.add("kraken: parse + book", 2.0, "µs a frame", theirs=4.0, alternative="cryptofeed 2.4.1: parse + book",
                  aim=Aim("≥", 3, "ratio"))  # fmt: skip
    for n in (500, 1000):
        workers.add(f"{n} workers: memory a worker", n / 100, "KB")
    processor = Results("processor")
    for n in (100, 1000):
        processor.add(f"{n} books", 40_000, "events/s", theirs=20_000, alternative="a plain agent", better="higher")
    return [found(processor), found(collector), found(workers, "stopped after its share of 5 s")]


def test_a_missed_aim_and_a_failed_benchmark_stand_first(tmp_path: Path) -> None:
    text = page(some(), tmp_path)
    first = text.split("## Where we are not ahead")[1].split("\n## ")[0]
    assert "kraken: parse + book: 2 µs a frame, cryptofeed 2.4.1: parse + book 4 (2 ×); the aim is ≥ 3 ×." in first
    assert "stopped after its share" in first
    assert "okx" not in first
    assert "cryptofeed 2.4.1." in text.split("## ")[0]


def test_plots_are_drawn_of_what_was_measured_at_several_sizes(tmp_path: Path) -> None:
    made = write_plots(some(), tmp_path)
    assert [path.name for path in made] == ["bench-collector.png", "bench-workers.png", "bench-books.png"]
    assert all(path.stat().st_size > 1000 and path.with_suffix(".svg").exists() for path in made)
    assert "docs/images/bench-workers.png" in page(some(), tmp_path)


def test_every_benchmark_that_writes_rows_is_run() -> None:
    assert {"collector", "workers", "processor", "latency", "chain", "reaction", "throughput", "ccxt_tap"} <= set(names())
    assert "all" not in names(), "it would start itself"


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_what_a_killed_benchmark_leaves_running_is_killed_and_nothing_else(tmp_path: Path) -> None:
    def start(folder: Path) -> subprocess.Popen[bytes]:
        # A session of its own, as a broker has.
        command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": str(folder)}, start_new_session=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        return child

    left, other = start(tmp_path / "one"), start(tmp_path / "one-more")
    try:
        assert kill_rest(str(tmp_path / "one")) == 1
        left.wait(60)
        assert other.poll() is None
    finally:
        for child in (left, other):
            child.kill()
            child.wait()
