"""What a backtest plays: the recorded topics, or captures of Binance turned into the very records a collector writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bus.log_reader import LogRecord, read_all
from config.settings import Settings
from market.decimals import parse_decimal, strip_zeros, to_mantissa
from schemas.codec import codec
from schemas.topics import BOOK, FUNDING, INSTRUMENT, STATUS, TRADE
from simulator.capture_book import CapturedBook
from simulator.capture_file import CaptureError, read_capture
from strategies.backtest import Backtest
from strategies.registry import Config
from strategies.report import write_report

Record = dict[str, Any]


class BacktestError(Exception):
    """There is nothing to play; the text says why."""


def run_backtest(
    settings: Settings, config: Config, out: Path, captures: Sequence[Path], *, latency_ms: int, queue: bool
) -> dict[str, object]:
    """Play, write the report, give its summary. Raises BacktestError, StrategyError, BusError."""
    test = Backtest(config, latency_ns=latency_ms * 1_000_000, queue=queue)
    try:
        result = test.run(capture_log(captures) if captures else recorded_log(settings))
    except CaptureError as error:
        raise BacktestError(str(error)) from error
    if not test.loop.view.books:
        raise BacktestError(f"the log holds no instrument that {config.name} wants")
    source = ", ".join(p.name for p in captures) or "recorded topics"
    title = f"{config.name} ({config.kind}) on {source}, latency {latency_ms} ms, queue {'on' if queue else 'off'}"
    return write_report(result, out, title)


def recorded_log(settings: Settings) -> list[LogRecord]:
    """All that the topics hold, in the order of Kafka's time; instruments first, they are known before they trade."""
    order = {t.name: n for n, t in enumerate((INSTRUMENT, STATUS, BOOK, TRADE, FUNDING))}
    found = [r for name in order for r in read_all(settings, name, timeout_s=300)]
    if not found:
        raise BacktestError("the topics hold nothing yet: collect, or name captures with --capture")
    return sorted(found, key=lambda r: (r.topic != INSTRUMENT.name, r.ts_ns, order[r.topic], r.partition, r.offset))


def capture_log(paths: Sequence[Path]) -> Iterator[LogRecord]:
    """Binance captures (lines ``RECV_NS JSON``) as the records that a collector would have written, one stream.

    Tick and lot are the finest digits of the capture's own snapshot. Raises CaptureError, BacktestError.
    """
    makers: dict[str, _Maker] = {}
    snapshots = 0
    venue, native = "", ""
    early: list[tuple[int, Record]] = []
    for line in read_capture(paths):
        if line.kind not in ("frame", "rest"):
            continue
        message = json.loads(line.data)
        if line.kind == "rest":
            snapshots += 1
            if not native:
                raise BacktestError("a snapshot before any depth event: nobody says of which instrument")
            maker = makers.setdefault(native, _Maker(venue, native))
            for ts_ns, data in early:
                maker.book.take(data)
                del ts_ns
            early.clear()
            yield from maker.snapshot(message, line.data, line.ts_ns)
            continue
        data = message.get("data", {})
        stream = message.get("stream", "")
        if "@depth" in stream:
            native = data["s"]
            venue = "binance-coinm" if "ps" in data else "binance-usdm" if "pu" in data else "binance-spot"
            if native in makers:
                yield from makers[native].delta(data, line.ts_ns)
            else:
                early.append((line.ts_ns, data))
                del early[:-10_000]
        elif stream.endswith("@trade") and data["s"] in makers:
            yield from makers[data["s"]].trade(data, line.ts_ns)
    if not snapshots:
        raise BacktestError("no depth snapshot in these captures: no book can begin")


