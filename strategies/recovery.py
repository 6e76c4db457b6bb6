"""A strategy's past, made again: from a snapshot and the trace of what was read, to any later moment.

Restart, replay and deciding again are the same thing here. The snapshot names the books by where they stood and where
their last whole book stands in the log; from there they are folded again. The trace then says in which order, and in
which batches, the records were taken.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bus.log_reader import LogRecord, Playback, read_all
from config.settings import Settings
from market.live_book import LiveBook
from schemas.codec import codec
from schemas.topics import BOOK, STRATEGY_STATE, TRACE
from strategies.loop import Output, StrategyLoop
from strategies.registry import Config, Mode, config_of
from strategies.strategy import OpenIntent, Record, Strategy, StrategyError

BOOK_FIELDS = (
    "epoch", "index", "offset", "partition", "anchor", "synced", "exact", "status_state", "status_epoch", "status_since_ns",
)  # fmt: skip


def snapshot(loop: StrategyLoop, seq: int, positions: dict[tuple[str, int], int], ts_ns: int) -> bytes:
    """The StrategyState record of a loop that has taken everything up to ``positions``."""
    view = loop.view
    state = {
        "mode": loop.mode,
        "strategy": loop.strategy.state(),
        "instruments": {k: base64.b64encode(raw).decode() for k, raw in loop.instruments.items()},
        "books": {key: {f: getattr(b, f) for f in BOOK_FIELDS} for key, b in view.books.items()},
        "balances": [[v, a, m, e] for (v, a), (m, e) in view.balances.items()],
        "funding": view.funding,
        "open": [msgspec.to_builtins(o) for o in view.open.values()],
        "fills": loop.fills(),
        "chain": view.chain.state(),
    }
    order = sorted(positions)
    return codec("StrategyState").encode({
        "strategy": loop.config.name, "strategy_version": loop.strategy.version, "seq": seq, "clock_ns": view.now_ns,
        "timer_ns": loop.timer_ns, "decisions": loop.counts.decisions, "topics": [t for t, _ in order],
        "partitions": [p for _, p in order], "offsets": [positions[p] for p in order],
        "state": json.dumps(state, separators=(",", ":")).encode(), "config": msgspec.json.encode(loop.config),
        "ts_ns": ts_ns,
    })  # fmt: skip


@dataclass
class Past:
    """What is known of one instance: its snapshots and its trace, oldest first."""

    states: list[Record] = field(default_factory=list)
    traces: list[Record] = field(default_factory=list)


def load_past(settings: Settings, name: str) -> Past:
    """Read an instance's past from the log; blocks."""
    past = Past()
    for topic, into in ((STRATEGY_STATE, past.states), (TRACE, past.traces)):
        decode = codec(topic.record).decode
        for record in read_all(settings, topic.name):
            if record.key == name.encode() and record.value is not None:
                into.append(decode(record.value))
    return past


def trace_record(name: str, run: str, seq: int, batch: Sequence[LogRecord], loop: StrategyLoop) -> bytes:
    """The StrategyTrace record of one batch."""
    topics: list[str] = []
    partitions: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    for r in batch:
        if topics and topics[-1] == r.topic and partitions[-1] == r.partition:
            ends[-1] = r.offset + 1
            continue
        topics.append(r.topic)
        partitions.append(r.partition)
        starts.append(r.offset)
        ends.append(r.offset + 1)
    return codec("StrategyTrace").encode({
        "strategy": name, "seq": seq, "run": run, "topics": topics, "partitions": partitions, "from_offsets": starts,
        "to_offsets": ends, "clock_ns": loop.view.now_ns, "decisions": loop.counts.decisions,
    })  # fmt: skip


def restored(state: Record, mode: Mode | None = None, kind: type[Strategy] | None = None) -> StrategyLoop:
    """The loop of a snapshot; its books know where they stand, but have no levels yet (see ``fold_books``)."""
    own: dict[str, Any] = json.loads(state["state"])
    config: Config = config_of(json.loads(state["config"]))
    loop = StrategyLoop(config, mode or own["mode"], kind)
    decode = codec("Instrument").decode
    for raw in own["instruments"].values():
        data = base64.b64decode(raw)
        loop.take_instrument(decode(data), data)
    view = loop.view
    view.now_ns, loop.timer_ns, loop.counts.decisions = state["clock_ns"], state["timer_ns"], state["decisions"]
    view.balances = {(v, a): (m, e) for v, a, m, e in own["balances"]}
    view.funding = own["funding"]
    view.open = {o["id"]: msgspec.convert(o, OpenIntent) for o in own["open"]}
    loop.remember_fills(own["fills"])
    view.chain.restore(own.get("chain", {}))
    loop.strategy.restore(own["strategy"])
    loop.saved_books = own["books"]
    return loop


