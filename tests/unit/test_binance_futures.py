"""What Binance's futures add: liquidations; and, asked, mark and index price, funding and its interval, open interest."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from collectors.errors import MalformedFrame
from collectors.events import FundingEvent, LiquidationEvent, MarkPriceEvent, OpenInterestEvent
from collectors.venue import ALL_CHANNELS, Venue, adapter
from schemas import topics
from simulator.synthetic import SyntheticVenue
from tests.collector_bench import bench

PREMIUM = (
    b'[{"symbol":"BTCUSDT","markPrice":"11793.63104562","indexPrice":"11781.80495970","estimatedSettlePrice":"11781.1",'
    b'"lastFundingRate":"-0.00038246","interestRate":"0.00010000","nextFundingTime":1597392000000,"time":1597370495002},'
    b'{"symbol":"BTCUSDT_260327","markPrice":"12000.1","indexPrice":"11781.8","lastFundingRate":"","nextFundingTime":0,'
    b'"time":1597370495002}]'
)
INTERVALS = b'[{"symbol":"BTCUSDT","adjustedFundingRateCap":"0.02","fundingIntervalHours":4}]'


@pytest.fixture(params=["binance-usdm", "binance-coinm"])
def venue(request: pytest.FixtureRequest) -> Venue:
    return adapter(request.param)(channels=ALL_CHANNELS)


def test_mark_prices_and_funding(venue: Venue) -> None:
    intervals, premiums = venue.polls()
    assert list(venue.parse_poll(premiums.request, PREMIUM)) == [
        MarkPriceEvent("BTCUSDT", "11793.63104562", "11781.80495970", 1597370495002000),
        FundingEvent("BTCUSDT", "-0.00038246", 8 * 3_600_000_000, 1597392000000000, 1597370495002000),
        MarkPriceEvent("BTCUSDT_260327", "12000.1", "11781.8", 1597370495002000),
    ]
    assert list(venue.parse_poll(intervals.request, INTERVALS)) == []
    funding = next(e for e in venue.parse_poll(premiums.request, PREMIUM) if isinstance(e, FundingEvent))
    assert funding.interval_us == 4 * 3_600_000_000


def test_only_what_is_asked_for_is_polled() -> None:
    assert adapter("binance-usdm")().polls() == []
    only = adapter("binance-usdm")(channels=("funding",))
    assert {type(e) for e in only.parse_poll(only.polls()[1].request, PREMIUM)} == {FundingEvent}


USDM_INTEREST = b'{"openInterest":"10659.509","symbol":"BTCUSDT","time":1589437530011}'
COINM_INTEREST = (
    b'{"symbol":"BTCUSD_200626","pair":"BTCUSD","openInterest":"15004","contractType":"CURRENT_QUARTER","time":1591261042378}'
)


@pytest.mark.parametrize(
    ("market", "native", "path", "body", "event"),
    [
        ("binance-usdm", "BTCUSDT", "/fapi/v1/openInterest?symbol=BTCUSDT", USDM_INTEREST,
         OpenInterestEvent("BTCUSDT", "10659.509", "BASE", 1589437530011000)),
        ("binance-coinm", "BTCUSD_200626", "/dapi/v1/openInterest?symbol=BTCUSD_200626", COINM_INTEREST,
         OpenInterestEvent("BTCUSD_200626", "15004", "CONTRACT", 1591261042378000)),
    ],
)  # fmt: skip
def test_open_interest_is_asked_of_each_instrument(
    market: str, native: str, path: str, body: bytes, event: OpenInterestEvent
) -> None:
    venue = adapter(market)(channels=ALL_CHANNELS)
    (one,) = venue.rounds()
    request = one.request(native)
    assert (request.path, request.weight) == (path, 1)
    assert list(venue.parse_poll(request, body)) == [event]
    assert one.request("A&B?C").path.endswith("?symbol=A%26B%3FC")
    for bad in (b"", b"[]", b"{}", b"[" * 9999, b"\xff", body.replace(b'"openInterest":"', b'"openInterest":5,"x":"')):
        with pytest.raises(MalformedFrame):
            venue.parse_poll(request, bad)
    assert adapter(market)(channels=("book", "funding", "liquidation")).rounds() == []
    assert adapter(market)(channels=("open_interest",)).polls() == []


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"symbol":"X"}]', b"<html>", b"\xff"])
def test_an_answer_that_cannot_be_read_is_malformed(venue: Venue, body: bytes) -> None:
    for poll in venue.polls():
        with pytest.raises(MalformedFrame):
            venue.parse_poll(poll.request, body)


FORCED: dict[str, Any] = {
    "stream": "btcusdt@forceOrder",
    "data": {"e": "forceOrder", "E": 1568014460893, "o": {
        "s": "BTCUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": "0.014", "p": "9910.10", "ap": "9910", "X": "FILLED",
        "l": "0.014", "z": "0.014", "T": 1568014460893}},
}  # fmt: skip
COINM_ORDER = {
    "s": "BTCUSD_200925", "ps": "BTCUSD", "S": "BUY", "o": "LIMIT", "f": "IOC", "q": "1", "p": "9425.5", "ap": "9496.5",
    "X": "FILLED", "l": "1", "z": "1", "T": 1591154240949,
}  # fmt: skip


def frame(**order: Any) -> bytes:
    """The documentation's frame, with other fields of the order."""
    data = {**FORCED["data"], "o": {**FORCED["data"]["o"], **order}}
    return json.dumps({**FORCED, "data": data}, separators=(",", ":")).encode()


