"""ccxt itself, unmodified but for its address, against the simulated Binance and OKX; and the gateway over it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt.async_support
import pytest

from execution.account import FillReport, OrderReport, OrderRequest
from execution.ccxt_account import KNOWN, CcxtAccount, CcxtOptions, armed, from_venue, to_venue
from execution.egress import Egress, EgressCaps
from execution.errors import AccountError, NotFound, Refused, Throttled, Unclear
from execution.gateway import Gateway
from execution.orders import order_id_of
from schemas.codec import codec
from simulator.trading_binance import TradingBinance
from simulator.trading_core import Listing
from simulator.trading_okx import TradingOkx
from simulator.trading_server import TradingVenue
from tests.chaos.execution_drill import Drill, MemoryJournal, News

SYMBOL = "BTC/USDT"
NATIVE = {"binance": "BTCUSDT", "okx": "BTC-USDT"}


@pytest.fixture(params=["binance", "okx"])
async def venue(request: pytest.FixtureRequest) -> AsyncIterator[TradingVenue]:
    kind, native = {"binance": TradingBinance, "okx": TradingOkx}[request.param], NATIVE[request.param]
    made: TradingVenue = kind([Listing(native, "BTC", "USDT")], {"key": "secret", "maker": "x"})
    await made.start()
    for owner, asset, amount in (("key", "USDT", "100000"), ("maker", "BTC", "10"), ("maker", "USDT", "1000000")):
        made.core.deposit(owner, asset, amount)
    made.core.place("maker", native, "SELL", Decimal(50000), Decimal("0.5"), "GTC", "a", 1)
    made.core.place("maker", native, "BUY", Decimal(49990), Decimal("0.5"), "GTC", "b", 1)
    yield made
    await made.stop()


def name_of(venue: TradingVenue) -> str:
    return "okx" if isinstance(venue, TradingOkx) else "binance"


def options(venue: TradingVenue, keys: Path) -> CcxtOptions:
    keys.write_text("key\nsecret\nword\n" if name_of(venue) == "okx" else "key\nsecret\n")
    keys.chmod(0o600)
    spot = f"{name_of(venue)}-spot"
    return CcxtOptions(name_of(venue), spot, f"{spot}:main", keys, rest_url=venue.rest_url, ws_url=venue.ws_url)


@pytest.fixture
async def account(venue: TradingVenue, tmp_path: Path) -> AsyncIterator[CcxtAccount]:
    made = CcxtAccount(options(venue, tmp_path / "keys"))
    await made.start()
    yield made
    await made.close()


def order(number: int, side: Any, price: int, size: int, tif: str = "GTC") -> OrderRequest:
    return OrderRequest(f"vm{number}", SYMBOL, side, price, -2, size, -5, tif, False, 0)


async def test_ccxts_own_client_places_fills_cancels_and_asks(venue: TradingVenue) -> None:
    """No code of ours between: the library as it comes, with another address."""
    keys = {"apiKey": "key", "secret": "secret", "password": "word"}
    kind = getattr(ccxt.async_support, name_of(venue))
    exchange = kind(keys | {"options": {"fetchMarkets": {"types": ["spot"]}}})
    api = exchange.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = f"{venue.rest_url}/{url.split('://', 1)[1].partition('/')[2]}".rstrip("/")
    try:
        made: Any = await exchange.create_order(SYMBOL, "limit", "buy", 0.7, 50000, {"clientOrderId": "mine"})
        assert made["clientOrderId"] == "mine"
        asked: Any = await exchange.fetch_order(None, SYMBOL, {"clientOrderId": "mine"})
        assert (asked["status"], asked["filled"], asked["clientOrderId"]) == ("open", 0.5, "mine")
        assert asked["remaining"] == pytest.approx(0.2)
        trades: Any = await exchange.fetch_my_trades(SYMBOL)
        assert [(t["amount"], t["fee"]["cost"], t["fee"]["currency"]) for t in trades] == [(0.5, 0.0005, "BTC")]
        await exchange.cancel_order(made["id"], SYMBOL)
        asked = await exchange.fetch_order(None, SYMBOL, {"clientOrderId": "mine"})
        assert asked["status"] == "canceled"
        balance: Any = await exchange.fetch_balance()
        assert balance["BTC"]["total"] == pytest.approx(0.4995)
        with pytest.raises(ccxt.async_support.InsufficientFunds):
            await exchange.create_order(SYMBOL, "limit", "sell", 9, 50000)
    finally:
        await exchange.close()


async def test_orders_and_fills_by_rest_and_by_stream(venue: TradingVenue, account: CcxtAccount) -> None:
    async with asyncio.timeout(20):
        while not venue.private:
            await asyncio.sleep(0.05)
    await settled(account)
    placed = await account.place(order(1, "BUY", 5_000_000, 70_000))
    report = await account.query("vm1", SYMBOL)
    assert (report.state, report.filled, report.size_exp) == ("PARTIAL", 5, -1)
    assert placed.venue_order_id == report.venue_order_id
    assert placed.state == ("OPEN" if name_of(venue) == "okx" else "PARTIAL"), "OKX's answer says nothing of fills"
    assert [o.order_id for o in await account.open_orders()] == ["vm1"]
    by_stream = await a_fill(account)
    [by_rest] = await account.fills(SYMBOL, 0)
    same = dataclasses.replace(by_stream, source="REST", order_id=by_rest.order_id, ts_venue_us=by_rest.ts_venue_us)
    assert same == by_rest, "the same fill by stream and by REST"
    assert by_stream.order_id == "vm1"
    assert (by_stream.fee, by_stream.fee_exp, by_stream.fee_asset) == (5, -4, "BTC"), "paid, whatever the venue's sign"
    canceled = await account.cancel("vm1", report.venue_order_id, SYMBOL)
    if canceled is None:
        canceled = await account.query("vm1", SYMBOL)
    assert canceled.state == "CANCELED"
    assert await account.open_orders() == []
    total = venue.core.totals("key")
    held = await account.balances()
    assert {a: Decimal(b.total).scaleb(b.exp) for a, b in held.items()} == {a: t for a, t in total.items() if t}


async def test_neither_mistakes_of_the_library_nor_events_without_sense_end_the_stream(
    venue: TradingVenue, tmp_path: Path
) -> None:
    account = CcxtAccount(options(venue, tmp_path / "keys"))
    exchange: Any = account._exchange
    real, mistakes = exchange.watch_orders, [AttributeError("'NoneType' object has no attribute 'url'"), KeyError("symbol")]

    async def watch_orders() -> Any:
        if mistakes:
            raise mistakes.pop()
        return [{"no": "order"}, *await real()]

    exchange.watch_orders = watch_orders
    await account.start()
    seen: list[Any] = []
    number = 900
    try:
        async with asyncio.timeout(60):
            while not any(isinstance(one, OrderReport) for one in seen):
                number += 1
                await account.place(order(number, "BUY", 1_000_000, 1000))
                await asyncio.sleep(0.3)
                while not account._queue.empty():
                    seen.append(account._queue.get_nowait())
    finally:
        await account.close()
    assert seen[:3] == [None, None, None], "a sweep for each mistake, and for what made no sense"


async def settled(account: CcxtAccount) -> None:
    """The private stream is subscribed: an order that touches nothing is heard of."""
    async with asyncio.timeout(20):
        for number in range(900, 1000):
            await account.place(order(number, "BUY", 1_000_000, 1000))
            with contextlib.suppress(NotFound):
                await account.cancel(f"vm{number}", "", SYMBOL)
            await asyncio.sleep(0.1)
            if not account._queue.empty():
                break
        while not account._queue.empty():
            account._queue.get_nowait()


async def a_fill(account: CcxtAccount) -> FillReport:
    async with asyncio.timeout(20):
        async for event in account.events():
            if isinstance(event, FillReport):
                return event
    raise AssertionError


async def test_what_each_failure_means(venue: TradingVenue, account: CcxtAccount) -> None:
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
    venue.faults.stale = 1
    assert (await account.query("vm2", SYMBOL)).filled == 0
    venue.faults.not_found = 1
    with pytest.raises(NotFound):
        await account.query("vm2", SYMBOL)
    venue.faults.fail_cancel = 1
    with pytest.raises(Unclear):
        await account.cancel("vm2", "", SYMBOL)
    venue.faults.fill_before_cancel = 1
    with pytest.raises(NotFound):
        await account.cancel("vm2", "", SYMBOL)
    filled = await account.query("vm2", SYMBOL)
    assert (filled.state, len(await account.fills(SYMBOL, 0))) == ("FILLED", 1)
    venue.faults.lag_balance = 1
    assert "BTC" not in {a for a, b in (await account.balances()).items() if b.total}
    assert "BTC" in {a for a, b in (await account.balances()).items() if b.total}
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


def intent(number: int, price: int, size: int, account: str, side: str = "BUY") -> tuple[bytes, dict[str, Any]]:
    _, record = Drill(number)._intent(number)
    now = WallClock().now_ns()
    record |= {
        "price": price, "size": size, "side": side, "time_in_force": "GTC", "account": account,
        "created_ns": now, "valid_until_ns": now + 5_000_000_000,
    }  # fmt: skip
    return codec("OrderIntent").encode(record), record


async def test_the_gateway_over_ccxt_loses_an_answer_and_finds_the_order_again(
    venue: TradingVenue, account: CcxtAccount
) -> None:
    news, log = News(), list[dict[str, Any]]()
    gateway = gateway_over(account, log, news)
    await gateway.start()
    venue.faults.drop_answer = 1
    raw, record = intent(1, 5_000_000, 70_000, account.account)
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
    raw, record = intent(2, 4_000_000, 70_000, account.account)
    assert await gateway.submit(raw, record) is None
    again = gateway_over(account, log, News())
    await again.start()
    assert {o.order_id: (o.state, o.filled) for o in again.orders.values()} == {made.order_id: ("CANCELED", 50_000)}


async def test_an_amend_over_ccxt_leaves_what_the_old_order_did_not_fill(venue: TradingVenue, account: CcxtAccount) -> None:
    """Filled in part, and by a stream that nobody listens to: the venue itself is asked before the new order is sized."""
    gateway = gateway_over(account, [], News())
    await gateway.start()
    old, new = intent(1, 5_000_000, 70_000, account.account), intent(2, 4_999_500, 80_000, account.account)
    new[1].update({"action": "CANCEL", "amend": True, "target_id": old[1]["id"]})
    await gateway.submit(*old)
    await gateway.submit(codec("OrderIntent").encode(new[1]), new[1])
    native = NATIVE[name_of(venue)]
    first, second = (venue.core.find("key", native, order_id_of(i[1]["id"])) for i in (old, new))
    assert first is not None and second is not None
    assert (first.status, first.filled) == ("CANCELED", Decimal("0.5"))
    assert (second.status, second.size, second.price) == ("NEW", Decimal("0.3"), Decimal(49_995))
    assert gateway.orders[order_id_of(old[1]["id"])].filled == 50_000, "its fills are counted before"
    assert await gateway.resolver.kill("enough")


async def test_more_than_one_page_of_fills_and_orders_is_read(venue: TradingVenue, account: CcxtAccount) -> None:
    core, native = venue.core, NATIVE[name_of(venue)]
    core.deposit("maker", "BTC", "100")
    for number in range(230):
        core.place("maker", native, "SELL", Decimal(49991), Decimal("0.001"), "GTC", f"s{number}", 1000 + number)
        core.place("key", native, "BUY", Decimal(49991), Decimal("0.001"), "GTC", f"vmb{number}", 1000 + number)
        core.place("key", native, "BUY", Decimal(100), Decimal("0.1"), "GTC", f"vmr{number}", 1000 + number)
    assert len(await account.fills(SYMBOL, 1_000_000)) == 230
    assert {o.order_id for o in await account.open_orders()} == {f"vmr{n}" for n in range(230)}


async def test_okx_cancels_everything_of_a_client_that_is_silent(venue: TradingVenue, account: CcxtAccount) -> None:
    """The dead man's switch; where the venue has none, the call does nothing."""
    await account.place(order(1, "BUY", 4_000_000, 70_000))
    await account.keep_alive(60)
    assert [o.order_id for o in await account.open_orders()] == ["vm1"]
    if isinstance(venue, TradingOkx):
        assert set(venue.dead_man) == {"key"}
        venue.dead_man_fires("key")
        assert await account.open_orders() == []
    assert account.capabilities.cancel_all_after == isinstance(venue, TradingOkx)


