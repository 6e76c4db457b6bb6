"""Each venue's conversation over a real websocket: subscribe, be refused, renew one book, be told to start anew.

The server here speaks each venue's documented frames; everything on the client's side is the collector's own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from collectors.pool import ConnectionPool
from market.checksums import kraken_v2_crc32
from tests.venue_replay import Replay

GOOD, BAD = "GOOD-USDT", "FOO-USDT"
Said = Any
Answers = Iterable[Any]


class Script:
    """One connection of a venue: what it says at first, and to each frame of the client's."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.channels: dict[int, str] = {}

    def first(self) -> Answers:
        return ()

    def answer(self, said: Said) -> Answers:
        raise NotImplementedError


class Okx(Script):
    def answer(self, said: Said) -> Answers:
        for arg in said["args"]:
            native = arg.get("instId", "")
            if said["op"] == "unsubscribe":
                yield {"event": "unsubscribe", "arg": arg, "connId": "a"}
            elif native == BAD:
                message = f"Wrong URL or channel:{arg['channel']},instId:{native} doesn't exist."
                yield {"event": "error", "id": said["id"], "code": "60018", "msg": message, "connId": "a"}
            else:
                yield {"event": "subscribe", "arg": arg, "connId": "a"}
                if arg["channel"] == "books":
                    book = {"bids": [["1", "2", "0", "1"]], "asks": [["3", "4", "0", "1"]], "ts": "1", "checksum": 0, "seqId": 5,
                            "prevSeqId": -1}  # fmt: skip
                    yield {"arg": arg, "action": "snapshot", "data": [book]}


class Bybit(Script):
    def answer(self, said: Said) -> Answers:
        request = {"conn_id": "a", "req_id": said.get("req_id", ""), "op": said["op"]}
        if any(topic.endswith(BAD) for topic in said["args"]) and said["op"] == "subscribe":
            yield {"success": False, "ret_msg": f"error:handler not found,topic:{said['args'][0]}", **request}
            return
        yield {"success": True, "ret_msg": said["op"], **request}
        for topic in said["args"]:
            if topic.startswith("orderbook.1000.") and said["op"] == "subscribe":
                data = {"s": topic.split(".")[2], "b": [["1", "2"]], "a": [["3", "4"]], "u": 5, "seq": 7}
                yield {"topic": topic, "type": "snapshot", "ts": 1672304484978, "data": data, "cts": 1672304484976}


class Kraken(Script):
    def answer(self, said: Said) -> Answers:
        channel = said["params"]["channel"]
        for symbol in said["params"]["symbol"]:
            if symbol == BAD:
                refused = {"error": f"Currency pair not supported {BAD}", "success": False, "symbol": symbol}
                yield {**refused, "method": said["method"], "req_id": said.get("req_id", 0)}
                continue
            yield {"method": said["method"], "result": {"channel": channel, "symbol": symbol}, "success": True}
            if said["method"] == "subscribe" and channel == "book":
                book = {"symbol": symbol, "bids": [{"price": 1, "qty": 2}], "asks": [{"price": 3, "qty": 4}],
                        "checksum": kraken_v2_crc32([(1, 2)], [(3, 4)])}  # fmt: skip
                yield {"channel": "book", "type": "snapshot", "data": [book]}


class KrakenFutures(Script):
    def answer(self, said: Said) -> Answers:
        for product in said.get("product_ids", ()):
            if product == BAD:
                yield {"event": "error", "message": "Invalid product id"}
                continue
            yield {"event": f"{said['event']}d", "feed": said["feed"], "product_ids": [product]}
            if said["event"] == "subscribe" and said["feed"] == "book":
                yield {"feed": "book_snapshot", "product_id": product, "timestamp": 1612269825817, "seq": 5,
                       "bids": [{"price": 1, "qty": 2}], "asks": [{"price": 3, "qty": 4}]}  # fmt: skip


