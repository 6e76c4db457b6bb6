"""The collectors' adapters against venues that speak the same protocols, each written from the documentation on its own."""

from __future__ import annotations

import asyncio
import time

import pytest

from collectors.venue import FUNDING, MARK_PRICE, OPEN_INTEREST, TICKER, TRADE, adapter_ids
from schemas import topics
from simulator.protocols import PROTOCOLS
from simulator.synthetic import SyntheticVenue
from tests.collector_bench import Bench, bench

TOPICS = {
    TRADE: topics.TRADE, TICKER: topics.TICKER, FUNDING: topics.FUNDING, MARK_PRICE: topics.MARK_PRICE,
    OPEN_INTEREST: topics.OPEN_INTEREST,
}  # fmt: skip
FUTURES_ONLY = (FUNDING, MARK_PRICE, OPEN_INTEREST)
NOT_SENT = ("binance-usdm", "binance-coinm")
"""Their synthetic venues send books, trades and tickers alone."""
LOSSES = ("drop", "reorder", "delay", "checksum")


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    assert request.param in adapter_ids(), "each protocol has the name of the adapter that speaks it"
    return request.param


def wrong_books(run: Bench) -> list[str]:
    return [native for native in run.pipeline.workers if run.compare(native) is False]


async def all_right(run: Bench, timeout_s: float = 20) -> None:
    """Every book LIVE, and seen equal to the venue's own; none wrong meanwhile."""
    left = set(run.pipeline.workers)
    deadline = time.monotonic() + timeout_s
    while left and time.monotonic() < deadline:
        assert not wrong_books(run)
        left -= {native for native in left if run.compare(native)}
        await asyncio.sleep(0.02)
    assert not left, {native: run.pipeline.workers[native].state for native in left}


async def test_every_instrument_is_found_named_and_mirrored_exactly(protocol: str):
    venue = SyntheticVenue(protocol, instruments=12, rate=300, levels=30)
    async with bench(venue) as run:
        assert {one.symbol: native for native, one in run.listings.items()} == venue.natives_by_symbol()
        for native, listing in run.listings.items():
            one = venue.instruments[native]
            assert (listing.base, listing.quote, listing.state) == (one.base, one.quote, "TRADING")
            assert listing.tick_size == one.price(1) and listing.lot_size == one.size(1)
            assert listing.inverse == (one.name.kind == "inverse")
        await run.live(12)
        await asyncio.sleep(0.5)
        await all_right(run)
        assert run.counts.dead_letters == run.counts.gaps == run.counts.internal_errors == 0
        assert run.counts.checksum_ok > 0 or not venue.wire.has_checksum
        contracts = any(one.name.kind != "spot" for one in venue.instruments.values()) and protocol not in NOT_SENT
        for channel, topic in TOPICS.items():
            if channel in run.venue.channels and (contracts or channel not in FUTURES_ONLY):
                assert run.topics[topic.name] > 0, f"nothing of {channel}"


async def test_every_lost_late_or_repeated_frame_is_found_and_no_live_book_is_wrong(protocol: str):
    venue = SyntheticVenue(protocol, instruments=6, rate=200, levels=8)
    async with bench(venue) as run:
        await run.live(6)
        for verb in ("duplicate", *LOSSES):
            if verb == "checksum" and not venue.wire.has_checksum:
                continue
            gaps = run.counts.gaps
            venue.control(verb, n=3, **({"seconds": 0.3} if verb == "delay" else {}))
            done, deadline = venue.faults.counts[verb] + 3, time.monotonic() + 10
            while venue.faults.counts[verb] < done and time.monotonic() < deadline:
                assert not wrong_books(run)
                await asyncio.sleep(0.005)
            assert venue.faults.counts[verb] == done, f"{verb}: not injected"
            await asyncio.sleep(0.3)
            assert run.counts.gaps > gaps or verb == "duplicate", f"{verb}: not found"
            await all_right(run, 30)
        assert run.counts.internal_errors == 0


async def test_what_nobody_can_read_stops_nothing(protocol: str):
    venue = SyntheticVenue(protocol, instruments=3, rate=100, levels=8)
    async with bench(venue) as run:
        await run.live(3)
        venue.control("garbage", n=6)
        venue.control("wrongtype", n=2)
        venue.control("unknown", n=2)
        await asyncio.sleep(0.3)
        assert run.counts.dead_letters >= 6
        assert run.counts.unrouted >= 2
        await all_right(run)
        assert run.counts.internal_errors == run.counts.reconnects == 0


@pytest.mark.parametrize("numbered", ["okx", "bybit-spot", "bybit-linear"])
async def test_a_restarted_numbering_leaves_every_book_right(numbered: str):
    venue = SyntheticVenue(numbered, instruments=3, rate=150, levels=8)
    async with bench(venue) as run:
        await run.live(3)
        venue.control("restart", symbol=venue.symbols[0])
        await asyncio.sleep(0.5)
        await all_right(run)
        assert run.counts.gaps == run.counts.internal_errors == 0


@pytest.mark.parametrize("code", [1000, 1001, 1004, 1005, 1006, 1012, 1015, 4999])
async def test_a_connection_is_opened_again_whatever_code_it_was_closed_with(code: int):
    """1004 may not be sent at all: to the client its frame breaks the protocol."""
    venue = SyntheticVenue("bybit-linear", instruments=3, rate=100, levels=8)
    async with bench(venue) as run:
        await run.live(3)
        venue.control("close", code=code, all=True)
        deadline = time.monotonic() + 20
        while not run.counts.reconnects and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert run.counts.reconnects == 1
        await all_right(run)
