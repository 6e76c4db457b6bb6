"""Bars: what a trade does to them, by the venue's clock, against a plain grouping of all trades."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from processors.bar import INTERVALS_S, KEEP_US, LATENESS_US, NOT_WRITTEN, Bar, InstrumentBars
from processors.bars import Bars
from processors.metrics import Counts
from schemas.codec import codec
from schemas.topics import TRADE

T0 = 1_700_000_000_000_000  # a whole second, 20 s into its minute


def trade(price: int, size: int, side: str = "BUY", price_exp: int = -2, size_exp: int = -3) -> dict[str, Any]:
    return {"taker_side": side, "price": price, "size": size, "price_exp": price_exp, "size_exp": size_exp}


def seconds(bars: list[Bar]) -> list[Bar]:
    return [bar for bar in bars if bar.interval_s == 1]


def test_a_bar_is_written_once_its_second_is_over_by_the_venues_clock() -> None:
    bars = InstrumentBars("v", "A/B")
    assert bars.take(trade(100, 5), 0, T0 + 10) == ([], False)
    assert bars.take(trade(300, 1, "SELL"), 1, T0 + 20) == ([], False)
    assert bars.take(trade(200, 2), 2, T0 + 999_999) == ([], False)
    (written,), _ = bars.take(trade(250, 1), 3, T0 + 1_000_000 + LATENESS_US)
    record = codec("Bar").decode(codec("Bar").encode(bars.record(written, 7)))
    assert (record["open"], record["high"], record["low"], record["close"]) == (100, 300, 100, 200)
    assert (record["volume"], record["buy_volume"], record["notional"]) == ("0.008", "0.007", "0.012")
    assert record["vwap"] == 1_500_000  # 12 / 8 = 1.5, six digits
    assert (record["trades"], record["late_trades"], record["revision"]) == (3, 0, 0)
    assert (record["first_offset"], record["offset"], record["partition"]) == (0, 2, 7)


def test_an_empty_interval_is_not_invented() -> None:
    bars = InstrumentBars("v", "A/B")
    bars.take(trade(100, 5), 0, T0)
    written, _ = bars.take(trade(100, 5), 1, T0 + 10_000_000)
    assert [b.start_us for b in seconds(written)] == [T0]
    assert [b.start_us for b in seconds(list(bars.bars.values()))] == [T0, T0 + 10_000_000]


def test_a_late_trade_writes_its_bar_again_and_says_so() -> None:
    bars = InstrumentBars("v", "A/B")
    bars.take(trade(100, 5), 0, T0)
    bars.take(trade(100, 5), 1, T0 + 5_000_000)
    again, missed = bars.take(trade(90, 1), 2, T0 + 500_000)
    assert not missed
    (bar,) = seconds(again)
    assert (bar.revision, bar.late_trades, bar.trades, bar.low, bar.close) == (1, 1, 2, 90, 90)


def test_a_trade_that_is_too_late_is_counted_and_changes_nothing() -> None:
    bars = InstrumentBars("v", "A/B")
    bars.take(trade(100, 5), 0, T0)
    bars.take(trade(100, 5), 1, T0 + 2_000_000 + KEEP_US)
    written, missed = bars.take(trade(90, 1), 2, T0 + 500_000)
    assert missed
    assert seconds(written) == []
    assert bars.too_late == 1


def test_trades_that_come_out_of_order_open_and_close_by_the_venues_time() -> None:
    bars = InstrumentBars("v", "A/B")
    for offset, (price, ts) in enumerate([(100, 500), (101, 900), (99, 100), (102, 900)]):
        bars.take(trade(price, 1), offset, T0 + ts)
    (bar,) = seconds(list(bars.bars.values()))
    assert (bar.open, bar.close) == (99, 102)


def test_a_finer_exponent_rescales_what_is_open() -> None:
    bars = InstrumentBars("v", "A/B")
    bars.take(trade(100, 5), 0, T0)
    bars.take(trade(10005, 50, price_exp=-4, size_exp=-4), 1, T0 + 1)
    bars.take(trade(1, 1, price_exp=0, size_exp=0), 2, T0 + 2)
    (bar,) = seconds(list(bars.bars.values()))
    record = bars.record(bar, 0)
    assert (record["open"], record["high"], record["close"], record["price_exp"]) == (10000, 10005, 10000, -4)
    assert record["volume"] == "1.01"
    assert Decimal(record["notional"]) == Decimal("1.00") * Decimal("0.005") + Decimal("1.0005") * Decimal("0.005") + 1


def test_sums_beyond_64_bits_stay_exact_in_records_and_checkpoints() -> None:
    bars = InstrumentBars("v", "A/B")
    most = 2**62
    for offset in range(8):
        bars.take(trade(most, most, price_exp=-8, size_exp=-8), offset, T0)
    again = InstrumentBars.restored(codec("BarCheckpoint").decode(codec("BarCheckpoint").encode(bars.checkpoint())))
    (bar,) = seconds(list(again.bars.values()))
    assert bar.notional == 8 * most * most
    assert Decimal(again.record(bar, 0)["volume"]).scaleb(8) == 8 * most


def test_a_quiet_instruments_bars_are_written_when_the_clock_says_so() -> None:
    bars = InstrumentBars("v", "A/B")
    bars.take(trade(100, 5), 0, T0)
    assert bars.due(T0 + 1_000_000 + LATENESS_US - 1) == []
    assert [b.start_us for b in bars.due(T0 + 1_000_000 + LATENESS_US)] == [T0]
    assert bars.due(T0 + 1_000_000 + LATENESS_US) == []


TRADES = st.lists(
    st.tuples(
        st.integers(1, 50), st.integers(1, 9), st.sampled_from(["BUY", "SELL"]), st.integers(0, 20_000_000),
        st.integers(-4, 0), st.integers(-4, 0),
    ),
    max_size=60,
)  # fmt: skip


@given(TRADES, st.integers(0, 60), st.integers(0, 10))
def test_the_last_revisions_are_the_plain_grouping_of_all_trades_across_a_crash(trades, crash_at, back) -> None:
    bars = InstrumentBars("v", "A/B")
    checkpoint, covered = bars.checkpoint(), 0
    last: dict[tuple[int, int], dict[str, Any]] = {}
    offset, crashed = 0, False
    while offset < len(trades):
        if offset == crash_at and not crashed:
            crashed = True
            bars = InstrumentBars.restored(codec("BarCheckpoint").decode(codec("BarCheckpoint").encode(checkpoint)))
            offset = covered
            continue
        price, size, side, ts, price_exp, size_exp = trades[offset]
        written, missed = bars.take(trade(price, size, side, price_exp, size_exp), offset, T0 + ts)
        assert not missed  # all within what is kept
        for bar in written:
            last[(bar.interval_s, bar.start_us)] = bars.record(bar, 0)
        offset += 1
        if offset == crash_at - back:
            checkpoint, covered = bars.checkpoint(), offset
    for bar in bars.due(T0 + 10**12):
        last[(bar.interval_s, bar.start_us)] = bars.record(bar, 0)
    wanted: dict[tuple[int, int], list[Any]] = {}
    for offset, (price, size, side, ts, price_exp, size_exp) in enumerate(trades):
        for interval_s in INTERVALS_S:
            start = (T0 + ts) // (interval_s * 1_000_000) * interval_s * 1_000_000
            one = (T0 + ts, offset, Decimal(price).scaleb(price_exp), Decimal(size).scaleb(size_exp), side)
            wanted.setdefault((interval_s, start), []).append(one)
    assert last.keys() == wanted.keys()
    for key, group in wanted.items():
        record, ordered = last[key], sorted(group)
        exp = record["price_exp"]
        shown = [Decimal(record[n]).scaleb(exp) for n in ("open", "high", "low", "close")]
        prices = [t[2] for t in ordered]
        assert shown == [prices[0], max(prices), min(prices), prices[-1]]
        assert Decimal(record["volume"]) == sum(t[3] for t in group)
        assert Decimal(record["buy_volume"]) == sum(t[3] for t in group if t[4] == "BUY")
        assert Decimal(record["notional"]) == sum(t[2] * t[3] for t in group)
        assert record["trades"] == len(group)
        assert record["first_offset"] == min(t[1] for t in group)


def test_a_bar_not_written_is_marked_so() -> None:
    assert Bar(1, T0).revision == NOT_WRITTEN


def test_the_view_shows_the_written_bars_that_a_worker_took_over_beside_its_own() -> None:
    def worker(restored: dict[str, Any] | None) -> Bars:
        derived: Any = SimpleNamespace(put=lambda *_: True)
        return Bars(derived, Counts(), {}, lambda _: restored, lambda *_: None)

    def at(second: int, offset: int) -> Any:
        value = codec("Trade").encode({
            **trade(100 + second, 5), "venue": "v", "symbol": "A/B", "trade_id": str(offset),
            "ts_venue_us": T0 + second * 1_000_000, "ts_received_ns": (T0 + second * 1_000_000) * 1000,
        })  # fmt: skip
        return SimpleNamespace(offset=offset, key=b"v|A/B", value=value)

    def shown(bars: Bars) -> list[tuple[int, bool]]:
        found = bars.view("v|A/B", 0, 1, 10) or []
        return [((bar["start_us"] - T0) // 1_000_000, bar["final"]) for bar in found]

    tp = SimpleNamespace(topic=TRADE.name, partition=0)
    before = worker(None)
    before.on_trade_batch(tp, [at(0, 0), at(1, 1), at(3, 2)])
    assert shown(before) == [(0, True), (1, True), (3, False)]
    checkpoint = codec("BarCheckpoint").decode(before.encoded("v|A/B", 0) or b"")
    after = worker(checkpoint)
    after.get("v|A/B", 0)
    assert shown(after) == [(0, True), (1, True), (3, False)]
    after.on_trade_batch(tp, [at(5, 3), at(1, 4)])  # the second one late: its bar is written again, and shown once
    assert shown(after) == [(0, True), (1, True), (3, True), (5, False)]
    assert [bar["revision"] for bar in after.view("v|A/B", 0, 1, 10) or []] == [0, 1, 0, 0]
