"""Our records held against a simulated venue's: nothing to say when they agree, a line for each difference when not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cli.trade_calibrate import CalibrationError, fitted
from cli.trade_recon import differences
from execution.accounting import Accounts
from execution.ccxt_account import CcxtAccount, CcxtOptions
from market.terms import terms_of
from simulator.trading_core import Listing
from simulator.trading_okx import TradingOkx
from simulator.trading_server import now_ms
from tests.trading_world import World, instrument

SYMBOL, NAME = "BTC/USDT", "okx-spot:main"


async def test_each_difference_from_the_venue_is_a_line(tmp_path: Path) -> None:
    venue = TradingOkx([Listing("BTC-USDT", "BTC", "USDT")], {"key": "secret"})
    await venue.start()
    keys = tmp_path / "keys"
    keys.write_text("key\nsecret\nword\n")
    keys.chmod(0o600)
    account = CcxtAccount(CcxtOptions("okx", "okx-spot", NAME, keys, rest_url=venue.rest_url, ws_url=venue.ws_url))
    try:
        await account.connect()
        venue.core.deposit("key", "USDT", "1000")
        venue.core.deposit("maker", "BTC", "1")
        ours = Accounts(NAME, {f"okx-spot|{SYMBOL}": terms_of(instrument("okx-spot", SYMBOL))})
        ours.opening(await account.balances(), 1)
        later = now_ms() * 1_000_000 + 60_000_000_000
        assert await differences(account, ours, {}, [], later) == []

        venue.core.place("maker", "BTC-USDT", "SELL", Decimal(50000), Decimal("0.01"), "GTC", "a", now_ms())
        venue.core.place("key", "BTC-USDT", "BUY", Decimal(50000), Decimal("0.01"), "GTC", "vmx", now_ms())
        venue.core.place("key", "BTC-USDT", "BUY", Decimal(40000), Decimal("0.001"), "GTC", "byhand", now_ms())
        events: dict[str, dict[str, Any]] = {"vmy": {"state": "OPEN", "ts_ns": 0, "symbol": SYMBOL}}
        lost = {
            "symbol": SYMBOL, "trade_id": "77", "side": "BUY", "ts_venue_us": now_ms() * 1000, "ts_ns": now_ms() * 1_000_000,
        }  # fmt: skip
        found = await differences(account, ours, events, [lost], later)
        assert [line.removeprefix(f"{NAME} ") for line in found] == [
            "balance BTC: ledger 0, venue 0.00999",
            "balance USDT: ledger 1000, venue 500",
            "order byhand: open at the venue (BTC/USDT), not one of ours",
            "order vmy: OPEN here, not open at the venue",
            "fill 5001: BUY 0.01 BTC/USDT at 50000 at the venue, not here",
            "fill 77: BUY BTC/USDT here, not at the venue",
        ]
    finally:
        await account.close()
        await venue.stop()


def test_calibration_finds_what_the_trades_were_made_with() -> None:
    """Trades whose distances fall off exponentially: k comes back, and too few are refused with what is missing."""
    world = World()
    world.list("a", SYMBOL)
    number = 0
    for second in range(120):
        world.now_ns += 1_000_000_000
        mid = 5_000_000 + (second % 3) * 100
        world.book("a", SYMBOL, [(mid - 50, 1000)], [(mid + 50, 1000)], kind="SNAPSHOT")
        for bucket, count in enumerate((16, 8, 4, 4)):  # those that reach a distance halve each 100 ticks: k = ln 2 for each 1.00
            for _ in range(count):
                number += 1
                world.trade("a", SYMBOL, mid + 100 * bucket + 20, 1, "BUY", number)
    text = fitted(world.log, "a", SYMBOL, [4000] * 99 + [9000], 100, 3600)
    values = dict(line.split(" = ") for line in text.splitlines() if " = " in line and not line.startswith("#"))
    assert float(values["k"].strip('"')) == pytest.approx(0.6931, rel=0.1)
    assert float(values["sigma"].strip('"')) > 0
    assert "p50 4.0 ms, p99 9.0 ms" in text
    with pytest.raises(CalibrationError, match="too few"):
        fitted(world.log[:40], "a", SYMBOL, [], 100, 3600)
    with pytest.raises(CalibrationError, match="other"):
        fitted(world.log, "a", "other/USDT", [], 100, 3600)
