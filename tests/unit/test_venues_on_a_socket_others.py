"""The other venues' conversations over a real websocket: subscribe two, be refused one, renew a book, answer a ping.

The server here speaks each venue's documented frames; everything on the client's side is the collector's own.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from collectors.pool import ConnectionPool
from tests.venue_replay import Replay

GOOD, BAD = "GOOD-USDT", "FOO-USDT"
Answers = Iterator[Any]
Answer = Callable[[Any], Answers]
"""What a venue says to one frame of the client's: JSON, or bytes as they are."""


def gate(said: Any) -> Answers:
    native = said["payload"][0].removeprefix("ob.").removesuffix(".400")
    reply = {"time": 1, "id": said.get("id"), "channel": said["channel"], "event": said["event"], "payload": said["payload"]}
    if said["event"] == "subscribe" and native == BAD:
        yield reply | {"error": {"code": 2, "message": f"unknown contract {native}"}}
        return
    yield reply | {"result": {"status": "success"}}
    if said["channel"] == "futures.obu" and said["event"] == "subscribe":
        book = {"full": True, "s": f"ob.{native}.400", "u": 5, "b": [["1", "2"]], "a": [["3", "4"]], "t": 1}
        yield {"channel": "futures.obu", "event": "update", "result": book}


def htx(said: Any) -> Answers:
    def zipped(value: Any) -> bytes:
        return gzip.compress(json.dumps(value).encode())

    channel = said.get("sub") or said.get("req") or said.get("unsub")
    if channel is None:
        assert said == {"pong": 77}
    elif not channel.endswith("mbp.150"):
        yield zipped({"id": said["id"], "status": "ok", "subbed": channel, "ts": 1})
    elif BAD in channel:
        yield zipped({"id": said["id"], "status": "error", "err-code": "bad-request", "err-msg": f"invalid {BAD}"})
    elif "req" in said:
        book = {"seqNum": 5, "bids": [[1, 2]], "asks": [[3, 4]]}
        yield zipped({"id": said["id"], "rep": channel, "status": "ok", "ts": 1, "data": book})
        yield zipped({"ping": 77})
    else:
        yield zipped({"id": said["id"], "status": "ok", "subbed" if "sub" in said else "unsubbed": channel, "ts": 1})
        change = {"seqNum": 6, "prevSeqNum": 5, "bids": [[1.5, 2]], "asks": []}
        yield zipped({"ch": channel, "ts": 1, "tick": change})


def gemini(said: Any) -> Answers:
    for native in said["subscriptions"][0]["symbols"]:
        if native == BAD:
            yield {"result": "error", "reason": "InvalidSymbol", "message": native}
        elif said["type"] == "subscribe":
            yield {"type": "l2_updates", "symbol": native, "changes": [["buy", "1", "2"], ["sell", "3", "4"]], "trades": []}


def bitmex(said: Any) -> Answers:
    for arg in said["args"]:
        table, _, native = arg.partition(":")
        if native == BAD and said["op"] == "subscribe":
            yield {"status": 400, "error": f"Unknown or expired symbol: {native}", "request": said}
            continue
        yield {"success": True, said["op"]: arg, "request": said}
        if said["op"] == "subscribe" and table == "orderBookL2":
            rows = [{"symbol": native, "id": n, "side": side, "size": 2, "price": n} for n, side in ((1, "Buy"), (3, "Sell"))]
            yield {"table": table, "action": "partial", "filter": {"symbol": native}, "data": rows}


def phemex(said: Any) -> Answers:
    if said["method"] == "orderbook_p.subscribe" and said["params"][0] == BAD:
        yield {"error": {"code": 6001, "message": "invalid argument"}, "id": said["id"], "result": None}
        return
    yield {"error": None, "id": said["id"], "result": {"status": "success"}}
    if said["method"] == "orderbook_p.subscribe":
        book = {"bids": [["1", "2"]], "asks": [["3", "4"]]}
        yield {"orderbook_p": book, "depth": 0, "sequence": 5, "symbol": said["params"][0], "timestamp": "1", "type": "snapshot"}


def cryptocom(said: Any) -> Answers:
    if said["method"] == "public/respond-heartbeat":
        assert said["id"] == 77
        return
    channels = said["params"]["channels"]
    if said["method"] == "subscribe" and any(BAD in channel for channel in channels):
        yield {"id": said["id"], "method": "subscribe", "code": 40004, "message": f"Unknown symbol {BAD}"}
        return
    yield {"id": said["id"], "method": said["method"], "code": 0}
    yield {"id": 77, "method": "public/heartbeat", "code": 0}
    for channel in channels if said["method"] == "subscribe" else ():
        if channel.startswith("book."):
            native = channel.split(".")[1]
            book = {"bids": [["1", "2", "1"]], "asks": [["3", "4", "1"]], "t": 1, "u": 5}
            result = {"instrument_name": native, "subscription": channel, "channel": "book", "data": [book]}
            yield {"id": -1, "method": "subscribe", "code": 0, "result": result}


