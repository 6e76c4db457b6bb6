"""MEXC: Protocol Buffers of the spot stream, JSON of the contracts, their chains onto REST books."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.cex.protobuf import fields
from collectors.errors import MalformedFrame
from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    FundingEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    TickerEvent,
    TradeEvent,
    Venue,
    adapter,
)
from tests.rest_replay import encoded
from tests.venue_replay import Replay


def venue(name: str) -> Venue:
    return adapter(name)(channels=ALL_CHANNELS)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*parts: tuple[int, int | str | bytes]) -> bytes:
    """A Protocol Buffers message, written by the encoding's own rules."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            raw = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(raw)) + raw
    return out


def push(kind: str, field: int, body: bytes, native: str = "BTCUSDT") -> bytes:
    channel = f"spot@public.aggre.{kind}.v3.api.pb@100ms@{native}"
    return message((1, channel), (3, native), (6, 1754741322152), (field, body))


def depth(first: int, last: int, bids: Any = (), asks: Any = ()) -> bytes:
    rows = [(number, message((1, p), (2, q))) for number, side in ((1, asks), (2, bids)) for p, q in side]
    return push("depth", 313, message(*rows, (3, "spot@public.aggre.depth"), (4, str(first)), (5, str(last))))


def test_spot_frames() -> None:
    spot = venue("mexc-spot")
    assert spot.parse(depth(43296363236, 43296363255, [("117053.41", "1.86837271")], [("117145.49", "0")])) == (
        BookDelta("BTCUSDT", 43296363236, 43296363255, -1, [("117053.41", "1.86837271")], [("117145.49", "0")],
                  1754741322152000),
    )  # fmt: skip
    deal = message((1, "93220.00"), (2, "0.04438243"), (3, 2), (4, 1736409765051))
    assert spot.parse(push("deals", 314, message((1, deal), (1, deal), (2, "x")))) == (
        TradeEvent("BTCUSDT", "", "SELL", "93220.00", "0.04438243", 1736409765051000),
    ) * 2
    ticker = message((1, "1.1"), (2, "5"), (3, "1.2"), (4, "6"))
    assert spot.parse(push("bookTicker", 315, ticker)) == (
        TickerEvent("BTCUSDT", -1, "1.1", "5", "1.2", "6", 1754741322152000),
    )
    assert spot.parse(push("kline", 308, ticker)) == ()
    assert adapter("mexc-spot").sniff([depth(1, 1)])


@pytest.mark.parametrize(
    "frame",
    [push("depth", 313, message((4, "x"), (5, "2"))), push("depth", 313, message((5, "2"))),
     push("deals", 314, message((1, b""))),
     push("depth", 313, message((1, message((1, "5"))), (4, "1"), (5, "2"))), message((6, 5)), depth(1, 2)[:-1],
     push("bookTicker", 315, message((1, "1"))), b"\x0b", b"\x08" + b"\xff" * 11, b"\x02\x00"],
)  # fmt: skip
def test_what_is_no_message_of_the_venue_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        venue("mexc-spot").parse(frame)


@given(st.binary(max_size=200), st.integers(0, 60))
def test_bytes_within_a_real_frame_are_events_or_malformed(noise: bytes, at: int) -> None:
    frame = depth(1, 2, [("1", "2")])
    try:
        venue("mexc-spot").parse(frame[:at] + noise + frame[at + len(noise) :])
    except MalformedFrame:
        return


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.one_of(st.integers(0, (1 << 64) - 1), st.binary(max_size=20)))))
def test_a_message_is_read_as_it_was_written(parts: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(message(*parts))) == parts


def test_fixed_width_fields_are_skipped() -> None:
    frame = varint(1 << 3 | 1) + bytes(8) + varint(2 << 3 | 5) + bytes(4) + message((3, 7))
    assert list(fields(frame)) == [(3, 7)]


def test_spot_answers_and_subscriptions() -> None:
    spot = venue("mexc-spot")
    (frame,) = spot.subscribe(["BTCUSDT", "A_B"], 1)
    params = json.loads(frame)["params"]
    assert len(params) == 6
    assert spot.parse(encoded({"id": 0, "code": 0, "msg": ",".join(params)})) == (Reply(native="BTCUSDT"), Reply(native="A_B"))
    refusal = f"Not Subscribed successfully! [{params[1]}].  Reason: Blocked! "
    assert spot.parse(encoded({"id": 0, "code": 0, "msg": refusal})) == (Reply(native="A_B", error=refusal),)
    assert spot.parse(b'{"id":0,"code":0,"msg":"PONG"}') == ()


def test_spot_instruments() -> None:
    entry = {"symbol": "OGNUSDT", "status": "1", "baseAsset": "OGN", "baseAssetPrecision": 2, "quoteAsset": "USDT",
             "quoteAssetPrecision": 4, "isSpotTradingAllowed": True, "baseSizePrecision": "0", "quoteAmountPrecision": "5.00",
             "makerCommission": "0", "takerCommission": "0.0005"}  # fmt: skip
    entries = [entry, {**entry, "symbol": "X", "isSpotTradingAllowed": False}, {**entry, "status": 3}, {}]
    one, two, three = venue("mexc-spot").parse_instruments(encoded({"symbols": entries}))
    assert (one.symbol, one.tick_size, one.lot_size, one.min_size, one.min_notional, one.taker_fee_bps, one.maker_fee_bps) == (
        "OGN/USDT", "0.0001", "0.01", None, "5", "5", "0",
    )  # fmt: skip
    assert [o.state for o in (one, two, three)] == ["TRADING", "HALTED", "DELISTED"]


