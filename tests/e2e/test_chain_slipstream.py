"""Slipstream's pools (contracts of our own over Uniswap V3's libraries): ticks, and a fee that no event tells of."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings, fold
from collectors.dex.collector import ChainCollector
from market.pools.pool import InsufficientLiquidity
from simulator.evm import Evm, EvmError, encode
from simulator.evm_dex import MAX_UINT, Action, Dex, Token
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES
from tests.e2e.test_more_pools_on_evm import sorted_tokens
from tests.evm_contracts import V3_SOURCES, contract
from tests.evm_state import require_npm

STEPS = 40
WORDS = range(-8, 8)
TICK = ["uint128", "int128", "int128", "uint256", "uint256", "uint256", "int56", "uint160", "uint32", "bool"]


class Cl:
    """One pool of the factory, and what may happen to it."""

    def __init__(self, evm: Evm, factory: str, tokens: list[Token], spacing: int, price: int) -> None:
        self.evm, self.spacing = evm, spacing
        pair = [t.address for t in tokens]
        # Its price is set in the same transaction, by an event before the one that tells of the pool.
        evm.transact(factory, encode("createPool(address,address,int24,uint160)", *pair, spacing, price))
        self.ident = evm.read(factory, "getPool(address,address,int24)", ["address"], *pair, spacing).lower()
        for token in tokens:
            evm.send(token.address, encode("approve(address,uint256)", self.ident, MAX_UINT))
        reach = 500
        evm.send(self.ident, encode("mint(int24,int24,uint128)", -reach * spacing, reach * spacing, 10**20))
        evm.mine()
        self.positions = [(-reach, reach)]

    def action(self, rng: random.Random) -> Action:
        roll = rng.random()
        if roll < 0.6:
            amount = rng.randrange(1, 10 ** rng.randint(3, 20)) * rng.choice((1, 1, -1))
            return self.ident, encode("swap(bool,int256)", rng.random() < 0.5, amount)
        if roll < 0.8:
            low = rng.randrange(-600, 600)
            edges = (low, low + rng.randrange(1, 300))
            self.positions.append(edges)
            return self._change("mint", edges, rng.randrange(1, 10 ** rng.randint(6, 20)))
        if roll < 0.95:
            return self._change("burn", rng.choice(self.positions), rng.randrange(1, 10 ** rng.randint(6, 20)))
        low, high = (edge * self.spacing for edge in rng.choice(self.positions))
        return self.ident, encode("stake(int24,int24,int128)", low, high, rng.randrange(1, 10**18))

    def _change(self, name: str, edges: tuple[int, int], amount: int) -> Action:
        low, high = (edge * self.spacing for edge in edges)
        return self.ident, encode(f"{name}(int24,int24,uint128)", low, high, amount)

    def truth(self, block: Any) -> dict[str, int]:
        """All of it at this block, named as the mirror's slots."""
        read = self.evm.read
        slot0 = read(self.ident, "slot0()", ["uint160", "int24", "uint16", "uint16", "uint16", "bool"], block=block)
        out = {
            "sqrt_price_x96": slot0[0], "tick": slot0[1], "fee": read(self.ident, "fee()", ["uint24"], block=block),
            "liquidity": read(self.ident, "liquidity()", ["uint128"], block=block),
        }  # fmt: skip
        # 600 + 300 steps to each side lie in four words.
        for position in WORDS:
            bitmap = read(self.ident, "tickBitmap(int16)", ["uint256"], position, block=block)
            for bit in range(256):
                if bitmap >> bit & 1:
                    tick = (position * 256 + bit) * self.spacing
                    gross, net, *_ = read(self.ident, "ticks(int24)", TICK, tick, block=block)
                    out[f"tick:{tick}"] = gross | (net % (1 << 128)) << 128
        return out


