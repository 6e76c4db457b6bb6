"""Balancer V2's real Vault and pools under swaps, joins, exits, fee and amplification changes, and reorganisations."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings, fold
from collectors.dex.collector import ChainCollector
from market.pools.pool import PoolError
from simulator.evm import Evm, EvmError, decode, encode
from simulator.evm_dex import FOREVER, Action, Dex, Token
from simulator.npm import BALANCER_PACKAGES, EVM_PACKAGES
from tests.e2e.test_more_pools_on_evm import Vault, balances_of, sorted_tokens
from tests.evm_state import require_npm

E18 = 10**18
STEPS = 40


class BalancerPool:
    """One pool of the Vault and what may happen to it."""

    def __init__(self, vault: Vault, address: str, tokens: list[Token], amounts: list[int]) -> None:
        self.vault = vault
        self.address = address
        self.tokens = tokens
        self.pool_id = vault.fill(address, tokens, amounts)
        self.ident = "0x" + self.pool_id.hex()

    def swap(self, rng: random.Random) -> Action:
        a, b = rng.sample(self.tokens, 2)
        step = (self.pool_id, 0, a.address, b.address, rng.randrange(1, 10 ** rng.randint(1, a.decimals + 1)), b"")
        funds = (self.vault.owner, False, self.vault.owner, False)
        signature = "swap((bytes32,uint8,address,address,uint256,bytes),(address,bool,address,bool),uint256,uint256)"
        return self.vault.address, encode(signature, step, funds, 0, FOREVER)

    def join(self, rng: random.Random) -> Action:
        amounts = [rng.randrange(1, 10 ** rng.randint(1, t.decimals + 2)) for t in self.tokens]
        data = _abi(["uint256", "uint256[]", "uint256"], [1, amounts, 0])
        return self._change("joinPool", amounts, data)

    def exit(self, rng: random.Random) -> Action:
        data = _abi(["uint256", "uint256"], [1, rng.randrange(1, 10 ** rng.randint(6, 19))])
        return self._change("exitPool", [0] * len(self.tokens), data)

    def _change(self, name: str, limits: list[int], data: bytes) -> Action:
        addresses = [t.address for t in self.tokens]
        return self.vault.address, encode(
            f"{name}(bytes32,address,address,(address[],uint256[],bytes,bool))",
            self.pool_id, self.vault.owner, self.vault.owner, (addresses, limits, data, False),
        )  # fmt: skip

    def set_fee(self, fee: int) -> Action:
        return self.address, encode("setSwapFeePercentage(uint256)", fee)

    def set_amp(self, amp: int, until_s: int) -> Action:
        return self.address, encode("startAmplificationParameterUpdate(uint256,uint256)", amp, until_s)

    def action(self, rng: random.Random) -> Action:
        roll = rng.random()
        if roll < 0.6:
            return self.swap(rng)
        if roll < 0.75:
            return self.join(rng)
        return self.exit(rng) if roll < 0.9 else self.set_fee(rng.randrange(10**12, 10**16))


def _abi(types: list[str], values: list[Any]) -> bytes:
    from web3 import Web3

    return Web3().codec.encode(types, values)


def created(evm: Evm, vault: Vault, task: str, name: str, signature: str, *arguments: Any) -> str:
    """The address of a new pool of this factory."""
    factory = evm.deploy(vault.bytecode(task, name), ["address"], [vault.address])
    receipt = evm.transact(factory, encode(signature, *arguments))
    return "0x" + next(entry["topics"][1][-40:] for entry in receipt["logs"] if entry["address"].lower() == factory)


def weighted(evm: Evm, dex: Dex, vault: Vault) -> BalancerPool:
    tokens = sorted_tokens(dex, [18, 6, 8])
    address = created(
        evm, vault, "20210418-weighted-pool", "WeightedPoolFactory", "create(string,string,address[],uint256[],uint256,address)",
        "W", "W", [t.address for t in tokens], [E18 * 2 // 10, E18 * 3 // 10, E18 * 5 // 10], 10**15, dex.owner,
    )  # fmt: skip
    return BalancerPool(vault, address, tokens, [5000 * 10**t.decimals for t in tokens])


def stable(evm: Evm, dex: Dex, vault: Vault) -> BalancerPool:
    tokens = sorted_tokens(dex, [18, 6])
    address = created(
        evm, vault, "20210624-stable-pool", "StablePoolFactory", "create(string,string,address[],uint256,uint256,address)",
        "S", "S", [t.address for t in tokens], 200, 10**15, dex.owner,
    )  # fmt: skip
    return BalancerPool(vault, address, tokens, [50_000 * 10**t.decimals for t in tokens])


def quoted(evm: Evm, pool: BalancerPool, kind: int, i: int, j: int, amount: int, block: Any) -> int:
    """The Vault's own answer at this block: kind 0 is exact in, 1 exact out. Raises EvmError."""
    owner = pool.vault.owner
    data = encode(
        "queryBatchSwap(uint8,(bytes32,uint256,uint256,uint256,bytes)[],address[],(address,bool,address,bool))",
        kind, [(pool.pool_id, i, j, amount, b"")], [t.address for t in pool.tokens], (owner, False, owner, False),
    )  # fmt: skip
    deltas = decode(["int256[]"], evm.call(pool.vault.address, data, block))[0]
    return -deltas[j] if kind == 0 else deltas[i]


