"""Why an order went out: the chain of causes from the log, and the decision made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bus.log_reader import Playback, start_positions
from cli.trade_views import records
from config.settings import Settings
from market.decimals import format_decimal
from market.live_book import LiveBook
from schemas.codec import codec
from schemas.topics import BOOK, INTENT
from strategies.loop import Output
from strategies.recovery import load_past, make_again
from strategies.registry import load_code

Record = dict[str, Any]
LEVELS = 5


def _intent_of(settings: Settings, name: str) -> Record:
    """The intent that a name speaks of; raises LookupError."""
    intents = records(settings, "orders.intent") + records(settings, "orders.shadow")
    for intent in intents:
        if name in (intent["id"], f"vm{intent['id']}", intent["opportunity_id"]):
            return intent
    for fill in records(settings, "orders.fill"):
        if fill["trade_id"] == name:
            return _intent_of(settings, fill["intent_id"])
    raise LookupError(f"no intent, order, opportunity or trade {name!r} in the log")


def _does(intent: Record) -> str:
    if intent["action"] == "PLACE":
        return "PLACE"
    return f"{'AMEND' if intent['amend'] else 'CANCEL'} of vm{intent['target_id']}:"


def explain(settings: Settings, name: str) -> str:
    """The chain as text; raises LookupError, BusError."""
    intent = _intent_of(settings, name)
    lines = [
        f"intent {intent['id']}  {_does(intent)} {intent['side']} {_size(intent)} {intent['symbol']} "
        f"at {format_decimal(intent['price'], intent['price_exp'])} {intent['time_in_force']} on {intent['account']}",
        f"  of {intent['strategy']} version {intent['strategy_version']} ({intent['mode']}), "
        f"leg {intent['leg'] + 1} of {intent['legs']}",
        f"  decided at {intent['created_ns']} on {intent['trigger_topic'] or 'a timer'}"
        f"[{intent['trigger_partition']}]@{intent['trigger_offset']}, valid until {intent['valid_until_ns']}",
    ]
    for o in records(settings, "derived.opportunity"):
        if o["id"] == intent["opportunity_id"]:
            lines.append(f"opportunity {o['id']}: {format_decimal(o['edge'], o['edge_exp'])} {o['edge_asset']}; {o['reason']}")
    for r in records(settings, "orders.risk"):
        if r["intent_id"] == intent["id"]:
            told = f" by {r['rule']}: {r['measured']} against {r['bound']}" if r["rule"] else ""
            lines.append(
                f"risk {r['verdict']}{told}; limits version {r['limits_version']}, passed {', '.join(r['rules_passed'])}"
            )
            if r["waited_us"]:
                ways = ", ".join(f"vm{other}" for other in r["made_way"]) or "no order"
                lines.append(f"  waited {r['waited_us']} us until it could not trade with our own: {ways} made way")
    for e in records(settings, "orders.event"):
        if e["intent_id"] == intent["id"]:
            lines.append(f"order {e['order_id']}: {e['previous']} → {e['state']} {e['cause']}".rstrip())
    seen: set[str] = set()
    for f in records(settings, "orders.fill"):
        if f["intent_id"] == intent["id"] and f["trade_id"] not in seen:
            seen.add(f["trade_id"])
            lines.append(
                f"fill {f['trade_id']}: {_size(f)} at {format_decimal(f['price'], f['price_exp'])}, "
                f"fee {format_decimal(f['fee'], f['fee_exp'])} {f['fee_asset']}, {'maker' if f['maker'] else 'taker'}"
            )
    for number in range(len(intent["input_keys"])):
        lines += _book_lines(settings, intent, number)
    return "\n".join(lines)


def _size(record: Record) -> str:
    return format_decimal(record["size"], record["size_exp"])


def _book_lines(settings: Settings, intent: Record, n: int) -> list[str]:
    """One book as the decision saw it, folded again from the log."""
    key, partition, offset = intent["input_keys"][n], intent["input_partitions"][n], intent["input_offsets"][n]
    lines = [
        f"book {key}  {BOOK.name}[{partition}]@{offset} epoch {intent['input_epochs'][n]} index {intent['input_indexes'][n]} "
        f"{intent['input_states'][n]}, {intent['input_ages_ns'][n] // 1000} us old"
    ]
    book = book_at(settings, key, partition, offset)
    if book is None or (book.epoch, book.index) != (intent["input_epochs"][n], intent["input_indexes"][n]):
        return [*lines, "  the log no longer holds this book whole"]
    bids, asks = book.book.level_texts(LEVELS)
    lines += [f"  {price:>14} {size:>14}  ask" for price, size in reversed(asks)]
    return lines + [f"  {price:>14} {size:>14}  bid" for price, size in bids]


def book_at(settings: Settings, key: str, partition: int, offset: int) -> LiveBook | None:
    """A book exactly as it was at an offset of market.book; None when the log holds nothing of it before."""
    low = start_positions(settings, {BOOK.name: "beginning"})[(BOOK.name, partition)]
    decode, book, span = codec("BookEvent").decode, None, 2000
    while True:
        # Read back in growing steps until a whole book lies inside.
        start = max(low, offset + 1 - span)
        playback = Playback(settings, {(BOOK.name, partition): start}, {(BOOK.name, partition): offset + 1})
        try:
            mine = [r for r in playback.take(BOOK.name, partition, start, offset + 1) if r.key == key.encode()]
        finally:
            playback.close()
        book = LiveBook(*key.split("|", 1))
        for record in mine:
            book.take(decode(record.value or b""), record.partition, record.offset)
        if book.synced or start == low:
            return book if book.synced else None
        span *= 4


def decide_again(settings: Settings, name: str, strategy: str, code: Path | None) -> tuple[bool, str]:
    """(all the same, text). Raises LookupError, StrategyError, BusError."""
    intent = _intent_of(settings, name) if name != "ALL" else None
    if intent is not None and intent["strategy_version"] == "hedge":
        raise LookupError(f"{intent['id']} closed a hedge group: it follows from fills, no strategy decided it")
    if intent is not None:
        strategy = intent["strategy"]
    elif not strategy:
        raise LookupError("rerun ALL needs --strategy NAME")
    past = load_past(settings, strategy)
    kind = load_code(code) if code else None
    topic = INTENT.name
    # What closes a hedge group bears the strategy's name, but no strategy decided it.
    recorded = {r["id"]: r for r in records(settings, topic) if r["strategy"] == strategy and r["strategy_version"] != "hedge"}
    if kind is not None and past.states:
        # Under the recorded version: its ids are what verdicts and fills in the log speak of.
        kind = type(kind.__name__, (kind,), {"version": past.states[-1]["strategy_version"]})
    states = past.states
    if not states:
        raise LookupError(f"no snapshot of {strategy} in the log")
    made: dict[str, Record] = {}
    decode = codec("OrderIntent").decode

    def each(_: Record, out: list[Output]) -> bool:
        for output in out:
            if output.topic == topic:
                record = decode(output.value)
                made[record["id"]] = record
        return intent is not None and intent["id"] in made

    start = states[0]
    if intent is not None:
        start = next((s for s in reversed(states) if s["clock_ns"] < intent["created_ns"]), states[0])
    traces = [t for t in past.traces if t["seq"] > start["seq"]]
    make_again(settings, start, traces, kind=kind, each=each)
    if intent is not None:
        return _compare(intent, made)
    since = start["clock_ns"]
    expected = {i: r for i, r in recorded.items() if r["created_ns"] > since}
    same = [i for i, r in expected.items() if made.get(i) == r]
    others = len(set(made) - set(expected))
    text = f"{len(same)} of {len(expected)} recorded intents were decided again, byte for byte; {others} others"
    return len(same) == len(expected) and not others, text


def _compare(intent: Record, made: dict[str, Record]) -> tuple[bool, str]:
    again = made.get(intent["id"])
    if again is None:
        return False, f"{intent['id']}: not decided again: from the same inputs this code does something else"
    encode = codec("OrderIntent").encode
    if encode(again) == encode(intent):
        return True, f"{intent['id']}: decided again, byte for byte the same"
    differing = {k: [intent[k], again[k]] for k in intent if intent[k] != again[k]}
    return False, f"{intent['id']}: differs: {json.dumps(differing)}"
