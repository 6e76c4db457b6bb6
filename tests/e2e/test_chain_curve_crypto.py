"""CryptoSwap pools (contracts of our own that speak as Curve's) under trades, gifts, ramps and reorganisations."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings, fold
from collectors.dex.collector import ChainCollector
from market.pools.pool import InsufficientLiquidity
from simulator.evm import Evm, EvmError, encode
from simulator.evm_dex import MAX_UINT, Action, Dex, Token
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES
from tests.evm_contracts import contract
from tests.evm_state import require_npm

E18 = 10**18
STEPS = 40
DEPLOY = "deploy_pool(address[2],uint256,uint256,uint256[3],uint256,bool)"
NUMBERS = {
    "d": "D()", "a": "A()", "gamma": "gamma()", "mid_fee": "mid_fee()", "out_fee": "out_fee()", "fee_gamma": "fee_gamma()",
    "price_scale:1": "price_scale()",
}  # fmt: skip


class Crypto:
    """One pool of the factory, filled at its price, and what may happen to it."""

    def __init__(self, evm: Evm, factory: str, tokens: list[Token], price: int, ng: bool) -> None:
        self.evm, self.tokens, self.price = evm, tokens, price
        fees = (26_000_000, 45_000_000, 230 * 10**12)
        evm.transact(
            factory, encode(DEPLOY, [t.address for t in tokens], 400_000, 145 * 10**12, fees, price * E18, ng)
        )
        count = evm.read(factory, "pool_count()", ["uint256"])
        self.ident = evm.read(factory, "pool_list(uint256)", ["address"], count - 1).lower()
        for token in tokens:
            evm.send(token.address, encode("approve(address,uint256)", self.ident, MAX_UINT))
        evm.mine()
        first, second = tokens
        amounts = [price * 1000 * 10**first.decimals, 1000 * 10**second.decimals]
        evm.transact(self.ident, encode("add_liquidity(uint256[2],uint256)", amounts, 0))

    def amount(self, i: int, rng: random.Random) -> int:
        """Of usual sizes: a pool refuses what would move it too far."""
        whole = 40 * (self.price if i == 0 else 1)
        return rng.randrange(1, whole * 10 ** self.tokens[i].decimals // 10 ** rng.randint(0, 5))

    def action(self, rng: random.Random) -> list[Action]:
        roll, i = rng.random(), rng.randrange(2)
        if roll < 0.5:
            return [(self.ident, encode("exchange(uint256,uint256,uint256,uint256)", i, 1 - i, self.amount(i, rng), 0))]
        if roll < 0.65:
            amounts = [self.amount(0, rng), self.amount(1, rng)]
            return [(self.ident, encode("add_liquidity(uint256[2],uint256)", amounts, 0))]
        if roll < 0.75:
            return [(self.ident, encode("remove_liquidity(uint256)", rng.randrange(2, 10**22)))]
        if roll < 0.85:
            gift = encode("transfer(address,uint256)", self.ident, self.amount(i, rng))
            return [(self.tokens[i].address, gift), (self.ident, encode("claim_admin_fees()"))]
        if roll < 0.92:
            mid = rng.randrange(10**6, 5 * 10**7)
            new = encode("apply_new_parameters(uint256,uint256,uint256)", mid, mid * 2, rng.randrange(10**10, 10**16))
            return [(self.ident, new)]
        return [(self.ident, encode("remove_liquidity_one_coin(uint256,uint256)", rng.randrange(10**6, 10**20), i))]

    def asked(self, signature: str, block: Any, *arguments: Any) -> int | None:
        try:
            return self.evm.read(self.ident, signature, ["uint256"], *arguments, block=block)
        except EvmError:
            return None

    def truth(self, block: Any) -> dict[str, int | None]:
        """What the contract says at this block, named as the mirror's slots."""
        state = {f"balance:{n}": self.asked("balances(uint256)", block, n) for n in range(2)}
        return state | {name: self.asked(call, block) for name, call in NUMBERS.items()}


