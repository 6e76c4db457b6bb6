"""Writes BENCHMARKS.md from what the benchmarks found: what is not ahead first, then every table."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PLOTS = {
    "collector": ("bench-collector", "CPU a message by venue, beside the other libraries"),
    "workers": ("bench-workers", "one collector process from 500 to 5,000 workers"),
    "processor": ("bench-books", "book events a second of one core by the number of books, ours and the others'"),
    "processors": ("bench-processors", "book events a second with one, two and four processors"),
    "soak": ("soak", "memory of each process, records not yet read and book events a second over the time"),
}
INTRODUCTION = """# Benchmarks

This page is written by `make bench` from [benchmarks/results.json](benchmarks/results.json). Every figure is printed by a
command under `benchmarks/`, beside a named alternative in the same run where there is one: same input, same machine, the
alternative set up as its own documentation advises. Ratios carry over to other machines, absolute figures do not. A ratio
says how many times better venue-mirror is: above 1 it is ahead. `--help` of each command says exactly what is measured.
"""


def write_page(found: Sequence[dict[str, Any]], path: Path) -> None:
    """``found``: one object a benchmark, as benchmarks/all.py makes them."""
    path.write_text(page(found, path.parent / "docs" / "images"), "utf-8")


def page(found: Sequence[dict[str, Any]], images: Path) -> str:
    """The text; a plot is named where its file stands in ``images``."""
    parts = [INTRODUCTION, _machine(found), _behind(found), *(_section(one, images) for one in found)]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:,.1f}" if size >= 10 else f"{value:.2f}"


def _machine(found: Sequence[dict[str, Any]]) -> str:
    machines = {", ".join(one["machine"].values()) for one in found}
    dates = sorted({one["date"] for one in found})
    peers = sorted({row["alternative"] for one in found for row in one["rows"] if any(c.isdigit() for c in row["alternative"])})
    versions = sorted({_version(peer) for peer in peers} - {""})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "never"
    busy = max((one["busy_before"] for one in found), default=0)
    lines = [f"Measured {when} on: {'; '.join(sorted(machines))}. Beside: {', '.join(versions)}."]
    if busy > 20:
        lines.append(f"Other programs took up to {busy} % of the CPU, so absolute figures are too high and latencies above all.")
    return "\n".join(lines) + "\n"


def _version(peer: str) -> str:
    """``cryptofeed 2.4.1`` of ``cryptofeed 2.4.1: parse + book``; empty: it names no version."""
    words = peer.replace(",", " ").replace(":", " ").split()
    return next((f"{one} {other}" for one, other in pairwise(words) if other[0].isdigit() and "." in other), "")


def _behind(found: Sequence[dict[str, Any]]) -> str:
    lines = ["## Where we are not ahead\n"]
    for one in found:
        if one["failure"]:
            lines.append(f"- `{one['command']}` {one['failure']}.")
        for row in one["rows"]:
            if row["met"] is False:
                lines.append(f"- {row['row']}: {_figure(row)}{_beside(row)}; the aim is {row['aim']}.")
            elif row["met"] is None and row["ratio"] is not None and row["ratio"] < 1 and not _growth(row):
                lines.append(f"- {row['row']}: {_figure(row)}{_beside(row)}.")
    return "\n".join(lines if len(lines) > 1 else [*lines, "Nothing here: every aim is met."]) + "\n"


def _growth(row: dict[str, Any]) -> bool:
    """Compared with ourselves at another size or moment: no alternative is ahead."""
    return row["alternative"].startswith("the ")


def _figure(row: dict[str, Any]) -> str:
    return f"{number(row['ours'])} {row['unit']}"


def _beside(row: dict[str, Any]) -> str:
    if row["theirs"] is None:
        return ""
    return f", {row['alternative']} {number(row['theirs'])} ({number(row['ratio'])} ×)"


def _section(one: dict[str, Any], images: Path) -> str:
    name = one["benchmark"]
    file = FOLDER / f"{name}.py"
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) if file.exists() else one.get("about", "")
    lines = [f"## {name.replace('_', ' ').capitalize()}\n", " ".join((text or "").partition("\n\n")[0].split()), ""]
    lines += [f"`{one['command']}`, {one['seconds']} s" + (f"; it {one['failure']}" if one["failure"] else ""), ""]
    if one["rows"]:
        lines += ["| | ours | theirs | ratio | unit | beside | aim | met |", "|---|---:|---:|---:|---|---|---|---|"]
        lines += [_line(row) for row in one["rows"]]
        lines.append("")
    plot, what = PLOTS.get(name, ("", ""))
    if plot and (images / f"{plot}.png").exists():
        lines += [f"![{what}](docs/images/{plot}.png)", "", f"[as SVG](docs/images/{plot}.svg)", ""]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    ratio = f"{number(row['ratio'])} ×" if row["ratio"] is not None else ""
    theirs = number(row["theirs"]) if row["theirs"] is not None else ""
    cells = (row["row"], number(row["ours"]), theirs, ratio, row["unit"], row["alternative"], row["aim"], met)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
