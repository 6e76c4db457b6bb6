"""A watchdog on a real Kafka, over ccxt and a venue without a switch of its own: it cancels when nobody else can."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bus.producer import Producer
from bus.topics import apply
from cli.trade_views import records
from config.settings import Settings
from execution.ccxt_account import CcxtAccount
from execution.config import ExecutorConfig, load_config
from execution.errors import AccountError
from execution.watchdog import AGAIN_S, Watchdog, run_process, watchable
from schemas.codec import codec
from simulator.trading_binance import TradingBinance
from simulator.trading_core import Listing
from tests.conftest import ROOT, program

pytestmark = pytest.mark.broker
NATIVE = "BTCUSDT"


class Dog:
    """A venue, an accounts' file, and a clock that passes when it is told to."""

    def __init__(self, settings: Settings, work: Path, unique: str) -> None:
        self.settings, self.work, self.name = settings, work, f"binance-{unique}:main"
        self.venue = TradingBinance([Listing(NATIVE, "BTC", "USDT")], {"key": "secret"})
        self.now_s = 0.0
        self.said: list[str] = []
        self.placed = 0

    def file(self) -> Path:
        keys, accounts = self.work / "keys", self.work / "accounts.toml"
        keys.write_text("key\nsecret\n")
        keys.chmod(0o600)
        accounts.write_text(
            f'[accounts."{self.name}"]\nadapter = "ccxt"\nexchange = "binance"\nkey_file = "{keys}"\n'
            f'rest_url = "{self.venue.rest_url}"\nws_url = "{self.venue.ws_url}"\nnotional_per_minute = 50000000\n'
        )
        return accounts

    def rest(self, client_id: str) -> None:
        """An order rests at the venue, whoever placed it."""
        self.placed += 1
        price, now_ms = Decimal(40_000 + self.placed), time.time_ns() // 10**6
        self.venue.core.place("key", NATIVE, "BUY", price, Decimal("0.01"), "GTC", client_id, now_ms)

    def open_ids(self) -> list[str]:
        return [o.client_id for o in self.venue.core.open_orders("key")]

    def alarms(self) -> list[str]:
        return [r["text"] for r in records(self.settings, "orders.notice") if r["account"] == self.name and r["kind"] == "ALARM"]


@pytest.fixture
async def dog(kafka: str, settings: Callable[..., Settings], tmp_path: Path, unique: str) -> AsyncIterator[Dog]:
    own = settings(kafka={"bootstrap_servers": kafka})
    await asyncio.to_thread(apply, own)
    made = Dog(own, tmp_path, unique)
    await made.venue.start()
    made.venue.core.deposit("key", "USDT", "1000000")
    yield made
    await made.venue.stop()


async def until(what: Callable[[], bool], seconds: float = 120) -> None:
    async with asyncio.timeout(seconds):
        while not what():
            await asyncio.sleep(0.05)