class Deribit(Script):
    def answer(self, said: Said) -> Answers:
        channels = [channel for channel in said.get("params", {}).get("channels", ()) if BAD not in channel]
        yield {"jsonrpc": "2.0", "id": said["id"], "result": channels}
        for channel in channels:
            if channel.startswith("book.") and said["method"] == "public/subscribe":
                data = {"type": "snapshot", "timestamp": 1, "instrument_name": channel.split(".")[1], "change_id": 5,
                        "bids": [["new", 1, 2]], "asks": [["new", 3, 4]]}  # fmt: skip
                yield {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}


class Coinbase(Script):
    def _numbered(self, channel: str, *events: Any) -> Any:
        return {"channel": channel, "timestamp": "2023-02-09T20:32:50Z", "sequence_num": next(self.numbers), "events": events}

    def answer(self, said: Said) -> Answers:
        products = said.get("product_ids", [])
        if BAD in products:
            yield {"type": "error", "message": "product not found"}
        good = [product for product in products if product != BAD]
        yield self._numbered("subscriptions", {"subscriptions": {said["channel"]: good}})
        if said["channel"] == "level2" and said["type"] == "subscribe":
            for product in good:
                updates = [{"side": s, "price_level": p, "new_quantity": "2"} for s, p in (("bid", "1"), ("offer", "3"))]
                yield self._numbered("l2_data", {"type": "snapshot", "product_id": product, "updates": updates})


class Bitget(Script):
    def answer(self, said: Said) -> Answers:
        for arg in said["args"]:
            if arg["instId"] == BAD and said["op"] == "subscribe":
                yield {"event": "error", "arg": arg, "code": 30001, "msg": "doesn't exist", "op": "subscribe"}
                continue
            yield {"event": said["op"], "arg": arg}
            if arg["channel"] == "books" and said["op"] == "subscribe":
                book = {"bids": [["1", "2"]], "asks": [["3", "4"]], "ts": "1656413855484", "checksum": 0, "seq": 5}
                yield {"action": "snapshot", "arg": arg, "data": [book]}


class Kucoin(Script):
    def first(self) -> Answers:
        yield {"id": "x", "type": "welcome"}

    def answer(self, said: Said) -> Answers:
        topic, _, symbols = said["topic"].partition(":")
        if BAD in symbols.split(",") and said["type"] == "subscribe":
            yield {"id": said["id"], "type": "error", "code": 404, "data": f"topic {said['topic']} is not found"}
            return
        yield {"id": said["id"], "type": "ack"}
        for symbol in symbols.split(","):
            if "Depth50" in topic and said["type"] == "subscribe":
                yield {"type": "message", "topic": f"{topic}:{symbol}", "subject": "level2",
                       "data": {"bids": [["1", "2"]], "asks": [["3", "4"]], "timestamp": 1733124805073}}  # fmt: skip


class Bitfinex(Script):
    def first(self) -> Answers:
        yield {"event": "info", "version": 2, "serverId": "a", "platform": {"status": 1}}

    def answer(self, said: Said) -> Answers:
        if said["event"] == "conf":
            yield {"event": "conf", "status": "OK", "flags": said["flags"]}
        elif said["event"] == "unsubscribe":
            self.channels.pop(said["chanId"])
            yield {"event": "unsubscribed", "status": "OK", "chanId": said["chanId"]}
        elif said["symbol"] == BAD:
            yield {**said, "event": "error", "msg": "symbol: invalid", "code": 10300}
        else:
            number = 10 + len(self.channels) + next(self.numbers)
            self.channels[number] = said["symbol"]
            yield {**said, "event": "subscribed", "chanId": number}
            yield [number, [[1, 1, 2], [3, 1, -4]] if said["channel"] == "book" else []]


