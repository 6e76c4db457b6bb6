"""What Binance's futures say when they are asked: mark and index price, funding and its interval."""

from __future__ import annotations

import pytest

from collectors.errors import MalformedFrame
from collectors.events import FundingEvent, MarkPriceEvent
from collectors.venue import ALL_CHANNELS, Venue, adapter

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


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[{"symbol":"X"}]', b"<html>", b"\xff"])
def test_an_answer_that_cannot_be_read_is_malformed(venue: Venue, body: bytes) -> None:
    for poll in venue.polls():
        with pytest.raises(MalformedFrame):
            venue.parse_poll(poll.request, body)
