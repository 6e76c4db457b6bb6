"""What `demo` and `live` show while they run: a live screen on a terminal, plain progress lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from cli.query import state_text

FEATURED = 8


@dataclass
class VenueNumbers:
    """One venue at a moment."""

    frames: int = 0
    book_events: int = 0
    gaps: int = 0
    resyncs: int = 0
    queue: int = 0
    states: Counter[str] = field(default_factory=Counter[str])
    worst_age_ms: int = 0


@dataclass
class Sample:
    """Everything that the screen shows, read at ``at_s`` (monotonic)."""

    at_s: float
    venues: dict[str, VenueNumbers]
    processed: int
    lag: int
    keyframes_ok: int
    mismatches: int
    dead_letters: int
    books: list[dict[str, Any]]
    compared: int = 0
    """Books compared with the venue's truth so far."""

    @property
    def states(self) -> Counter[str]:
        """Books by state over all venues."""
        total: Counter[str] = Counter()
        for venue in self.venues.values():
            total += venue.states
        return total


def rates(now: Sample, before: Sample | None) -> tuple[float, dict[str, float]]:
    """Events a second: processed, and received by venue."""
    if before is None or now.at_s <= before.at_s:
        return 0.0, dict.fromkeys(now.venues, 0.0)
    span = now.at_s - before.at_s
    received = {
        name: (v.frames - before.venues.get(name, VenueNumbers()).frames) / span for name, v in now.venues.items()
    }
    return (now.processed - before.processed) / span, received


def line(now: Sample, before: Sample | None, elapsed_s: float) -> str:
    """One progress line."""
    processed, received = rates(now, before)
    states = " ".join(f"{state}={count}" for state, count in sorted(now.states.items()))
    worst = max((v.worst_age_ms for v in now.venues.values()), default=0)
    return (
        f"{elapsed_s:5.0f} s  books {sum(now.states.values())} ({states})  received {sum(received.values()):,.0f}/s  "
        f"applied {processed:,.0f}/s  lag {now.lag}  worst age {worst} ms  key frames {now.keyframes_ok}  "
        f"compared {now.compared}  mismatches {now.mismatches}"
    )


def screen(now: Sample, before: Sample | None, elapsed_s: float, links: dict[str, str]) -> Group:
    """The whole live screen."""
    processed, received = rates(now, before)
    venues = Table(title="venues", expand=True)
    for name in ("venue", "books by state"):
        venues.add_column(name)
    for name in ("frames/s", "book events", "gaps", "resyncs", "queue", "worst age ms"):
        venues.add_column(name, justify="right")
    for name, v in sorted(now.venues.items()):
        states = "  ".join(f"{state_text(state)} {count}" for state, count in sorted(v.states.items()))
        venues.add_row(
            name, states, f"{received[name]:,.0f}", f"{v.book_events:,}", str(v.gaps), str(v.resyncs), str(v.queue),
            str(v.worst_age_ms),
        )  # fmt: skip
    best = Table(title="best bid and offer", expand=True)
    for name in ("venue", "symbol", "state"):
        best.add_column(name)
    for name in ("bid size", "bid", "ask", "ask size", "age ms"):
        best.add_column(name, justify="right")
    for b in featured(now.books):
        bid, ask = b["bid"] or ["", ""], b["ask"] or ["", ""]
        best.add_row(b["venue"], b["symbol"], state_text(b["state"]), bid[1], bid[0], ask[0], ask[1], str(b["age_ms"]))
    mismatches = (
        f"[bold green]mismatches {now.mismatches}[/]"
        if not now.mismatches
        else f"[bold red]mismatches {now.mismatches}[/]"
    )
    summary = (
        f"{elapsed_s:,.0f} s   applied {processed:,.0f} events/s   lag {now.lag}   key frames ok {now.keyframes_ok:,}   "
        f"compared with the venues' truth {now.compared}   {mismatches}   dead letters {now.dead_letters}"
    )
    where = "   ".join(f"{name} {url}" for name, url in links.items())
    return Group(Panel(summary, title="venue-mirror"), venues, best, f"[dim]{where}   Ctrl-C stops[/]")


def featured(books: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few books, spread over the venues."""
    by_venue: dict[str, list[dict[str, Any]]] = {}
    for b in sorted(books, key=lambda b: (b["venue"], b["symbol"])):
        by_venue.setdefault(b["venue"], []).append(b)
    share = max(1, FEATURED // max(1, len(by_venue)))
    return [b for group in by_venue.values() for b in group[:share]]


def sample(
    collected: dict[str, dict[str, float]],
    processed: dict[str, float],
    books: list[dict[str, Any]],
    *,
    compared: int,
    mismatches: int,
) -> Sample:
    """Put the metrics pages and the list of books together."""
    venues: dict[str, VenueNumbers] = {}
    for name, m in collected.items():
        mine = [b for b in books if b["venue"] == name]
        live = [b["age_ms"] or 0 for b in mine if b["state"] == "LIVE"]

        def count(field_name: str, m: dict[str, float] = m) -> int:
            return int(m.get(f"collector_{field_name}", 0))

        venues[name] = VenueNumbers(
            count("frames_total"), count("book_events_total"), count("gaps_total"), count("resyncs_total"),
            count("producer_queue"), Counter(b["state"] for b in mine), max(live, default=0),
        )  # fmt: skip
    bad = int(processed.get("processor_keyframes_bad_total", 0))
    letters = int(processed.get("processor_dead_letters_total", 0)) + sum(
        int(m.get("collector_dead_letters_total", 0)) for m in collected.values()
    )
    return Sample(
        time.monotonic(), venues, int(processed.get("processor_events_total", 0)), int(processed.get("processor_lag", 0)),
        int(processed.get("processor_keyframes_ok_total", 0)), mismatches + bad, letters, books, compared,
    )  # fmt: skip


Progress = Callable[[Sample, Sample | None, float], None]
"""What draws: ``progress(now, before, elapsed_s)``."""
