"""Backtests on a real capture: the same twice, the queue costs fills, latency is felt, the report is whole."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cli.trade_backtest import capture_log
from market.book import OrderBook
from market.fill_model import FillModel
from strategies.backtest import Backtest, BacktestResult
from strategies.registry import config_of
from strategies.report import write_report

CONFIG = {
    "kind": "market_making", "name": "mm", "fees": {"binance-usdm": {"maker_bps": "1", "taker_bps": "5"}},
    "parameters": {
        "venues": ["binance-usdm"], "symbols": ["BTC/USDT:USDT"], "size": "0.01", "max_inventory": "0.05", "gamma": "0.05",
        "a": "1", "k": "0.5", "sigma": "2", "min_requote_ms": 200,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def log(captures: Path) -> list[Any]:
    return list(islice(capture_log([captures / "binance_usdm_btcusdt_20240808.gz"]), 9000))


def run(log: list[Any], **more: Any) -> BacktestResult:
    return Backtest(config_of(CONFIG), **more).run(log)


def test_the_same_fills_twice_and_the_queue_costs_some(log: list[Any], tmp_path: Path) -> None:
    first, again, free = run(log), run(log), run(log, queue=False)
    assert first.fills
    assert first.fills == again.fills
    assert first.curve == again.curve
    assert len(free.fills) > len(first.fills), "who stands first in each queue trades more"
    assert all(f["maker"] for f in first.fills)
    summary = write_report(first, tmp_path, "market maker")
    assert json.loads(json.dumps(summary))["fills"] == len(first.fills)
    assert (tmp_path / "equity.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "polyline" in (tmp_path / "report.html").read_text()
    assert len((tmp_path / "fills.jsonl").read_text().splitlines()) == len(first.fills)


def test_profit_is_cash_and_inventory_at_the_mid(log: list[Any]) -> None:
    test = Backtest(config_of(CONFIG))
    result = test.run(log)
    cash = sum((-1 if f["side"] == "BUY" else 1) * f["price"] * f["size"] * 10 ** (f["price_exp"] + f["size_exp"] + 18)
               for f in result.fills)  # fmt: skip
    book = test.loop.view.books["binance-usdm|BTC/USDT:USDT"]
    held = sum(result.inventory.values())
    assert result.profit == cash - result.fees + held * book.mid2() // (2 * 10**-book.book.price_exp)


def book_of(bids: dict[int, int], asks: dict[int, int]) -> OrderBook:
    book = OrderBook()
    book.apply(list(bids), list(bids.values()), list(asks), list(asks.values()), 0, 0, replace=True)
    return book


def test_what_is_taken_stays_taken_until_the_level_speaks_again() -> None:
    book = book_of({99: 10}, {101: 10, 102: 5})
    model = FillModel(book)
    fills, rests, _ = model.place("a", "BUY", 102, 12, "IOC")
    assert [(f.price, f.size) for f in fills] == [(101, 10), (102, 2)]
    fills, rests, reason = model.place("b", "BUY", 102, 12, "IOC")
    assert [(f.price, f.size) for f in fills] == [(102, 3)]
    assert rests == 0
    assert reason
    book.asks.set(101, 4)
    model.on_book()
    assert [(f.price, f.size) for f in model.place("c", "BUY", 101, 9, "IOC")[0]] == [(101, 4)]


def test_an_order_waits_behind_what_was_there() -> None:
    book = book_of({99: 10}, {101: 10})
    model = FillModel(book)
    assert model.place("a", "BUY", 99, 4, "POST_ONLY")[1] == 4
    assert model.on_trade(99, 7, "SELL") == []
    book.bids.set(99, 3)
    assert model.on_book() == []
    fills = model.on_trade(99, 5, "SELL")
    assert [(f.size, f.maker) for f in fills] == [(2, True)]
    assert [f.size for f in model.on_trade(98, 1, "SELL")] == [2], "a trade through the price takes the rest"
    assert model.resting == {}


def test_cancels_ahead_move_the_queue_in_proportion() -> None:
    book = book_of({99: 100}, {101: 10})
    model = FillModel(book)
    model.place("a", "BUY", 99, 4, "GTC")
    book.bids.set(99, 150)
    model.on_book()
    book.bids.set(99, 75)
    model.on_book()
    assert model.resting["a"].ahead == 50, "half of the level left, so half of what stood before us"


def test_post_only_and_fill_or_kill() -> None:
    model = FillModel(book_of({99: 10}, {101: 10}))
    assert model.place("a", "BUY", 101, 1, "POST_ONLY") == ([], 0, "would have taken liquidity")
    assert model.place("b", "BUY", 101, 11, "FOK")[0] == []
    assert [f.size for f in model.place("c", "BUY", 101, 10, "FOK")[0]] == [10]
