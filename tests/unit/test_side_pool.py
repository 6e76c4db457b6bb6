"""What travels beside the books: a refusal there is counted and asked again, silence is no fault, turns are the venue's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from websockets.asyncio.server import ServerConnection, serve

from collectors import stream
from collectors.pool import ConnectionPool
from collectors.venue import ALL_CHANNELS, Venue, adapter
from tests.venue_replay import Replay

GOOD, BAD = "BTCUSDT", "FOOUSDT"


async def until(true: Callable[[], object], what: str) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within ten seconds: {what}")


def pool_of(run: Replay, venue: Venue, url: str, silence_s: float = 60) -> ConnectionPool:
    return ConnectionPool(
        "binance-usdm", venue, url, run.pipeline, run.counts, silence_s=silence_s, beside=venue.beside()
    )


async def test_a_refusal_is_counted_and_tried_again_and_no_book_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REFUSED_RETRY_S", 0.2)
    run = Replay("binance-usdm", [GOOD, BAD])
    said: dict[str, list[list[str]]] = {"/public/stream": [], "/market/stream": []}

    async def talk(socket: ServerConnection) -> None:
        assert socket.request is not None
        path = socket.request.path
        async for raw in socket:
            message = json.loads(raw)
            said[path].append([message["method"], *message["params"]])
            refused = path == "/market/stream" and len(said[path]) <= 3 and f"{BAD.lower()}@forceOrder" in message["params"]
            if refused:
                await socket.send(json.dumps({"error": {"code": 2, "msg": "Invalid request"}, "id": message["id"]}))
                continue
            await socket.send(json.dumps({"result": None, "id": message["id"]}))

    async with serve(talk, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        pool = pool_of(run, run.venue, f"ws://127.0.0.1:{port}", 0.4)
        for worker in run.pipeline.workers.values():
            worker.announce()
        try:
            pool.subscribe([GOOD, BAD])
            await until(lambda: run.counts.refused_subscriptions == 1, "the refusal")
            assert {worker.state for worker in run.pipeline.workers.values()} == {"SYNCING"}
            assert not any(b"refused" in value for _, _, value in run.records), "a book's status says so"
            await until(lambda: len(said["/market/stream"]) == 4, "another try")
            assert said["/market/stream"] == [
                ["SUBSCRIBE", "btcusdt@forceOrder", "foousdt@forceOrder"],
                ["SUBSCRIBE", "btcusdt@forceOrder"], ["SUBSCRIBE", "foousdt@forceOrder"],
                ["SUBSCRIBE", "foousdt@forceOrder"],
            ]  # fmt: skip
            assert run.counts.refused_subscriptions == 1
            pool.unsubscribe(BAD)
            await until(lambda: said["/market/stream"][-1] == ["UNSUBSCRIBE", "foousdt@forceOrder"], "the cancellation")
            # The books' connection is replaced for its silence again and again; the other one may be silent.
            await until(lambda: run.counts.reconnects >= 2, "the silent connection replaced")
            assert len(said["/market/stream"]) == 5
            assert pool.beside is not None and pool.beside.open_count() == 1
            pool.unsubscribe(GOOD)
            assert pool.connections == pool.beside.connections == []
        finally:
            await pool.close()
    assert run.counts.dead_letters == run.counts.internal_errors == 0


async def test_both_share_the_turns_of_opening() -> None:
    run = Replay("binance-usdm", [])
    kind = adapter("binance-usdm")
    slow = type("Slow", (kind,), {"limits": replace(kind.limits, connect_interval_s=1000.0, connect_burst=3)})
    pool = pool_of(run, slow(channels=ALL_CHANNELS), "ws://127.0.0.1:1")
    assert pool.beside is not None
    await asyncio.wait_for(pool.connect_turn(), 60)
    await asyncio.wait_for(pool.beside.connect_turn(), 60)
    await asyncio.wait_for(pool.connect_turn(), 60)
    for one in (pool, pool.beside):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(one.connect_turn(), 0.2)


async def test_an_old_connection_is_renewed_on_both(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Replay("binance-usdm", [])
    aged = type("Aged", (adapter("binance-usdm"),), {})
    pool = pool_of(run, aged(channels=ALL_CHANNELS), "ws://127.0.0.1:1")
    assert pool.beside is not None
    looked: list[str] = []

    async def look(self: ConnectionPool) -> None:
        looked.append(self.name)

    monkeypatch.setattr(ConnectionPool, "_renew_old", look)
    await pool.renew_old()
    assert looked == [pool.name, pool.beside.name]
