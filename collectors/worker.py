"""One instrument's state machine: SYNCING → LIVE ⇄ LAGGING, → (GAP | STALE) → SYNCING …, HALTED, DELISTED. Does no I/O.

A worker is given events and snapshots, keeps the book, and writes records through the publisher. It asks for a
snapshot by calling ``want_snapshot(worker, delay_s)``; the answer comes back through ``on_snapshot``.

Order on the topics for one epoch: status SYNCING, SNAPSHOT with index 0, deltas, status LIVE, deltas …
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from collectors.events import BookDelta, BookSnapshot
from collectors.keyframes import KeyframePace
from collectors.local_book import Columns, LocalBook
from collectors.sync_rules import APPLY, STALE, SyncRule
from config.settings import CollectorSettings
from market.decimals import DecimalError
from schemas.errors import EncodeError
from schemas.topics import market_key

if TYPE_CHECKING:
    from collectors.metrics import Counts
    from collectors.publisher import Publisher

WantSnapshot = Callable[["BookWorker", float], None]
"""``want(worker, delay_s)``: fetch a snapshot for the worker's present epoch, not before ``delay_s`` from now."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 30.0
LONGEST_PATIENCE_S = 3600.0
SNAPSHOT_PATIENCE_NS = 10_000_000_000
"""For a snapshot that the venue sends in the stream by itself."""
SILENCE_FACTOR = 20
"""A book is silent when it says nothing for this many times its usual pause (and at least stale_s)."""
FOLLOWED = ("LIVE", "LAGGING")
"""The states of a book that holds everything up to its last event."""


