"""derived.cross: the best bid and offer of one instrument over all venues that have a LIVE book of it.

Books of one instrument at different venues live in different partitions, so their best bids and offers travel once more,
keyed by the symbol (derived.bbo_by_group), and each is repeated every few seconds. A quote that was not repeated is of
a worker that is gone: it does not count, whatever state it had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from market.decimals import format_decimal
from processors.derived import Derived
from processors.metrics import Counts
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BBO_BY_GROUP, CROSS

QUIET_S = 15.0
"""Three repetitions missed."""
MBPS = 10_000_000
"""Thousandths of a basis point in one."""

Fee = Callable[[str, str], tuple[int, int] | None]
"""``fee(venue, symbol)``: the taker fee in basis points as (mantissa, exponent)."""


class Quote:
    """The newest best bid and offer of one venue."""

    __slots__ = ("heard_s", "record")

    def __init__(self, record: dict[str, Any], heard_s: float) -> None:
        self.record = record
        self.heard_s = heard_s


class Group:
    """All venues of one symbol."""

    __slots__ = ("last", "quotes", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.quotes: dict[str, Quote] = {}
        self.last: tuple[Any, ...] = ()
        """What was written last, without ages."""

    @property
    def written_venues(self) -> int:
        """How many venues counted in what was written last; -1: nothing was."""
        return self.last[0] if self.last else -1

    def live(self, now_s: float) -> list[dict[str, Any]]:
        """The quotes that count."""
        return [q.record for q in self.quotes.values() if q.record["state"] == "LIVE" and now_s - q.heard_s < QUIET_S]

    def cross(self, now_s: float, now_ns: int, fee: Fee) -> dict[str, Any]:
        """The Cross record."""
        live = self.live(now_s)
        bid, ask = best(live, "bid"), best(live, "ask")
        record: dict[str, Any] = {
            "symbol": self.symbol, "venues": len(live), "known": len(self.quotes), "ts_ns": now_ns,
            "spread_mbps": None, "net_spread_mbps": None,
        }  # fmt: skip
        for side, quote in (("bid", bid), ("ask", ask)):
            record |= _side(side, quote, now_ns)
        if bid is not None and ask is not None:
            record["spread_mbps"] = spread_mbps(bid, ask, (0, 0), (0, 0))
            bid_fee, ask_fee = fee(bid["venue"], self.symbol), fee(ask["venue"], self.symbol)
            if bid_fee is not None and ask_fee is not None:
                record["net_spread_mbps"] = spread_mbps(bid, ask, bid_fee, ask_fee)
        return record


def best(quotes: Iterable[dict[str, Any]], side: str) -> dict[str, Any] | None:
    """The quote with the best price of a side; of equal prices the first by venue, so that the answer is one."""
    found: dict[str, Any] | None = None
    for quote in sorted(quotes, key=lambda q: q["venue"]):
        if not quote[f"{side}_size"]:
            continue
        if found is not None:
            exp = min(found["price_exp"], quote["price_exp"])
            mine = quote[f"{side}_price"] * 10 ** (quote["price_exp"] - exp)
            other = found[f"{side}_price"] * 10 ** (found["price_exp"] - exp)
            if (mine <= other) if side == "bid" else (mine >= other):
                continue
        found = quote
    return found


def spread_mbps(bid: dict[str, Any], ask: dict[str, Any], bid_fee: tuple[int, int], ask_fee: tuple[int, int]) -> int:
    """What buying at the ask and selling at the bid costs, fees (basis points) included, in thousandths of a basis
    point of the mid, rounded down; negative: it earns."""
    exp = min(bid["price_exp"], ask["price_exp"])
    sell = bid["bid_price"] * 10 ** (bid["price_exp"] - exp)
    buy = ask["ask_price"] * 10 ** (ask["price_exp"] - exp)
    fee_exp = min(bid_fee[1], ask_fee[1], 0)
    one = 10 ** (4 - fee_exp)
    cost = buy * (one + ask_fee[0] * 10 ** (ask_fee[1] - fee_exp)) - sell * (one - bid_fee[0] * 10 ** (bid_fee[1] - fee_exp))
    return cost * 2 * MBPS // (one * (buy + sell)) if buy + sell > 0 else 0


def _side(side: str, quote: dict[str, Any] | None, now_ns: int) -> dict[str, Any]:
    if quote is None:
        empty = dict.fromkeys(("price", "price_exp", "size", "size_exp", "ts_received_ns", "age_ms"), 0)
        empty |= dict.fromkeys(("epoch", "index", "offset", "partition"), -1)
        return {f"{side}_venue": "", **{f"{side}_{name}": value for name, value in empty.items()}}
    return {
        f"{side}_venue": quote["venue"], f"{side}_price": quote[f"{side}_price"], f"{side}_size": quote[f"{side}_size"],
        f"{side}_age_ms": max(0, now_ns - quote["ts_received_ns"]) // 1_000_000,
        **{
            f"{side}_{name}": quote[name]
            for name in ("price_exp", "size_exp", "epoch", "index", "offset", "partition", "ts_received_ns")
        },
    }  # fmt: skip


class Crosses:
    """The groups of the partitions that this process holds."""

    def __init__(self, derived: Derived, counts: Counts, positions: dict[tuple[str, int], int], fee: Fee) -> None:
        self._derived = derived
        self._counts = counts
        self._positions = positions
        self._fee = fee
        self.by_partition: dict[int, dict[str, Group]] = {}
        self._decode = codec("Bbo").decode
        self._encode = codec("Cross").hurry().encode
        self.on_change: Callable[[str], None] = lambda _: None
        """Called with the symbol whenever a cross was written."""

    def on_quote_batch(self, tp: Any, records: Sequence[Any]) -> None:
        """A batch of derived.bbo_by_group. Never raises for what is in a record."""
        groups = self.by_partition.setdefault(tp.partition, {})
        touched: dict[str, Group] = {}
        for record in records:
            try:
                quote = self._decode(record.value)
            except (DecodeError, TypeError) as error:
                self._derived.dead_letter(
                    tp.topic, tp.partition, record.offset, record.value, f"{type(error).__name__}: {error}"
                )
                continue
            symbol = quote["symbol"]
            group = groups.get(symbol)
            if group is None:
                group = groups[symbol] = Group(symbol)
            known = group.quotes.get(quote["venue"])
            if known is not None:
                old = known.record
                if (quote["epoch"], quote["index"]) < (old["epoch"], old["index"]):
                    continue  # a worker that does not know yet that it lost the partition
                known.record = quote
                # By Kafka's clock: what waited in the log while nobody read is as old as it is.
                known.heard_s = record.timestamp / 1000
            else:
                group.quotes[quote["venue"]] = Quote(quote, record.timestamp / 1000)
            touched[symbol] = group
        self._positions[(BBO_BY_GROUP.name, tp.partition)] = records[-1].offset + 1
        for group in touched.values():
            self._write(group)

    def look_again(self) -> None:
        """Once a second: a venue may have fallen silent. Nothing else changes without a quote, so they are only counted."""
        now_s = time.time()
        for groups in self.by_partition.values():
            for group in groups.values():
                if len(group.live(now_s)) != group.written_venues:
                    self._write(group)

    def _write(self, group: Group) -> None:
        now_ns = time.time_ns()
        record = group.cross(now_ns / 1e9, now_ns, self._fee)
        now = tuple(record[name] for name in CHANGES)
        if now == group.last:
            return
        group.last = now
        if self._derived.put(CROSS.name, group.symbol, self._encode(record)):
            self._counts.crosses += 1
        self.on_change(group.symbol)

    def drop(self, partitions: set[int]) -> None:
        """Forget what another worker takes over."""
        for partition in partitions:
            self.by_partition.pop(partition, None)
            self._positions.pop((BBO_BY_GROUP.name, partition), None)

    def find(self, symbol: str, partition: int) -> Group | None:
        """The group of this symbol, if it is held here."""
        return self.by_partition.get(partition, {}).get(symbol)

    def view(self, group: Group) -> dict[str, Any]:
        """The cross as JSON, decimal texts."""
        now_ns = time.time_ns()
        record = group.cross(now_ns / 1e9, now_ns, self._fee)
        out: dict[str, Any] = {"symbol": group.symbol, "venues": record["venues"], "known": record["known"]}
        for side in ("bid", "ask"):
            out[side] = None
            if record[f"{side}_venue"]:
                own = {k.removeprefix(f"{side}_"): v for k, v in record.items() if k.startswith(f"{side}_")}
                price_exp, size_exp = own.pop("price_exp"), own.pop("size_exp")
                price, size = format_decimal(own["price"], price_exp), format_decimal(own["size"], size_exp)
                out[side] = {**own, "price": price, "size": size}
        for name in ("spread_mbps", "net_spread_mbps"):
            value = record[name]
            out[name.replace("mbps", "bps")] = None if value is None else format_decimal(value, -3)
        return out


CHANGES = ("venues", *(f"{side}_{name}" for side in ("bid", "ask") for name in (
    "venue", "price", "price_exp", "size", "size_exp", "epoch",
)))  # fmt: skip
"""When one of these differs a cross is written."""