class Hyperliquid(Script):
    def answer(self, said: Said) -> Answers:
        subscription = said["subscription"]
        if subscription["coin"] == BAD and said["method"] == "subscribe":
            yield {"channel": "error", "data": f"Invalid subscription {json.dumps(subscription)}"}
            return
        yield {"channel": "subscriptionResponse", "data": said}
        if subscription["type"] == "l2Book" and said["method"] == "subscribe":
            levels = [[{"px": "1", "sz": "2", "n": 1}], [{"px": "3", "sz": "4", "n": 1}]]
            yield {"channel": "l2Book", "data": {"coin": subscription["coin"], "time": 1710131872708, "levels": levels}}


SCRIPTS: dict[str, Callable[[], Script]] = {
    "okx": Okx, "bybit-spot": Bybit, "bybit-linear": Bybit, "kraken": Kraken, "krakenfutures": KrakenFutures, "deribit": Deribit,
    "coinbase": Coinbase, "bitget-usdt": Bitget, "kucoin-spot": Kucoin, "bitfinex": Bitfinex, "hyperliquid": Hyperliquid,
}  # fmt: skip
SILENT = {"krakenfutures", "deribit", "coinbase"}
"""Venues that do not say which instrument they refused: it waits for a snapshot, and is asked for again."""


async def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within five seconds: {what}")


@pytest.mark.parametrize("name", SCRIPTS)
async def test_a_refused_instrument_leaves_the_others_alone_and_one_book_can_be_renewed(name: str) -> None:
    replay = Replay(name, [GOOD, BAD], ["book", "trade"])
    venue, good, bad = replay.venue, replay.worker(GOOD), replay.worker(BAD)
    opened: list[Script] = []

    async def talk(socket: ServerConnection) -> None:
        script = SCRIPTS[name]()
        opened.append(script)
        for frame in script.first():
            await socket.send(json.dumps(frame))
        async for raw in socket:
            if isinstance(raw, str) and raw.startswith("{") and "ping" not in raw and "public/test" not in raw:
                for frame in script.answer(json.loads(raw)):
                    await socket.send(json.dumps(frame))

    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        pool = ConnectionPool(name, venue, f"ws://127.0.0.1:{port}", replay.pipeline, replay.counts, silence_s=30)
        try:
            for worker in (good, bad):
                worker.announce()
            pool.subscribe([GOOD, BAD])
            await until(lambda: good.state == "LIVE", f"LIVE, but {good.state}")
            if name not in SILENT:
                await until(lambda: replay.counts.refused_subscriptions == 1, "the refusal")
            epoch = good.epoch
            good.resync("an audit")
            assert replay.wanted == [good]
            pool.renew(GOOD)
            await until(lambda: good.state == "LIVE" and good.epoch > epoch, f"LIVE again, but {good.state}")
            assert bad.state == "SYNCING"
            counts = replay.counts
            assert (len(opened), counts.reconnects, counts.dead_letters, counts.internal_errors) == (1, 0, 0, 0)
        finally:
            await pool.close()


async def test_a_hole_in_a_connections_count_breaks_it_off_and_every_book_starts_anew() -> None:
    replay = Replay("coinbase", [GOOD], ["book"])
    worker, sockets = replay.worker(GOOD), []

    async def talk(socket: ServerConnection) -> None:
        script = Coinbase()
        sockets.append((socket, script))
        async for raw in socket:
            for frame in script.answer(json.loads(raw)):
                await socket.send(json.dumps(frame))

    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        pool = ConnectionPool("coinbase", replay.venue, f"ws://127.0.0.1:{port}", replay.pipeline, replay.counts, silence_s=30)
        try:
            worker.announce()
            pool.subscribe([GOOD])
            await until(lambda: worker.state == "LIVE", "LIVE")
            epoch = worker.epoch
            socket, script = sockets[0]
            next(script.numbers)  # one message is lost on its way
            await socket.send(json.dumps(script._numbered("heartbeats", {"heartbeat_counter": 1})))
            await until(lambda: len(sockets) == 2 and worker.state == "LIVE", "a new connection")
            assert worker.epoch > epoch
            assert (replay.counts.gaps, replay.counts.reconnects) == (1, 1)
        finally:
            await pool.close()
