"""The chain account on a real EVM with the real routers: exact money, and never two transactions for one intent."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from math import isqrt
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from web3 import Web3

from execution.accounting import Accounts, amount
from execution.chain_account import ChainAccount, ChainOptions
from execution.chain_gateway import ChainGateway
from execution.chain_swaps import V2_EXACT_IN, V2_EXACT_OUT, V3_EXACT_IN, V3_EXACT_OUT
from execution.egress import Egress, EgressCaps
from execution.errors import AccountError
from execution.orders import ORPHANED, TRANSITIONS, Order
from market.terms import terms_of
from schemas.codec import codec
from simulator.evm import Evm, private_key
from simulator.evm_dex import Dex
from tests.chaos.execution_drill import MemoryJournal
from tests.chaos.faulty_account import Killed
from tests.evm_state import require_npm
from tests.trading_world import instrument

TRADER = 3
NAME = "local:sandbox"
V2, V3 = "uniswap-v2-local|WETH/USDC", "uniswap-v3-local-3000|WETH/USDC"
Q96 = 1 << 96


class Clock:
    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))


class Chain:
    """One EVM for the whole file, with a V2 and a V3 pool at 3000 USDC for one WETH."""

    def __init__(self, evm: Evm, work: Path) -> None:
        self.evm, self.work = evm, work
        self.dex = Dex(evm)
        self.weth, self.usdc = self.dex.token("WETH"), self.dex.token("USDC", 6)
        self.pools = {V2: self.dex.v2_create(self.weth, self.usdc)}
        evm.transact(*self.dex.v2_add(self.weth, self.usdc, 10**22, 3 * 10**13))
        first = int(self.weth.address, 16) < int(self.usdc.address, 16)
        price = isqrt(3 * 10**9 * Q96 * Q96 // 10**18) if first else isqrt(10**18 * Q96 * Q96 // (3 * 10**9))
        self.pools[V3] = self.dex.v3_create(self.weth, self.usdc, 3000, price)
        evm.transact(*self.dex.v3_mint(self.weth, self.usdc, 3000, -887220, 887220, 10**22))
        self.terms = {k: terms_of(instrument(*k.split("|"), tick_size="1e-8", lot_size="1e-12")) for k in self.pools}
        self.key = work / "key"
        self.key.write_text(private_key(TRADER))
        self.key.chmod(0o600)
        self.numbers = itertools.count(1)

    def options(self, **more: Any) -> ChainOptions:
        plain: dict[str, Any] = {
            "rpc_url": self.evm.http_url, "chain_id": 31337, "key_file": str(self.key),
            "venues": tuple(k.partition("|")[0] for k in self.pools),
            "tokens": {"WETH": self.weth.address, "USDC": self.usdc.address}, "final_depth": 3, "bump_blocks": 2,
            "routers": {"uniswap-v2": self.dex.v2_router, "uniswap-v3": self.dex.v3_router},
        }  # fmt: skip
        return ChainOptions(**(plain | more))

    def intent(self, key: str = V2, side: str = "SELL", size: int = 10**12, price: int = 0, valid_s: float = 60) -> Any:
        """(raw, intent) of an order of ``size`` × 10⁻¹² WETH."""
        now = time.time_ns()
        venue, symbol = key.split("|")
        record = {
            "id": f"{next(self.numbers):024x}", "opportunity_id": "", "group_id": "", "strategy": "t", "strategy_version": "1",
            "mode": "PAPER", "leg": 0, "legs": 1, "leg_mode": "SINGLE", "action": "PLACE", "target_id": "", "account": NAME,
            "venue": venue, "symbol": symbol, "side": side, "order_type": "LIMIT", "time_in_force": "FOK",
            "price": price or (2000 if side == "SELL" else 4000) * 10**8, "price_exp": -8, "size": size, "size_exp": -12,
            "reduce_only": False, "created_ns": now, "valid_until_ns": now + int(valid_s * 1e9), "trigger_topic": "",
            "trigger_partition": 0, "trigger_offset": 0, "input_topics": [], "input_keys": [], "input_partitions": [],
            "input_offsets": [], "input_epochs": [], "input_indexes": [], "input_states": [], "input_ages_ns": [],
        }  # fmt: skip
        return codec("OrderIntent").encode(record), record

    def nonce(self) -> int:
        return int(self.evm.rpc("eth_getTransactionCount", self.evm.accounts[TRADER], "latest"), 16)


class Desk:
    """A gateway over the chain, its journal, its ledger, and a step at which it may be killed."""

    def __init__(self, chain: Chain, **options: Any) -> None:
        self.chain, self.options = chain, options
        self.log: list[dict[str, Any]] = []
        self.states: list[tuple[str, str]] = []
        self.fills: list[dict[str, Any]] = []
        self.alarms: list[str] = []
        self.ledger = Accounts(NAME, chain.terms)
        self.die_at = 0
        self.steps: list[str] = []
        self.gateway: ChainGateway = None  # pyright: ignore[reportAttributeAccessIssue]

    # The outbox.

    def order(self, order: Order, previous: str, now_ns: int) -> None:
        assert order.state in TRANSITIONS[previous]
        self.states.append((order.order_id, order.state))

    def fill(self, fill: dict[str, Any]) -> None:
        codec("Fill").encode(fill)
        self.fills.append(fill)
        for entry in self.ledger.take_fill(fill):
            codec("LedgerEntry").encode(entry)

    def alarm(self, text: str, *_: Any) -> None:
        self.alarms.append(text)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self.die_at -= 1
        if self.die_at == 0:
            raise Killed(name)

    async def start(self) -> ChainGateway:
        """A gateway as after a start of the process."""
        if self.gateway is not None:
            await self.gateway.account.close()
        account = ChainAccount(NAME, self.chain.options(**self.options), self.chain.pools)
        await account.start()
        if not self.ledger.balances:
            self.ledger.opening(await account.balances(), 0)
        self.gateway = ChainGateway(
            account, MemoryJournal(self.log, None), self, Clock(), Egress(EgressCaps(1000, 10**9)), lambda i: 1,
            step=self._step,
        )  # fmt: skip
        await self.gateway.start()
        for fill in self.gateway.past_fills:
            if not self.ledger.knows(fill):
                self.fill(fill)
        return self.gateway

    async def submit(self, *args: Any, **more: Any) -> Order:
        raw, intent = self.chain.intent(*args, **more)
        await self.gateway.submit(raw, intent)
        return self.gateway.orders[f"vm{intent['id']}"]

    async def mined(self, blocks: int = 1) -> None:
        """Blocks come, and each is looked at."""
        for _ in range(blocks):
            self.chain.evm.mine()
            assert await self.gateway.resolver.watch()

    async def settle(self) -> None:
        """Until nothing of ours waits; then the ledger is the chain's own, to the last wei."""
        for _ in range(20):
            await self.mined()
            if not self.gateway.unfinished():
                break
        assert not self.gateway.unfinished()
        held = await self.gateway.account.balances()
        assert {a: self.ledger.balances.get(a, 0) for a in held} == {a: amount(h.total, h.exp) for a, h in held.items()}

    def history(self, order: Order) -> list[str]:
        return [state for order_id, state in self.states if order_id == order.order_id]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    require_npm()
    with Evm() as evm:
        yield Chain(evm, tmp_path_factory.mktemp("chain"))


