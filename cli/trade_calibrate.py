"""Parameters for strategies from what was recorded: intensity, volatility, and how late things come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from bus.log_reader import LogRecord
from config.settings import Settings
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from schemas.topics import BOOK, INSTRUMENT, STATUS, TRADE
from strategies.quoting import Calibration

Record = dict[str, Any]


class CalibrationError(Exception):
    """There is too little to calibrate from; the text says of what."""


def calibrate(
    settings: Settings, venue: str, symbol: str, captures: Sequence[Path], *, bucket_ticks: int, window_s: int
) -> str:
    """TOML of a market maker's file, the delays beside it. Raises CalibrationError, BacktestError, BusError."""
    from cli.trade_backtest import capture_log, recorded_log

    log = capture_log(captures) if captures else recorded_log(settings)
    return fitted(log, venue, symbol, _answers(settings, venue) if not captures else [], bucket_ticks, window_s)


def fitted(
    log: Iterable[LogRecord], venue: str, symbol: str, answers_us: list[int], bucket_ticks: int, window_s: int
) -> str:
    """What a log says of one instrument. ``answers_us``: times from an order's socket write to the venue's answer."""
    key, live = f"{venue}|{symbol}", LiveBook(venue, symbol)
    decode = {t.name: codec(t.record).decode for t in (INSTRUMENT, STATUS, BOOK, TRADE)}
    calibration: Calibration | None = None
    late_us: list[int] = []
    books = trades = now_ns = 0
    mid = Decimal(0)
    for record in log:
        if record.topic not in decode or record.value is None:
            continue
        value = decode[record.topic](record.value)
        if f"{value['venue']}|{value['symbol']}" != key:
            continue
        if record.topic == INSTRUMENT.name:
            terms = terms_of(value)
            calibration = calibration or Calibration(
                Decimal(terms.tick * bucket_ticks).scaleb(terms.price_exp), window_s=window_s
            )
        elif record.topic == STATUS.name:
            live.take_status(value)
        elif record.topic == BOOK.name:
            live.take(value, record.partition, record.offset)
            books += 1
            now_ns = value["ts_received_ns"]
            if value["ts_venue_us"]:
                late_us.append(now_ns // 1000 - value["ts_venue_us"])
            if live.live and calibration is not None:
                mid = Decimal(live.mid2()).scaleb(live.book.price_exp) / 2
                calibration.on_mid(now_ns, mid)
        elif live.live and calibration is not None:
            trades += 1
            now_ns = value["ts_received_ns"]
            if value["ts_venue_us"]:
                late_us.append(now_ns // 1000 - value["ts_venue_us"])
            price = Decimal(value["price"]).scaleb(value["price_exp"])
            calibration.on_trade(now_ns, price, Decimal(live.mid2()).scaleb(live.book.price_exp) / 2)
    made = calibration.fit(now_ns) if calibration is not None else None
    if made is None:
        raise CalibrationError(
            f"{key}: {books} book events and {trades} trades are too few: needed are 20 trades that reach at least two "
            f"distances, and 10 seconds of books; or the distances are too fine (--bucket-ticks is {bucket_ticks})"
        )
    a, k, sigma = (format(v, ".6g") for v in made)
    move = made[2] / mid * 10_000 * Decimal("0.7978845608")  # √(2/π): the mean of |normal|
    lines = [
        f"# {key}: {books} book events and {trades} trades, the last {window_s} s of them at most",
        f"# the data came {_percentiles(late_us)} after the venue's own time (both clocks' difference is in it)",
        f"# orders were answered {_percentiles(answers_us)} after they were sent",
        f"# for cross_venue: adverse_bps_per_s = \"{move:.4f}\", delay_ms = {max(0, _at(answers_us or late_us, 99)) // 1000 + 1}",
        'kind = "market_making"', f'name = "mm-{symbol.split("/")[0].lower()}"', "[parameters]", f'venues = ["{venue}"]',
        f'symbols = ["{symbol}"]', f'a = "{a}"', f'k = "{k}"', f'sigma = "{sigma}"', f"bucket_ticks = {bucket_ticks}",
    ]  # fmt: skip
    return "\n".join(lines)


def _answers(settings: Settings, venue: str) -> list[int]:
    """From SENDING to the first word of the venue, in microseconds, of all recorded orders of the venue."""
    from cli.trade_views import records

    sent: dict[str, int] = {}
    out: list[int] = []
    for event in records(settings, "orders.event"):
        if event["venue"] != venue:
            continue
        if event["state"] == "SENDING":
            sent[event["order_id"]] = event["ts_ns"]
        elif event["order_id"] in sent and event["state"] != "UNKNOWN":
            out.append((event["ts_ns"] - sent.pop(event["order_id"])) // 1000)
    return out


def _at(values: list[int], percent: int) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 4999


def _percentiles(values: list[int]) -> str:
    return f"p50 {_at(values, 50) / 1000:.1f} ms, p99 {_at(values, 99) / 1000:.1f} ms" if values else "(nothing recorded)"