def compare(collector: ChainCollector, evm: Evm, pool: BalancerPool, head: str, rng: random.Random) -> int:
    """The mirror against the chain at its head: balances, parameters, and quotes both ways; gives how many quotes."""
    vault, block = pool.vault, {"blockHash": head}
    ours = collector.follower.mirror.pools[pool.ident]
    assert [ours.slots[f"balance:{n}"] for n in range(len(pool.tokens))] == balances_of(evm, vault, pool.pool_id)
    assert ours.slots["swap_fee"] == evm.read(pool.address, "getSwapFeePercentage()", ["uint256"])
    if ours.slots["kind"] == 2:
        amp, moves, _ = evm.read(pool.address, "getAmplificationParameter()", ["uint256", "bool", "uint256"], block=block)
        assert (ours.slots["amp"], ours.slots["amp_moves"]) == (amp, int(moves))
    compared = 0
    for kind, ask in ((0, ours.pool.amount_out), (1, ours.pool.amount_in)):
        i, j = rng.sample(range(len(pool.tokens)), 2)
        size = rng.randrange(1, 10 ** rng.randint(2, 21))
        try:
            theirs = quoted(evm, pool, kind, i, j, size, block)
        except EvmError:
            with pytest.raises(PoolError):
                ask(i, j, size)
            continue
        assert ask(i, j, size) == theirs, (kind, i, j, size, ours.slots)
        compared += 1
    return compared


@pytest.mark.broker
async def test_balancer_pools_are_the_vaults_at_every_head(kafka: str, settings, unique: str):
    require_npm(EVM_PACKAGES, BALANCER_PACKAGES)
    name, rng = f"balancer-{unique}", random.Random(11)
    with Evm() as evm:
        dex = Dex(evm)
        vault = Vault(evm, dex)
        pools = [weighted(evm, dex, vault)]
        factories = [{"protocol": "balancer-v2", "address": vault.address, "start_block": 0}]
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, factories=factories))
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        quotes = 0
        try:
            await _settled(collector, evm, running)
            pools.append(await asyncio.to_thread(stable, evm, dex, vault))
            await _settled(collector, evm, running)
            await asyncio.to_thread(evm.transact, *pools[1].set_amp(300, int(time.time()) + 3 * 86400))
            for step in range(STEPS):
                if step > STEPS // 2 and rng.random() < 0.3:
                    depth = rng.randint(1, 3)
                    changes = [(evm.transaction(*rng.choice(pools).action(rng)), rng.randrange(depth)) for _ in range(2)]
                    await asyncio.to_thread(evm.reorg, depth, sorted(changes, key=lambda c: c[1]))
                else:
                    for _ in range(rng.randint(1, 3)):
                        evm.send(*rng.choice(pools).action(rng))
                    await asyncio.to_thread(evm.mine)
                head = await _settled(collector, evm, running)
                for pool in pools:
                    quotes += compare(collector, evm, pool, head, rng)
            assert quotes > STEPS
            assert collector.counts.rereads > 0 and collector.counts.reorgs > 1
            assert collector.counts.mismatches == collector.counts.dead_letters == 0
            books = collector.follower.books
            assert {b.state for b in books.values()} == {"LIVE"}
            assert len(books) == 4  # three pairs of three tokens, and one of two
        finally:
            stop.set()
            await running
        states, *_ = await asyncio.to_thread(fold, own, name)
        mirrored = collector.follower.mirror.pools
        assert states == {ident: p.slots for ident, p in mirrored.items()}