async def test_okx_amends_shrinks_its_limit_and_ends_a_post_only_order_that_would_take(tmp_path: Path) -> None:
    made = TradingOkx([Listing("BTC-USDT", "BTC", "USDT")], {"key": "secret"})
    await made.start()
    made.core.deposit("key", "USDT", "100000")
    made.core.deposit("maker", "BTC", "1")
    account = CcxtAccount(options(made, tmp_path / "keys"))
    try:
        await account.start()
        await account.place(order(1, "BUY", 4_000_000, 70_000))
        exchange: Any = account._exchange
        await exchange.edit_order(None, SYMBOL, "limit", "buy", "0.5", "41000", {"clientOrderId": "vm1"})
        changed = made.core.find("key", "BTC-USDT", "vm1")
        assert changed is not None
        assert (changed.price, changed.size) == (41000, Decimal("0.5"))
        free, locked = made.core.balances["key"]["USDT"]
        assert (free, locked) == (79_500, 20_500)
        made.core.place("maker", "BTC-USDT", "SELL", Decimal(42000), Decimal("0.5"), "GTC", "a", 1)
        placed = await account.place(order(2, "BUY", 4_300_000, 10_000, "POST_ONLY"))
        assert (placed.state, (await account.query("vm2", SYMBOL)).state) == ("OPEN", "CANCELED")
        with pytest.raises(Refused):
            await account.place(order(1, "BUY", 4_000_000, 70_000))  # the same id while it is open
        made.rate_limit = 1
        with pytest.raises(Throttled):
            await account.place(order(3, "BUY", 4_000_000, 70_000))
    finally:
        await account.close()
        await made.stop()