def test_liquidations(venue: Venue) -> None:
    for parse in (venue.parse, (venue.beside() or venue).parse):
        assert parse(frame()) == (LiquidationEvent("BTCUSDT", "SELL", "9910.10", "0.014", "", 1568014460893000),)
        assert parse(frame(**COINM_ORDER)) == (
            LiquidationEvent("BTCUSD_200925", "BUY", "9425.5", "1", "", 1591154240949000),
        )
        assert parse(frame(st=2, new=[1])) == parse(frame())
        assert parse(json.dumps(FORCED).encode()) == parse(frame())


@pytest.mark.parametrize("order", [{"s": None}, {"S": "LONG"}, {"p": 9910.1}, {"q": [1]}, {"T": "x"}, {"T": -1}])
def test_a_liquidation_that_cannot_be_read_is_malformed(venue: Venue, order: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        venue.parse(frame(**order))
    for data in (None, [], {}, {"o": []}, {"o": {}}):
        with pytest.raises(MalformedFrame):
            venue.parse(json.dumps({**FORCED, "data": data}).encode())


def params(venue: Venue) -> list[str]:
    return json.loads(venue.subscribe(["BTCUSDT"], 1)[0])["params"]


def test_usd_m_sends_liquidations_on_another_route_than_books() -> None:
    books = adapter("binance-usdm")(channels=ALL_CHANNELS)
    beside = books.beside()
    assert beside is not None
    assert (books.ws_url + books.ws_path(), beside.ws_url + beside.ws_path()) == (
        "wss://fstream.binance.com/public/stream", "wss://fstream.binance.com/market/stream"
    )  # fmt: skip
    assert params(books) == ["btcusdt@depth@0ms", "btcusdt@trade", "btcusdt@bookTicker"]
    assert params(beside) == ["btcusdt@forceOrder"]
    assert json.loads(beside.unsubscribe(["BTCUSDT"], 2)[0]) == {
        "method": "UNSUBSCRIBE", "params": ["btcusdt@forceOrder"], "id": 2
    }  # fmt: skip
    assert adapter("binance-usdm")(channels=("book", "funding")).beside() is None


def test_coin_m_sends_everything_on_one_address_and_no_connection_carries_more_streams_than_it_may() -> None:
    coinm = adapter("binance-coinm")(channels=ALL_CHANNELS)
    assert (coinm.beside(), coinm.ws_url + coinm.ws_path()) == (None, "wss://dstream.binance.com/stream")
    assert params(coinm)[-1] == "btcusdt@forceOrder"
    assert "btcusdt@forceOrder" not in params(adapter("binance-coinm")())
    for one in (coinm, adapter("binance-usdm")(channels=ALL_CHANNELS)):
        for route in (one, one.beside() or one):
            assert len(params(route)) * route.limits.instruments_per_connection <= 200


@pytest.mark.parametrize(("protocol", "connections"), [("binance-usdm", 2), ("binance-coinm", 1)])
async def test_liquidations_arrive_and_their_connections_loss_is_no_books(protocol: str, connections: int) -> None:
    simulated = SyntheticVenue(protocol, instruments=4, rate=400, levels=8)
    async with bench(simulated) as run:
        await run.live(4)

        async def more() -> None:
            seen = run.topics[topics.LIQUIDATION.name]
            async with asyncio.timeout(20):
                while run.topics[topics.LIQUIDATION.name] == seen:
                    await asyncio.sleep(0.02)

        await more()
        assert run.pool.open_count() == len(simulated.stream.clients) == connections
        for client in [c for c in simulated.stream.clients if c.path.startswith("/market")]:
            client.abort()
            async with asyncio.timeout(20):
                while not run.counts.reconnects:
                    await asyncio.sleep(0.02)
            await more()
            assert run.counts.reconnects == 1
        assert run.pipeline.states() == {"LIVE": 4}
        counts = run.counts
        assert counts.gaps == counts.resyncs == counts.dead_letters == counts.internal_errors == counts.unrouted == 0
