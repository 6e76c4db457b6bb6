"""What the pages tell people to type, typed: commands that no other test runs as a program, over a mirrored venue."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bus.topics import apply
from cli.stack import environment
from simulator.synthetic import SyntheticVenue
from simulator.trading_core import Listing
from simulator.trading_okx import TradingOkx
from tests.e2e.rooms import rooms_of, section

pytestmark = pytest.mark.broker

LOOKS = (
    "topics check", "topics lag", "query books", "query book {venue} BTC/USDT --depth 5", "opps", "orders --last 5",
    "fills --last 100", "positions", "balances", "residuals", "notices", "pnl", "limits show", "limits history", "status",
    "record {venue} --symbols BTC/USDT --seconds 2 --out capture.gz",
    "asof {now} --venue {venue} --symbol BTC/USDT",
    "export trades --venue {venue} --from {before} --to now --out trades.parquet",
    "backtest mm.toml --out report/ --latency-ms 5",
)  # fmt: skip
MAKER = """
kind = "market_making"
name = "mm"
[fees.{venue}]
maker_bps = "1"
taker_bps = "5"
[parameters]
venues = ["{venue}"]
symbols = ["BTC/USDT"]
size = "0.01"
max_inventory = "0.05"
gamma = "0.05"
a = "1"
k = "0.5"
sigma = "2"
min_requote_ms = 200
"""


async def test_they_do_what_they_are_told(kafka: str, settings, unique: str, tmp_path: Path, run_cli) -> None:
    venue = SyntheticVenue("binance-spot", instruments=2, rate=60, levels=30)
    await venue.start()
    name = f"typed-{unique}"
    venues = {name: section("binance-spot", venue)}
    own = settings(kafka={"bootstrap_servers": kafka}, venues=venues, collector={"discovery_s": 3})
    (tmp_path / "mm.toml").write_text(MAKER.format(venue=name))
    try:
        async with rooms_of(own, tmp_path / "logs") as rooms:
            await rooms.processor()
            await rooms.collector(name)
            await rooms.live(name, 2)
            before = await asyncio.to_thread(moment)
            await asyncio.sleep(3)
            now = await asyncio.to_thread(moment)
            said: dict[str, str] = {}
            for line in LOOKS:
                words = line.format(venue=name, now=now, before=before).split()
                done = await asyncio.to_thread(run_cli, *words, env=environment(own))
                assert done.returncode == 0, f"{line}: {done.stderr}{done.stdout}"
                said[" ".join(words[:2])] = done.stdout
    finally:
        await venue.stop()
    assert said["query books"].count("LIVE") == 2
    assert json.loads(said[f"asof {now}"])["venue"] == name
    assert (tmp_path / "capture.gz").stat().st_size > 100
    assert (tmp_path / "trades.parquet").exists()
    assert "fills" in json.loads(said["backtest mm.toml"])


def moment() -> str:
    """Now, as the pages write it."""
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


ACCOUNTS = """
[accounts."okx-spot:main"]
adapter = "ccxt"
exchange = "okx"
notional_per_minute = 0
key_file = "keys"
rest_url = "{rest}"
ws_url = "{ws}"
"""


async def test_our_records_are_held_against_the_venue_s(kafka: str, settings, tmp_path: Path, run_cli) -> None:
    own = settings(kafka={"bootstrap_servers": kafka})
    await asyncio.to_thread(apply, own)
    venue = TradingOkx([Listing("BTC-USDT", "BTC", "USDT")], {"key": "secret"})
    await venue.start()
    (tmp_path / "keys").write_text("key\nsecret\nword\n")
    (tmp_path / "keys").chmod(0o600)
    (tmp_path / "accounts.toml").write_text(ACCOUNTS.format(rest=venue.rest_url, ws=venue.ws_url))
    try:
        same = await asyncio.to_thread(run_cli, "recon", "okx-spot", "accounts.toml", env=environment(own))
        assert same.returncode == 0, same.stderr + same.stdout
        venue.core.deposit("key", "USDT", "1000")
        other = await asyncio.to_thread(run_cli, "recon", "okx-spot:main", "accounts.toml", env=environment(own))
        assert other.returncode == 1 and "balance USDT: ledger 0, venue 1000" in other.stdout, other.stderr
    finally:
        await venue.stop()


def test_a_pool_is_quoted_from_its_state(tmp_path: Path, run_cli) -> None:
    one, other = "0x" + "a" * 40, "0x" + "b" * 40
    state = {"family": "uniswap_v2", "token0": one, "token1": other, "reserve0": 10**12, "reserve1": 2 * 10**12}
    (tmp_path / "pool.json").write_text(json.dumps(state))
    done = run_cli("quote", "--state", "pool.json", "--token-in", one, "--amount", "1000000")
    assert done.returncode == 0, done.stderr
    back = run_cli("quote", "--state", "pool.json", "--token-in", one, "--amount", "1000000", "--exact-out")
    assert back.returncode == 0, back.stderr
