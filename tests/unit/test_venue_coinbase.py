"""Coinbase Advanced Trade: golden events, the connection's own count, products and polls."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    Event,
    FundingEvent,
    OpenInterestEvent,
    Reply,
    StreamBroken,
    TickerEvent,
    TradeEvent,
    adapter,
)
from tests.venue_replay import Replay, events_of

BTC = "BTC-USD"
TS = 1675974770714965  # the nanoseconds are rounded


def frame(channel: str, number: int, *events: Any) -> bytes:
    return json.dumps(
        {"channel": channel, "client_id": "", "timestamp": "2023-02-09T20:32:50.714964855Z", "sequence_num": number,
         "events": events}, separators=(",", ":")
    ).encode()  # fmt: skip


def change(side: str, price: str, size: str) -> dict[str, str]:
    return {"side": side, "event_time": "1970-01-01T00:00:00Z", "price_level": price, "new_quantity": size}


def book(number: int, kind: str, *changes: dict[str, str], native: str = BTC) -> bytes:
    return frame("l2_data", number, {"type": kind, "product_id": native, "updates": changes})


SNAPSHOT = book(0, "snapshot", change("bid", "21921.74", "0.06317902"), change("offer", "21922.5", "0.020"))


def test_books() -> None:
    assert events_of("coinbase", [SNAPSHOT, book(1, "update", change("bid", "21921.74", "0"), change("offer", "1e3", "2"))]) == [
        BookSnapshot(BTC, 0, [("21921.74", "0.06317902")], [("21922.5", "0.020")], TS),
        BookDelta(BTC, 1, 1, -1, [("21921.74", "0")], [("1e3", "2")], TS),
    ]
    loose = json.dumps(dict(reversed(json.loads(SNAPSHOT).items())), indent=1).encode()
    assert events_of("coinbase", [loose]) == events_of("coinbase", [SNAPSHOT])
    with pytest.raises(MalformedFrame, match="neither bid nor offer"):
        events_of("coinbase", [book(0, "update", change("ask", "1", "1"))])
    with pytest.raises(MalformedFrame, match="neither whole nor changed"):
        events_of("coinbase", [book(0, "other")])


def test_golden_events() -> None:
    trade = {"trade_id": "000000001", "product_id": "ETH-USD", "price": "1260.01", "size": "0.3", "side": "BUY",
             "time": "2019-08-14T20:42:27.265Z"}  # fmt: skip
    trades = frame("market_trades", 5, {"type": "snapshot", "trades": [trade]}, {"type": "update", "trades": [trade]})
    # The side is the maker's, and the snapshot is the past.
    assert events_of("coinbase", [trades]) == [TradeEvent("ETH-USD", "000000001", "SELL", "1260.01", "0.3", 1565815347265000)]
    ticker = {"type": "ticker", "product_id": BTC, "price": "21932.98", "best_bid": "21931.98", "best_bid_quantity": "8000.21",
              "best_ask": "21933.98", "best_ask_quantity": "8038.07770938"}  # fmt: skip
    said = frame("ticker", 5, {"type": "snapshot", "tickers": [ticker, {**ticker, "best_bid": ""}]})
    assert events_of("coinbase", [said]) == [TickerEvent(BTC, -1, "21931.98", "8000.21", "21933.98", "8038.07770938", TS)]


def test_answers() -> None:
    def parse(said: bytes) -> list[Event]:
        return events_of("coinbase", [said])

    subscriptions = frame("subscriptions", 3, {"subscriptions": {"level2": [BTC, "ETH-USD"], "heartbeats": ["heartbeats"]}})
    assert parse(subscriptions) == [Reply(native=BTC), Reply(native="ETH-USD")]
    assert parse(frame("subscriptions", 3, {"subscriptions": {}})) == []
    assert parse(frame("heartbeats", 4, {"current_time": "2023-06-23 20:31:56", "heartbeat_counter": 3049})) == []
    assert parse(b'{"type":"error","message":"rate limit exceeded"}') == [Reply(-1, "rate limit exceeded")]


def test_every_frame_of_the_connection_counts() -> None:
    replay = Replay("coinbase", [BTC])
    replay.receive(SNAPSHOT, 1)
    replay.receive(frame("heartbeats", 1, {"heartbeat_counter": 1}), 2)
    replay.receive(book(2, "update", change("bid", "21921.74", "2")), 3)
    replay.receive(book(2, "update", change("bid", "21921.74", "3")), 4)  # sent again
    worker = replay.worker(BTC)
    assert (worker.state, worker.last_seq, replay.broken) == ("LIVE", 2, [])
    assert replay.book(BTC)[0] == {Decimal("21921.74"): Decimal(2)}
    replay.receive(book(4, "update", change("bid", "21921.74", "4")), 5)
    assert replay.broken == ["message 4 came after 2"]
    assert replay.book(BTC)[0] == {Decimal("21921.74"): Decimal(2)}, "nothing behind a hole is applied"
    fresh = adapter("coinbase")().connection()
    first = fresh(book(17, "snapshot"))
    assert not any(isinstance(event, StreamBroken) for event in first), "where a connection begins is its own"


def test_subscriptions_keep_themselves_alive() -> None:
    frames = [json.loads(one) for one in adapter("coinbase")(channels=ALL_CHANNELS).subscribe([BTC], 1)]
    assert [one["channel"] for one in frames] == ["level2", "market_trades", "ticker", "heartbeats"]
    assert frames[0] == {"type": "subscribe", "product_ids": [BTC], "channel": "level2"}


SPOT: dict[str, Any] = {
    "product_id": BTC, "price": "67060", "base_increment": "0.00000001", "quote_increment": "0.01", "quote_min_size": "1",
    "base_min_size": "0.00000001", "is_disabled": False, "status": "online", "cancel_only": False, "trading_disabled": False,
    "product_type": "SPOT", "quote_currency_id": "USD", "base_currency_id": "BTC", "fcm_trading_session_details": None,
    "alias": "", "alias_to": ["BTC-USDC"], "view_only": False, "price_increment": "0.01", "display_name": "BTC-USD",
}  # fmt: skip
FUTURE: dict[str, Any] = {
    "product_id": "BIT-26APR24-CDE", "base_increment": "1", "quote_increment": "0.01", "quote_min_size": "0",
    "base_min_size": "1", "status": "", "product_type": "FUTURE", "quote_currency_id": "USD", "base_currency_id": "",
    "alias": "", "price_increment": "5", "display_name": "BTC 26 APR 24",
    "future_product_details": {"contract_expiry": "2024-04-26T15:00:00Z", "contract_size": "0.01", "contract_root_unit": "BTC",
                               "contract_expiry_type": "EXPIRING", "contract_display_name": "BTC 26 APR 24"},
}  # fmt: skip
PERPETUAL: dict[str, Any] = {
    **FUTURE, "product_id": "ETH-PERP-INTX", "quote_currency_id": "USDC", "base_increment": "0.0001", "trading_disabled": True,
    "future_product_details": {"contract_expiry": None, "contract_size": "1", "contract_root_unit": "ETH",
                               "contract_expiry_type": "PERPETUAL", "funding_interval": "3600s",
                               "perpetual_details": {"open_interest": "18.5", "funding_rate": "0.000016",
                                                     "funding_time": "2024-04-09T09:00:00.000008Z"}},
}  # fmt: skip


def test_products() -> None:
    entries = [SPOT, {**SPOT, "product_id": "BTC-USDC", "alias": BTC}, None, {**SPOT, "base_increment": "x"}, FUTURE, PERPETUAL]
    spot, future, perpetual = adapter("coinbase")().parse_instruments(json.dumps({"products": entries}).encode())
    assert (spot.symbol, spot.kind, spot.tick_size, spot.lot_size, spot.min_notional, spot.state) == (
        "BTC/USD", "SPOT", "0.01", "0.00000001", "1", "TRADING"
    )  # fmt: skip
    assert (future.symbol, future.kind, future.contract_size, future.expiry_us, future.min_notional) == (
        "BTC/USD:USD-240426", "FUTURE", "0.01", 1714143600000000, None
    )  # fmt: skip
    assert (perpetual.symbol, perpetual.kind, perpetual.contract_size, perpetual.state) == (
        "ETH/USDC:USDC", "PERPETUAL", "1", "HALTED"
    )  # fmt: skip


def test_polls_say_what_no_stream_says() -> None:
    venue = adapter("coinbase")(channels=ALL_CHANNELS)
    (poll,) = venue.polls()
    body = json.dumps({"products": [FUTURE, PERPETUAL, None]}).encode()
    assert venue.parse_poll(poll.request, body) == [
        FundingEvent("ETH-PERP-INTX", "0.000016", 3_600_000_000, 1712653200000008),
        OpenInterestEvent("ETH-PERP-INTX", "18.5", "CONTRACT"),
    ]
    assert adapter("coinbase")().polls() == []
    with pytest.raises(MalformedFrame):
        venue.parse_poll(poll.request, b"[]")
