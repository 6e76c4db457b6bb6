"""StableSwap pools (contracts of our own that speak as Curve's) under random life, ramps of A and reorganisations."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings, fold
from collectors.dex.collector import ChainCollector
from market.pools.pool import InsufficientLiquidity, NotQuotable
from simulator.evm import Evm, EvmError, encode
from simulator.evm_dex import MAX_UINT, Action, Dex, Token
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES
from tests.e2e.test_more_pools_on_evm import sorted_tokens
from tests.evm_contracts import contract
from tests.evm_state import require_npm

E18, FEE = 10**18, 4_000_000
STEPS = 36
NG = "deploy_plain_pool(address[],uint256,uint256,uint256,uint8[])"
OLD = "deploy_old_pool(address[],uint256,uint256,bool)"


class Stable:
    """One pool of the factory, and what may happen to it."""

    def __init__(self, evm: Evm, factory: str, tokens: list[Token], signature: str, *arguments: Any) -> None:
        self.evm, self.tokens = evm, tokens
        evm.transact(factory, encode(signature, *arguments))
        count = evm.read(factory, "pool_count()", ["uint256"])
        self.ident = evm.read(factory, "pool_list(uint256)", ["address"], count - 1).lower()
        for token in tokens:
            evm.send(token.address, encode("approve(address,uint256)", self.ident, MAX_UINT))
        evm.mine()

    def fill(self, whole: int) -> Stable:
        amounts = [whole * 10**t.decimals for t in self.tokens]
        self.evm.transact(self.ident, encode("add_liquidity(uint256[],uint256)", amounts, 0))
        return self

    def swap(self, rng: random.Random) -> Action:
        i, j = rng.sample(range(len(self.tokens)), 2)
        amount = rng.randrange(1, 10 ** rng.randint(1, self.tokens[i].decimals + 4))
        return self.ident, encode("exchange(int128,int128,uint256,uint256)", i, j, amount, 0)

    def action(self, rng: random.Random) -> Action:
        roll = rng.random()
        if roll < 0.55:
            return self.swap(rng)
        if roll < 0.7:
            amounts = [rng.randrange(10 ** rng.randint(1, t.decimals + 3)) for t in self.tokens]
            return self.ident, encode("add_liquidity(uint256[],uint256)", amounts, 0)
        burnt = rng.randrange(1, 10 ** rng.randint(6, 21))
        if roll < 0.8:
            return self.ident, encode("remove_liquidity(uint256,uint256[])", burnt, [0] * len(self.tokens))
        if roll < 0.9:
            return self.ident, encode("remove_liquidity_one_coin(uint256,int128,uint256)", burnt, 0, 0)
        if roll < 0.95:
            return self.ident, encode("withdraw_admin_fees()")
        return self.ident, encode("set_new_fee(uint256,uint256)", rng.randrange(10**5, 10**8), rng.choice((0, 2, 5)) * 10**10)

    def asked(self, signature: str, block: Any, *arguments: Any) -> int | None:
        try:
            return self.evm.read(self.ident, signature, ["uint256"], *arguments, block=block)
        except EvmError:
            return None

    def truth(self, block: Any) -> dict[str, int | None]:
        """What the contract says at this block, named as the mirror's slots."""
        state = {f"balance:{n}": self.asked("balances(uint256)", block, n) for n in range(len(self.tokens))}
        return state | {"fee_e10": self.asked("fee()", block), "amp": self.asked("A_precise()", block)}


def compare(collector: ChainCollector, pool: Stable, head: str, rng: random.Random) -> int:
    """The mirror against the chain at its head; gives how many quotes were the same."""
    block = {"blockHash": head}
    ours = collector.follower.mirror.pools[pool.ident]
    theirs = pool.truth(block)
    assert {name: ours.slots[name] for name in theirs} == theirs
    compared = 0
    for _ in range(3):
        i, j = rng.sample(range(len(pool.tokens)), 2)
        size = rng.randrange(1, 10 ** rng.randint(1, 25))
        answer = pool.asked("get_dy(int128,int128,uint256)", block, i, j, size)
        if answer is None:
            with pytest.raises(InsufficientLiquidity):
                ours.pool.amount_out(i, j, size)
            continue
        assert ours.pool.amount_out(i, j, size) == answer, (i, j, size, ours.slots)
        compared += 1
    return compared