def test_a_spot_worker_chains_onto_the_rest_book() -> None:
    run = Replay("mexc-spot", ["BTCUSDT"])
    run.subscribed()
    worker = run.worker("BTCUSDT")
    run.receive(depth(95, 100, [("1", "1")]), 1)
    assert run.wanted == [worker]
    run.receive(depth(101, 105, [("1.5", "2")]), 2)
    body = encoded({"lastUpdateId": 102, "bids": [["1", "3"]], "asks": [["2", "1"]], "timestamp": 5})
    worker.on_snapshot(run.venue.parse_snapshot("BTCUSDT", body), 3, worker.epoch)
    assert (worker.state, worker.last_seq) == ("LIVE", 105)
    assert run.book("BTCUSDT")[0] == {Decimal(1): Decimal(3), Decimal("1.5"): Decimal(2)}
    run.receive(depth(106, 106), 4)
    run.receive(depth(108, 110), 5)
    assert (worker.state, run.counts.gaps) == ("SYNCING", 1)


def pushed(channel: str, data: Any) -> bytes:
    return encoded({"channel": f"push.{channel}", "data": data, "symbol": "BTC_USDT", "ts": 1651239652372})


def test_contract_frames() -> None:
    contract = venue("mexc-contract")
    at = 1651239652372000
    data = {"asks": [[39146.50, 11264, 1]], "bids": [[39144, 0, 0]], "version": 8}
    assert contract.parse(pushed("depth", data)) == (
        BookDelta("BTC_USDT", 8, 8, -1, [("39144", "0")], [("39146.5", "11264")], at),
    )
    assert contract.parse(pushed("depth", {"asks": [], "bids": [], "begin": 7, "end": 8, "version": 8})) == (
        BookDelta("BTC_USDT", 7, 8, -1, [], [], at),
    )
    deal = {"p": 114350.4, "v": 4, "T": 2, "O": 3, "M": 2, "t": 1760368563597}
    expected = TradeEvent("BTC_USDT", "", "SELL", "114350.4", "4", 1760368563597000)
    assert contract.parse(pushed("deal", [deal])) == contract.parse(pushed("deal", deal)) == (expected,)
    day = {"symbol": "BTC_USDT", "fairPrice": 76374.4, "indexPrice": 76385.8, "holdVol": 95479623, "timestamp": 1731137509138}
    assert contract.parse(pushed("ticker", day)) == (
        MarkPriceEvent("BTC_USDT", "76374.4", "76385.8", 1731137509138000),
        OpenInterestEvent("BTC_USDT", "95479623", "CONTRACT", 1731137509138000),
    )
    assert contract.parse(pushed("funding.rate", {"rate": -0.001, "symbol": "BTC_USDT", "nextSettleTime": 1587442022000})) == (
        FundingEvent("BTC_USDT", "-0.001", 0, 1587442022000000, at),
    )
    assert contract.parse(b'{"channel":"rs.sub.depth","data":"success","ts":1}') == ()
    assert contract.parse(b'{"channel":"pong","data":1587453241453}') == ()
    assert contract.parse(b'{"channel":"rs.error","data":"Contract not exists","ts":1}') == (Reply(error="Contract not exists"),)


def test_contract_rest() -> None:
    contract = venue("mexc-contract")
    body = b'{"success":true,"code":0,"data":{"asks":[[3968.5,121,3]],"bids":[[3968.0,1e2,4]],"version":96801927,"timestamp":5}}'
    assert contract.parse_snapshot("BTC_USDT", body) == BookSnapshot(
        "BTC_USDT", 96801927, [("3968.0", "1e2")], [("3968.5", "121")], 5000
    )
    entry = {"symbol": "BTC_USDT", "baseCoin": "BTC", "quoteCoin": "USDT", "settleCoin": "USDT", "contractSize": 0.0001,
             "priceUnit": 0.5, "volUnit": 1, "minVol": 1, "takerFeeRate": 0.0006, "makerFeeRate": 0, "state": 0}  # fmt: skip
    inverse = {**entry, "symbol": "BTC_USD", "quoteCoin": "USD", "settleCoin": "BTC", "contractSize": 100, "state": 4}
    one, two = contract.parse_instruments(encoded({"data": [entry, inverse, {}]}))
    assert (one.symbol, one.contract_size, one.taker_fee_bps, one.inverse) == ("BTC/USDT:USDT", "0.0001", "6", False)
    assert (two.symbol, two.contract_size, two.state, two.inverse) == ("BTC/USD:BTC", "100", "HALTED", True)
    frames = [json.loads(frame) for frame in contract.subscribe(["BTC_USDT"], 1)]
    assert [frame["method"] for frame in frames] == ["sub.depth", "sub.deal", "sub.ticker", "sub.funding.rate"]