def compare(collector: ChainCollector, pool: Cl, head: str, rng: random.Random) -> int:
    """The mirror against the chain at its head; gives how many quotes were the same."""
    block = {"blockHash": head}
    ours = collector.follower.mirror.pools[pool.ident]
    theirs = pool.truth(block)
    assert ours.slots == theirs
    compared = 0
    for _ in range(3):
        down, exact_out = rng.random() < 0.5, rng.random() < 0.4
        size = rng.randrange(1, 10 ** rng.randint(1, 21))
        i = 0 if down else 1
        ask = ours.pool.amount_in if exact_out else ours.pool.amount_out
        try:
            other, left = pool.evm.read(
                pool.ident, "quote(bool,int256)", ["int256", "int256"], down, -size if exact_out else size, block=block
            )
        except EvmError:
            left = 1
        if left:
            with pytest.raises(InsufficientLiquidity):
                ask(i, 1 - i, size)
            continue
        assert ask(i, 1 - i, size) == abs(other), (down, exact_out, size)
        compared += 1
    return compared


@pytest.mark.broker
async def test_slipstream_pools_are_the_chains_at_every_head(kafka: str, settings, unique: str):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES, V3_SOURCES)
    name, rng = f"slipstream-{unique}", random.Random(31)
    with Evm() as evm:
        dex = Dex(evm)
        factory = evm.deploy(await asyncio.to_thread(contract, "ClFactory", V3_SOURCES))
        module = evm.read(factory, "module()", ["address"])
        tokens = sorted_tokens(dex, [18, 6])
        pools = [Cl(evm, factory, tokens, 100, 1 << 96)]
        factories = [{"protocol": "slipstream", "address": factory, "start_block": 0, "quoter": factory}]
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, factories=factories))
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        quotes, fees = 0, set[int]()
        try:
            await _settled(collector, evm, running)
            pools.append(await asyncio.to_thread(Cl, evm, factory, tokens, 1, (1 << 96) * 101 // 100))
            # At once: the continuous proof would find a price that was missed, and put it right.
            compare(collector, pools[1], await _settled(collector, evm, running), rng)
            for step in range(STEPS):
                if step == STEPS // 4:
                    evm.send(factory, encode("setSwapFeeModule(address)", module))
                if step > STEPS // 4 and rng.random() < 0.3:
                    depth = rng.randint(1, 3)
                    changes = [(evm.transaction(*rng.choice(pools).action(rng)), rng.randrange(depth)) for _ in range(2)]
                    await asyncio.to_thread(evm.reorg, depth, sorted(changes, key=lambda change: change[1]))
                else:
                    for _ in range(rng.randint(0, 3)):
                        evm.send(*rng.choice(pools).action(rng))
                    if rng.random() < 0.3:
                        fee = encode("set(address,uint24)", rng.choice(pools).ident, rng.randrange(20_000))
                        evm.send(module, fee)
                    elif rng.random() < 0.2:
                        # From here on the fee is another one with each block, whether anything happens or not.
                        evm.send(module, encode("wander(bool)", rng.random() < 0.7))
                    await asyncio.to_thread(evm.mine)
                head = await _settled(collector, evm, running)
                for pool in pools:
                    quotes += await asyncio.to_thread(compare, collector, pool, head, rng)
                    fees.add(collector.follower.mirror.pools[pool.ident].slots["fee"])
            assert quotes > STEPS * 3 and len(fees) > 6
            assert collector.counts.reorgs > 2 and collector.counts.proof_quotes > 0
            assert collector.counts.dead_letters == collector.counts.mismatches == 0
            books = collector.follower.books
            assert {b.state for b in books.values()} == {"LIVE"}
            assert {b.venue for b in books.values()} == {f"slipstream-{name}-100", f"slipstream-{name}-1"}
        finally:
            stop.set()
            await running
        states, *_ = await asyncio.to_thread(fold, own, name)
        assert states == {ident: p.slots for ident, p in collector.follower.mirror.pools.items()}