def compare(collector: ChainCollector, pool: Crypto, head: str, rng: random.Random, quoted: bool) -> int:
    """The mirror against the chain at its head; gives how many quotes were the same."""
    block = {"blockHash": head}
    ours = collector.follower.mirror.pools[pool.ident]
    theirs = pool.truth(block)
    assert {name: ours.slots[name] for name in theirs} == theirs
    compared = 0
    for _ in range(4 if quoted else 0):
        i = rng.randrange(2)
        size = pool.amount(i, rng) * rng.choice((1, 1, 1, 300))
        answer = pool.asked("get_dy(uint256,uint256,uint256)", block, i, 1 - i, size)
        if answer is None:
            with pytest.raises(InsufficientLiquidity):
                ours.pool.amount_out(i, 1 - i, size)
            continue
        assert ours.pool.amount_out(i, 1 - i, size) == answer, (i, size, ours.slots)
        compared += 1
    return compared


@pytest.mark.broker
async def test_crypto_pools_are_the_chains_at_every_head(kafka: str, settings, unique: str):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES)
    name, rng = f"crypto-{unique}", random.Random(23)
    with Evm() as evm:
        dex = Dex(evm)
        factory = evm.deploy(await asyncio.to_thread(contract, "CryptoFactory"))
        usd, eth, btc = dex.token("USD", 6), dex.token("ETH", 18), dex.token("BTC", 8)
        pools = [Crypto(evm, factory, [usd, eth], 2000, False)]
        factories = [{"protocol": "curve-crypto", "address": factory, "start_block": 0}]
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, factories=factories))
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        quotes, ways, ramped = 0, set[int](), set[int]()
        try:
            await _settled(collector, evm, running)
            pools.append(await asyncio.to_thread(Crypto, evm, factory, [eth, btc], 1, False))
            newer = await asyncio.to_thread(Crypto, evm, factory, [usd, btc], 60_000, True)
            await _settled(collector, evm, running)
            for step in range(STEPS):
                if step == STEPS // 4:
                    ramp = encode("ramp_A_gamma(uint256,uint256,uint256)", 900_000, 10**14, int(time.time()) + 90_000)
                    evm.send(pools[1].ident, ramp)
                if step == STEPS // 2:
                    # Never ramped, but from here on it finds D anew in each quote.
                    one = encode("remove_liquidity_one_coin(uint256,uint256)", 10**18, 0)
                    await asyncio.to_thread(evm.transact, pools[0].ident, one)
                    await asyncio.to_thread(evm.mine, 3)  # deeper than any reorganisation below
                evm.rpc("evm_increaseTime", rng.randrange(3000))
                if step > STEPS // 4 + 3 and rng.random() < 0.35:
                    depth = rng.randint(1, 3)
                    actions = [a for _ in range(2) for a in rng.choice([*pools, newer]).action(rng)]
                    changes = sorted(((evm.transaction(*a), rng.randrange(depth)) for a in actions), key=lambda c: c[1])
                    await asyncio.to_thread(evm.reorg, depth, changes)
                else:
                    for _ in range(rng.randint(0, 3)):
                        for action in rng.choice([*pools, newer]).action(rng):
                            evm.send(*action)
                    await asyncio.to_thread(evm.mine)
                head = await _settled(collector, evm, running)
                for pool in pools:
                    quotes += await asyncio.to_thread(compare, collector, pool, head, rng, True)
                await asyncio.to_thread(compare, collector, newer, head, rng, False)
                ways.add(collector.follower.mirror.pools[pools[0].ident].slots["d_anew"])
                ramped.add(collector.follower.mirror.pools[pools[1].ident].slots["a"])
            assert quotes > STEPS * 5
            mirrored = collector.follower.mirror.pools
            assert ways == {0, 1} and len(ramped) > STEPS // 3
            assert collector.counts.reorgs > 2 and collector.counts.proof_quotes > 0
            assert collector.counts.dead_letters == collector.counts.mismatches == 0
            books = {p.ident: books for p in mirrored.values() for books in collector.follower.books.of(p)}
            assert {books[p.ident].state for p in pools} == {"LIVE"}
            assert books[newer.ident].state == "HALTED" and "NG" in books[newer.ident].reason
        finally:
            stop.set()
            await running
        states, *_ = await asyncio.to_thread(fold, own, name)
        assert states == {ident: p.slots for ident, p in collector.follower.mirror.pools.items()}
