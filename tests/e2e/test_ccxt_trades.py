"""ccxt itself, unmodified but for its address, against the simulated Binance; and the gateway over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.async_support
import pytest

from execution.account import FillReport, OrderReport, OrderRequest
from execution.ccxt_account import CcxtAccount, CcxtOptions, armed
from execution.egress import Egress, EgressCaps
from execution.errors import AccountError, NotFound, Refused, Throttled, Unclear
from execution.gateway import Gateway
from simulator.trading_binance import TradingBinance
from simulator.trading_core import Listing
from tests.chaos.execution_drill import Drill, MemoryJournal, News

SYMBOL = "BTC/USDT"


@pytest.fixture
async def venue() -> AsyncIterator[TradingBinance]:
    made = TradingBinance([Listing("BTCUSDT", "BTC", "USDT")], {"key": "secret", "maker": "x"})
    await made.start()
    for owner, asset, amount in (("key", "USDT", "100000"), ("maker", "BTC", "10"), ("maker", "USDT", "1000000")):
        made.core.deposit(owner, asset, amount)
    made.core.place("maker", "BTCUSDT", "SELL", Decimal(50000), Decimal("0.5"), "GTC", "a", 1)
    made.core.place("maker", "BTCUSDT", "BUY", Decimal(49990), Decimal("0.5"), "GTC", "b", 1)
    yield made
    await made.stop()


@pytest.fixture
async def account(venue: TradingBinance, tmp_path: Path) -> AsyncIterator[CcxtAccount]:
    keys = tmp_path / "keys"
    keys.write_text("key\nsecret\n")
    keys.chmod(0o600)
    made = CcxtAccount(
        CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, rest_url=venue.rest_url, ws_url=venue.ws_url)
    )
    await made.start()
    yield made
    await made.close()


def order(number: int, side: Any, price: int, size: int, tif: str = "GTC") -> OrderRequest:
    return OrderRequest(f"vm{number}", SYMBOL, side, price, -2, size, -5, tif, False, 0)


async def heard(account: CcxtAccount, count: int) -> list[OrderReport | FillReport | None]:
    out: list[Any] = []

    async def listen() -> None:
        async for event in account.events():
            out.append(event)
            if len(out) >= count:
                return

    await asyncio.wait_for(listen(), 10)
    return out


async def test_ccxts_own_client_places_fills_cancels_and_asks(venue: TradingBinance) -> None:
    """No code of ours between: the library as it comes, with another address."""
    exchange = ccxt.async_support.binance({"apiKey": "key", "secret": "secret", "options": {"fetchMarkets": {"types": ["spot"]}}})
    api = exchange.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = venue.rest_url + "/" + url.split("://", 1)[1].partition("/")[2]
    try:
        made: Any = await exchange.create_order(SYMBOL, "limit", "buy", 0.7, 50000, {"clientOrderId": "mine"})
        assert (made["status"], made["filled"], made["clientOrderId"]) == ("open", 0.5, "mine")
        asked: Any = await exchange.fetch_order(None, SYMBOL, {"clientOrderId": "mine"})
        assert asked["remaining"] == pytest.approx(0.2)
        trades: Any = await exchange.fetch_my_trades(SYMBOL)
        assert [(t["amount"], t["fee"]["currency"]) for t in trades] == [(0.5, "BTC")]
        gone: Any = await exchange.cancel_order(made["id"], SYMBOL)
        assert gone["status"] == "canceled"
        balance: Any = await exchange.fetch_balance()
        assert balance["BTC"]["total"] == pytest.approx(0.4995)
        with pytest.raises(ccxt.async_support.InsufficientFunds):
            await exchange.create_order(SYMBOL, "limit", "sell", 9, 50000)
    finally:
        await exchange.close()


async def test_orders_and_fills_by_rest_and_by_stream(venue: TradingBinance, account: CcxtAccount) -> None:
    await asyncio.sleep(0.3)
    report = await account.place(order(1, "BUY", 5_000_000, 70_000))
    assert (report.state, report.filled, report.size_exp) == ("PARTIAL", 5, -1)
    assert (await account.query("vm1", SYMBOL)).state == "PARTIAL"
    assert [o.order_id for o in await account.open_orders()] == ["vm1"]
    by_stream = [e for e in await heard(account, 3) if isinstance(e, FillReport)]
    by_rest = await account.fills(SYMBOL, 0)
    assert [(f.trade_id, f.price, f.size, f.fee, f.fee_exp, f.fee_asset) for f in by_stream] == [
        (f.trade_id, f.price, f.size, f.fee, f.fee_exp, f.fee_asset) for f in by_rest
    ]
    assert by_stream[0].order_id == "vm1"
    canceled = await account.cancel("vm1", report.venue_order_id, SYMBOL)
    assert canceled is not None
    assert canceled.state == "CANCELED"
    assert await account.open_orders() == []
    total = venue.core.totals("key")
    held = await account.balances()
    assert {a: Decimal(b.total).scaleb(b.exp) for a, b in held.items()} == {a: t for a, t in total.items() if t}


async def test_what_each_failure_means(venue: TradingBinance, account: CcxtAccount) -> None:
    with pytest.raises(Refused):
        await account.place(order(1, "SELL", 5_000_000, 100_000))
    with pytest.raises(NotFound):
        await account.query("vm1", SYMBOL)
    venue.faults.drop_answer = 1
    with pytest.raises(Unclear):
        await account.place(order(2, "BUY", 4_900_000, 1000))
    assert (await account.query("vm2", SYMBOL)).state == "OPEN"
    venue.faults.fail_but_accept = 1
    with pytest.raises(Unclear):
        await account.place(order(3, "BUY", 4_900_000, 1000))
    assert (await account.query("vm3", SYMBOL)).state == "OPEN"
    venue.faults.throttle = 1
    with pytest.raises(Throttled):
        await account.place(order(4, "BUY", 4_900_000, 1000))
    venue.faults.ban = 1
    with pytest.raises(Throttled):
        await account.place(order(4, "BUY", 4_900_000, 1000))
    with pytest.raises(NotFound):
        await account.query("vm4", SYMBOL)
    assert venue.core.placed[("key", "vm2")] == venue.core.placed[("key", "vm3")] == 1


class WallClock:
    """Time as it is."""

    def now_ns(self) -> int:
        import time

        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def gateway_over(account: CcxtAccount, log: list[dict[str, Any]], news: News) -> Gateway:
    return Gateway(
        account, MemoryJournal(log, None), news, WallClock(), Egress(EgressCaps(1000, 10_000_000)), notional=lambda i: 1
    )


def intent(number: int, price: int, size: int, side: str = "BUY") -> tuple[bytes, dict[str, Any]]:
    from schemas.codec import codec

    _, record = Drill(number)._intent(number)
    now = WallClock().now_ns()
    record |= {
        "price": price, "size": size, "side": side, "time_in_force": "GTC", "account": "binance-spot:main",
        "created_ns": now, "valid_until_ns": now + 5_000_000_000,
    }  # fmt: skip
    return codec("OrderIntent").encode(record), record


async def test_the_gateway_over_ccxt_loses_an_answer_and_finds_the_order_again(
    venue: TradingBinance, account: CcxtAccount
) -> None:
    news, log = News(), list[dict[str, Any]]()
    gateway = gateway_over(account, log, news)
    await gateway.start()
    venue.faults.drop_answer = 1
    raw, record = intent(1, 5_000_000, 70_000)
    made = await gateway.submit(raw, record)
    assert made is not None
    assert made.state == "UNKNOWN"
    await gateway.submit(raw, record)
    await gateway.resolver.sweep()
    assert (made.state, made.filled) == ("PARTIAL", 50_000)
    assert venue.core.placed == {("maker", "a"): 1, ("maker", "b"): 1, ("key", made.order_id): 1}
    assert await gateway.resolver.kill("over")
    assert made.state == "CANCELED"
    assert venue.core.open_orders("key") == []
    assert len(news.fills) == 1
    raw, record = intent(2, 4_000_000, 70_000)
    assert await gateway.submit(raw, record) is None
    again = gateway_over(account, log, News())
    await again.start()
    assert {o.order_id: (o.state, o.filled) for o in again.orders.values()} == {made.order_id: ("CANCELED", 50_000)}


def test_real_money_needs_flag_arm_file_and_keys(tmp_path: Path) -> None:
    keys, arm = tmp_path / "keys", tmp_path / "arm"
    keys.write_text("a\nb\n")
    arm.write_text("binance-spot binance-spot:other\n")
    with pytest.raises(AccountError, match="chmod 600"):
        CcxtAccount(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys))
    keys.chmod(0o600)
    sandbox = CcxtAccount(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys))
    assert "testnet" in sandbox._exchange.urls["api"]["private"]
    for options in (
        CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True),
        CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True, arm_file=arm),
        CcxtOptions("binance", "binance-spot", "binance-spot:main", None, live=True, arm_file=arm),
    ):
        with pytest.raises(AccountError):
            CcxtAccount(options)
    arm.write_text("binance-spot   binance-spot:main\n")
    with pytest.raises(AccountError, match="keys"):
        armed(CcxtOptions("binance", "binance-spot", "binance-spot:main", None, live=True, arm_file=arm))
    armed(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True, arm_file=arm))