@pytest.mark.parametrize("exchange", sorted(KNOWN))
def test_an_order_id_fits_every_venue_and_comes_back(exchange: str) -> None:
    can, own = KNOWN[exchange], order_id_of("0123456789abcdef01234567")
    told = to_venue(own, can)
    assert re.fullmatch(can.client_id, told)
    assert from_venue(told, can) == own
    assert from_venue("somebody-else", can) == "somebody-else"
    with pytest.raises(AccountError):
        to_venue("vm" + "x" * 60, can)


def test_real_money_needs_flag_arm_file_and_keys(tmp_path: Path) -> None:
    keys, arm = tmp_path / "keys", tmp_path / "arm"
    keys.write_text("a\nb\n")
    arm.write_text("binance-spot binance-spot:other\n")
    with pytest.raises(AccountError, match="chmod 600"):
        CcxtAccount(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys))
    keys.chmod(0o600)
    sandbox = CcxtAccount(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys))
    assert "testnet" in sandbox._exchange.urls["api"]["private"]
    for wanted in (
        CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True),
        CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True, arm_file=arm),
        CcxtOptions("binance", "binance-spot", "binance-spot:main", None, live=True, arm_file=arm),
    ):
        with pytest.raises(AccountError):
            CcxtAccount(wanted)
    arm.write_text("binance-spot   binance-spot:main\n")
    with pytest.raises(AccountError, match="keys"):
        armed(CcxtOptions("binance", "binance-spot", "binance-spot:main", None, live=True, arm_file=arm))
    armed(CcxtOptions("binance", "binance-spot", "binance-spot:main", keys, live=True, arm_file=arm))
