"""What a venue says beside its books, turned into records: trades, tickers, funding, mark price, open interest, liquidations.

Each function reads the venue's texts into exact integers and writes one record. DecimalError for a text that is no
number, EncodeError for one beyond 64 bits: the pipeline makes it a dead letter. They keep no state: one lost trade says
nothing about the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collectors.events import (
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    TickerEvent,
    TradeEvent,
)
from collectors.mantissas import FinerExponent
from market.decimals import parse_decimal, rescale, strip_zeros

if TYPE_CHECKING:
    from collectors.worker import BookWorker


def on_trade(worker: BookWorker, event: TradeEvent, ts_ns: int) -> None:
    """Publish a trade."""
    price, size = worker.local.price(event.price), worker.local.size(event.size)
    worker.publisher.trade(worker, event, price, size, ts_ns)


def on_ticker(worker: BookWorker, event: TickerEvent, ts_ns: int) -> None:
    """Publish the venue's own best bid and offer."""
    local = worker.local
    prices, sizes = local.prices, local.sizes
    try:
        bid_price, ask_price = prices[event.bid_price], prices[event.ask_price]
        bid_size, ask_size = sizes[event.bid_size], sizes[event.ask_size]
    except FinerExponent:
        (bid_price,), (bid_size,), (ask_price,), (ask_size,) = local.columns(
            ((event.bid_price, event.bid_size),), ((event.ask_price, event.ask_size),)
        )
    worker.publisher.ticker(worker, event, bid_price, bid_size, ask_price, ask_size, ts_ns)


def on_funding(worker: BookWorker, event: FundingEvent, ts_ns: int) -> None:
    """Publish a funding rate."""
    rate, exponent = strip_zeros(*parse_decimal(event.rate))
    worker.publisher.funding(worker, event, rate, exponent, ts_ns)


def on_mark_price(worker: BookWorker, event: MarkPriceEvent, ts_ns: int) -> None:
    """Publish mark and index price, both at the finer one's exponent."""
    mark = strip_zeros(*parse_decimal(event.mark)) if event.mark else None
    index = strip_zeros(*parse_decimal(event.index)) if event.index else None
    exponent = min(pair[1] for pair in (mark, index) if pair is not None) if mark or index else 0
    values = [None if pair is None else rescale(*pair, exponent) for pair in (mark, index)]
    worker.publisher.mark_price(worker, event, values[0], values[1], exponent, ts_ns)


def on_open_interest(worker: BookWorker, event: OpenInterestEvent, ts_ns: int) -> None:
    """Publish the open interest."""
    amount, exponent = strip_zeros(*parse_decimal(event.amount))
    worker.publisher.open_interest(worker, event, amount, exponent, ts_ns)


def on_liquidation(worker: BookWorker, event: LiquidationEvent, ts_ns: int) -> None:
    """Publish a forced order."""
    price, size = worker.local.price(event.price), worker.local.size(event.size)
    worker.publisher.liquidation(worker, event, price, size, ts_ns)


HANDLERS: dict[type, Callable[[BookWorker, Any, int], None]] = {
    TradeEvent: on_trade,
    TickerEvent: on_ticker,
    FundingEvent: on_funding,
    MarkPriceEvent: on_mark_price,
    OpenInterestEvent: on_open_interest,
    LiquidationEvent: on_liquidation,
}

