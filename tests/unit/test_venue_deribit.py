"""Deribit v2: golden events, instruments, and a real capture through real workers."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    Answer,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    adapter,
)
from simulator.capture_file import read_capture
from tests.venue_replay import Levels, Replay

PERP = "BTC-PERPETUAL"


def parse(frame: str | dict[str, Any], channels: Any = ALL_CHANNELS) -> list[Event]:
    text = frame if isinstance(frame, str) else json.dumps(frame, separators=(",", ":"))
    return list(adapter("deribit")(channels=channels).parse(text.encode()))


def notice(channel: str, data: str) -> str:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'


SNAPSHOT = notice("book.BTC-PERPETUAL.100ms", '{"type":"snapshot","timestamp":1554373962454,"instrument_name":"BTC-PERPETUAL",'
                  '"change_id":297217,"bids":[["new",5042.34,30],["new",5041.94,20.0]],"asks":[["new",5042.64,40]]}')  # fmt: skip
CHANGE = notice("book.BTC-PERPETUAL.100ms", '{"type":"change","timestamp":1554373911330,"prev_change_id":297217,'
                '"instrument_name":"BTC-PERPETUAL","change_id":297218,"bids":[["delete",5041.94,0.0],["change",5042.34,1e-8]],'
                '"asks":[["delete",5042.64,40]]}')  # fmt: skip


def test_books() -> None:
    assert parse(SNAPSHOT) == [
        BookSnapshot(PERP, 297217, [("5042.34", "30"), ("5041.94", "20.0")], [("5042.64", "40")], 1554373962454000)
    ]
    delta = BookDelta(PERP, 297218, 297218, 297217, [("5041.94", "0"), ("5042.34", "1e-8")], [("5042.64", "0")], 1554373911330000)
    assert parse(CHANGE) == [delta]
    loose = CHANGE.replace('"channel":"book', '"channel" : "book').replace('{"jsonrpc":"2.0",', '{  "jsonrpc":"2.0",')
    assert parse(loose) == [delta]
    with pytest.raises(MalformedFrame, match="neither whole nor changed"):
        parse(CHANGE.replace('"change"', '"other"'))


TRADE = ('{"trade_seq":30289442,"trade_id":"48079269","timestamp":1590484512188,"tick_direction":2,"price":8950.0,'
         '"mark_price":8948.9,"instrument_name":"BTC-PERPETUAL","index_price":8955.88,"direction":"sell",'
         '"amount":10.0LIQ}')  # fmt: skip


def test_golden_events() -> None:
    trade = TradeEvent(PERP, "48079269", "SELL", "8950.0", "10.0", 1590484512188000)
    assert parse(notice("trades.BTC-PERPETUAL.100ms", f"[{TRADE.replace('LIQ', '')}]")) == [trade]
    for who, side in (("T", "SELL"), ("M", "BUY"), ("MT", "SELL")):
        forced = notice("trades.BTC-PERPETUAL.100ms", "[" + TRADE.replace("LIQ", f',"liquidation":"{who}"') + "]")
        assert parse(forced) == [
            trade, LiquidationEvent(PERP, side, "8950.0", "10.0", "48079269", 1590484512188000)
        ]  # fmt: skip
        assert parse(forced, ["book", "trade"]) == [trade]
    quote = ('{"timestamp":1550658624149,"instrument_name":"BTC-PERPETUAL","best_bid_price":3914.97,"best_bid_amount":40,'
             '"best_ask_price":3996.61,"best_ask_amount":50}')  # fmt: skip
    assert parse(notice("quote.BTC-PERPETUAL", quote)) == [
        TickerEvent(PERP, -1, "3914.97", "40", "3996.61", "50", 1550658624149000)
    ]
    assert parse(notice("quote.BTC-PERPETUAL", quote.replace("3914.97", "null"))) == []
    ticker = ('{"timestamp":1623060194301,"stats":{"volume":284061480},"state":"open","open_interest":502097590,'
              '"mark_price":36931.08,"interest_value":1.77,"instrument_name":"BTC-PERPETUAL","index_price":36441.64,'
              '"funding_8h":0.0000211,"current_funding":-0.00010782,"best_bid_price":36442.5}')  # fmt: skip
    ts_us = 1623060194301000
    assert parse(notice("ticker.BTC-PERPETUAL.100ms", ticker)) == [
        FundingEvent(PERP, "-0.00010782", 28_800_000_000, 0, ts_us),
        MarkPriceEvent(PERP, "36931.08", "36441.64", ts_us),
        OpenInterestEvent(PERP, "502097590", "QUOTE", ts_us),
    ]
    for native in ("BTC_USDC-PERPETUAL", "BTC-24SEP21-8000-P"):
        (interest,) = parse(notice(f"ticker.{native}.100ms", ticker.replace(PERP, native)), ["open_interest"])
        assert interest == OpenInterestEvent(native, "502097590", "BASE", ts_us)


def test_answers() -> None:
    assert parse({"jsonrpc": "2.0", "id": 5, "result": ["book.BTC-PERPETUAL.100ms"], "usIn": 1, "usOut": 2}) == [Reply(5)]
    assert parse({"jsonrpc": "2.0", "id": 5, "result": []}) == [Reply(5, "none of these channels exists")]
    assert parse({"jsonrpc": "2.0", "id": 0, "result": {"version": "1.2.26"}}) == []
    problem = {"message": "Invalid params", "data": {"reason": "bad channel"}, "code": -32602}
    (reply,) = parse({"jsonrpc": "2.0", "id": 5, "error": problem})
    assert isinstance(reply, Reply)
    assert (reply.request_id, reply.error) == (5, '-32602: Invalid params {"reason":"bad channel"}')
    assert parse({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "heartbeat"}}) == []
    (answer,) = parse({"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}})
    assert isinstance(answer, Answer)
    assert json.loads(answer.frame)["method"] == "public/test"


def test_subscriptions() -> None:
    frame = json.loads(adapter("deribit")(channels=ALL_CHANNELS).subscribe([PERP], 9)[0])
    assert (frame["method"], frame["id"]) == ("public/subscribe", 9)
    assert frame["params"]["channels"] == [
        "book.BTC-PERPETUAL.100ms", "trades.BTC-PERPETUAL.100ms", "quote.BTC-PERPETUAL", "ticker.BTC-PERPETUAL.100ms"
    ]  # fmt: skip


def test_instruments() -> None:
    option = {"tick_size": 0.0005, "taker_commission": 0.0003, "strike": 52000.0, "settlement_period": "month",
              "settlement_currency": "BTC", "quote_currency": "BTC", "option_type": "put", "min_trade_amount": 0.1,
              "maker_commission": 0.0003, "kind": "option", "is_active": True, "instrument_name": "BTC-24JUN22-52000-P",
              "expiration_timestamp": 1656057600000, "counter_currency": "USD", "contract_size": 1.0,
              "base_currency": "BTC"}  # fmt: skip
    perpetual = {**option, "kind": "future", "settlement_period": "perpetual", "instrument_name": PERP, "tick_size": 0.5,
                 "min_trade_amount": 10.0, "expiration_timestamp": 32503708800000, "maker_commission": 0.0}  # fmt: skip
    linear = {**perpetual, "instrument_name": "BTC_USDC-27MAR26", "settlement_period": "month", "counter_currency": "USDC",
              "settlement_currency": "USDC", "expiration_timestamp": 1774598400000, "is_active": False}  # fmt: skip
    spot = {**perpetual, "kind": "spot", "instrument_name": "BTC_USDC", "counter_currency": "USDC", "min_trade_amount": 0.0001}
    entries = [option, perpetual, linear, {**option, "kind": "option_combo"}, None, {**option, "strike": "x"}, spot]
    one, two, three, four = adapter("deribit")().parse_instruments(json.dumps({"jsonrpc": "2.0", "result": entries}).encode())
    assert (one.symbol, one.kind, one.tick_size, one.min_size, one.inverse, one.contract_size, one.taker_fee_bps) == (
        "BTC/USD:BTC-220624-52000-P", "OPTION", "0.0005", "0.1", False, "1", "3"
    )  # fmt: skip
    assert (two.symbol, two.kind, two.inverse, two.expiry_us, two.lot_size, two.maker_fee_bps) == (
        "BTC/USD:BTC", "PERPETUAL", True, None, "10", "0"
    )  # fmt: skip
    assert (three.symbol, three.kind, three.inverse, three.state) == ("BTC/USDC:USDC-260327", "FUTURE", False, "HALTED")
    assert (four.symbol, four.kind, four.settle, four.contract_size, four.lot_size) == ("BTC/USDC", "SPOT", None, None, "0.0001")


def test_a_real_capture_has_every_predecessor_and_its_books_are_exact(captures: Path) -> None:
    path = captures / "deribit_v2_20210722.txt.gz"
    frames = [line.data for line in read_capture([path]) if line.kind == "frame"]
    assert adapter("deribit").sniff(frames)
    said = [json.loads(frame, parse_float=Decimal, parse_int=Decimal) for frame in frames]
    books = [one["params"]["data"] for one in said if one.get("params", {}).get("channel", "").startswith("book.")]
    natives = {book["instrument_name"] for book in books}
    replay = Replay("deribit", natives)
    truth: dict[str, tuple[Levels, Levels]] = {}
    for number, frame in enumerate(frames):
        replay.receive(frame, number)
    for book in books:
        if book["type"] == "snapshot":
            truth[book["instrument_name"]] = ({}, {})
        for held, rows in zip(truth[book["instrument_name"]], (book["bids"], book["asks"]), strict=True):
            for action, price, amount in rows:
                held[price] = amount
                if action == "delete":
                    del held[price]
    counts = replay.counts
    assert (len(natives), counts.book_events) == (10, 10 + 36)
    assert (counts.gaps, counts.duplicates, counts.crossed, counts.dead_letters, counts.internal_errors) == (0, 0, 0, 0, 0)
    assert replay.kinds()["market.mark_price"] == 89
    rebuilt = replay.rebuilt()
    for native in natives:
        assert replay.worker(native).state == "LIVE"
        assert replay.book(native) == truth[native] == rebuilt[native]


def test_a_change_with_another_predecessor_is_a_gap() -> None:
    replay = Replay("deribit", [PERP])
    replay.receive(SNAPSHOT.encode(), 1)
    replay.receive(CHANGE.replace('"prev_change_id":297217', '"prev_change_id":297216').replace("297218", "297219").encode(), 2)
    assert (replay.worker(PERP).state, replay.counts.gaps, replay.wanted) == ("SYNCING", 1, [replay.worker(PERP)])
