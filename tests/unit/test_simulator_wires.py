"""The synthetic venue's protocols, read by small clients of the tests' own, written from the venues' documentation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from zlib import crc32

import aiohttp
import pytest

from simulator import kraken_wire, okx_wire
from simulator.protocols import PROTOCOLS, UnknownProtocol, wire_of
from simulator.synthetic import SyntheticVenue

Side = dict[Decimal, Decimal]
EVENTS = 120
"""Book frames of one instrument that a client follows."""


class Client:
    """Decodes numbers as they are written, and keeps a book of two dictionaries."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.bids: Side = {}
        self.asks: Side = {}
        self.texts: dict[tuple[str, Decimal], tuple[str, str]] = {}

    async def say(self, value: Any) -> None:
        await self.socket.send_str(value if isinstance(value, str) else json.dumps(value))

    async def hear(self, accept: Callable[[Any], bool] = lambda _: True) -> Any:
        """The next frame that is accepted; numbers stay texts."""
        while True:
            frame = await self.socket.receive(timeout=10)
            assert frame.type is aiohttp.WSMsgType.TEXT, frame
            value = frame.data if frame.data == "pong" else json.loads(frame.data, parse_float=str)
            if accept(value):
                return value

    def set(self, bid: bool, price: Any, size: Any) -> None:
        side, key = (self.bids if bid else self.asks), Decimal(str(price))
        if Decimal(str(size)):
            side[key] = Decimal(str(size))
            self.texts["b" if bid else "a", key] = (str(price), str(size))
        else:
            side.pop(key, None)

    def cut(self, depth: int) -> None:
        for price in sorted(self.bids)[:-depth]:
            del self.bids[price]
        for price in sorted(self.asks)[depth:]:
            del self.asks[price]

    def best(self, depth: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """In the venue's own texts."""
        bids = [self.texts["b", p] for p in sorted(self.bids, reverse=True)[:depth]]
        return bids, [self.texts["a", p] for p in sorted(self.asks)[:depth]]

    def is_the_venues(self, venue: SyntheticVenue, native: str, seq: int | None, depth: int = 10**6) -> bool:
        _, bids, asks = venue.books[native].at(seq)
        mine = (sorted(self.bids.items(), reverse=True), sorted(self.asks.items()))
        theirs = ([(Decimal(p), Decimal(s)) for p, s in side[:depth]] for side in (bids, asks))
        return all(a == b for a, b in zip(mine, theirs, strict=True))


@asynccontextmanager
async def talking(protocol: str, **more: Any) -> AsyncIterator[tuple[SyntheticVenue, Client]]:
    """A venue with a few instruments, and a client of it."""
    venue = SyntheticVenue(protocol, **{"instruments": 4, "rate": 400, "levels": 40, **more})
    await venue.start()
    async with aiohttp.ClientSession() as session, session.ws_connect(venue.ws_url + venue.wire.ws_paths[0]) as socket:
        yield venue, Client(socket)
    await venue.stop()


async def rest(venue: SyntheticVenue, path: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(venue.rest_url + path) as response:
        return json.loads(await response.text(), parse_float=str)


def test_an_unknown_protocol_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UnknownProtocol, match=r"okx.*kraken.*deribit"):
        wire_of("nobody", None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_three_thousand_instruments_have_names_of_their_own(protocol: str):
    venue = SyntheticVenue(protocol, instruments=3000, levels=5)
    assert len(venue.symbols) == 3000
    assert len(venue.natives_by_symbol()) == 3000
    for native in venue.symbols[::97]:
        assert venue.wire.name_of(native) == venue.instruments[native].name


# OKX.


async def test_okx_books_chain_by_sequence_number_and_carry_the_checksum_of_their_texts():
    async with talking("okx") as (venue, client):
        await client.say({"id": "7", "op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]})
        reply = await client.hear()
        assert (reply["event"], reply["id"], reply["arg"]["instId"]) == ("subscribe", "7", "BTC-USDT")
        last = -1
        for number in range(EVENTS):
            frame = await client.hear(lambda f: "action" in f)
            book = frame["data"][0]
            assert frame["action"] == ("update" if number else "snapshot")
            assert book["prevSeqId"] == last
            last = book["seqId"]
            for bid, levels in ((True, book["bids"]), (False, book["asks"])):
                for price, size, retired, _ in levels:
                    assert retired == "0"
                    client.set(bid, price, size)
            bids, asks = client.best(25)
            parts = [t for pair in zip(bids, asks, strict=True) for level in pair for t in level]
            value = crc32(":".join(parts).encode())
            assert book["checksum"] == (value - 2**32 if value >= 2**31 else value)
            assert client.is_the_venues(venue, "BTC-USDT", last)


async def test_okx_cuts_its_books_at_400_levels_and_says_what_falls_out():
    async with talking("okx", instruments=1, levels=390, rate=200) as (venue, client):
        await client.say({"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]})
        last = -1
        for _ in range(EVENTS):
            book = (await client.hear(lambda f: "action" in f))["data"][0]
            assert book["prevSeqId"] == last
            last = book["seqId"]
            for bid, levels in ((True, book["bids"]), (False, book["asks"])):
                for price, size, *_ in levels:
                    client.set(bid, price, size)
            assert max(len(client.bids), len(client.asks)) <= 400
            assert client.is_the_venues(venue, "BTC-USDT", last, 400)


def test_okx_checksum_goes_on_with_the_longer_side():
    """Source: OKX API v5, "Order book channel", "Checksum", example with fewer asks than bids."""
    text = "3366.1:7:3366.8:9:3366:6:3368:8"
    assert okx_wire.checksum([["3366.1", "7"], ["3366", "6"]], [["3366.8", "9"], ["3368", "8"]]) == _signed(text)
    longer = "3366.1:7:3366.8:9:3366:6:3368:8:3365:5"
    bids = [["3366.1", "7"], ["3366", "6"], ["3365", "5"]]
    assert okx_wire.checksum(bids, [["3366.8", "9"], ["3368", "8"]]) == _signed(longer)


def _signed(text: str) -> int:
    value = crc32(text.encode())
    return value - 2**32 if value >= 2**31 else value


async def test_okx_refuses_one_channel_and_takes_the_others():
    async with talking("okx") as (_, client):
        await client.say("ping")
        assert await client.hear() == "pong"
        channels = [{"channel": "books", "instId": "NOBODY-USDT"}, {"channel": "trades", "instId": "BTC-USDT"},
                    {"channel": "funding-rate", "instId": "ETH-USDT-SWAP"}, {"channel": "funding-rate", "instId": "BTC-USDT"}]
        await client.say({"op": "subscribe", "args": channels})
        refused = await client.hear()
        assert (refused["event"], refused["code"]) == ("error", "60018")
        assert "channel:books,instId:NOBODY-USDT" in refused["msg"]
        assert (await client.hear())["arg"]["channel"] == "trades"
        assert (await client.hear(lambda f: f.get("event") == "error"))["code"] == "60018"
        trade = (await client.hear(lambda f: f.get("arg", {}).get("channel") == "trades" and "data" in f))["data"][0]
        assert trade["side"] in ("buy", "sell") and Decimal(trade["sz"]) > 0
        await client.say({"op": "subscribe", "args": [{"channel": "index-tickers", "instId": "ETH-USDT"}]})
        index = await client.hear(lambda f: f.get("arg", {}).get("channel") == "index-tickers" and "data" in f)
        assert Decimal(index["data"][0]["idxPx"]) > 0


# Kraken.


def test_kraken_checksum_of_the_documentations_own_example():
    """Source: Kraken WebSocket v2, "Book (Level 2)", example of a snapshot (MATIC/USD: 4 and 8 decimals)."""
    bids = ("0.5666 4831.75496356 0.5665 6658.22734739 0.5664 18724.91513344 0.5663 11563.92544914 0.5662 14006.65365711 "
            "0.5661 17454.85679807 0.566 18097.1547 0.5659 33644.89175666 0.5658 148.3464 0.5657 606.70854372")  # fmt: skip
    asks = ("0.5668 4410.79769741 0.5669 4655.40412487 0.567 49844.89424998 0.5671 24306.41678 0.5672 29783.25223475 "
            "0.5673 57234.71239278 0.5674 45065.04744 0.5675 5912.76380354 0.5676 42514.92434778 0.5677 "
            "36304.0847022")  # fmt: skip

    def mantissas(text: str) -> list[tuple[int, int]]:
        words = text.split()
        pairs = zip(words[::2], words[1::2], strict=True)
        return [(int(Decimal(p).scaleb(4)), int(Decimal(s).scaleb(8))) for p, s in pairs]

    assert kraken_wire.checksum(mantissas(bids), mantissas(asks)) == 2439117997


@pytest.mark.parametrize("depth", [10, 25, 1000])
async def test_kraken_books_have_the_checksum_of_ten_levels_and_are_cut_by_the_client(depth: int):
    async with talking("kraken") as (venue, client):
        assert (await client.hear())["channel"] == "status"
        params = {"channel": "book", "symbol": ["BTC/USD", "NOBODY/USD"], "depth": depth}
        await client.say({"method": "subscribe", "params": params, "req_id": 3})
        reply = await client.hear()
        assert (reply["success"], reply["result"]["symbol"], reply["req_id"]) == (True, "BTC/USD", 3)
        for number in range(EVENTS):
            frame = await client.hear(lambda f: f.get("channel") == "book" or f.get("success") is False)
            if "data" not in frame:
                assert frame["symbol"] == "NOBODY/USD"
                continue
            book = frame["data"][0]
            assert frame["type"] == ("update" if number else "snapshot")
            for bid, levels in ((True, book["bids"]), (False, book["asks"])):
                for level in levels:
                    client.set(bid, level["price"], level["qty"])
            client.cut(depth)
            bids, asks = client.best(10)
            text = "".join(t.replace(".", "").lstrip("0") for level in (*asks, *bids) for t in level)
            assert book["checksum"] == crc32(text.encode())
            ts_us = _micros(book["timestamp"])
            assert client.is_the_venues(venue, "BTC/USD", venue.books["BTC/USD"].seq_at_time(ts_us), depth)


def _micros(text: str) -> int:
    from datetime import datetime

    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000 + int(fraction.ljust(6, "0")[:6])


async def test_kraken_calls_bitcoin_xbt_in_rest_and_btc_in_the_stream():
    async with talking("kraken") as (venue, client):
        pairs = (await rest(venue, "/0/public/AssetPairs"))["result"]
        assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"
        await client.say({"method": "subscribe", "params": {"channel": "instrument"}})
        assert (await client.hear(lambda f: f.get("method") == "subscribe"))["success"] is True
        found = (await client.hear(lambda f: f.get("channel") == "instrument"))["data"]["pairs"]
        assert {pair["symbol"] for pair in found} == set(venue.symbols)
        decimals = {p["symbol"]: (p["price_precision"], p["qty_precision"]) for p in found}
        assert decimals["BTC/USD"] == (pairs["XXBTZUSD"]["pair_decimals"], pairs["XXBTZUSD"]["lot_decimals"])


# Bybit.


@pytest.mark.parametrize("depth", [50, 200])
@pytest.mark.parametrize("category", ["spot", "linear"])
async def test_bybit_update_ids_are_consecutive_for_each_topic(category: str, depth: int):
    async with talking(f"bybit-{category}") as (venue, client):
        await client.say({"op": "subscribe", "req_id": "5", "args": [f"orderbook.{depth}.BTCUSDT"]})
        reply = await client.hear()
        assert (reply["success"], reply["req_id"], reply["op"]) == (True, "5", "subscribe")
        last = 0
        for number in range(EVENTS):
            frame = await client.hear(lambda f: "topic" in f)
            assert frame["type"] == ("delta" if number else "snapshot")
            assert not number or frame["data"]["u"] == last + 1
            last = frame["data"]["u"]
            for bid, levels in ((True, frame["data"]["b"]), (False, frame["data"]["a"])):
                for price, size in levels:
                    client.set(bid, price, size)
            seq = frame["data"]["seq"] // 3
            assert client.is_the_venues(venue, "BTCUSDT", seq, depth)


async def test_bybit_refuses_a_whole_request_for_one_bad_topic_and_pages_its_instruments():
    async with talking("bybit-linear", instruments=25, levels=5, rate=0) as (venue, client):
        await client.say({"op": "ping", "req_id": "1"})
        assert (await client.hear())["ret_msg"] == "pong"
        await client.say({"op": "subscribe", "req_id": "2", "args": ["orderbook.50.BTCUSDT", "orderbook.50.NOBODYUSDT"]})
        reply = await client.hear()
        assert reply["success"] is False and "NOBODYUSDT" in reply["ret_msg"]
        assert not venue.stream.wanted("orderbook.50.BTCUSDT")
        found, cursor = [], ""
        for _ in range(3):
            answer = await rest(venue, f"/v5/market/instruments-info?category=linear&limit=10&cursor={cursor}")
            found += [entry["symbol"] for entry in answer["result"]["list"]]
            cursor = answer["result"]["nextPageCursor"]
        assert sorted(found) == venue.symbols and cursor == ""
        assert (await rest(venue, "/v5/market/instruments-info?category=spot"))["result"]["list"] == []
    async with talking("bybit-spot") as (_, client):
        await client.say({"op": "subscribe", "args": [f"publicTrade.X{n}" for n in range(11)]})
        assert (await client.hear())["ret_msg"] == "args size >10"


async def test_a_restart_numbers_anew_as_each_venue_documents_it():
    async with talking("bybit-linear") as (venue, client):
        await client.say({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]})
        await client.hear(lambda f: f.get("type") == "delta")
        venue.control("restart", symbol="BTCUSDT")
        again = await client.hear(lambda f: f.get("type") == "snapshot")
        assert again["data"]["u"] == 1
        client.bids, client.asks = {}, {}
        for number in range(2, 30):
            for bid, levels in ((True, again["data"]["b"]), (False, again["data"]["a"])):
                for price, size in levels:
                    client.set(bid, price, size)
            assert client.is_the_venues(venue, "BTCUSDT", again["data"]["seq"] // 3, 50)
            again = await client.hear(lambda f: f.get("type") == "delta")
            assert again["data"]["u"] == number
    async with talking("okx") as (venue, client):
        await client.say({"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]})
        last, falls = -1, 0
        for number in range(60):
            if number == 20:
                venue.control("restart", symbol="BTC-USDT")
            book = (await client.hear(lambda f: "action" in f))["data"][0]
            assert book["prevSeqId"] == last
            falls += book["seqId"] < last
            last = book["seqId"]
        assert falls == 1


# Coinbase.


async def test_coinbase_numbers_all_frames_of_a_connection_in_one_row():
    async with talking("coinbase") as (venue, client):
        await client.say({"type": "subscribe", "channel": "heartbeats"})
        await client.say({"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD", "ETH-USD"]})
        await client.say({"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]})
        seen: set[str] = set()
        books = 0
        for number in range(400):
            frame = await client.hear()
            assert frame["sequence_num"] == number
            seen.add(frame["channel"])
            if frame["channel"] != "l2_data":
                continue
            event = frame["events"][0]
            assert event["type"] == ("update" if books else "snapshot")
            books += 1
            for update in event["updates"]:
                client.set(update["side"] == "bid", update["price_level"], update["new_quantity"])
            seq = venue.books["BTC-USD"].seq_at_time(_micros(frame["timestamp"]))
            assert client.is_the_venues(venue, "BTC-USD", seq)
        assert seen == {"subscriptions", "market_trades", "l2_data", "heartbeats"}


async def test_coinbase_says_what_is_subscribed_and_what_is_no_product():
    async with talking("coinbase", rate=0) as (_, client):
        await client.say({"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD", "NOBODY-USD"]})
        assert (await client.hear())["channel"] == "l2_data"
        assert (await client.hear()) == {"type": "error", "message": "NOBODY-USD is not a valid product"}
        assert (await client.hear())["events"] == [{"subscriptions": {"level2": ["BTC-USD"]}}]
        await client.say({"type": "unsubscribe", "channel": "level2", "product_ids": ["BTC-USD"]})
        assert (await client.hear())["events"] == [{"subscriptions": {}}]


# Deribit.


async def test_deribit_changes_name_their_predecessor_and_what_they_do_to_a_level():
    async with talking("deribit") as (venue, client):
        channel = "book.BTC-PERPETUAL.100ms"
        request = {"jsonrpc": "2.0", "id": 4, "method": "public/subscribe", "params": {"channels": [channel, "book.NO.raw"]}}
        await client.say(request)
        reply = await client.hear()
        assert (reply["id"], reply["result"]) == (4, [channel])
        last = None
        for _ in range(EVENTS):
            data = (await client.hear(lambda f: f.get("method") == "subscription"))["params"]["data"]
            assert data.get("prev_change_id") == last
            assert data["type"] == ("snapshot" if last is None else "change")
            last = data["change_id"]
            for bid, levels in ((True, data["bids"]), (False, data["asks"])):
                side = client.bids if bid else client.asks
                for action, price, amount in levels:
                    assert (action == "new") == (Decimal(price) not in side), "new: not held; change, delete: held"
                    assert (action == "delete") == (not Decimal(amount))
                    client.set(bid, price, amount)
            assert client.is_the_venues(venue, "BTC-PERPETUAL", last)


async def test_deribit_disconnects_who_does_not_answer_its_test_request():
    async with talking("deribit", rate=0) as (venue, client):
        await client.say({"id": 1, "method": "public/set_heartbeat", "params": {"interval": 5}})
        assert (await client.hear())["error"]["code"] == -32602
        await client.say({"id": 2, "method": "public/set_heartbeat", "params": {"interval": 10}})
        assert (await client.hear())["result"] == "ok"
        (theirs,) = venue.stream.clients
        theirs.memory["next_beat_s"] = 0  # now, not in ten seconds
        assert (await client.hear())["params"] == {"type": "heartbeat"}
        assert (await client.hear())["params"] == {"type": "test_request"}
        await client.say({"id": 3, "method": "public/test"})
        assert (await client.hear())["result"] == {"version": "1.2.26"}
        theirs.memory["next_beat_s"] = 0
        assert (await client.hear(lambda f: f["params"]["type"] == "test_request")) is not None
        theirs.memory["next_beat_s"] = 0
        closed = await client.socket.receive(timeout=5)
        assert closed.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE)


# All.


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", "7", '{"op":7}', '{"method":"x","id":1}', '{"type":1}'])
async def test_nonsense_is_answered_or_ignored_and_the_connection_lives(protocol: str, text: str):
    async with talking(protocol, instruments=1, rate=0, levels=5) as (venue, client):
        await client.say(text)
        await client.socket.ping()
        await asyncio.sleep(0.02)
        await client.say(text)
        await asyncio.sleep(0.02)
        assert len(venue.stream.clients) == 1