@pytest.fixture
def run(chain: Chain) -> Callable[..., None]:
    """Runs a scenario with a desk of its own."""

    def runs(scenario: Callable[[Desk], Awaitable[None]], **options: Any) -> None:
        async def whole() -> None:
            desk = Desk(chain, **options)
            await desk.start()
            try:
                await scenario(desk)
            finally:
                await desk.gateway.account.close()

        asyncio.run(whole())

    return runs


def test_the_selectors_are_the_signatures_own() -> None:
    single = "(address,address,uint24,address,uint256,uint256,uint256,uint160)"
    for selector, signature in (
        (V3_EXACT_IN, f"exactInputSingle({single})"), (V3_EXACT_OUT, f"exactOutputSingle({single})"),
        (V2_EXACT_IN, "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"),
        (V2_EXACT_OUT, "swapTokensForExactTokens(uint256,uint256,address[],address,uint256)"),
    ):  # fmt: skip
        assert Web3.keccak(text=signature)[:4].hex() == selector


@pytest.mark.parametrize("key", [V2, V3])
def test_swaps_both_ways_to_the_wei(run: Callable[..., None], key: str) -> None:
    async def scenario(desk: Desk) -> None:
        sale, purchase = await desk.submit(key, "SELL", 10**12 + 7), await desk.submit(key, "BUY", 2 * 10**12 + 1)
        await desk.settle()
        for order in (sale, purchase):
            assert desk.history(order) == ["PREPARED", "SIGNED", "BROADCAST", "PENDING", "MINED", "FINAL"], order.cause
            assert order.filled == order.size
        assert [f["side"] for f in desk.fills] == ["SELL", "BUY"]
        assert all(f["fee"] > 0 and f["fee_asset"] == "ETH" and f["value"] for f in desk.fills)

    run(scenario)


