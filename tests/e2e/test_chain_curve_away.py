"""Curve's pools that were created before the collector's time, or while it was away: found in their factory's list."""

from __future__ import annotations

import asyncio
import random

import pytest

from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings
from collectors.dex.collector import ChainCollector
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES
from tests.e2e.test_chain_curve import FEE, NG, Stable, compare
from tests.e2e.test_more_pools_on_evm import sorted_tokens
from tests.evm_contracts import contract
from tests.evm_state import require_npm


@pytest.mark.broker
async def test_pools_that_were_created_while_nobody_looked_are_found(kafka: str, settings, unique: str):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES)
    name, rng = f"away-{unique}", random.Random(3)
    with Evm() as evm:
        dex = Dex(evm)
        factory = evm.deploy(await asyncio.to_thread(contract, "StableFactory"))
        tokens = sorted_tokens(dex, [18, 6])
        addresses = [t.address for t in tokens]

        def made() -> Stable:
            return Stable(evm, factory, tokens, NG, addresses, 100, FEE, 10**10, [0, 0]).fill(1000)

        pools = [made(), made()]
        # The first two are older than what the settings ask for; two more are older than the collector, and one as
        # young as a reorganisation.
        since = int(evm.head()["number"], 16) + 1
        pools += [made(), made()]
        evm.mine(40)
        pools.append(made())
        factories = [{"protocol": "curve-stable", "address": factory, "start_block": since}]
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, factories=factories))
        await asyncio.to_thread(apply, own)

        async def followed() -> ChainCollector:
            """Run a collector until it stands at the head."""
            collector, stop = ChainCollector(own, name), asyncio.Event()
            running = asyncio.create_task(collector.run(stop))
            try:
                head = await _settled(collector, evm, running)
                mirrored = collector.follower.mirror.pools
                assert {(i, p.fixed["serial"]) for i, p in mirrored.items()} == {
                    (pool.ident, str(n)) for n, pool in enumerate(pools) if n > 1
                }
                for pool in pools[2:]:
                    compare(collector, pool, head, rng)
                return collector
            finally:
                stop.set()
                await running

        await followed()
        for blocks in (3, 35, 0, 40, 2):
            # One in each of the pieces in which a long absence is made up for, and two that lie beside each other.
            await asyncio.to_thread(evm.mine, blocks)
            pools.append(await asyncio.to_thread(made))
        collector = await followed()
        assert collector.counts.pools_created == 5 and collector.counts.dead_letters == collector.counts.mismatches == 0
