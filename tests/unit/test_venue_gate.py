"""Gate v4: what its frames mean, and a real stream held against its own sequence."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collectors.errors import MalformedFrame
from collectors.pool import ConnectionPool
from collectors.rest import RestClient
from collectors.venue import (
    ALL_CHANNELS,
    BookDelta,
    BookSnapshot,
    FundingEvent,
    LiquidationEvent,
    MarkPriceEvent,
    OpenInterestEvent,
    Reply,
    RestRequest,
    TickerEvent,
    TradeEvent,
    Venue,
    adapter,
)
from simulator.capture_file import CaptureLine
from tests.rest_replay import encoded, lines_of, play
from tests.venue_replay import Levels, Replay, events_of


def venue(name: str) -> Venue:
    return adapter(name)(channels=ALL_CHANNELS)


def update(channel: str, result: Any) -> bytes:
    return encoded({"time": 1650189272, "time_ms": 1650189272600, "channel": channel, "event": "update", "result": result})


SPOT_DEPTH = {"t": 1650189272515, "e": "depthUpdate", "E": 1650189272, "s": "GMT_USDT", "U": 140595902, "u": 140595905,
              "b": [["2.51518", "228.119"]], "a": [["2.5182", "0"]]}  # fmt: skip


def test_spot_frames() -> None:
    spot = venue("gate-spot")
    assert spot.parse(update("spot.order_book_update", SPOT_DEPTH)) == (
        BookDelta("GMT_USDT", 140595902, 140595905, -1, [("2.51518", "228.119")], [("2.5182", "0")], 1650189272515000),
    )
    trade = {"id": 3130257995, "create_time": 1648725035, "create_time_ms": "1648725035923.125", "side": "sell",
             "currency_pair": "LTC_USDT", "amount": "0.0116", "price": "130.11"}  # fmt: skip
    expected = TradeEvent("LTC_USDT", "3130257995", "SELL", "130.11", "0.0116", 1648725035923125)
    assert spot.parse(update("spot.trades", trade)) == (expected,)
    assert spot.parse(update("spot.trades", [trade, trade])) == (expected, expected)
    ticker = {"t": 1671363004228, "u": 9793320464, "s": "BTC_USDT", "b": "16716.8", "B": "0.0134", "a": "16716.9", "A": "0.0353"}
    assert spot.parse(update("spot.book_ticker", ticker)) == (
        TickerEvent("BTC_USDT", 9793320464, "16716.8", "0.0134", "16716.9", "0.0353", 1671363004228000),
    )


def test_answers_to_subscriptions() -> None:
    spot = venue("gate-spot")
    ok = {"time": 1, "id": 7, "channel": "spot.order_book_update", "event": "subscribe", "result": {"status": "success"}}
    assert spot.parse(encoded(ok)) == (Reply(7),)
    bad = {"id": 8, "channel": "spot.order_book_update", "event": "subscribe", "result": None,
           "error": {"code": 2, "message": "unknown currency pair: X_Y"}}  # fmt: skip
    assert spot.parse(encoded(bad)) == (Reply(8, "2: unknown currency pair: X_Y"),)
    assert spot.parse(encoded({"channel": "spot.trades", "event": "subscribe", "result": {"status": "success"}})) == ()
    assert spot.parse(encoded({"time": 1, "channel": "spot.pong", "event": "", "result": None})) == ()


def test_subscriptions_name_each_book_and_carry_the_id_on_it_alone() -> None:
    book, trades, ticker = (json.loads(f) for f in venue("gate-spot").subscribe(["BTC_USDT"], 5))
    assert (book["channel"], book["payload"], book["id"]) == ("spot.order_book_update", ["BTC_USDT", "100ms"], 5)
    assert (trades["channel"], trades["payload"], "id" in trades) == ("spot.trades", ["BTC_USDT"], False)
    assert ticker["channel"] == "spot.book_ticker"
    frames = [json.loads(f) for f in venue("gate-futures").subscribe(["BTC_USDT"], 5)]
    assert frames[0]["payload"] == ["ob.BTC_USDT.400"]
    assert [f["channel"] for f in frames[1:]] == [
        "futures.trades", "futures.book_ticker", "futures.tickers", "futures.public_liquidates"
    ]  # fmt: skip
    assert len(adapter("gate-futures")().subscribe(["BTC_USDT"], 5)) == 2


def test_futures_frames() -> None:
    futures = venue("gate-futures")
    full = {"t": 1777275365213, "full": True, "s": "ob.XRP_USDT.400", "u": 9649549324, "b": [["1.414", "1397"]], "a": []}
    assert futures.parse(update("futures.obu", full)) == (
        BookSnapshot("XRP_USDT", 9649549324, [("1.414", "1397")], [], 1777275365213000),
    )
    change = {"t": 1777275365313, "s": "ob.XRP_USDT.400", "U": 9649549325, "u": 9649549330, "a": [["1.415", "0"]]}
    assert futures.parse(update("futures.obu", change)) == (
        BookDelta("XRP_USDT", 9649549325, 9649549330, 9649549324, [], [("1.415", "0")], 1777275365313000),
    )
    trades = [{"size": -108, "id": 27753479, "create_time": 1545136464, "create_time_ms": 1545136464123, "price": "96.4",
               "contract": "BTC_USD"}]  # fmt: skip
    assert futures.parse(update("futures.trades", trades)) == (
        TradeEvent("BTC_USD", "27753479", "SELL", "96.4", "108", 1545136464123000),
    )
    ticker = {"t": 1615366379123, "u": 2517661076, "s": "BTC_USD", "b": "54696.6", "B": 37000, "a": "54696.7", "A": 47061}
    assert futures.parse(update("futures.book_ticker", ticker)) == (
        TickerEvent("BTC_USD", 2517661076, "54696.6", "37000", "54696.7", "47061", 1615366379123000),
    )
    stats = [{"contract": "BTC_USDT", "last": "118.4", "funding_rate": "-0.000114", "mark_price": "118.35",
              "index_price": "118.36", "total_size": "73648"}]  # fmt: skip
    assert futures.parse(update("futures.tickers", stats)) == [
        MarkPriceEvent("BTC_USDT", "118.35", "118.36", 1650189272600000),
        OpenInterestEvent("BTC_USDT", "73648", "CONTRACT", 1650189272600000),
    ]
    forced = [{"price": "215.1", "size": "-124", "time_ms": 1541486601123, "contract": "BTC_USDT"}]
    assert futures.parse(update("futures.public_liquidates", forced)) == [
        LiquidationEvent("BTC_USDT", "SELL", "215.1", "124", "", 1541486601123000)
    ]


def test_contracts_that_trade_in_fractions_come_with_their_digits() -> None:
    futures = venue("gate-futures")
    whole = {"s": "ob.BTC_USDT.400", "full": True, "u": 3, "b": [["1", "0.3"]], "a": [["2", "12.7"]], "t": 5}
    (book,) = futures.parse(update("futures.obu", whole))
    assert isinstance(book, BookSnapshot)
    assert (book.bids, book.asks) == ([("1", "0.3")], [("2", "12.7")])
    trade = [{"size": "-0.7", "id": 1, "create_time_ms": 5, "price": "96.4", "contract": "BTC_USDT"}]
    assert futures.parse(update("futures.trades", trade)) == (TradeEvent("BTC_USDT", "1", "SELL", "96.4", "0.7", 5000),)


async def test_the_venues_headers_travel_with_calls_and_handshakes() -> None:
    heard: dict[str, str | None] = {}
    opened = asyncio.Event()

    async def listen(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        heard["socket"] = request.headers.get("X-Gate-Size-Decimal")
        await socket.prepare(request)
        opened.set()
        async for _ in socket:
            pass
        return socket

    async def answer(request: web.Request) -> web.Response:
        heard["call"] = request.headers.get("X-Gate-Size-Decimal")
        return web.Response(body=b"[]")

    app = web.Application()
    app.add_routes([web.get("/v4/ws/usdt", listen), web.get("/api/v4/futures/usdt/contracts", answer)])
    server = TestServer(app)
    await server.start_server()
    run = Replay("gate-futures", ["BTC_USDT"])
    counts, futures = run.counts, venue("gate-futures")
    url = f"ws://127.0.0.1:{server.port}"
    pool = ConnectionPool("gate-futures", futures, url, run.pipeline, counts, silence_s=60)
    rest = RestClient(str(server.make_url("")), counts, weight_per_minute=600, concurrency=1, headers=futures.headers)
    try:
        async with rest:
            await rest.call(futures.instruments_requests()[0])
        pool.subscribe(["BTC_USDT"])
        await asyncio.wait_for(asyncio.gather(opened.wait(), pool.connected.wait()), 60)
    finally:
        await pool.close()
        await server.close()
    assert heard == {"call": "1", "socket": "1"}


def test_a_book_that_begins_in_the_stream_and_breaks_is_subscribed_anew() -> None:
    run = Replay("gate-futures", ["A_USDT"])
    run.subscribed()
    worker = run.worker("A_USDT")

    def obu(**fields: Any) -> None:
        run.receive(update("futures.obu", {"s": "ob.A_USDT.400", **fields}), 1)

    obu(full=True, u=10, b=[["1", "5"]], a=[["2", "5"]])
    assert (worker.state, worker.last_seq) == ("LIVE", 10)
    obu(U=11, u=12)
    obu(U=13, u=14, b=[["1.1", "1"]])
    assert (worker.state, worker.last_seq, worker.local.book.bids.best()) == ("LIVE", 14, (11, 1))
    obu(U=16, u=16, b=[["1.2", "1"]])
    assert (worker.state, run.counts.gaps, run.wanted) == ("SYNCING", 1, [worker])
    obu(full=True, u=20, b=[["1", "5"]], a=[["2", "5"]])
    assert (worker.state, worker.last_seq, run.counts.resyncs) == ("LIVE", 20, 1)


CONTRACT = {
    "name": "BTC_USDT", "order_price_round": "0.1", "quanto_multiplier": "0.0001", "status": "trading", "order_size_min": 1,
    "funding_rate": "-0.003216", "funding_interval": 28800, "funding_next_apply": 1784131200, "enable_decimal": False,
}  # fmt: skip
DATED = {"name": "BTC_USDT_20261225", "order_price_round": "0.1", "quanto_multiplier": "0.0001", "expire_time": 1798185600,
         "order_size_min": 1}  # fmt: skip
PAIR = {"id": "QTUM_ETH", "base": "QTUM", "quote": "ETH", "fee": "0.2", "min_base_amount": "0.01", "min_quote_amount": "0.001",
        "amount_precision": 3, "precision": 6, "trade_status": "tradable"}  # fmt: skip


def test_instruments() -> None:
    (pair,) = venue("gate-spot").parse_instruments(encoded([PAIR, {"id": "bad"}, 5]))
    assert (pair.symbol, pair.tick_size, pair.lot_size, pair.min_size, pair.min_notional, pair.taker_fee_bps, pair.state) == (
        "QTUM/ETH", "0.000001", "0.001", "0.01", "0.001", "20", "TRADING",
    )  # fmt: skip
    (swap,) = venue("gate-futures").parse_instruments(encoded([CONTRACT]))
    assert (swap.symbol, swap.kind, swap.contract_size, swap.lot_size, swap.settle, swap.inverse) == (
        "BTC/USDT:USDT", "PERPETUAL", "0.0001", "1", "USDT", False,
    )  # fmt: skip
    fractional = {**CONTRACT, "enable_decimal": True, "order_size_min": "0.1"}
    (parts,) = venue("gate-futures").parse_instruments(encoded([fractional]))
    assert (parts.lot_size, parts.state) == ("0.1", "TRADING")
    (inverse,) = venue("gate-futures-btc").parse_instruments(
        encoded([{**CONTRACT, "name": "BTC_USD", "quanto_multiplier": "0"}])
    )
    assert (inverse.symbol, inverse.inverse, inverse.contract_size) == ("BTC/USD:BTC", True, "1")
    (dated,) = venue("gate-delivery").parse_instruments(encoded([DATED]))
    assert (dated.symbol, dated.kind, dated.expiry_us) == ("BTC/USDT:USDT-261225", "FUTURE", 1798185600000000)


def test_funding_is_polled_with_its_interval_and_next_time() -> None:
    futures = venue("gate-futures")
    (poll,) = futures.polls()
    assert poll.request == RestRequest("/api/v4/futures/usdt/contracts")
    assert futures.parse_poll(poll.request, encoded([CONTRACT])) == [
        FundingEvent("BTC_USDT", "-0.003216", 28_800_000_000, 1784131200000000)
    ]
    assert adapter("gate-futures")().polls() == []


def test_a_rest_book_of_the_bridged_products() -> None:
    body = b'{"id":6358770031,"current":1634350208.745,"update":1634350208.724,"asks":[{"s":24909,"p":"61264.8"}],"bids":[]}'
    assert venue("gate-delivery").parse_snapshot("BTC_USDT_20261225", body) == BookSnapshot(
        "BTC_USDT_20261225", 6358770031, [], [("61264.8", "24909")], 1634350208724000
    )
    with pytest.raises(MalformedFrame):
        venue("gate-delivery").parse_snapshot("X", body.replace(b"24909", b"null"))


def pair_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["currency_pair"][0]


@pytest.fixture(scope="module")
def lines(captures: Path) -> list[CaptureLine]:
    return lines_of([captures / f"gateio_spot_v4_20210422{part}.txt.gz" for part in ("", ".http")])


def independent(lines: list[CaptureLine]) -> dict[str, tuple[Levels, Levels]]:
    """The books by Gate's own recipe, from the JSON alone; asserts that no id is missing."""
    books: dict[str, tuple[Levels, Levels]] = {}
    last: dict[str, int] = {}
    for line in sorted(lines, key=lambda line: line.kind == "frame"):
        frame = json.loads(line.data)
        if line.kind == "rest":
            native = pair_of(line.url)
            last[native] = frame["id"]
            books[native] = tuple({Decimal(p): Decimal(s) for p, s in frame[side]} for side in ("bids", "asks"))  # pyright: ignore
        elif frame["channel"] == "spot.order_book_update" and frame["event"] == "update":
            d = frame["result"]
            if d["u"] <= last[d["s"]]:
                continue
            assert d["U"] <= last[d["s"]] + 1
            last[d["s"]] = d["u"]
            for side, rows in zip(books[d["s"]], (d["b"], d["a"]), strict=True):
                for price, size in rows:
                    side[Decimal(price)] = Decimal(size)
                    if not Decimal(size):
                        del side[Decimal(price)]
    return books


