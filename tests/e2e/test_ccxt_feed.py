"""The generic adapter against a local venue that ccxt itself connects to: exact books, every delta, listings, a cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collectors.ccxt_feed import CcxtFeed
from collectors.cex.ccxt_pro import ccxt_adapter, ccxt_ids, text_of
from collectors.errors import UnknownVenue
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings, VenueSettings
from schemas.codec import codec
from simulator.synthetic import SyntheticVenue

OPTIONS = {"fetchMarkets": {"types": ["spot", "swap"]}}


class Feed:
    """A feed with workers and what they wrote, without Kafka."""

    def __init__(self, venue: SyntheticVenue) -> None:
        self.simulated = venue
        self.counts = Counts()
        self.records: list[tuple[str, dict[str, Any]]] = []
        self.publisher = Publisher("ccxt:okx", self._take, self.counts, exact=False)
        self.pipeline = Pipeline(self.publisher, self.counts)
        own = VenueSettings(rest_url=venue.rest_url, ws_url=venue.ws_url, options=OPTIONS)
        self.feed = CcxtFeed("ccxt:okx", ccxt_adapter("okx")(), own, self.pipeline, self.counts)

    def _take(self, topic: str, key: str, value: bytes) -> None:
        name = {"market.book": "BookEvent", "market.trade": "Trade", "market.status": "BookStatus"}.get(topic)
        if name:
            self.records.append((topic, codec(name).decode(value)))

    def follow(self, symbol: str) -> BookWorker:
        rule = self.feed.venue.rule(symbol)
        worker = BookWorker(symbol, symbol, rule, self.publisher, self.counts, CollectorSettings(),
                            lambda w, _: self.feed.renew(w.native))  # fmt: skip
        worker.announce()
        self.pipeline.workers[symbol] = worker
        return worker

    async def until(self, ready: Any, seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not ready():
                await asyncio.sleep(0.02)

    def equal(self, worker: BookWorker, native: str) -> bool:
        bids, asks = worker.local.book.level_texts()
        _, wanted_bids, wanted_asks = self.simulated.books[native].at()
        return (bids, asks) == (wanted_bids, wanted_asks)


@pytest.fixture
async def feed():
    venue = SyntheticVenue("okx", instruments=3, rate=60, levels=30)
    await venue.start()
    made = Feed(venue)
    yield made
    await made.feed.close()
    await venue.stop()


async def test_books_by_ccxt_are_the_venues_and_no_delta_is_lost(feed: Feed) -> None:
    listings = {listing.symbol: listing for listing in await feed.feed.listings()}
    assert {"BTC/USDT", "SOL/USDT"} <= listings.keys()
    assert listings["BTC/USDT"].kind == "SPOT"
    workers = {symbol: feed.follow(symbol) for symbol in ("BTC/USDT", "SOL/USDT")}
    feed.feed.subscribe(workers)
    await feed.until(lambda: all(w.state == "LIVE" for w in workers.values()))
    await feed.until(lambda: min(w.index for w in workers.values()) > 20)
    # A moment without traffic: then both sides stand still and can be compared whole.
    feed.simulated.control("rate", rate=0)
    await asyncio.sleep(1)
    for symbol, worker in workers.items():
        assert feed.equal(worker, symbol.replace("/", "-"))
        assert worker.state == "LIVE"
    books = [r for topic, r in feed.records if topic == "market.book"]
    assert books
    assert not any(r["exact"] for r in books)
    assert all(r["venue_seq"] == -1 for r in books), "a sequence that ccxt does not give is not invented"
    trades = [r for topic, r in feed.records if topic == "market.trade"]
    ids = [(r["symbol"], r["trade_id"]) for r in trades]
    assert len(ids) == len(set(ids))
    assert feed.counts.internal_errors == feed.counts.dead_letters == 0


async def test_a_lost_connection_is_a_gap_and_comes_back(feed: Feed) -> None:
    await feed.feed.listings()
    worker = feed.follow("BTC/USDT")
    feed.feed.subscribe(["BTC/USDT"])
    await feed.until(lambda: worker.state == "LIVE" and worker.index > 3)
    epoch = worker.epoch
    feed.simulated.control("close", code=1001)
    await feed.until(lambda: worker.epoch > epoch and worker.state == "LIVE", 180)
    said = [r["state"] for topic, r in feed.records if topic == "market.status"]
    assert "GAP" in said
    feed.simulated.control("rate", rate=0)
    await asyncio.sleep(1)
    assert feed.equal(worker, "BTC-USDT")


def test_ids_and_their_errors() -> None:
    assert len(ccxt_ids()) > 60
    assert adapter("ccxt:kraken") is ccxt_adapter("kraken")
    assert adapter("whitebit").id == "ccxt:whitebit"
    assert not adapter("whitebit").exact
    with pytest.raises(UnknownVenue, match="nasdaq"):
        ccxt_adapter("nasdaq")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.1, "0.1"), (1e-8, "0.00000001"), (1e22, "1" + "0" * 22), ("5.40", "5.4"), (3, "3"), (None, "")],
)
def test_ccxts_floats_are_written_as_they_print(number: Any, text: str) -> None:
    assert text_of(number) == text
