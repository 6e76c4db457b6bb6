"""CEX–DEX on a real chain and a real Kafka: swaps by the routers, hedges on paper by their fills, money to the last wei."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bus.producer import Producer
from bus.topics import apply
from cli.chain_fuzz import chain_settings
from cli.stack import Child, Stack
from cli.trade_views import records
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import TOPICS
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_trader import NATIVE, TRADER, trader_files
from simulator.evm_traffic import TrafficPool
from tests.e2e.test_trading import LIMITS
from tests.evm_state import require_npm
from tests.trading_world import instrument

pytestmark = pytest.mark.broker
WAIT_S = 300
OWN = {"max_book_age_ms": "600000", "max_intent_age_ms": "20000"}


class Cex:
    """A mirrored exchange made by hand, around a price that wanders."""

    def __init__(self, settings: Settings, venue: str) -> None:
        self.producer = Producer(settings, linger_ms=0)
        self.venue, self.symbol, self.rnd, self.index = venue, "WETH/USDC", random.Random(3), -1
        self.old: tuple[list[Any], list[Any]] = ([], [])
        self.put("market.instrument", instrument(venue, self.symbol, ts_ns=time.time_ns()))
        status = {"state": "LIVE", "reason": "", "epoch": 1, "since_ns": time.time_ns(), "owner": ""}
        self.put("market.status", {"venue": venue, "symbol": self.symbol, **status})

    def put(self, topic: str, value: dict[str, Any]) -> None:
        self.producer.send(topic, f"{self.venue}|{self.symbol}", codec(TOPICS[topic].record).encode(value))

    def book(self, mid: int) -> None:
        self.index += 1
        new = tuple([(mid + s * (50 + 20 * i), self.rnd.randint(500, 3000)) for i in range(5)] for s in (-1, 1))
        gone = [[(p, 0) for p, _ in was if p not in dict(now)] for was, now in zip(self.old, new, strict=True)]
        self.old = new  # pyright: ignore[reportAttributeAccessIssue]
        levels = [g + n for g, n in zip(gone, new, strict=True)]
        self.put("market.book", {
            "venue": self.venue, "symbol": self.symbol, "kind": "DELTA" if self.index else "SNAPSHOT", "epoch": 1,
            "index": self.index, "venue_seq": self.index, "venue_prev_seq": self.index - 1, "ts_venue_us": 0,
            "ts_received_ns": time.time_ns(), "price_exp": -2, "size_exp": -3, "bid_prices": [p for p, _ in levels[0]],
            "bid_sizes": [s for _, s in levels[0]], "ask_prices": [p for p, _ in levels[1]],
            "ask_sizes": [s for _, s in levels[1]], "venue_checksum": None,
        })  # fmt: skip
        self.producer.poll(0)

    async def live(self) -> None:
        """Every 200 ms another price, up to 2 % away from the pool's first."""
        while True:
            self.book(300_000 + self.rnd.randint(-60, 60) * 100)
            await asyncio.sleep(0.2)


async def mine(evm: Evm, done: asyncio.Event) -> int:
    """Blocks, until ``done``; now and then two are orphaned. Gives how often."""
    number = 0
    while not done.is_set():
        number += 1
        await asyncio.to_thread(evm.mine)
        if number % 12 == 0:
            await asyncio.to_thread(evm.reorg, 2)
        await asyncio.sleep(0.25)
    return number // 12


async def says(stack: Stack, child: Child, text: str, count: int = 1) -> None:
    await stack.until(f"{child.name}: {text}", lambda: child.log.read_text("utf-8", "replace").count(text) >= count, WAIT_S)


