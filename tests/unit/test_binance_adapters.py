"""Binance's three markets: what real frames mean, and that nothing but MalformedFrame comes out of bad ones."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import MalformedFrame
from collectors.venue import ALL_CHANNELS, BookDelta, Listing, Reply, TickerEvent, TradeEvent, Venue, adapter
from simulator.capture_file import read_capture

MARKETS = ("binance-spot", "binance-usdm", "binance-coinm")
CAPTURES = {
    "binance-spot": ("binance_spot_btcusdt_20240808.gz", "BTCUSDT", {BookDelta: 3451, TickerEvent: 28040, TradeEvent: 9757}),
    "binance-usdm": ("binance_usdm_btcusdt_20240808.gz", "BTCUSDT", {BookDelta: 6551, TickerEvent: 66089, TradeEvent: 21313}),
    "binance-coinm": (
        "binance_cm_btcusd_perp_20240808.gz", "BTCUSD_PERP", {BookDelta: 26847, TickerEvent: 19136, TradeEvent: 2286},
    ),
}  # fmt: skip

DEPTH = {
    "stream": "btcusdt@depth@0ms",
    "data": {
        "e": "depthUpdate", "E": 1723161256299, "T": 1723161256298, "s": "BTCUSDT", "U": 5123107832006,
        "u": 5123107837557, "pu": 5123107831937, "b": [["58710.20", "0.014"]], "a": [["61510.90", "0.000"]],
    },
}  # fmt: skip
TICKER = {
    "stream": "btcusdt@bookTicker",
    "data": {"u": 400900217, "s": "BTCUSDT", "b": "25.35190000", "B": "31.21000000", "a": "25.36520000", "A": "40.66000000"},
}
TRADE = {
    "stream": "btcusdt@trade",
    "data": {"e": "trade", "E": 1723161255343, "s": "BTCUSDT", "t": 3735683259, "p": "61837.63", "q": "0.02", "T": 1723161255342,
             "m": True},
}  # fmt: skip
FRAMES = {"depth": DEPTH, "ticker": TICKER, "trade": TRADE}


@pytest.fixture(params=MARKETS)
def venue(request: pytest.FixtureRequest) -> Venue:
    return adapter(request.param)()


@pytest.mark.parametrize("market", MARKETS)
def test_every_frame_of_a_real_capture_is_read_and_says_what_its_json_says(market: str, captures: Path) -> None:
    file, native, expected = CAPTURES[market]
    venue = adapter(market)(channels=ALL_CHANNELS)
    counts: Counter[type] = Counter()
    for line in read_capture([captures / file]):
        if line.kind == "rest":
            answer = json.loads(line.data)
            snapshot = venue.parse_snapshot(native, line.data)
            assert snapshot.last_seq == answer["lastUpdateId"]
            assert [list(level) for level in snapshot.bids] == answer["bids"]
            assert [list(level) for level in snapshot.asks] == answer["asks"]
            continue
        (event,) = venue.parse(line.data)
        counts[type(event)] += 1
        data = msgspec.json.decode(line.data)["data"]
        assert event.native == native == data["s"]
        if isinstance(event, BookDelta):
            assert (event.first_seq, event.last_seq, event.prev_seq) == (data["U"], data["u"], data.get("pu", -1))
            assert [list(level) for level in event.bids] == data["b"]
            assert [list(level) for level in event.asks] == data["a"]
            assert event.ts_venue_us == data["E"] * 1000
        elif isinstance(event, TickerEvent):
            assert (event.seq, event.bid_price, event.ask_size) == (data["u"], data["b"], data["A"])
        else:
            assert isinstance(event, TradeEvent)
            assert (event.trade_id, event.price, event.size) == (str(data["t"]), data["p"], data["q"])
            assert event.taker_side == ("SELL" if data["m"] else "BUY")
    assert counts == expected


@pytest.mark.parametrize("market", MARKETS)
def test_a_capture_is_known_by_its_own_market_only(market: str, captures: Path) -> None:
    file, _, _ = CAPTURES[market]
    lines = read_capture([captures / file])
    frames = [next(lines).data for _ in range(200)]
    assert [other for other in MARKETS if adapter(other).sniff(frames)] == [market]


def test_a_frames_keys_may_stand_in_any_order(venue: Venue) -> None:
    for frame in FRAMES.values():
        forward = venue.parse(json.dumps(frame, separators=(",", ":")).encode())
        backward = {"data": dict(reversed(frame["data"].items())), "stream": frame["stream"]}
        assert venue.parse(json.dumps(backward).encode()) == forward


def test_fields_that_we_do_not_know_are_let_pass(venue: Venue) -> None:
    frame = {"stream": DEPTH["stream"], "data": {**DEPTH["data"], "st": 1, "new": {"x": []}}}
    assert isinstance(venue.parse(json.dumps(frame).encode())[0], BookDelta)


def mutations(frame: dict[str, Any]) -> dict[str, Any]:
    """Each field missing, and each of a wrong type."""
    found: dict[str, Any] = {}
    needed = {"s", "U", "u", "b", "a", "p", "q", "m", "B", "A"} & set(frame["data"])
    if frame is TRADE:
        needed.add("T")
    for name in sorted(needed):
        data = {k: v for k, v in frame["data"].items() if k != name}
        found[f"without {name}"] = {**frame, "data": data}
        for wrong in (None, [1], {"x": 1}, 1.5, -2):
            found[f"{name} is {wrong}"] = {**frame, "data": {**data, name: wrong}}
    found["data is a list"] = {**frame, "data": []}
    found["data is null"] = {**frame, "data": None}
    found["no data"] = {"stream": frame["stream"]}
    return found


MALFORMED = {f"{kind}: {what}": value for kind, frame in FRAMES.items() for what, value in mutations(frame).items()}
MALFORMED["depth: a level of three"] = {**DEPTH, "data": {**DEPTH["data"], "b": [["1", "2", "3"]]}}
MALFORMED["depth: a level of one"] = {**DEPTH, "data": {**DEPTH["data"], "b": [["1"]]}}
MALFORMED["depth: a level of numbers"] = {**DEPTH, "data": {**DEPTH["data"], "b": [[1.5, 2]]}}
MALFORMED["depth: an id beyond 64 bits"] = {**DEPTH, "data": {**DEPTH["data"], "u": 1 << 63}}
MALFORMED["a stream that nobody subscribed"] = {**DEPTH, "stream": "btcusdt@kline_1m"}
MALFORMED["neither stream nor answer"] = {}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_frame_that_is_wrong_is_malformed(what: str, venue: Venue) -> None:
    for separators in ((",", ":"), (", ", ": ")):
        with pytest.raises(MalformedFrame):
            venue.parse(json.dumps(MALFORMED[what], separators=separators).encode())


@pytest.mark.parametrize(
    "frame",
    [b"", b" ", b"{", b"null", b"[]", b"1", b'"x"', b"\xff\xfe", b"\x00" * 100, b'{"stream":"btcusdt@depth', b"not json",
     b'{"stream":"btcusdt@depth@100ms","data":{"s":"\xff"}}', b"[" * 100_000, b'{"data":' * 50_000],
)  # fmt: skip
def test_garbage_is_malformed(frame: bytes, venue: Venue) -> None:
    with pytest.raises(MalformedFrame):
        venue.parse(frame)


@given(st.sampled_from(MARKETS), st.binary(max_size=300))
def test_any_bytes_are_events_or_malformed(market: str, frame: bytes) -> None:
    venue = adapter(market)()
    for parse in (venue.parse, venue.parse_instruments, lambda b: venue.parse_snapshot("X", b)):
        with contextlib.suppress(MalformedFrame):
            parse(frame)


@given(st.sampled_from(MARKETS), st.sampled_from(list(FRAMES)), st.data())
def test_a_real_frame_with_bytes_changed_is_events_or_malformed(market: str, kind: str, draw: st.DataObject) -> None:
    frame = bytearray(json.dumps(FRAMES[kind], separators=(",", ":")).encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(frame) - 1))
        frame[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
        if not frame:
            return
    with contextlib.suppress(MalformedFrame):
        adapter(market)().parse(bytes(frame))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)


@given(st.sampled_from(MARKETS), st.sampled_from(list(FRAMES)), st.data())
def test_a_real_frame_with_any_value_for_a_field_is_events_or_malformed(market: str, kind: str, draw: st.DataObject) -> None:
    frame = FRAMES[kind]
    name = draw.draw(st.sampled_from(list(frame["data"])))
    changed = {**frame, "data": {**frame["data"], name: draw.draw(JSON)}}
    with contextlib.suppress(MalformedFrame):
        adapter(market)().parse(json.dumps(changed).encode())


def test_the_answers_to_subscriptions(venue: Venue) -> None:
    assert venue.parse(b'{"result":null,"id":7}') == (Reply(7),)
    (refused,) = venue.parse(b'{"error":{"code":2,"msg":"Invalid request"},"id":8}')
    assert isinstance(refused, Reply)
    assert refused.request_id == 8
    assert "Invalid request" in refused.error
    (bare,) = venue.parse(b'{"code":-1121,"msg":"Invalid symbol.","id":9}')
    assert isinstance(bare, Reply)
    assert "Invalid symbol." in bare.error


def test_a_subscription_names_the_streams_in_lower_case(venue: Venue) -> None:
    frame = json.loads(venue.subscribe(["BTCUSDT", "ETHUSDT"], 3)[0])
    assert (frame["method"], frame["id"]) == ("SUBSCRIBE", 3)
    assert any(name.startswith("btcusdt@depth") for name in frame["params"])
    assert "ethusdt@trade" in frame["params"]
    assert not any("bookTicker" in name for name in frame["params"])
    back = json.loads(venue.unsubscribe(["BTCUSDT", "ETHUSDT"], 4)[0])
    assert (back["method"], back["params"]) == ("UNSUBSCRIBE", frame["params"])


def test_tickers_are_subscribed_on_request() -> None:
    frame = json.loads(adapter("binance-spot")(channels=ALL_CHANNELS).subscribe(["BTCUSDT"], 1)[0])
    assert "btcusdt@bookTicker" in frame["params"]


SPOT_ENTRY = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "tickSize": "0.01000000"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
    ],
}  # fmt: skip
USDM_ENTRY = {
    "symbol": "BTCUSDT_260327", "status": "TRADING", "contractType": "CURRENT_QUARTER", "deliveryDate": 1774598400000,
    "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.10"}, {"filterType": "LOT_SIZE", "minQty": "0.001", "stepSize": "0.001"},
        {"filterType": "MIN_NOTIONAL", "notional": "100"},
    ],
}  # fmt: skip
COINM_ENTRY = {
    "symbol": "BTCUSD_PERP", "contractStatus": "TRADING", "contractType": "PERPETUAL", "deliveryDate": 4133404800000,
    "baseAsset": "BTC", "quoteAsset": "USD", "marginAsset": "BTC", "contractSize": 100,
    "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.1"}, {"filterType": "LOT_SIZE", "minQty": "1", "stepSize": "1"},
    ],
}  # fmt: skip
ENTRIES = {"binance-spot": SPOT_ENTRY, "binance-usdm": USDM_ENTRY, "binance-coinm": COINM_ENTRY}


def listings(market: str, *entries: Any) -> list[Listing]:
    return adapter(market)().parse_instruments(json.dumps({"timezone": "UTC", "symbols": entries}).encode())


def test_instruments_become_listings_with_exact_plain_numbers() -> None:
    (spot,) = listings("binance-spot", SPOT_ENTRY)
    assert (spot.symbol, spot.kind, spot.tick_size, spot.lot_size, spot.min_notional) == (
        "BTC/USDT", "SPOT", "0.01", "0.00001", "5"
    )  # fmt: skip
    (future,) = listings("binance-usdm", USDM_ENTRY)
    assert (future.symbol, future.kind, future.settle, future.inverse, future.expiry_us) == (
        "BTC/USDT:USDT-260327", "FUTURE", "USDT", False, 1774598400000000
    )  # fmt: skip
    (inverse,) = listings("binance-coinm", COINM_ENTRY)
    assert (inverse.symbol, inverse.kind, inverse.inverse, inverse.contract_size, inverse.expiry_us) == (
        "BTC/USD:BTC", "PERPETUAL", True, "100", None
    )  # fmt: skip


@pytest.mark.parametrize(
    ("market", "status", "state"),
    [
        ("binance-spot", "TRADING", "TRADING"),
        ("binance-spot", "BREAK", "HALTED"),
        ("binance-spot", "WHATEVER", "HALTED"),
        ("binance-usdm", "TRADING", "TRADING"),
        ("binance-usdm", "SETTLING", "HALTED"),
        ("binance-usdm", "CLOSE", "DELISTED"),
    ],
)
def test_the_venues_status_becomes_a_state(market: str, status: str, state: str) -> None:
    (listing,) = listings(market, {**ENTRIES[market], "status": status})
    assert listing.state == state


BAD_ENTRIES: list[Any] = [
    None, 1, "x", [], {}, {"symbol": "X"}, {**SPOT_ENTRY, "baseAsset": ""}, {**SPOT_ENTRY, "baseAsset": "A/B"},
    {**SPOT_ENTRY, "filters": None},
    {**SPOT_ENTRY, "filters": [{"filterType": "PRICE_FILTER", "tickSize": "abc"}]},
    {**SPOT_ENTRY, "symbol": 5},
]  # fmt: skip


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("number", range(len(BAD_ENTRIES)))
def test_one_bad_entry_hides_no_other(market: str, number: int) -> None:
    good = ENTRIES[market]
    found = listings(market, good, BAD_ENTRIES[number], good)
    assert [listing.native_id for listing in found] == [good["symbol"]] * 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"symbols":null}', b'{"symbols":{}}', b'{"code":-1003,"msg":"banned"}'])
def test_exchange_info_that_is_none_is_malformed(venue: Venue, body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        venue.parse_instruments(body)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"lastUpdateId":"1","bids":[],"asks":[]}', b'{"lastUpdateId":1,"bids":[[1,2]],"asks":[]}']
)
def test_a_depth_answer_that_is_none_is_malformed(venue: Venue, body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        venue.parse_snapshot("BTCUSDT", body)


@given(st.text(max_size=20))
def test_a_native_name_cannot_break_out_of_its_url(native: str) -> None:
    path = adapter("binance-spot")().snapshot_request(native).path
    assert path.count("?") == 1
    assert path.count("&") == 1
    assert path.isascii()
