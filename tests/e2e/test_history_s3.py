"""The archive in object storage: the same promises as on a disk, over the S3 protocol.

``S3_ENDPOINT`` (with AWS's variables for the keys and ``S3_BUCKET``) has the tests use another server than their own.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.log_reader import read_all
from bus.producer import Producer
from bus.topics import apply
from cli.stack import Stack, environment
from config.settings import Settings
from history.archiver import compact
from history.errors import WrongRoot
from history.past import Past
from history.store import Store, hour_of
from schemas.codec import codec
from schemas.topics import TRADE
from tests.s3_server import S3Server

KEY, SECRET = "the-archivers-key", "the-archivers-secret"
VENUES, SYMBOLS = ("one", "two"), ("BTC/USDT", "ETH/USDT", "SOL/USDT")


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unique: str) -> Iterator[str]:
    """The address of an empty folder in a bucket; the keys are in a file, as a secret is mounted."""
    if endpoint := os.environ.get("S3_ENDPOINT"):
        yield f"s3://{os.environ['S3_BUCKET']}/{unique}?endpoint_override={endpoint}&scheme=http"
        return
    secret = tmp_path / "s3-keys"
    secret.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secret))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3Server(KEY) as server:
        yield f"s3://archive/{unique}?endpoint_override={server.endpoint}&scheme=http&region=us-east-1"


def trade(venue: str, symbol: str, number: int) -> bytes:
    return codec("Trade").encode(
        {"venue": venue, "symbol": symbol, "trade_id": str(number), "taker_side": "BUY", "price": 10**12 + number,
         "size": number, "price_exp": -2, "size_exp": -8, "ts_venue_us": time.time_ns() // 1000, "ts_received_ns": time.time_ns()}
    )  # fmt: skip


def rows(settings: Settings) -> list[tuple[int, int, str]]:
    """(partition, offset, trade_id) of every row that Parquet's readers see."""
    store, found = Store(settings.history.root), list[tuple[int, int, str]]()
    for file in store.files(TRADE.name, None, 0, 2**42):
        found += [(r["_partition"], r["_offset"], r["trade_id"]) for r in store.read(file).to_pylist()]
    return sorted(found)


@pytest.mark.broker
async def test_records_are_in_the_bucket_once_whatever_is_killed_and_small_files_are_merged(
    kafka: str, settings, storage: str, tmp_path: Path
) -> None:
    own: Settings = settings(
        kafka={"bootstrap_servers": kafka},
        history={"root": storage, "topics": [TRADE.name], "flush_rows": 50, "flush_s": 0.3},
    )
    await asyncio.to_thread(apply, own)
    producer, chance, number = Producer(own), random.Random(3), 0
    async with Stack(own, tmp_path) as stack:
        for attempt in range(4):
            child = await stack.start(f"archiver-{attempt}", "archive")
            killed_at = time.monotonic() + 2.5 + chance.random()
            while time.monotonic() < killed_at:
                for _ in range(20):
                    venue, symbol = chance.choice(VENUES), chance.choice(SYMBOLS)
                    producer.send(TRADE.name, f"{venue}|{symbol}", trade(venue, symbol, number))
                    number += 1
                await asyncio.to_thread(producer.flush)
                await asyncio.sleep(0.05)
            stack.children.remove(child)
            assert child.process.returncode is None, child.tail()
            os.kill(child.process.pid, signal.SIGKILL)
            await child.process.wait()
        for turn in ("last", "more"):  # at least two files a partition, however little the killed ones wrote
            for _ in range(100):
                venue, symbol = chance.choice(VENUES), chance.choice(SYMBOLS)
                producer.send(TRADE.name, f"{venue}|{symbol}", trade(venue, symbol, number))
                number += 1
            await asyncio.to_thread(producer.flush)
            last = await stack.start(f"archiver-{turn}", "archive", "--until-end")
            stack.children.remove(last)
            assert await asyncio.wait_for(last.process.wait(), 120) == 0, last.tail()
            assert SECRET not in last.log.read_text("utf-8")

    def logged() -> list[tuple[int, int, str]]:
        decode = codec("Trade").decode
        return sorted((r.partition, r.offset, decode(r.value or b"")["trade_id"]) for r in read_all(own, TRADE.name))

    def merge() -> int:
        return compact(Store(storage), TRADE.name, hour_of(2**42), lambda _: None)

    def past() -> list[str]:
        entries = Past(own, kafka=False).entries(TRADE.name, 0, 2**42, venue="one", symbol="BTC/USDT")
        return sorted(e.record["trade_id"] for e in entries)

    wanted = await asyncio.to_thread(logged)
    assert len(wanted) == number > 500
    assert await asyncio.to_thread(rows, own) == wanted
    before = await asyncio.to_thread(past)
    assert before
    assert await asyncio.to_thread(merge) > 0
    assert await asyncio.to_thread(rows, own) == wanted
    assert await asyncio.to_thread(past) == before


@pytest.mark.broker
async def test_storage_that_cannot_be_used_is_said_in_a_sentence(
    kafka: str, settings, run_cli, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    own: Settings = settings(kafka={"bootstrap_servers": kafka}, history={"root": storage, "topics": [TRADE.name]})
    await asyncio.to_thread(apply, own)
    env = {k: v for k, v in environment(own).items() if k.startswith("VENUE_MIRROR_")}

    async def archive(root: str, **more: str) -> Any:
        return await asyncio.to_thread(run_cli, "archive", "--until-end", "--root", root, env={**env, **more}, timeout_s=180)

    nobody = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    for root, more, code, reason in (
        (storage, nobody, 1, "the archive's storage: "),
        (f"s3://{KEY}:{SECRET}@archive/x", {}, 64, "history.root holds a key"),
        ("ftp://archive/x", {}, 64, "is no storage that is known"),
    ):
        result = await archive(root, **more)
        assert (result.returncode, reason in result.stderr) == (code, True), result.stderr
        assert "Traceback" not in result.stderr and SECRET not in result.stderr


def test_keys_do_not_belong_into_an_address() -> None:
    with pytest.raises(WrongRoot, match="AWS_SHARED_CREDENTIALS_FILE"):
        Store(f"s3://{KEY}:{SECRET}@archive/x")
