"""A chain's collector killed at random: no event is lost, none stands twice, and the state is the chain's."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from bus.topics import apply
from cli.chain_fuzz import blocks_of, canonical_hashes, chain_settings, fold
from cli.stack import Stack
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth
from tests.evm_state import require_npm

KILLS = 6


@pytest.mark.broker
async def test_killed_at_random_no_event_is_lost_and_none_stands_twice(kafka: str, settings, unique: str, tmp_path: Path):
    require_npm()
    name = f"kill-{unique}"
    rng = random.Random(7)
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 7)
        traffic.start(1, 1, 1)
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name))
        await asyncio.to_thread(apply, own)
        async with Stack(own, tmp_path) as stack:
            for life in range(KILLS + 1):
                child = await stack.start(f"chain{life}", "collect-chain", name, settings=own)
                await written(own, name, evm, behind=0)
                if life == 0:
                    await asyncio.to_thread(traffic.start, 1, 2, 1)
                end = time.monotonic() + rng.uniform(0.5, 2.0)
                while time.monotonic() < end:
                    await asyncio.to_thread(traffic.step)
                    await asyncio.sleep(0.05)
                if life < KILLS:
                    child.process.kill()
                    await child.process.wait()
                    stack.children.remove(child)
                    for _ in range(rng.randint(0, 4)):
                        await asyncio.to_thread(traffic.step)
            head = await written(own, name, evm, behind=0)
        states, net, deltas, retracts = await asyncio.to_thread(fold, own, name)
        canonical = canonical_hashes(evm, net)
        wrong = {k: n for k, n in net.items() if n != (1 if k[0] in canonical else 0)}
        assert not wrong
        assert deltas > 50 and retracts > 5
        truth = Truth(evm, dex)
        for pool in traffic.pools:
            state = states.get(pool.ident)
            if state is None:  # a reorganisation took its creation away
                assert pool.kind == "v4" or evm.rpc("eth_getCode", pool.ident, "latest") == "0x"
                continue
            theirs = truth.state(pool, head)
            assert {k: v for k, v in state.items() if k in theirs or k.startswith("tick:")} == theirs
        check_blocks(blocks_of(own, name))


async def written(own, name: str, evm: Evm, behind: int) -> str:
    """Wait until the chain's head is COMPLETE in Kafka; gives its hash."""
    for _ in range(240):
        head = evm.head()["hash"]
        records = await asyncio.to_thread(blocks_of, own, name)
        if any("0x" + r["hash"].hex() == head and r["kind"] == "COMPLETE" for r in records):
            return head
        await asyncio.sleep(0.25)
    raise AssertionError("the head was not written within a minute")


def check_blocks(records: list[dict]) -> None:
    """Blocks follow each other, a retraction takes the newest away, nothing final is retracted or said twice."""
    stack: list[dict] = []
    final: set[int] = set()
    for record in records:
        if record["kind"] == "COMPLETE":
            if stack:
                assert record["parent_hash"] == stack[-1]["hash"] and record["number"] == stack[-1]["number"] + 1
            stack.append(record)
        elif record["kind"] == "RETRACTED":
            assert stack.pop()["hash"] == record["hash"]
            assert record["number"] not in final
        elif record["kind"] == "FINAL":
            assert record["number"] not in final
            final.add(record["number"])