def test_a_price_that_is_gone_is_not_even_signed(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        before = chain.nonce()
        order = await desk.submit(side="SELL", price=3100 * 10**8)
        assert order.state == "REJECTED" and "INSUFFICIENT_OUTPUT_AMOUNT" in order.cause
        order = await desk.submit(side="BUY", price=2900 * 10**8)
        assert order.state == "REJECTED" and "EXCESSIVE_INPUT_AMOUNT" in order.cause
        chain.evm.mine()
        assert chain.nonce() == before and not desk.fills

    run(scenario)


async def moved_before(desk: Desk, order: Order, *actions: Any) -> None:
    """Others get into the next block first: ours is dropped, they are mined, ours comes again."""
    chain = desk.chain
    chain.evm.rpc("anvil_dropTransaction", order.venue_order_id)
    for to, data in actions:
        chain.evm.send(to, data)
    chain.evm.mine()
    assert await desk.gateway.resolver.watch()


def test_slippage_reverts_on_the_chain_and_costs_gas_alone(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit(side="SELL", size=10**12, price=2980 * 10**8)
        assert order.state == "PENDING"
        await moved_before(desk, order, chain.dex.v2_swap(chain.weth, chain.usdc, 10**20))
        await desk.settle()
        assert desk.history(order)[-2:] == ["MINED", "REVERTED"]
        assert [(f["size"], f["fee"] > 0) for f in desk.fills] == [(0, True)]
        chain.evm.transact(*chain.dex.v2_swap(chain.usdc, chain.weth, 296 * 10**9))

    run(scenario)


def test_a_deadline_that_passes_on_the_chain_reverts(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit(valid_s=60)
        chain.evm.rpc("anvil_dropTransaction", order.venue_order_id)
        chain.evm.rpc("evm_increaseTime", 120)
        await desk.mined()
        await desk.settle()
        assert desk.history(order)[-1] == "REVERTED" and desk.fills[0]["size"] == 0

    run(scenario)


def test_what_is_late_is_replaced_by_nothing(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        assert order.state == "PENDING"
        order.intent["valid_until_ns"] = time.time_ns() - 1  # the time passes
        assert await desk.gateway.resolver.watch()
        await desk.settle()
        assert desk.history(order)[-1] == "DROPPED" and desk.fills[0]["size"] == 0 and not order.filled

    run(scenario)


def test_a_nonce_gap_is_filled_with_the_very_transaction_that_is_missing(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        first, second = await desk.submit(), await desk.submit()
        chain.evm.rpc("anvil_dropTransaction", first.venue_order_id)
        before = chain.nonce()
        await desk.mined()
        await desk.settle()
        assert chain.nonce() == before + 2
        assert desk.history(first)[-1] == desk.history(second)[-1] == "FINAL"

    run(scenario)


def test_a_nonce_that_somebody_else_uses_is_an_alarm_and_never_two_swaps(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        foreign = chain.evm.transaction(chain.evm.accounts[TRADER], b"", sender=TRADER)
        chain.evm.rpc("eth_sendTransaction", foreign | {"maxFeePerGas": hex(10**11), "maxPriorityFeePerGas": hex(10**11)})
        order = await desk.submit()
        assert order.state == "UNKNOWN" and "underpriced" in order.cause
        for _ in range(8):
            await desk.mined()
        assert order.state == "DROPPED" and "not ours" in desk.alarms[0] and not desk.fills

    run(scenario)


def test_what_pays_too_little_is_replaced_by_the_same_call_that_pays_more(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        first = order.venue_order_id
        for _ in range(4):
            chain.evm.rpc("anvil_setNextBlockBaseFeePerGas", hex(3 * 10**9))
            await desk.mined()
        chain.evm.rpc("anvil_setNextBlockBaseFeePerGas", "0x0")
        assert order.venue_order_id != first
        sent = desk.gateway.signed[order.order_id]
        assert len({t.nonce for t in sent}) == len({t.data for t in sent}) == 1 and len(sent) > 1
        await desk.settle()
        assert order.state == "FINAL" and len(desk.fills) == 1

    run(scenario)


def test_fees_above_the_cap_are_never_paid(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        assert order.state == "REJECTED" and "the cap is" in order.cause

    run(scenario, max_fee_wei=10**8)


class Proxy:
    """Between the account and its node; drops the answer to the next transaction that it passes on."""

    def __init__(self, target: str) -> None:
        self.target, self.drop = target, False

    async def __aenter__(self) -> Proxy:
        app = web.Application()
        app.router.add_post("/", self._pass)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def _pass(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with ClientSession() as session, session.post(self.target, data=body, headers=headers) as answer:
            text = await answer.read()
        if self.drop and b"eth_sendRawTransaction" in body:
            self.drop = False
            assert request.transport is not None
            request.transport.close()
        return web.Response(body=text, content_type="application/json")

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


def test_a_lost_answer_is_unknown_and_found_by_the_hash(chain: Chain) -> None:
    async def scenario() -> None:
        async with Proxy(chain.evm.http_url) as proxy:
            desk = Desk(chain, rpc_url=proxy.url)
            await desk.start()
            proxy.drop = True
            before = chain.nonce()
            order = await desk.submit()
            assert order.state == "UNKNOWN"
            await desk.settle()
            assert desk.history(order)[-3:] == ["UNKNOWN", "MINED", "FINAL"] and len(desk.fills) == 1
            assert chain.nonce() == before + 1
            await desk.gateway.account.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("restart", [False, True])
def test_a_reorganisation_takes_back_what_was_booked(run: Callable[..., None], chain: Chain, restart: bool) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        await desk.mined(2)
        assert order.state == "MINED" and order.filled == order.size
        if restart:
            await desk.gateway.account.close()
        chain.evm.reorg(2)
        if restart:
            await desk.start()
            order = desk.gateway.orders[order.order_id]
        else:
            await desk.mined()
        await desk.settle()
        assert order.state == "FINAL" and order.filled == order.size
        assert "REORGED" in desk.history(order)
        back = [f["trade_id"].endswith(ORPHANED) for f in desk.fills]
        assert back == [False, True, False], desk.fills
        assert [f["side"] for f in desk.fills] == ["SELL", "BUY", "SELL"]

    run(scenario)


def test_killed_between_any_two_steps_never_two_transactions_for_one_intent(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        seen: set[str] = set()
        killed = True
        for step in range(1, 40):
            raw, intent = chain.intent(valid_s=60)
            before, told = chain.nonce(), len(desk.fills)
            desk.steps.clear()
            desk.die_at = step
            try:
                await desk.gateway.submit(raw, intent)
                for _ in range(6):
                    await desk.mined()
                killed = False
            except Killed:
                killed = True
            desk.die_at = 0
            seen |= set(desk.steps)
            await desk.start()
            await desk.gateway.submit(raw, intent)  # the intent is read again
            await desk.settle()
            order = desk.gateway.orders[f"vm{intent['id']}"]
            assert order.state in ("FINAL", "EXPIRED"), (step, desk.steps, order)
            sent = order.state == "FINAL"
            assert chain.nonce() == before + sent and len({f["trade_id"] for f in desk.fills[told:]}) == sent
            if not killed:
                break
        assert not killed and {"after SIGNED", "before the socket", "after the answer", "after MINED", "after the fill"} <= seen

    run(scenario, final_depth=1)


def test_a_kill_leaves_nothing_waiting(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        killing = asyncio.create_task(desk.gateway.resolver.kill("enough"))
        while not killing.done():
            await asyncio.sleep(0.05)
            chain.evm.mine()
        assert killing.result() is True
        await desk.settle()
        assert order.state in ("DROPPED", "FINAL")
        assert (await desk.submit()).state == "REJECTED"

    run(scenario)


def test_it_refuses_to_be_anything_but_what_was_armed(chain: Chain, tmp_path: Path) -> None:
    def made(name: str = NAME, live: bool = False, arm: Path | None = None, **options: Any) -> ChainAccount:
        return ChainAccount(name, chain.options(**options), chain.pools, live=live, arm_file=arm)

    with pytest.raises(AccountError, match="31337"):
        made(chain_id=1)
    with pytest.raises(AccountError, match="--live"):
        made("local:main")
    arm = tmp_path / "arm"
    arm.write_text("local local:main 1\n")
    with pytest.raises(AccountError, match="arm file"):
        made("local:main", live=True)
    with pytest.raises(AccountError, match="does not arm"):
        made("local:main", live=True, arm=arm)
    account = made("local:main", live=True, arm=arm, chain_id=1)
    with pytest.raises(AccountError, match="the node is on chain 31337"):
        asyncio.run(account.start())
    chain.key.chmod(0o644)
    with pytest.raises(AccountError, match="chmod 600"):
        made()
    chain.key.chmod(0o600)
    bad = tmp_path / "key"
    bad.write_text("not-a-key-but-secret")
    bad.chmod(0o600)
    with pytest.raises(AccountError) as told:
        made(key_file=str(bad))
    assert "secret" not in str(told.value)
    with pytest.raises(AccountError, match="call the coin something else"):
        made(native="WETH")

    async def twice() -> None:
        first, second = made(), made("local:sandbox-b")
        await first.start()
        with pytest.raises(AccountError, match="one address, one account"):
            await second.start()
        await first.close()

    asyncio.run(twice())


def test_a_pool_of_another_factory_is_not_traded_with(run: Callable[..., None], chain: Chain) -> None:
    async def scenario(desk: Desk) -> None:
        order = await desk.submit()
        assert order.state == "REJECTED" and "the router of" in order.cause

    other = Dex(chain.evm)
    run(scenario, routers={"uniswap-v2": other.v2_router})