def positions_of(state: Record) -> dict[tuple[str, int], int]:
    """(topic, partition) → next offset of a snapshot."""
    return {(t, p): o for t, p, o in zip(state["topics"], state["partitions"], state["offsets"], strict=True)}


def fold_books(loop: StrategyLoop, playback: Playback, at: dict[tuple[str, int], int]) -> list[str]:
    """Give the restored loop's books their levels back; gives the keys that the log no longer holds whole."""
    decode, lost = codec("BookEvent").decode, list[str]()
    by_partition: dict[int, list[str]] = {}
    for key, saved in loop.saved_books.items():
        if saved["partition"] >= 0:
            by_partition.setdefault(saved["partition"], []).append(key)
    books = loop.view.books
    for partition, keys in sorted(by_partition.items()):
        start = min((loop.saved_books[k]["anchor"] for k in keys if loop.saved_books[k]["anchor"] >= 0), default=None)
        end = at.get((BOOK.name, partition), 0)
        for record in playback.take(BOOK.name, partition, end if start is None else start, end):
            event = decode(record.value or b"")
            key = f"{event['venue']}|{event['symbol']}"
            saved = loop.saved_books.get(key)
            if saved is not None and saved["anchor"] <= record.offset <= saved["offset"]:
                books[key].take(event, record.partition, record.offset)
    for key, saved in loop.saved_books.items():
        book = books.setdefault(key, LiveBook(*key.split("|", 1)))
        if saved["synced"] and (book.epoch, book.index, book.synced) != (saved["epoch"], saved["index"], True):
            lost.append(key)
            saved = {**saved, "synced": False}
        for name in BOOK_FIELDS:
            setattr(book, name, saved[name])
    loop.saved_books = {}
    loop.strategy.on_restored()
    return lost


def book_starts(state: Record) -> dict[tuple[str, int], int]:
    """Where reading must begin so that ``fold_books`` and then the trace find all they need."""
    starts = positions_of(state)
    for saved in json.loads(state["state"])["books"].values():
        position = (BOOK.name, saved["partition"])
        if saved["anchor"] >= 0 and position in starts:
            starts[position] = min(starts[position], saved["anchor"])
    return starts


def make_again(
    settings: Settings,
    state: Record,
    traces: Iterable[Record],
    *,
    mode: Mode | None = None,
    kind: type[Strategy] | None = None,
    each: Callable[[Record, list[Output]], bool] | None = None,
) -> tuple[StrategyLoop, list[Output], dict[tuple[str, int], int], int]:
    """Run a past again from a snapshot. Gives (loop, all that it decided, positions, last trace seq).

    ``each(trace, outputs)`` sees every batch; True ends the run there. Raises StrategyError when the trace has a hole,
    BusError when the log cannot be read.
    """
    after = [t for t in traces if t["seq"] > state["seq"]]
    ends = positions_of(state)
    for trace in after:
        for t, p, end in zip(trace["topics"], trace["partitions"], trace["to_offsets"], strict=True):
            ends[(t, p)] = max(ends.get((t, p), 0), end)
    loop, at, seq, out = restored(state, mode, kind), positions_of(state), state["seq"], list[Output]()
    playback = Playback(settings, book_starts(state), ends)
    try:
        fold_books(loop, playback, at)
        for trace in after:
            if trace["seq"] != seq + 1:
                raise StrategyError(f"{state['strategy']}: the trace has a hole after {seq}")
            batch: list[LogRecord] = []
            runs = zip(trace["topics"], trace["partitions"], trace["from_offsets"], trace["to_offsets"], strict=True)
            for topic, partition, start, end in runs:
                batch += playback.take(topic, partition, start, end)
                at[(topic, partition)] = end
            made = loop.feed(batch)
            out += made
            seq = trace["seq"]
            if each is not None and each(trace, made):
                break
    finally:
        playback.close()
    return loop, out, at, seq