async def test_it_cancels_what_is_ours_after_the_silence_and_not_before(dog: Dog) -> None:
    accounts = watchable(load_config(dog.file()))
    assert set(accounts) == {dog.name}
    [account] = accounts.values()
    await account.connect()
    taken: list[int] = []

    class Hearing(Watchdog):
        def take(self, raw: bytes) -> None:
            super().take(raw)
            taken.append(codec("SignOfLife").decode(raw)["ts_ns"])

    own = Hearing(dog.settings, accounts, dog.said.append, 60, lambda: dog.now_s)
    running = asyncio.create_task(own.run())
    producer = Producer(dog.settings, linger_ms=0)

    def made(age_s: int = 0) -> bytes:
        ts_ns = time.time_ns() - age_s * 10**9
        return codec("SignOfLife").encode({"account": dog.name, "run": "r", "open_orders": 2, "ts_ns": ts_ns})

    last_sent = b""

    def sign() -> None:
        nonlocal last_sent
        last_sent = made()
        producer.send("orders.alive", dog.name, last_sent)
        producer.poll(0)

    try:
        for client_id in ("vm1", "vm2", "by hand"):
            dog.rest(client_id)
        for step in range(1, 4):  # heard of every 50 s: never silent for 60
            before = own.signs

            def heard(before: int = before) -> bool:
                sign()
                return own.signs > before

            await until(heard)
            dog.now_s = step * 50.0
            await own.check()
        assert len(dog.open_ids()) == 3 and not dog.said

        # What is still on its way would end the silence: all of it first.
        assert producer.flush(60) == 0
        await until(lambda: taken[-1] == codec("SignOfLife").decode(last_sent)["ts_ns"])
        dog.now_s += 61
        await until(lambda: dog.open_ids() == ["by hand"] and bool(dog.said))
        assert dog.said[0].startswith(f"ALARM {dog.name}: nobody looked after it for ")
        assert dog.said[0].endswith("2 orders were open, none of ours is now")
        dog.said[1:] = []
        await until(lambda: len(dog.alarms()) == 1)
        # One that was still on its way is found at a later look; a look that finds nothing says nothing.
        dog.rest("vm3")
        dog.now_s += AGAIN_S + 1
        await until(lambda: dog.open_ids() == ["by hand"])
        await until(lambda: len(dog.said) == 2)
        dog.now_s += AGAIN_S + 1
        await own.check()
        assert len(dog.said) == 2
        # A sign that was held up for longer than the silence is none; a fresh one ends it.
        signs = own.signs
        own.take(made(age_s=61))
        assert own.signs == signs
        sign()
        await until(lambda: dog.said[-1] == f"{dog.name}: is heard of again")
        dog.rest("vm4")
        await own.check()
        assert "vm4" in dog.open_ids()
    finally:
        own.stop.set()
        await running
        await account.close()


async def test_it_goes_on_where_calls_fail_and_says_when_it_is_not_sure(dog: Dog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execution.watchdog.cancel_ours.__defaults__", (0.5,))
    accounts = watchable(load_config(dog.file()))
    [account] = accounts.values()
    assert isinstance(account, CcxtAccount)
    await account.connect()
    own = Watchdog(dog.settings, accounts, dog.said.append, 60, lambda: dog.now_s)
    try:
        dog.rest("vm1")
        dog.venue.faults.fail_cancel = 1000
        dog.now_s = 61
        await own.check()
        assert dog.open_ids() == ["vm1"]
        assert dog.said[-1].endswith("NOT SURE that none of ours is now (1)")
        dog.venue.faults.fail_cancel = 0
        dog.now_s += AGAIN_S + 1
        await own.check()
        assert dog.open_ids() == [] and dog.said[-1].endswith("none of ours is now")
    finally:
        await account.close()


async def test_an_executor_is_killed_and_the_watchdog_process_cancels(dog: Dog) -> None:
    accounts = dog.file()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": dog.settings.kafka.bootstrap_servers}
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], Path]:
        log = dog.work / f"{arguments[0]}.log"
        process = subprocess.Popen(
            [*program(), *arguments], cwd=dog.work, env=env, stdout=log.open("w"), stderr=subprocess.STDOUT, text=True
        )
        running.append(process)
        return process, log

    def signs() -> list[dict[str, Any]]:
        return [r for r in records(dog.settings, "orders.alive") if r["account"] == dog.name]

    try:
        executor, told = start("execute", str(accounts))
        await until(lambda: ": ready" in told.read_text(), 240)
        _, barked = start("watchdog", str(accounts), "--after", "15")
        await until(lambda: ": watched" in barked.read_text(), 240)
        await until(lambda: bool(signs()))
        executor.kill()
        executor.wait()
        dog.rest("vmleft")
        dog.rest("by hand")
        await until(lambda: dog.open_ids() == ["by hand"])
        await until(lambda: any("1 orders were open, none of ours is now" in text for text in dog.alarms()))
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_what_needs_no_watchdog_and_what_is_wrong_is_said(dog: Dog) -> None:
    okx = load_config(dog.file()).accounts[dog.name]
    import msgspec

    config = ExecutorConfig({"okx-spot:main": msgspec.structs.replace(okx, exchange="okx")})
    with pytest.raises(AccountError, match="no account needs a watchdog"):
        watchable(config)
    with pytest.raises(AccountError, match="at least 15"):
        run_process(dog.settings, load_config(dog.file()), 5, print)
