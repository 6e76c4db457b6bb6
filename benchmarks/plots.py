"""Draws how costs grow, from what the benchmarks found: PNG and SVG into docs/images, one file a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORKERS = re.compile(r"(\d+) workers: (.+)")
BOOKS = re.compile(r"(\d+) books$")
PROCESSORS = re.compile(r"(\d+) process(?:or)?s?\b(.*)")
OWN, PEERS = "#1f6feb", ("#9aa4b2", "#d29922", "#8b5cf6")


def write_plots(found: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Those pictures for which there are rows; gives their PNG files. ``found`` is as benchmarks/all.py makes it."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Names and dates inside would make each run's file another one although nothing changed.
    mpl.rcParams.update({"svg.hashsalt": "venue-mirror", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    rows = {one["benchmark"]: one["rows"] for one in found}
    made: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (
        ("bench-collector", _collector(rows.get("collector", []))),
        ("bench-workers", _growth(rows.get("workers", []), WORKERS, "workers")),
        ("bench-books", _books(rows.get("processor", []))),
        ("bench-processors", _growth(_scaling(rows), PROCESSORS, "processors")),
    ):
        if figure is None:
            continue
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
        made.append(folder / f"{name}.png")
    return made


def _scaling(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows about several processors, whichever benchmark wrote them."""
    return [row for name in rows if name.startswith("processor") for row in rows[name]]


def _collector(rows: Sequence[dict[str, Any]]) -> Any:
    """Bars by venue: parse + book, with Avro and Kafka, and the libraries beside them."""
    from matplotlib.figure import Figure

    bars: dict[str, dict[str, float]] = {}
    for row in rows:
        venue, _, step = row["row"].partition(": ")
        if step in ("parse + book", "parse + book + Avro + Kafka"):
            bars.setdefault(f"venue-mirror: {step}", {})[venue] = row["ours"]
            if row["theirs"] and row["alternative"].endswith(": parse + book"):
                bars.setdefault(row["alternative"], {})[venue] = row["theirs"]
    venues = list(dict.fromkeys(venue for values in bars.values() for venue in values))
    if not venues:
        return None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(bars)
    colours = iter(PEERS)
    for number, (label, values) in enumerate(bars.items()):
        own = label.startswith("venue-mirror")
        axes.bar(
            [at + number * width for at in range(len(venues))], [values.get(venue, 0) for venue in venues], width,
            label=label, color=OWN if own else next(colours, "black"), alpha=0.5 if own and "Kafka" in label else 1.0,
        )  # fmt: skip
    axes.set_xticks([at + width * (len(bars) - 1) / 2 for at in range(len(venues))], venues)
    axes.set_yscale("log")
    axes.set_ylabel("CPU µs a frame")
    axes.legend(frameon=False)
    return figure


def _books(rows: Sequence[dict[str, Any]]) -> Any:
    """Events a second by the number of books, ours and the others'."""
    from matplotlib.figure import Figure

    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        if (match := BOOKS.match(row["row"])) is not None and row["theirs"]:
            lines.setdefault("venue-mirror", {})[int(match[1])] = row["ours"]
            lines.setdefault(row["alternative"], {})[int(match[1])] = row["theirs"]
    if max(map(len, lines.values()), default=0) < 2:
        return None
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for (label, values), colour in zip(lines.items(), (OWN, *PEERS), strict=False):
        sizes = sorted(values)
        axes.plot(sizes, [values[size] for size in sizes], "o-", color=colour, label=label)
    axes.set_xlabel("books of one processor")
    axes.set_ylabel("book events/s of one core")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def _growth(rows: Sequence[dict[str, Any]], form: re.Pattern[str], what: str) -> Any:
    """One small plot for each figure that was measured at several sizes."""
    from matplotlib.figure import Figure

    lines: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if (match := form.match(row["row"])) is not None:
            lines.setdefault((match[2].strip(" :,"), row["unit"]), {})[int(match[1])] = row["ours"]
    lines = {key: values for key, values in lines.items() if len(values) > 1}
    if not lines:
        return None
    columns = min(3, len(lines))
    figure = Figure(figsize=(3.2 * columns, 2.6 * -(-len(lines) // columns)), layout="constrained")
    grid = figure.subplots(-(-len(lines) // columns), columns, squeeze=False)
    for axes in grid.flat[len(lines) :]:
        axes.set_visible(False)
    for axes, ((label, unit), values) in zip(grid.flat, lines.items(), strict=False):
        sizes = sorted(values)
        axes.plot(sizes, [values[size] for size in sizes], "o-", color=OWN)
        axes.set_title(label or what, fontsize=9)
        axes.set_xlabel(what)
        axes.set_ylabel(unit)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    return figure