class BookWorker:
    """Mirrors one instrument of one venue."""

    __slots__ = (
        "_asked_ns", "_bridging", "_last_event_ns", "_live_once", "_pace", "_patience_s", "_pause_ns", "_retry_s",
        "_settings", "_want_snapshot", "beats", "counts", "epoch", "index", "journal", "key", "last_seq", "local", "native",
        "pending", "publisher", "rule", "since_ns", "state", "streaming", "symbol", "synced", "ts_received_ns", "ts_venue_us",
        "waits_for_delta",
    )  # fmt: skip

    def __init__(
        self, symbol: str, native: str, rule: SyncRule, publisher: Publisher, counts: Counts, settings: CollectorSettings,
        want_snapshot: WantSnapshot, *, price_exp: int = 0, size_exp: int = 0, last_epoch: int = 0,
    ) -> None:  # fmt: skip
        self.symbol = symbol
        self.native = native
        self.key = market_key(publisher.venue, symbol)
        self.rule = rule
        self.publisher = publisher
        self.counts = counts
        self._settings = settings
        self._want_snapshot = want_snapshot
        self.local = LocalBook(price_exp, size_exp)
        self.state = "SYNCING"
        self.since_ns = time.time_ns()
        self.epoch = last_epoch
        self.index = self.beats = 0  # of this epoch: events behind its snapshot, and heartbeats among them
        self.last_seq = -1
        self.ts_venue_us = self.ts_received_ns = 0
        self.synced = False
        """The book holds every event up to last_seq."""
        self.streaming = False
        """The venue has confirmed the subscription, so that no event is missed from here on."""
        self.waits_for_delta = False
        """A snapshot is only asked for after a first event (or a second's patience): it is then not too old."""
        self._bridging = False
        self.pending: deque[tuple[BookDelta, int]] = deque()
        """Deltas that wait for a snapshot."""
        self._live_once = False
        self._retry_s = FIRST_RETRY_S
        self._pace = KeyframePace(settings)
        self._last_event_ns = self._asked_ns = time.time_ns()
        self._pause_ns = 0
        self._patience_s = settings.stale_s
        self.journal: list[tuple[BookDelta, Columns]] | None = None
        """What is applied while an audit waits for its answer."""

    # What the venue sends.

    def on_delta(self, delta: BookDelta, ts_ns: int) -> None:
        """Apply and publish, buffer while SYNCING, or find that something is missing."""
        if not self.synced:
            self._buffer(delta, ts_ns)
            return
        if self._bridging:
            verdict = self.rule.bridges(self.last_seq, delta)
            if verdict is APPLY:
                self._bridging = False
        else:
            verdict = self.rule.follows(self.last_seq, delta)
        if verdict is not APPLY:
            if verdict is STALE:
                self.counts.duplicates += 1
                return
            self.gap(
                f"after {self.last_seq} came {delta.first_seq}..{delta.last_seq}"
                + (f" (pu {delta.prev_seq})" if delta.prev_seq >= 0 else "")
            )
            self._buffer(delta, ts_ns)
            return
        self._apply(delta, ts_ns)

    def on_snapshot(self, snapshot: BookSnapshot, ts_ns: int, epoch: int | None = None) -> None:
        """Start the book from a snapshot asked for in ``epoch`` (None: it came in the stream)."""
        if epoch is None:
            if self.synced and snapshot.refresh:
                self._refresh(snapshot, ts_ns)
                return
            if self.synced:
                self._restart("the venue sent a new snapshot")
            elif not self.streaming and self.state in ("SYNCING", "GAP"):
                self.streaming = True  # the stream says so before the venue's confirmation
                self._restart("")
            self.pending.clear()  # what came before it in the stream is in it
        if self.synced or self.state != "SYNCING" or epoch not in (None, self.epoch) or not self.streaming:
            return  # an answer to a question that is no longer asked
        pending = self.pending
        while pending and self.rule.bridges(snapshot.last_seq, pending[0][0]) is STALE:
            pending.popleft()
        if pending and self.rule.bridges(snapshot.last_seq, pending[0][0]) is not APPLY:
            self.counts.old_snapshots += 1
            self._retry()
            return
        try:
            self.local.load(snapshot)
        except DecimalError as error:
            self.publisher.dead_letter(repr(snapshot).encode()[:4096], f"snapshot of {self.native}: {error}", ts_ns)
            self._set_state("SYNCING", f"its snapshot cannot be kept: {error}")
            self._retry()
            return
        book = self.local.book
        self.rule.reset()
        self.index = self.beats = 0
        self.last_seq = snapshot.last_seq
        self.ts_venue_us, self.ts_received_ns = snapshot.ts_venue_us, ts_ns
        crossed, agrees = book.crossed(), self.rule.verify(book, snapshot)
        self.counts.crossed += crossed
        self.counts.checksum_ok += agrees is True
        self.counts.checksum_bad += agrees is False
        if crossed or agrees is False or not self._write_whole("SNAPSHOT"):
            self._retry()
            return
        self.counts.book_events += 1
        self.synced = self._bridging = True
        self._last_event_ns = ts_ns
        self.pending = deque()
        epoch_now = self.epoch
        for delta, received_ns in pending:
            self.on_delta(delta, received_ns)
            if self.epoch != epoch_now or not self.synced:
                return  # a gap inside what was buffered: the worker is synchronising again
        self._retry_s = FIRST_RETRY_S
        if not self._set_state("LIVE", ""):
            return
        if self._live_once:
            self.counts.resyncs += 1
        self._live_once = True

    def on_snapshot_failed(self, epoch: int) -> None:
        """The snapshot asked for in ``epoch`` did not come: ask again, later each time."""
        if epoch == self.epoch and not self.synced and self.state == "SYNCING":
            self._retry()

    # What happens around it.

    def announce(self) -> None:
        """Say that somebody looks after this book from now on."""
        self.epoch = max(time.time_ns() // 1000, self.epoch + 1)
        self._set_state("SYNCING", "waits for its subscription")

    def on_subscribed(self) -> None:
        """The venue has confirmed the subscription: synchronise, unless its snapshot was here before."""
        already, self.streaming = self.streaming, True
        if self.state in ("HALTED", "DELISTED") or (already and self.rule.snapshot_from == "stream"):
            return
        # Changes may overtake the venue's answer: they are of this stream, and a snapshot may need them to begin.
        early = () if already or self.state != "SYNCING" else tuple(self.pending)
        self._restart("")
        for delta, ts_ns in early:
            self._buffer(delta, ts_ns)

    def on_stream_lost(self, reason: str) -> None:
        """The connection broke: nothing that follows can be in order."""
        was_live = self.state in FOLLOWED
        self.streaming = False
        if self.state in ("HALTED", "DELISTED"):
            return
        if was_live:
            self.counts.gaps += 1
        self._end("GAP", reason)

    def gap(self, reason: str) -> None:
        """Something is missing: say GAP, then synchronise anew."""
        self.counts.gaps += 1
        self._end("GAP", reason)
        self.resync(reason)

    def lags(self, reason: str) -> None:
        """Say LAGGING, and why: what was read last is exact, but too old. With an empty reason: it is LIVE again."""
        if self.state == ("LIVE" if reason else "LAGGING"):
            self.counts.laggings += bool(reason)
            self._set_state("LAGGING" if reason else "LIVE", reason)

    def halt(self, reason: str) -> None:
        """The venue halted trading: the book stays as it is and says HALTED."""
        self._end("HALTED", reason)

    def delist(self, reason: str) -> None:
        """The venue no longer lists it: the last that this worker says."""
        self._end("DELISTED", reason)

    def refused(self, reason: str) -> None:
        """Nobody follows it: the venue would not subscribe it, it is not selected, or it was given up."""
        self._end("SYNCING", reason)

    def fence(self, epoch: int) -> None:
        """Another process wrote ``epoch`` for this book: begin one above it, so that its late events are ignored."""
        if epoch >= self.epoch:
            self.counts.fenced += 1
            self.epoch = epoch
            if self.streaming and self.state not in ("HALTED", "DELISTED"):
                self.resync("another process wrote a higher epoch")

    def on_timer(self, now_ns: int) -> None:
        """Once a second: key frames of quiet books, silence, a first snapshot without any event."""
        if not self.synced:
            if self.waits_for_delta and now_ns - self.since_ns > 1_000_000_000:
                self._ask()
            elif self.rule.snapshot_from == "stream" and self.streaming and now_ns - self._asked_ns > SNAPSHOT_PATIENCE_NS:
                self._retry()
            return
        if self.state in FOLLOWED and self._pace.overdue(now_ns):
            self._keyframe(now_ns)
        silent_ns = now_ns - self._last_event_ns
        if silent_ns > self._patience_s * 1e9 and silent_ns > SILENCE_FACTOR * self._pause_ns:
            self.counts.stale += 1
            # A book that is only quiet comes back unchanged; asking again waits twice as long each time.
            self._patience_s = min(LONGEST_PATIENCE_S, self._patience_s * 2)
            self._end("STALE", f"silent for {silent_ns / 1e9:.0f} s")
            self.resync("it was silent")

    def beat(self) -> None:
        """Say that nothing has changed (heartbeat.py). Where Kafka is behind that cannot be said, and is not."""
        self.index += 1
        taken = self.publisher.book(self, "DELTA", self.last_seq, ([], [], [], []))
        self.counts.beats += taken
        self.beats += taken
        self.index -= not taken

    # How it is done.

    def _refresh(self, snapshot: BookSnapshot, ts_ns: int) -> None:
        """The venue's next whole book: what differs is a delta."""
        seq = snapshot.last_seq
        if 0 <= seq <= self.last_seq:
            self.counts.duplicates += 1
            return
        delta = BookDelta(snapshot.native, seq, seq, -1, [], [], snapshot.ts_venue_us, snapshot.checksum)
        try:
            columns = self.local.difference(snapshot)
        except DecimalError as error:
            self._unreadable(delta, str(error), ts_ns)
            return
        self._last_event_ns = ts_ns
        if columns[0] or columns[2]:
            self._apply(delta, ts_ns, columns)

    def _apply(self, delta: BookDelta, ts_ns: int, columns: Columns | None = None) -> None:
        local = self.local
        try:
            columns, uncrossed = local.take(delta.bids, delta.asks) if columns is None else (columns, local.apply(columns))
        except DecimalError as error:
            self._unreadable(delta, str(error), ts_ns)
            return
        book = self.local.book
        if self.rule.max_depth is not None:
            self.local.cut(self.rule.max_depth, columns)
        if not uncrossed:
            self.counts.crossed += 1
            self.gap(f"crossed after {delta.last_seq}")
            return
        if self.rule.has_checksum:
            agrees = self.rule.verify(book, delta)
            if agrees is False:
                self.counts.checksum_bad += 1
                self.gap(f"the venue's checksum differs after {delta.last_seq}")
                return
            if agrees:
                self.counts.checksum_ok += 1
        before, self.last_seq = self.last_seq, delta.last_seq
        self.index += 1
        self.ts_venue_us, self.ts_received_ns = delta.ts_venue_us, ts_ns
        pause, self._last_event_ns = ts_ns - self._last_event_ns, ts_ns
        self._pause_ns += (pause - self._pause_ns) >> 4
        try:
            taken = self.publisher.book(self, "DELTA", before, columns, delta.checksum)
        except EncodeError as error:
            self._unreadable(delta, str(error), ts_ns)
            return
        if not taken:
            self.counts.congestions += 1
            self.gap("kafka is behind")
            return
        self.counts.book_events += 1
        if self.journal is not None:
            self.journal.append((delta, columns))
        levels = len(columns[0]) + len(columns[2])
        self.counts.levels += levels
        if self._pace.due(levels, self.index, ts_ns, live=self.state in FOLLOWED):
            self._keyframe(ts_ns)

    def _unreadable(self, delta: BookDelta, why: str, ts_ns: int) -> None:
        self.publisher.dead_letter(repr(delta).encode()[:4096], f"delta of {self.native}: {why}", ts_ns)
        self.gap(f"an unreadable delta: {why}")

    def _keyframe(self, now_ns: int) -> None:
        if self._write_whole("KEYFRAME"):
            self.counts.keyframes += 1
            self.counts.keyframe_levels += len(self.local.book.bids) + len(self.local.book.asks)
        else:
            self._pace.put_off(now_ns)

    def _write_whole(self, kind: str) -> bool:
        bids, asks = self.local.book.bids.columns(), self.local.book.asks.columns()
        try:
            taken = self.publisher.book(self, kind, -1, (*bids, *asks))
        except EncodeError as error:
            self.publisher.dead_letter(b"", f"{kind.lower()} of {self.native}: {error}", time.time_ns())
            return False
        if taken:
            self._pace.written(len(bids[0]) + len(asks[0]))
        return taken

    def _buffer(self, delta: BookDelta, ts_ns: int) -> None:
        if self.state in ("HALTED", "DELISTED") or (not self.streaming and self.state != "SYNCING"):
            return
        if self.rule.snapshot_from == "stream":
            return  # it precedes the snapshot that is awaited, and is in it
        pending = self.pending
        if len(pending) >= self._settings.pending_max:
            self.counts.pending_overflows += 1
            pending.clear()
        pending.append((delta, ts_ns))
        if self.waits_for_delta:
            self._ask()

    def _end(self, state: str, reason: str) -> None:
        self._drop_book()
        self._set_state(state, reason)

    def _drop_book(self) -> None:
        self.synced = self._bridging = self.waits_for_delta = False
        self.pending.clear()

    def resync(self, reason: str) -> None:
        """Synchronise anew; a snapshot in the stream has to be asked for by subscribing again."""
        if self.streaming:
            self._restart(reason)
            if self.rule.snapshot_from == "stream":
                self._want_snapshot(self, 0.0)

    def _restart(self, reason: str) -> None:
        """A new epoch, for the snapshot that is on its way or will be asked for."""
        self._drop_book()
        self.epoch = max(time.time_ns() // 1000, self.epoch + 1)
        self._set_state("SYNCING", reason)
        self.waits_for_delta = self.rule.snapshot_from == "rest"
        self._asked_ns = time.time_ns()

    def _ask(self) -> None:
        self.waits_for_delta = False
        self._want_snapshot(self, 0.0)

    def _retry(self) -> None:
        self._asked_ns = time.time_ns() + int(self._retry_s * 1e9)
        self._want_snapshot(self, self._retry_s)
        self._retry_s = min(LONGEST_RETRY_S, self._retry_s * 2)

    def _set_state(self, state: str, reason: str) -> bool:
        """Change the state and say so; when Kafka does not even take that, the book must not stay LIVE."""
        self.state = state
        self.since_ns = time.time_ns()
        if self.publisher.status(self, reason):
            return True
        if state == "LIVE":
            self._drop_book()
            self.state = "GAP"
            self.resync("kafka is behind")
        return False
