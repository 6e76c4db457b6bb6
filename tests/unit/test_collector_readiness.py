"""When a collector says that it is ready, and what it says before."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from bus.status_page import start_server
from collectors.collector import Collector
from collectors.pool import ConnectionPool
from collectors.readiness import chain_waits_for, waits_for


async def asked(collector: Any, how: Any = waits_for) -> tuple[int, dict[str, Any]]:
    runner, port = await start_server("127.0.0.1", 0, bytes, dict, partial(how, collector))
    try:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status, json.loads(await response.text())
    finally:
        await runner.cleanup()


def instrument(symbol: str, native: str, state: str = "TRADING") -> dict[str, Any]:
    return {
        "symbol": symbol, "native_id": native, "state": state, "tick_size": "0.01", "lot_size": "0.001", "base": "BTC",
        "quote": "USDT", "kind": "SPOT",
    }  # fmt: skip


@pytest.fixture
async def collector(settings, monkeypatch: pytest.MonkeyPatch):
    own = settings(
        kafka={"bootstrap_servers": "127.0.0.1:1"}, venues={"binance-spot": {"rest_url": "http://127.0.0.1:1", "ws_url": "ws://x"}}
    )
    made, opened = Collector(own, "binance-spot"), SimpleNamespace(count=0)
    monkeypatch.setattr(made.pool, "subscribe", lambda _: None)
    monkeypatch.setattr(made.pool, "unsubscribe", lambda _: None)
    monkeypatch.setattr(made.pool, "brings_books", lambda: bool(opened.count))
    monkeypatch.setattr(made.producer, "send", lambda *_, **__: None)
    monkeypatch.setattr(made.producer, "flush", lambda _: 0)
    yield made, opened


async def test_one_step_after_the_other_until_it_is_ready_and_back_when_it_gives_up(collector):
    one, opened = collector
    assert await asked(one) == (503, {"ready": False, "reason": "Kafka has handed out no partitions to this collector"})
    one.on_assigned({0, 1})
    assert await asked(one) == (503, {"ready": False, "reason": "the venue's instruments have not been loaded"})
    one.counts.discoveries += 1
    assert (await asked(one))[1]["reason"] == "no instrument of the venue is known"
    one.on_instrument(instrument("BTC/USDT", "BTCUSDT"), 1)
    assert (await asked(one))[1]["reason"] == "no connection that books come by is open"
    opened.count = 1
    assert await asked(one) == (200, {"ready": True, "reason": ""})
    opened.count = 0
    assert (await asked(one))[0] == 503
    await one.on_revoked({0, 1})
    assert (await asked(one))[1]["reason"].startswith("Kafka has handed out no partitions")


async def test_who_does_not_run_discovery_waits_for_what_another_has_found(collector):
    one, opened = collector
    one.on_assigned({3})
    assert waits_for(one) == "no instrument of the venue is known"
    one.on_instrument(instrument("BTC/USDT", "BTCUSDT"), 3)
    opened.count = 1
    assert waits_for(one) == ""


async def test_a_connection_beside_those_of_the_books_is_not_one_of_them():
    pool = ConnectionPool.__new__(ConnectionPool)
    beside: Any = SimpleNamespace(open_count=lambda: 1)
    pool.connections, pool.beside = [SimpleNamespace(is_open=False)], beside  # pyright: ignore[reportAttributeAccessIssue]
    assert pool.open_count() == 1 and not pool.brings_books()
    pool.connections.append(SimpleNamespace(is_open=True))  # pyright: ignore[reportArgumentType]
    assert pool.brings_books()


async def test_without_a_book_of_its_own_it_needs_no_connection(collector):
    one, _ = collector
    one.on_assigned({3})
    one.on_instrument(instrument("BTC/USDT", "BTCUSDT"), 4)
    one.on_instrument(instrument("ETH/USDT", "ETHUSDT", "HALTED"), 3)
    assert waits_for(one) == ""


async def test_a_chain_is_ready_once_its_pools_are_read_while_heads_come():
    one = SimpleNamespace(started=False, follower=SimpleNamespace(stale=False))
    assert await asked(one, chain_waits_for) == (503, {"ready": False, "reason": "the pools have not been read"})
    one.started = True
    assert await asked(one, chain_waits_for) == (200, {"ready": True, "reason": ""})
    one.follower.stale = True
    assert (await asked(one, chain_waits_for))[0] == 503