class _Maker:
    """One instrument of a capture, as log records."""

    def __init__(self, venue: str, native: str) -> None:
        self.venue = venue
        base = native.removesuffix("_PERP").removesuffix("USDT").removesuffix("USD")
        quote = "USD" if venue == "binance-coinm" else "USDT"
        settle = {"binance-coinm": base, "binance-usdm": quote}.get(venue)
        self.symbol = f"{base}/{quote}" + (f":{settle}" if settle else "")
        self.base, self.quote, self.settle = base, quote, settle
        self.book = CapturedBook(venue != "binance-spot", 0)
        self.index = -1
        self.epoch = 0
        self.price_exp = self.size_exp = 0
        self._offsets: dict[str, int] = {}

    def snapshot(self, answer: Record, body: bytes, ts_ns: int) -> Iterator[LogRecord]:
        levels = [level for side in ("bids", "asks") for level in answer[side]]
        first = self.epoch == 0
        if first:
            self.price_exp = min(strip_zeros(*parse_decimal(p))[1] for p, *_ in levels)
            self.size_exp = min(strip_zeros(*parse_decimal(s))[1] for _, s, *_ in levels)
        self.book.load(body, answer)
        self.epoch += 1
        self.index = -1
        seq, bids, asks = self.book.truth.at()
        if first:
            yield self._record(INSTRUMENT.name, "Instrument", ts_ns, {
                "venue": self.venue, "symbol": self.symbol, "native_id": self.symbol, "base": self.base,
                "quote": self.quote, "settle": self.settle, "kind": "PERPETUAL" if self.settle else "SPOT",
                "state": "TRADING", "inverse": self.settle == self.base, "tick_size": f"1e{self.price_exp}",
                "lot_size": f"1e{self.size_exp}", "contract_size": "100" if self.settle == self.base else None,
                "ts_ns": ts_ns,
            })  # fmt: skip
        yield self._record(STATUS.name, "BookStatus", ts_ns, {
            "venue": self.venue, "symbol": self.symbol, "state": "LIVE", "reason": "", "epoch": self.epoch,
            "since_ns": ts_ns, "owner": "",
        })  # fmt: skip
        yield self._event("SNAPSHOT", seq, bids, asks, ts_ns)

    def delta(self, data: Record, ts_ns: int) -> Iterator[LogRecord]:
        if self.book.take(data):
            yield self._event("DELTA", data["u"], data["b"], data["a"], ts_ns)

    def trade(self, data: Record, ts_ns: int) -> Iterator[LogRecord]:
        if data.get("X", "MARKET") != "MARKET":
            return  # insurance fund and the like: no order of the book traded
        yield self._record(TRADE.name, "Trade", ts_ns, {
            "venue": self.venue, "symbol": self.symbol, "trade_id": str(data["t"]),
            "taker_side": "SELL" if data["m"] else "BUY", "price": to_mantissa(data["p"], self.price_exp),
            "size": to_mantissa(data["q"], self.size_exp), "price_exp": self.price_exp, "size_exp": self.size_exp,
            "ts_venue_us": data["T"] * 1000, "ts_received_ns": ts_ns,
        })  # fmt: skip

    def _event(self, kind: str, seq: int, bids: Sequence[Any], asks: Sequence[Any], ts_ns: int) -> LogRecord:
        self.index += 1
        pe, se = self.price_exp, self.size_exp
        return self._record(BOOK.name, "BookEvent", ts_ns, {
            "venue": self.venue, "symbol": self.symbol, "kind": kind, "epoch": self.epoch, "index": self.index,
            "venue_seq": seq, "venue_prev_seq": -1, "ts_venue_us": 0, "ts_received_ns": ts_ns, "price_exp": pe,
            "size_exp": se, "bid_prices": [to_mantissa(p, pe) for p, *_ in bids],
            "bid_sizes": [to_mantissa(s, se) for _, s, *_ in bids], "ask_prices": [to_mantissa(p, pe) for p, *_ in asks],
            "ask_sizes": [to_mantissa(s, se) for _, s, *_ in asks], "venue_checksum": None,
        })  # fmt: skip

    def _record(self, topic: str, name: str, ts_ns: int, value: Record) -> LogRecord:
        offset = self._offsets.get(topic, 0)
        self._offsets[topic] = offset + 1
        return LogRecord(topic, 0, offset, ts_ns, None, codec(name).encode(value))
