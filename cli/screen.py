"""What `demo` and `live` show while they run: a live screen on a terminal, plain progress lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.markup import escape
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
class ChainNumbers:
    """One chain at a moment."""

    name: str
    head: int
    blocks: int
    events: int
    reorgs: int
    retracts: int
    states: Counter[str]
    compared: int
    """Pools compared with the chain itself so far."""
    mismatches: int
    dead_letters: int
    book_events: int

    @classmethod
    def of(
        cls, name: str, m: dict[str, float], books: list[dict[str, Any]], *, compared: int, mismatches: int
    ) -> ChainNumbers:
        """From its collector's metrics and its books; the collector's own comparisons count too."""

        def count(what: str) -> int:
            return int(m.get(f"chain_{what}", 0))

        return cls(
            name, count("head_number"), count("blocks_total"), count("events_total"), count("reorgs_total"),
            count("retracts_total"), Counter(b["state"] for b in books), compared + count("proofs_total"),
            mismatches + count("mismatches_total"), count("dead_letters_total"), count("book_events_total"),
        )  # fmt: skip


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
    chain: ChainNumbers | None = None
    trading: str = ""
    """Orders and fills so far."""

    @property
    def states(self) -> Counter[str]:
        """Books by state over all venues."""
        total: Counter[str] = Counter(self.chain.states if self.chain else ())
        for venue in self.venues.values():
            total += venue.states
        return total

    @property
    def updates(self) -> int:
        """Book events of all venues and pools."""
        return sum(v.book_events for v in self.venues.values()) + (self.chain.book_events if self.chain else 0)


def doubts(books: list[dict[str, Any]]) -> str:
    """Why listed books are not LIVE: each state with how many are in it, and the reason that most of them give."""
    reasons: dict[str, Counter[str]] = {}
    for b in books:
        if b["state"] not in ("LIVE", "DELISTED"):
            reasons.setdefault(b["state"], Counter())[b.get("reason", "")] += 1
    told = ((state, found.total(), found.most_common(1)[0][0]) for state, found in sorted(reasons.items()))
    return "; ".join(f"{count} {state}: {reason}" for state, count, reason in told if reason)


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
        f"compared {now.compared}  mismatches {now.mismatches}" + (_chain_line(now.chain) if now.chain else "")
        + (f"  trading: {now.trading}" if now.trading else "")
        + (f"  {why}" if (why := doubts(now.books)) else "")
    )  # fmt: skip


def _chain_line(c: ChainNumbers) -> str:
    return (
        f"  chain: head {c.head}, {c.reorgs} reorgs, {c.events} pool events, {c.retracts} retracted, "
        f"compared {c.compared}, mismatches {c.mismatches}"
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
    parts = [venues]
    if now.chain is not None:
        parts.append(_chain_table(now.chain))
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
        + (f"\ntrading with play money: {now.trading}" if now.trading else "")
        + (f"\n[yellow]{escape(why)}[/]" if (why := doubts(now.books)) else "")
    )  # fmt: skip
    where = "   ".join(f"{name} {url}" for name, url in links.items())
    return Group(Panel(summary, title="venue-mirror"), *parts, best, f"[dim]{where}   Ctrl-C stops[/]")


def _chain_table(c: ChainNumbers) -> Table:
    table = Table(title="chains", expand=True)
    for name in ("chain", "pools by state"):
        table.add_column(name)
    for name in ("head", "blocks", "pool events", "reorgs", "retracted", "compared", "mismatches"):
        table.add_column(name, justify="right")
    states = "  ".join(f"{state_text(state)} {count}" for state, count in sorted(c.states.items()))
    numbers = (c.head, c.blocks, c.events, c.reorgs, c.retracts, c.compared, c.mismatches)
    table.add_row(c.name, states, *(f"{n:,}" for n in numbers))
    return table


def featured(books: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few books, spread over the venues; what most venues have comes first."""
    by_venue: dict[str, list[dict[str, Any]]] = {}
    venues = Counter(b["symbol"] for b in books)
    for b in sorted(books, key=lambda b: (b["venue"], -venues[b["symbol"]], b["symbol"])):
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
    chain: ChainNumbers | None = None,
    trading: str = "",
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
    if chain is not None:
        mismatches, letters = mismatches + chain.mismatches, letters + chain.dead_letters
    return Sample(
        time.monotonic(), venues, int(processed.get("processor_events_total", 0)), int(processed.get("processor_lag", 0)),
        int(processed.get("processor_keyframes_ok_total", 0)), mismatches + bad, letters, books, compared, chain,
        trading,
    )  # fmt: skip


Progress = Callable[[Sample, Sample | None, float], None]
"""What draws: ``progress(now, before, elapsed_s)``."""
