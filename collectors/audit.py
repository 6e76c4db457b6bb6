"""The continuous audit: a fresh REST book of a random LIVE book, compared with the mirror at the same sequence number.

While the answer is on its way the worker keeps a journal of what it applies; so the mirror's book can be had at every
sequence number since the question. A snapshot inside a delta's range, or of a venue that numbers nothing, is bracketed:
each level has to be what it was at one moment of the window. Only the range that the book knows is compared: a venue
whose snapshots end at a depth says nothing about levels below it that never changed since.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from collectors.errors import MalformedFrame, RestError
from collectors.events import BookDelta, BookSnapshot
from collectors.local_book import Columns
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.rest import RestClient
from collectors.venue import Venue
from collectors.worker import BookWorker
from market.decimals import DecimalError

log = logging.getLogger(__name__)

CATCH_UP_S = 10.0
"""How long the stream may take to reach the snapshot's sequence number. Where ids are shared by instruments, a quiet book
never reaches it; then it is compared as it stands, which also finds a stream that was frozen."""
TURN_MAX_S = 0.1
"""A longer turn of the event loop counts as this long: the process was stopped, or starved."""
SHOWN = 20
"""Differing levels written to the dead letter."""

Side = dict[int, int]
Journal = list[tuple[BookDelta, Columns]]


@dataclass
class Finding:
    """What an audit found: ``agrees`` is None when it proves nothing (``why`` says why)."""

    agrees: bool | None
    why: str = ""
    levels: int = 0
    differences: tuple[tuple[str, int, int, int], ...] = ()
    """(side, price, the mirror's size, the venue's size), as mantissas."""


def compare(
    before: tuple[Side, Side], start_seq: int, journal: Journal, snapshot: BookSnapshot, theirs: Columns,
    known: tuple[int, int],
) -> Finding:  # fmt: skip
    """Judge a snapshot against the book at ``start_seq`` and the deltas behind it.

    ``known`` is (lowest bid, highest ask) that the mirror's own snapshot reached.
    """
    seq = snapshot.last_seq
    if 0 <= seq < start_seq:
        return Finding(None, f"the answer ({seq}) is older than the question ({start_seq})")
    books = [dict(before[0]), dict(before[1])]
    allowed: list[dict[int, set[int]]] = [{}, {}]
    """Where a delta straddles the snapshot, every size that a price had in the window."""
    for delta, columns in journal:
        inside = seq < 0 or delta.first_seq <= seq < delta.last_seq
        if not inside and delta.last_seq > seq:
            break
        for number, (prices, sizes) in enumerate(((columns[0], columns[1]), (columns[2], columns[3]))):
            book = books[number]
            for price, size in zip(prices, sizes, strict=True):
                if inside:
                    allowed[number].setdefault(price, {book.get(price, 0)}).add(size)
                if seq < 0 or not inside:
                    book[price] = size
    differences: list[tuple[str, int, int, int]] = []
    levels = 0
    for number, side in enumerate(("bid", "ask")):
        prices, sizes = theirs[2 * number], theirs[2 * number + 1]
        if not prices:
            continue
        venue = dict(zip(prices, sizes, strict=True))
        low, high = (max(min(prices), known[0]), max(prices)) if number == 0 else (min(prices), min(max(prices), known[1]))
        best = max if number == 0 else min
        ours = {p: s for p, s in books[number].items() if s}
        if ours:
            # From the better of the two tops: a level that only the mirror has above theirs counts too.
            low, high = (low, max(high, best(ours))) if number == 0 else (min(low, best(ours)), high)
        for price in {p for p in (*venue, *ours) if low <= p <= high}:
            levels += 1
            mine, wanted = ours.get(price, 0), venue.get(price, 0)
            if mine != wanted and wanted not in allowed[number].get(price, ()):
                differences.append((side, price, mine, wanted))
    if not levels:
        return Finding(None, "no level in common")
    if differences and seq < 0:
        return Finding(None, f"{len(differences)} of {levels} levels differ; the venue numbers nothing", levels)
    return Finding(not differences, "", levels, tuple(sorted(differences)))


class Auditor:
    """Audits one venue's books, one at a time, each ``every_s``; its calls count against the venue's own budget."""

    def __init__(
        self, venue: Venue, rest: RestClient, pipeline: Pipeline, counts: Counts, every_s: float,
        pick: Callable[[list[BookWorker]], BookWorker] = random.choice,
    ) -> None:  # fmt: skip
        self._venue = venue
        self._rest = rest
        self._pipeline = pipeline
        self._counts = counts
        self._every_s = every_s
        self._pick = pick

    async def run(self) -> None:
        """Audit until cancelled; returns at once for a venue that has no REST book."""
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            live = [w for w in self._pipeline.workers.values() if w.synced and w.state == "LIVE"]
            if not live:
                continue
            try:
                await self.audit(self._pick(live))
            except NotImplementedError:
                return
            except (RestError, MalformedFrame, DecimalError) as error:
                self._counts.audit_unproven += 1
                log.info("%s: audit: %s", self._pipeline.publisher.venue, error)

    async def audit(self, worker: BookWorker) -> Finding:
        """Audit one LIVE book. Raises RestError, MalformedFrame, DecimalError, NotImplementedError."""
        request = self._venue.snapshot_request(worker.native)
        epoch, start_seq, exponents = worker.epoch, worker.last_seq, worker.local.exponents()
        before = (dict(worker.local.book.bids.levels), dict(worker.local.book.asks.levels))
        known = worker.local.known
        worker.journal = journal = []
        try:
            snapshot = self._venue.parse_snapshot(worker.native, await self._rest.call(request))
            patience_s, at_s = CATCH_UP_S, time.monotonic()
            while worker.synced and worker.epoch == epoch and worker.last_seq < snapshot.last_seq and patience_s > 0:
                await asyncio.sleep(0.02)
                # A process that stood still has not given the stream that time: what came meanwhile is still to be read.
                before_s, at_s = at_s, time.monotonic()
                patience_s -= min(at_s - before_s, TURN_MAX_S)
            finding = self._judge(worker, epoch, exponents, before, start_seq, journal, snapshot, known)
        finally:
            worker.journal = None
        self._count(worker, finding)
        return finding

    def _judge(
        self, worker: BookWorker, epoch: int, exponents: tuple[int, int], before: tuple[Side, Side], start_seq: int,
        journal: Journal, snapshot: BookSnapshot, known: tuple[int, int],
    ) -> Finding:  # fmt: skip
        if not worker.synced or worker.epoch != epoch:
            return Finding(None, "the book was synchronised anew meanwhile")
        theirs = worker.local.columns(snapshot.bids, snapshot.asks)
        if worker.local.exponents() != exponents:
            return Finding(None, "the book was re-scaled meanwhile")
        return compare(before, start_seq, journal, snapshot, theirs, known)

    def _count(self, worker: BookWorker, finding: Finding) -> None:
        if finding.agrees is None:
            self._counts.audit_unproven += 1
            log.debug("%s: audit of %s proves nothing: %s", worker.publisher.venue, worker.symbol, finding.why)
            return
        self._counts.audit_checks += 1
        if finding.agrees:
            return
        self._counts.audit_mismatches += 1
        reason = f"an audit found {len(finding.differences)} of {finding.levels} levels different"
        log.error("%s: %s: %s", worker.publisher.venue, worker.symbol, reason)
        sample: list[Mapping[str, object]] = [
            {"side": side, "price": price, "mirror": ours, "venue": theirs}
            for side, price, ours, theirs in finding.differences[:SHOWN]
        ]
        price_exp, size_exp = worker.local.exponents()
        body = {"symbol": worker.symbol, "epoch": worker.epoch, "price_exp": price_exp, "size_exp": size_exp, "levels": sample}
        worker.publisher.dead_letter(json.dumps(body).encode(), f"{worker.symbol}: {reason}", time.time_ns())
        worker.gap(reason)