async def test_opportunities_are_swapped_hedged_and_booked_to_the_last_wei(
    kafka: str, settings: Callable[..., Settings], unique: str, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    require_npm()
    chain, cex, strategy = f"c{unique}", f"cex-{unique}", f"cd-{unique}"
    env = {"KAFKA_BOOTSTRAP_SERVERS": kafka}

    async def cli(*arguments: str) -> Any:
        return await asyncio.to_thread(run_cli, *arguments, env=env, timeout_s=WAIT_S)

    with Evm() as evm:
        dex = Dex(evm)
        weth, usdc = dex.token("WETH", supply=10**24), dex.token("USDC", 6, supply=10**16)
        pair = dex.v2_create(weth, usdc)
        evm.transact(*dex.v2_add(weth, usdc, 10**21, 3 * 10**12))
        tokens = {t.address: {"asset": t.symbol, "decimals": t.decimals} for t in (weth, usdc)}
        own = settings(
            kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, chain, tokens=tokens, quotes=["USDC"])
        )
        await asyncio.to_thread(apply, own)
        files = trader_files(
            tmp_path / "trader", chain, evm, dex, [TrafficPool("v2", pair, weth, usdc)],
            {weth.address: "WETH", usdc.address: "USDC"}, ("USDC",), {"WETH/USDC": f"{cex}|WETH/USDC"},
            final_depth=6, poll_ms=200,
        )  # fmt: skip
        account, paper = f"{chain}:sandbox", f"{cex}:paper"
        (tmp_path / "accounts.toml").write_text(
            f'{files.account}\n[accounts."{paper}"]\nadapter = "paper"\nnotional_per_minute = 50000000\nlatency_ms = 2\n'
            f'[accounts."{paper}".balances]\nUSDC = "10000000"\nWETH = "1000"\n'
        )
        (tmp_path / "cd.toml").write_text(
            f'kind = "cex_dex"\nname = "{strategy}"\n[accounts]\n"{files.venues[0]}" = "{account}"\n[parameters]\n'
            f'max_notional = "20000"\nvalid_ms = 60000\ncooldown_ms = 200\nmax_head_age_ms = 60000\n{files.pools}'
        )
        told = await cli("limits", "set", "global", *(f"{k}={v}" for k, v in (LIMITS | OWN).items()), "--reason", "test")
        assert told.returncode == 0, told.stderr
        assert (await cli("resume", "--all", "--reason", "test")).returncode == 0
        market = Cex(own, cex)
        market.book(300_000)
        market.producer.flush()

        def mine_of(topic: str) -> list[dict[str, Any]]:
            return [r for r in records(own, topic) if r["account"] in (account, paper)]

        async def found(topic: str) -> list[dict[str, Any]]:
            return await asyncio.to_thread(mine_of, topic)

        async with Stack(own, tmp_path / "logs") as stack:
            done = asyncio.Event()
            mining = asyncio.create_task(mine(evm, done))
            await stack.start("chain", "collect-chain", chain)
            executor = await stack.start("executor", "execute", str(tmp_path / "accounts.toml"))
            await says(stack, executor, ": ready", 2)
            trader = await stack.start("trader", "trade", str(tmp_path / "cd.toml"), "--mode", "paper")
            await says(stack, trader, "runs PAPER")
            quoting = asyncio.create_task(market.live())

            async def traded() -> bool:
                accounts = [f["account"] for f in await found("orders.fill") if f["size"]]
                return accounts.count(account) >= 4 and accounts.count(paper) >= 4

            await stack.until("four swaps and their hedges", traded, WAIT_S, 1)
            assert await stack.stop(trader) == 0

            async def quiet() -> bool:
                newest = {e["order_id"]: e["state"] for e in await found("orders.event")}
                groups: dict[str, int] = {}
                for f in {(f["account"], f["trade_id"]): f for f in await found("orders.fill")}.values():
                    size = f["size"] * 10 ** (f["size_exp"] + 18) * (1 if f["side"] == "BUY" else -1)
                    groups[f["group_id"]] = groups.get(f["group_id"], 0) + size
                # A lot of the exchange is 0.001: what is below it is dust.
                closed = all(abs(left) < 10**15 for left in groups.values())
                states = ("FINAL", "REVERTED", "DROPPED", "FILLED", "CANCELED", "EXPIRED", "REJECTED")
                held = {(b["account"], b["asset"]): b["state"] for b in await found("orders.balance")}
                return closed and all(s in states for s in newest.values()) and set(held.values()) == {"OK"}

            await stack.until("nothing open, groups closed, balances equal", quiet, WAIT_S, 1)
            done.set()
            assert await mining, "the chain was reorganised while it was traded on"
            quoting.cancel()
            trader_address = evm.accounts[TRADER]
            truth = {NATIVE: int(evm.rpc("eth_getBalance", trader_address, "latest"), 16)}
            for asset, token in (("WETH", weth), ("USDC", usdc)):
                truth[asset] = evm.read(token.address, "balanceOf(address)", ["uint256"], trader_address)
            orders = [e["order_id"] for e in await found("orders.event") if e["state"] == "FINAL"]
            why = await cli("why", orders[-1])
            again = await cli("rerun", "ALL", "--strategy", strategy)

    # The ledger is the chain's own state, to the last wei, and the paper account's own.
    totals: dict[tuple[str, str], Decimal] = {}
    for entry in {r["id"]: r for r in mine_of("orders.ledger")}.values():
        key = (entry["account"], entry["asset"])
        totals[key] = totals.get(key, Decimal(0)) + Decimal(entry["amount"]).scaleb(entry["amount_exp"])
    exponents = {NATIVE: -18, "WETH": -18, "USDC": -6}
    assert {a: totals[(account, a)] for a in truth} == {a: Decimal(v).scaleb(exponents[a]) for a, v in truth.items()}
    newest = {(r["account"], r["asset"]): r for r in mine_of("orders.balance")}
    for key in ((paper, "WETH"), (paper, "USDC")):
        assert Decimal(newest[key]["venue_total"]).scaleb(newest[key]["exp"]) == totals[key]
    assert {r["kind"] for r in mine_of("orders.ledger") if r["asset"] == NATIVE} == {"OPENING", "GAS"}
    for word in ("opportunity", "risk ACCEPT", "SIGNED", "MINED", "FINAL", "fill 0x", f"book {cex}|WETH/USDC"):
        assert word in why.stdout, (word, why.stdout, why.stderr)
    assert again.returncode == 0, (again.stdout, again.stderr)
