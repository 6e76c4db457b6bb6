"""Nodes that lie: nothing wrong is published, every missed head is recovered, and silence is said in time."""

from __future__ import annotations

import asyncio
import time

import pytest

from bus.consumer import TailReader
from bus.topics import apply
from cli.chain_fuzz import blocks_of, canonical_hashes, chain_settings, fold
from collectors.dex.collector import ChainCollector
from schemas.codec import codec
from schemas.topics import STATUS
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth
from simulator.lying_node import LyingNode
from tests.chaos.chain_drill import block_faults
from tests.evm_state import require_npm

LIES = {
    "empty_logs": 0.15, "missing_logs": 0.15, "wrong_hash": 0.05, "duplicates": 0.2, "removed": 0.1, "lag": 0.3,
    "null_block": 0.1, "late_heads": 0.3, "drop_heads": 0.2, "error": 0.05, "range_error": 0.5,
}  # fmt: skip


async def at_head(collector: ChainCollector, evm: Evm, timeout_s: float = 40) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        head = (await asyncio.to_thread(evm.head))["hash"]
        tip = collector.follower.chain.tip
        if tip is not None and tip.hash == head and collector.follower.idle:
            return head
        await asyncio.sleep(0.02)
    raise AssertionError(f"the head was not reached: {collector.health()} {collector.counts}")

TOLD = {"empty_logs", "missing_logs", "wrong_hash", "lag", "drop_heads"}


@pytest.mark.broker
async def test_no_lie_is_ever_published_and_every_head_is_recovered(kafka: str, settings, unique: str):
    require_npm()
    name = f"lies-{unique}"
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 11, reorg_share=0.15, reorg_depth=3)
        traffic.start(1, 2, 1)
        node = LyingNode(evm.http_url, evm.ws_url, seed=3)
        await node.start()
        chains = chain_settings(
            evm, dex, name, http_urls=[node.http_url], ws_urls=[node.ws_url], block_time_ms=300, proof_calls=0
        )
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chains)
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        truth = Truth(evm, dex)
        try:
            await at_head(collector, evm)
            node.faults = dict(LIES)
            for step in range(600):
                # Which lies are told depends on what is asked for, and that on time: on until each was told.
                if step >= 60 and set(node.told) >= TOLD:
                    break
                await asyncio.to_thread(traffic.step)
                if step % 20 == 19:
                    await node.cut()
                await asyncio.sleep(0.03)
                if step % 15 == 14:
                    head = await at_head(collector, evm)
                    for pool in traffic.pools:
                        if (ours := collector.follower.mirror.pools.get(pool.ident)) is not None:
                            theirs = await asyncio.to_thread(truth.state, pool, head)
                            assert {k: v for k, v in ours.slots.items() if k in theirs or k.startswith("tick:")} == theirs
            node.faults = {}
            await at_head(collector, evm)
        finally:
            stop.set()
            await running
            await node.stop()
        assert collector.counts.bad_answers > 5
        assert set(node.told) >= TOLD
        _, net, deltas, _ = await asyncio.to_thread(fold, own, name)
        canonical = await asyncio.to_thread(canonical_hashes, evm, net)
        assert deltas > 40
        assert not {k: n for k, n in net.items() if n != (1 if k[0] in canonical else 0)}
        records = await asyncio.to_thread(blocks_of, own, name)
        assert not block_faults(records)
        height = max(r["number"] for r in records if r["kind"] == "COMPLETE")
        assert height == int(evm.head()["number"], 16)
        assert collector.counts.deep_reorgs == 0


@pytest.mark.broker
async def test_a_silent_node_is_stale_within_three_block_times_and_live_again_after(kafka: str, settings, unique: str):
    require_npm()
    name = f"hole-{unique}"
    block_s = 0.5
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 5, reorg_share=0)
        traffic.start(1, 1, 0)
        node = LyingNode(evm.http_url, evm.ws_url)
        await node.start()
        chains = chain_settings(
            evm, dex, name, http_urls=[node.http_url], ws_urls=[node.ws_url], block_time_ms=int(block_s * 1000)
        )
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chains)
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        try:
            await at_head(collector, evm)
            for _ in range(4):
                await asyncio.to_thread(traffic.step)
                await asyncio.sleep(block_s)
            await at_head(collector, evm)
            assert not collector.follower.stale
            node.faults = {"timeout_s": 2.5}  # a black hole: connections stay open, nothing comes
            last = collector.follower.advanced_s
            while not collector.follower.stale:
                await asyncio.to_thread(traffic.step)
                await asyncio.sleep(0.02)
                assert time.monotonic() - last < 3 * block_s + 1.0, "it was not said"
            said = time.monotonic() - last
            assert said < 3 * block_s + 0.5
            states = await asyncio.to_thread(statuses, own, collector)
            assert set(states.values()) == {"STALE"}
            node.faults = {}

            async def life() -> None:
                while True:
                    await asyncio.to_thread(traffic.step)
                    await asyncio.sleep(block_s / 2)

            living = asyncio.create_task(life())
            while collector.follower.stale:
                await asyncio.sleep(0.05)
            states = await asyncio.to_thread(statuses, own, collector)
            assert set(states.values()) == {"LIVE"}
            living.cancel()
            await at_head(collector, evm)
            await asyncio.sleep(0.2)
            collector.producer.flush(10)
            # Nothing was missed while it was silent: the chain was walked back to what was known.
            height = int(evm.head()["number"], 16)
            numbers = [r["number"] for r in await asyncio.to_thread(blocks_of, own, name) if r["kind"] == "COMPLETE"]
            assert numbers == list(range(numbers[0], height + 1))
        finally:
            stop.set()
            await running
            await node.stop()


def statuses(own, collector: ChainCollector) -> dict[str, str]:
    """The last state of each of the collector's books, from Kafka."""
    collector.producer.flush(10)
    tail = TailReader(own, [STATUS.name])
    venues = {b.venue for b in collector.follower.books.values()}
    out = {}
    for message in tail.read_to_end():
        record = codec("BookStatus").decode(message.value())
        if record["venue"] in venues and record["owner"] == collector.owner:
            out[f"{record['venue']}|{record['symbol']}"] = record["state"]
    tail.close()
    return out