def upbit(said: Any) -> Answers:
    for native in said[1]["codes"]:
        if native == BAD:
            yield {"error": {"name": "INVALID_PARAM", "message": native}}
        else:
            unit = {"bid_price": 1, "bid_size": 2, "ask_price": 3, "ask_size": 4}
            yield {"type": "orderbook", "code": native, "timestamp": 1, "orderbook_units": [unit], "stream_type": "SNAPSHOT"}


def poloniex(said: Any) -> Answers:
    for native in said["symbols"]:
        if native == BAD:
            yield {"event": "error", "message": "Invalid symbol"}
        else:
            yield {"event": said["event"], "channel": "book_lv2", "symbols": [native]}
            book = {"symbol": native, "createTime": 1, "bids": [["1", "2"]], "asks": [["3", "4"]], "lastId": 4, "id": 5, "ts": 1}
            if said["event"] == "subscribe":
                yield {"channel": "book_lv2", "data": [book], "action": "snapshot"}


def dydx() -> Answer:
    numbers = iter(range(1, 1000))

    def answer(said: Any) -> Answers:
        number = {"connection_id": "c", "message_id": next(numbers)}
        if said["id"] == BAD:
            yield {"type": "error", "message": f"Invalid id {BAD}", **number}
        elif said["channel"] == "v4_orderbook":
            book = {"bids": [{"price": "1", "size": "2"}], "asks": [{"price": "3", "size": "4"}]}
            kind = "subscribed" if said["type"] == "subscribe" else "unsubscribed"
            yield {"type": kind, "channel": said["channel"], "id": said["id"], "contents": book, **number}
        else:
            yield {"type": f"{said['type']}d", "channel": said["channel"], "id": said["id"], "contents": {"trades": []}, **number}

    return answer


VENUES: dict[str, Callable[[], Answer]] = {
    "gate-futures": lambda: gate, "htx-spot": lambda: htx, "gemini": lambda: gemini, "bitmex": lambda: bitmex,
    "phemex": lambda: phemex, "cryptocom": lambda: cryptocom, "upbit": lambda: upbit, "poloniex": lambda: poloniex, "dydx": dydx,
}  # fmt: skip
SILENT = {"gemini", "upbit", "poloniex", "dydx"}
"""Venues that do not say which instrument they refused: it waits for a snapshot, and is asked for again."""


async def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(2000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within twenty seconds: {what}")


@pytest.mark.parametrize("name", VENUES)
async def test_a_refused_instrument_leaves_the_other_alone_and_a_book_can_be_renewed(name: str) -> None:
    run = Replay(name, [GOOD, BAD], ["book", "trade"])
    good, bad = run.worker(GOOD), run.worker(BAD)
    opened: list[Answer] = []

    async def talk(socket: ServerConnection) -> None:
        answer = VENUES[name]()
        opened.append(answer)
        async for raw in socket:
            if raw == "ping" or "server.ping" in str(raw):
                continue
            for frame in answer(json.loads(raw)):
                await socket.send(frame if isinstance(frame, bytes) else json.dumps(frame))

    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        pool = ConnectionPool(name, run.venue, f"ws://127.0.0.1:{port}", run.pipeline, run.counts, silence_s=30)
        try:
            for worker in (good, bad):
                worker.announce()
            pool.subscribe([GOOD, BAD])
            await until(lambda: good.state == "LIVE", f"LIVE, but {good.state}")
            if name not in SILENT:
                await until(lambda: run.counts.refused_subscriptions == 1, "the refusal")
            epoch = good.epoch
            good.resync("an audit")
            assert good in run.wanted
            pool.renew(GOOD)
            await until(lambda: good.state == "LIVE" and good.epoch > epoch, f"LIVE again, but {good.state}")
            assert bad.state == "SYNCING"
            if name == "htx-spot":
                await until(lambda: good.last_seq == 6, "the change that overtook the book")
            counts = run.counts
            assert (counts.reconnects, counts.dead_letters, counts.internal_errors, counts.gaps) == (0, 0, 0, 0)
            assert len(opened) == (2 if name == "upbit" else 1)
        finally:
            await pool.close()
