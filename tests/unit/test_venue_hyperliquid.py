"""Hyperliquid: golden events, whole books, refusals by name, instruments."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    BookSnapshot,
    Event,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    adapter,
)
from tests.venue_replay import Replay, events_of


def encode(channel: str, data: Any) -> bytes:
    return json.dumps({"channel": channel, "data": data}, separators=(",", ":")).encode()


def parse(channel: str, data: Any) -> list[Event]:
    return events_of("hyperliquid", [encode(channel, data)])


def book(bids: list[tuple[str, str]], asks: list[tuple[str, str]], time: int = 1710131872708) -> bytes:
    levels = [[{"px": px, "sz": sz, "n": 4} for px, sz in side] for side in (bids, asks)]
    return encode("l2Book", {"coin": "BTC", "time": time, "levels": levels})


def test_books_are_whole_each_time() -> None:
    frame = book([("68674.0", "0.97139")], [("68675.0", "0.04396")])
    whole = BookSnapshot("BTC", -1, [("68674.0", "0.97139")], [("68675.0", "0.04396")], 1710131872708000, refresh=True)
    assert events_of("hyperliquid", [frame]) == [whole]
    assert events_of("hyperliquid", [json.dumps(dict(reversed(json.loads(frame).items())), indent=1).encode()]) == [whole]
    replay = Replay("hyperliquid", ["BTC"])
    for bids in ([("10.0", "1"), ("9.0", "2")], [("10.0", "1.5"), ("8.5", "3")], [("10.0", "1.5"), ("8.5", "3")]):
        replay.receive(book(bids, [("11", "1")]), 1)
    worker = replay.worker("BTC")
    assert (worker.state, worker.index, replay.counts.gaps) == ("LIVE", 1, 0)
    expected = ({Decimal("10"): Decimal("1.5"), Decimal("8.5"): Decimal(3)}, {Decimal(11): Decimal(1)})
    assert replay.book("BTC") == replay.rebuilt()["BTC"] == expected


def test_golden_events() -> None:
    trade = {"coin": "BTC", "side": "A", "px": "72581.0", "sz": "0.00017", "time": 1787259217020, "hash": "0x0",
             "tid": 877707108085800, "users": ["0x9b", "0x70"]}  # fmt: skip
    assert parse("trades", [trade, {**trade, "side": "B"}]) == [
        TradeEvent("BTC", "877707108085800", side, "72581.0", "0.00017", 1787259217020000) for side in ("SELL", "BUY")
    ]
    assert parse("trades", []) == []
    best = {"coin": "BTC", "time": 1787259217020, "bbo": [{"px": "1.5", "sz": "2", "n": 1}, {"px": "1.6", "sz": "3", "n": 2}]}
    assert parse("bbo", best) == [TickerEvent("BTC", -1, "1.5", "2", "1.6", "3", 1787259217020000)]
    assert parse("bbo", {**best, "bbo": [None, best["bbo"][1]]}) == []
    ctx = {"funding": "0.0000125", "openInterest": "688.11", "prevDayPx": "15.322", "dayNtlVlm": "1169046.29", "premium": None,
           "oraclePx": "14.32", "markPx": "14.3161", "midPx": "14.314"}  # fmt: skip
    assert parse("activeAssetCtx", {"coin": "BTC", "ctx": ctx}) == [
        FundingEvent("BTC", "0.0000125", 3_600_000_000),
        MarkPriceEvent("BTC", "14.3161", "14.32"),
        OpenInterestEvent("BTC", "688.11", "BASE"),
    ]
    spot = {"coin": "@107", "ctx": {"markPx": "0.14", "midPx": "0.209265", "circulatingSupply": "998949190.03"}}
    assert parse("activeSpotAssetCtx", spot) == [MarkPriceEvent("@107", "0.14", "")]


def test_trades_of_before_a_reconnection_are_not_said_twice() -> None:
    def trades(*made: tuple[int, int], coin: str = "BTC") -> bytes:
        return encode("trades", [{"coin": coin, "side": "A", "px": "7", "sz": "1", "time": t, "tid": n} for t, n in made])

    def ids(events: Any) -> list[str]:
        return [event.trade_id for event in events]

    venue = adapter("hyperliquid")()
    one = venue.connection()
    assert ids(one(trades((1000, 1), (1001, 2)))) == ["1", "2"]
    assert ids(one(trades((1001, 3)))) == ["3"]
    other = venue.connection()
    # Newest first, with one that was made meanwhile in the block that was known in part, and one after it.
    assert ids(other(trades((1002, 5), (1001, 4), (1001, 3), (1001, 2), (1000, 1)))) == ["5", "4"]
    assert ids(other(trades((1002, 5), (1002, 6)))) == ["6"]
    assert ids(other(trades((1000, 9), coin="ETH"))) == ["9"]


def test_answers() -> None:
    taken = {"method": "subscribe", "subscription": {"type": "l2Book", "coin": "BTC", "nSigFigs": None, "mantissa": None}}
    assert parse("subscriptionResponse", taken) == [Reply(native="BTC")]
    assert parse("subscriptionResponse", {**taken, "method": "unsubscribe"}) == []
    assert parse("subscriptionResponse", {**taken, "subscription": {"type": "trades", "coin": "BTC"}}) == []
    refused = 'Invalid subscription {"type":"l2Book","coin":"FOO","nSigFigs":null}'
    assert parse("error", refused) == [Reply(-1, refused, "FOO")]
    turned = 'Invalid subscription {"coin": "FOO", "type": "l2Book"}'
    assert parse("error", turned) == [Reply(-1, turned, "FOO")]
    assert parse("error", refused.replace("l2Book", "bbo")) == [Reply(-1, refused.replace("l2Book", "bbo"))]
    assert parse("error", 'Already subscribed: {"type":"l2Book","coin":"BTC"}') == [Reply(-1, "", "BTC")]
    assert parse("error", 'Already subscribed: {"type":"bbo","coin":"BTC"}') == []
    assert events_of("hyperliquid", [b'{"channel":"pong"}']) == []


def test_subscriptions_are_one_a_frame() -> None:
    frames = [json.loads(frame) for frame in adapter("hyperliquid")(channels=ALL_CHANNELS).subscribe(["kPEPE"], 1)]
    assert [frame["subscription"] for frame in frames] == [
        {"type": kind, "coin": "kPEPE"} for kind in ("l2Book", "trades", "bbo", "activeAssetCtx")
    ]


def test_instruments() -> None:
    venue = adapter("hyperliquid")()
    perpetuals, spots = venue.instruments_requests()
    assert [json.loads(request.body)["type"] for request in (perpetuals, spots)] == ["meta", "spotMeta"]
    universe = [{"name": "BTC", "szDecimals": 5, "maxLeverage": 50}, {"name": "kPEPE", "szDecimals": 0, "isDelisted": True},
                None, {"name": "X", "szDecimals": 99}]  # fmt: skip
    btc, pepe = venue.parse_instruments(json.dumps({"universe": universe, "marginTables": []}).encode())
    assert (btc.native_id, btc.symbol, btc.kind, btc.tick_size, btc.lot_size, btc.min_notional, btc.state) == (
        "BTC", "BTC/USDC:USDC", "PERPETUAL", "0.1", "0.00001", "10", "TRADING"
    )  # fmt: skip
    assert (pepe.native_id, pepe.symbol, pepe.lot_size, pepe.state) == ("kPEPE", "KPEPE/USDC:USDC", "1", "DELISTED")
    tokens = [{"name": "USDC", "szDecimals": 8, "index": 0}, {"name": "PURR", "szDecimals": 0, "index": 1},
              {"name": "UBTC", "szDecimals": 5, "index": 197}]  # fmt: skip
    pairs = [{"name": "PURR/USDC", "tokens": [1, 0], "index": 0}, {"name": "@142", "tokens": [197, 0], "index": 142},
             {"name": "@9", "tokens": [5, 0], "index": 9}]  # fmt: skip
    purr, wrapped = venue.parse_instruments(json.dumps({"universe": pairs, "tokens": tokens}).encode())
    assert (purr.native_id, purr.symbol, purr.tick_size, purr.settle) == ("PURR/USDC", "PURR/USDC", "0.00000001", None)
    assert (wrapped.native_id, wrapped.symbol, wrapped.tick_size, wrapped.lot_size) == ("@142", "BTC/USDC", "0.001", "0.00001")
    with pytest.raises(MalformedFrame):
        venue.parse_instruments(b'{"universe":null}')