@pytest.mark.broker
@pytest.mark.parametrize("every_head", [0, 1])
async def test_stable_pools_are_the_chains_at_every_head(kafka: str, settings, unique: str, every_head: int):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES)
    name, rng = f"curve-{unique}", random.Random(7 + every_head)
    with Evm() as evm:
        dex = Dex(evm)
        code = await asyncio.to_thread(contract, "StableFactory")
        factory = evm.deploy(code)
        a, b, c = sorted_tokens(dex, [18, 6, 8])
        addresses = [t.address for t in (a, b, c)]

        def made(count: int, signature: str, *arguments: Any) -> Stable:
            return Stable(evm, factory, [a, b, c][:count], signature, addresses[:count], 200, FEE, *arguments).fill(50_000)

        # Two before the collector begins, whose number it has to work out; the others while it runs.
        pools = [made(3, NG, 2 * 10**10, [0, 0, 0]), made(2, OLD, False)]
        factories = [
            {"protocol": "curve-stable", "address": factory, "start_block": 0, "options": {"every_head": every_head}}
        ]
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, factories=factories))
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        quotes, amps = 0, set[int]()
        try:
            await _settled(collector, evm, running)
            pools.append(await asyncio.to_thread(made, 2, NG, 0, [0, 0]))
            rated = await asyncio.to_thread(made, 2, NG, 10**10, [0, 1])
            rebasing = await asyncio.to_thread(made, 3, NG, 10**10, [0, 2, 0])
            meta = await asyncio.to_thread(
                lambda: Stable(
                    evm, factory, [a, b], "deploy_metapool(address,address,uint256,uint256,uint256)",
                    a.address, b.address, 100, FEE, 10**10,
                ).fill(20_000)
            )  # fmt: skip
            odd = [rated, rebasing, meta]
            quoted = [*pools, *odd] if every_head else pools
            await _settled(collector, evm, running)
            now = int(time.time())
            evm.send(pools[0].ident, encode("ramp_A(uint256,uint256)", 900, now + 3 * 86400))
            evm.send(pools[1].ident, encode("ramp_A(uint256,uint256)", 30, now + 40_000))
            for step in range(STEPS):
                # The second ramp arrives on the way; a reorganisation that follows takes its time back.
                evm.rpc("evm_increaseTime", rng.randrange(3000))
                if step > STEPS // 4 and rng.random() < 0.35:
                    depth = rng.randint(1, 3)
                    changes = [
                        (evm.transaction(*rng.choice(quoted).action(rng)), rng.randrange(depth)) for _ in range(2)
                    ]
                    await asyncio.to_thread(evm.reorg, depth, sorted(changes, key=lambda change: change[1]))
                else:
                    for _ in range(rng.randint(0, 3)):
                        evm.send(*rng.choice(quoted).action(rng))
                    # What no event tells of: a rate of an oracle, tokens that grow where they lie.
                    evm.send(rated.ident, encode("set_rate(uint256,uint256)", 1, E18 + rng.randrange(10**16)))
                    evm.send(b.address, encode("mint(address,uint256)", rebasing.ident, rng.randrange(10**7)))
                    await asyncio.to_thread(evm.mine)
                head = await _settled(collector, evm, running)
                for pool in quoted:
                    quotes += await asyncio.to_thread(compare, collector, pool, head, rng)
                amps.add(collector.follower.mirror.pools[pools[0].ident].slots["amp"])
            # A creation that is taken back and comes again, in another order.
            late = [
                (factory, encode(NG, addresses[:2], 50 + n, FEE, 10**10, [0, 0])) for n in range(2)
            ]
            for action in late:
                evm.send(*action)
            await asyncio.to_thread(evm.mine)
            await _settled(collector, evm, running)
            assert len(collector.follower.mirror.pools) == 8
            await asyncio.to_thread(evm.reorg, 1)
            await _settled(collector, evm, running)
            assert len(collector.follower.mirror.pools) == 6
            await asyncio.to_thread(evm.reorg, 1, [(evm.transaction(*action), 0) for action in reversed(late)])
            await _settled(collector, evm, running)
            count = evm.read(factory, "pool_count()", ["uint256"])
            assert count == len(collector.follower.mirror.pools) == 8
            for n in (6, 7):
                listed = evm.read(factory, "pool_list(uint256)", ["address"], n).lower()
                found = collector.follower.mirror.pools[listed]
                assert (found.slots["amp"], found.fixed["serial"]) == ((51 if n == 6 else 50) * 100, str(n))
            ramped = collector.follower.mirror.pools[pools[0].ident].slots
            assert ramped["amp_moves"] == 1
            evm.rpc("evm_increaseTime", 4 * 86400)
            await asyncio.to_thread(evm.mine)
            head = await _settled(collector, evm, running)
            assert (ramped["amp_moves"], ramped["amp"]) == (0, 90_000)
            quotes += sum([await asyncio.to_thread(compare, collector, pool, head, rng) for pool in quoted])
            assert quotes > STEPS * 3 and len(amps) > STEPS // 2
            assert collector.counts.reorgs > 2 and collector.counts.rereads > STEPS
            assert collector.counts.dead_letters == collector.counts.mismatches == 0
            assert collector.follower.serials.holes() == 0
            mirrored = collector.follower.mirror.pools
            assert {p.ident for p in (*pools, *odd)} < set(mirrored)
            books = collector.follower.books
            assert len(books.values()) == 3 + 1 + 1 + 1 + 3 + 1 + 2
            for pool in odd:
                for book in books.of(mirrored[pool.ident]):
                    if every_head:
                        assert book.state == "LIVE"
                    else:
                        assert book.state == "HALTED" and "every_head" in book.reason
                if not every_head:
                    with pytest.raises(NotQuotable):
                        mirrored[pool.ident].pool.amount_out(0, 1, 10**6)
            assert {b.state for p in pools for b in books.of(mirrored[p.ident])} == {"LIVE"}
        finally:
            stop.set()
            await running
        states, *_ = await asyncio.to_thread(fold, own, name)
        assert states == {ident: p.slots for ident, p in collector.follower.mirror.pools.items()}
