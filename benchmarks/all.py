"""Runs every benchmark, each in its share of the time, and writes what they found: results, page and plots.

    python benchmarks/all.py [--only NAME ...] [--minutes 29] [--page]

Writes ``benchmarks/results.json``, ``BENCHMARKS.md`` and ``docs/images/bench-*.png`` and ``.svg``. A benchmark that fails
or takes longer than its share is shown as that on the page, and the rest goes on; what it had found by then counts. With
``--only`` the other benchmarks' results stay as they are in the file; ``--page`` runs nothing and writes the page anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.page import write_page
from benchmarks.plots import write_plots

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
SHARES: dict[str, tuple[int, list[str]]] = {
    "collector": (450, ["--rounds", "2", "--frames", "8000", "--kafka-frames", "1000"]),
    "steps": (30, []),
    "workers": (150, ["--seconds", "5"]),
    "ccxt_tap": (30, ["--seconds", "10"]),
    "processor": (250, ["--books", "100", "1000", "5000", "--plain-events", "25000"]),
    "processors": (120, []),
    "latency": (110, []),
    "throughput": (190, ["--seconds", "30", "--rate", "2800", "2000", "1300"]),
    "views": (120, ["--rounds", "2", "--events", "80000"]),
    "recovery": (130, ["--books", "200", "--kills", "2"]),
    "chain": (40, []),
    "reaction": (80, []),
    "console": (60, []),
}
"""Seconds and options, in the order of the page. A benchmark that is not named here gets the share below, and no options."""
USUAL_SHARE = 90
PATIENCE_S = 20.0
"""After being told to stop: a broker and the processes around it need a moment."""


def names() -> list[str]:
    """Every benchmark: a file of this folder that writes rows."""
    others = (path for path in FOLDER.glob("*.py") if path.name != Path(__file__).name)
    found = {path.stem for path in others if "json_option(parser)" in path.read_text("utf-8")}
    return [name for name in SHARES if name in found] + sorted(found - set(SHARES))


def busy_percent() -> int:
    """Of the CPU, by whatever else runs, looked at for a second."""

    def ticks() -> tuple[int, int]:
        fields = [int(field) for field in next(iter(_lines("/proc/stat")), "cpu 0 0 0 1 0").split()[1:9]]
        return sum(fields), sum(fields[3:5])

    before = ticks()
    time.sleep(1)
    total, idle = (now - then for now, then in zip(ticks(), before, strict=True))
    return round(100 * (1 - idle / total)) if total else 0


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": f"{cpu or platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{kib / (1 << 20):.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def run(name: str, share_s: float, options: list[str]) -> dict[str, Any]:
    """One benchmark; gives its rows and, where it failed, why. Its tables go to stdout, its progress to stderr."""
    busy, started = busy_percent(), time.monotonic()
    print(f"\n{name}: at most {share_s:.0f} s", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-", ignore_cleanup_errors=True) as folder:
        out, log = Path(folder) / "rows.json", Path(folder) / "log"
        with log.open("w") as errors:
            child = subprocess.Popen(
                [sys.executable, FOLDER / f"{name}.py", *options, "--json", out],
                stderr=errors, cwd=FOLDER.parent, env=os.environ | {"TMPDIR": folder},
            )  # fmt: skip
            failure = _ended(child, share_s)
            kill_rest(folder)
        last = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()][-1:]
        if failure and last:
            failure += f": {last[0][:200]}"
        rows = json.loads(out.read_text("utf-8")) if out.exists() else []
    if failure:
        print(f"{name}: {failure}", file=sys.stderr, flush=True)
    elif not rows:
        failure = "it wrote no rows"
    return {
        "benchmark": name,
        "command": " ".join(["python", f"benchmarks/{name}.py", *options]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started),
        "busy_before": busy,
        "failure": failure,
        "machine": machine(),
        "rows": rows,
    }


def _ended(child: subprocess.Popen[bytes], share_s: float) -> str:
    """Wait for its end; gives why it is none to be proud of. Told to stop, it stops its broker and children itself."""
    try:
        code = child.wait(share_s)
    except subprocess.TimeoutExpired:
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            child.send_signal(number)
            try:
                child.wait(PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        return f"stopped after its share of {share_s:.0f} s"
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait(PATIENCE_S)
        raise
    return f"ended with code {code}" if code else ""


def kill_rest(folder: str) -> int:
    """Kill what was started with this folder as its TMPDIR and still runs: a benchmark that had to be killed leaves its broker.

    Gives how many; knows of none where the system has no /proc.
    """
    mark, killed = f"TMPDIR={folder}".encode(), 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def _lines(path: str) -> Iterable[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except OSError:
        return ()


def write(found: list[dict[str, Any]]) -> None:
    """The page and its plots."""
    write_plots(found, FOLDER.parent / "docs" / "images")
    write_page(found, FOLDER.parent / "BENCHMARKS.md")


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=names(), default=None, metavar="NAME", help=", ".join(names()))
    parser.add_argument("--minutes", type=float, default=29, help="of the whole; shares shrink to fit")
    parser.add_argument("--page", action="store_true", help="only write the page and the plots anew")
    options = parser.parse_args()
    known = {one["benchmark"]: one for one in json.loads(RESULTS.read_text("utf-8"))} if RESULTS.exists() else {}
    if not options.page:
        chosen = names() if options.only is None else options.only
        shares = {name: SHARES.get(name, (USUAL_SHARE, [])) for name in chosen}
        # What stopping takes at the end of a share is in the whole, too; what one does not use is there for those after it.
        end, wanted = time.monotonic() + options.minutes * 60 - 60, sum(share for share, _ in shares.values())
        for name, (share_s, arguments) in shares.items():
            known[name] = run(name, share_s * max(0.1, min(1.0, (end - time.monotonic()) / wanted)), arguments)
            wanted -= share_s
            order = [*names(), *sorted(set(known) - set(names()))]
            found = [known[each] for each in order if each in known]
            RESULTS.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
            write(found)
    found = list(known.values())
    write(found)
    rows = [row for one in found for row in one["rows"]]
    print(
        f"{len(rows)} rows of {len(found)} benchmarks, {sum(row['met'] is True for row in rows)} aims met, "
        f"{sum(row['met'] is False for row in rows)} not; failed: "
        f"{', '.join(one['benchmark'] for one in found if one['failure']) or 'none'}"
    )


if __name__ == "__main__":
    main()