def test_every_update_of_a_real_stream_chains_and_gives_the_venues_books(lines: list[CaptureLine]) -> None:
    events = events_of("gate-spot", [line.data for line in lines if line.kind == "frame"])
    assert sum(isinstance(event, BookDelta) for event in events) == 172
    run = play("gate-spot", lines, pair_of)
    assert (run.counts.gaps, run.counts.crossed, run.counts.internal_errors, run.counts.dead_letters) == (0, 0, 0, 0)
    truth = independent(lines)
    live = {native for native, worker in run.pipeline.workers.items() if worker.state == "LIVE"}
    assert live == {event.native for event in events if isinstance(event, BookDelta)}
    rebuilt = run.rebuilt()
    for native in live:
        assert run.book(native) == rebuilt[native] == truth[native]


def test_each_lost_update_of_a_real_stream_is_noticed(lines: list[CaptureLine]) -> None:
    whole = play("gate-spot", lines, pair_of)
    busiest = max(whole.pipeline.workers.values(), key=lambda worker: worker.index).native
    own = [number for number, line in enumerate(lines) if f'"s":"{busiest}"'.encode() in line.data]
    for lost in own[5:-1]:
        run = play("gate-spot", lines[:lost] + lines[lost + 1 :], pair_of)
        assert run.counts.gaps == 1
        assert run.worker(busiest).state == "SYNCING"


def test_a_capture_is_known_by_its_own_market(lines: list[CaptureLine]) -> None:
    frames = [line.data for line in lines if line.kind == "frame"]
    names = ("gate-spot", "gate-futures", "gate-futures-btc", "gate-delivery")
    assert [name for name in names if adapter(name).sniff(frames)] == ["gate-spot"]
