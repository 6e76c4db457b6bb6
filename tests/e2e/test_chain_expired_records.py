"""Records that Kafka no longer keeps: a restart reads every pool anew instead of losing the quiet ones in silence."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bus.consumer import TailReader
from bus.topics import apply
from cli.chain_fuzz import chain_settings
from collectors.dex.collector import ChainCollector
from schemas.topics import CHAIN_POOL
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth
from tests.e2e.test_chain_lying_node import at_head
from tests.evm_state import require_npm


@pytest.mark.broker
async def test_after_the_beginning_has_expired_every_pool_is_still_mirrored(kafka: str, settings, unique: str):
    require_npm()
    name = f"cut-{unique}"
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 2, reorg_share=0)
        traffic.start(2, 2, 1)
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name))
        await asyncio.to_thread(apply, own)
        epochs: dict[str, int] = {}
        for life in range(2):
            collector, stop = ChainCollector(own, name), asyncio.Event()
            running = asyncio.create_task(collector.run(stop))
            head = await at_head(collector, evm, 120)
            pools = collector.follower.mirror.pools
            assert set(pools) == {p.ident for p in traffic.pools}
            truth = Truth(evm, dex)
            for pool in traffic.pools:
                theirs, ours = truth.state(pool, head), pools[pool.ident].slots
                assert {k: v for k, v in ours.items() if k in theirs or k.startswith("tick:")} == theirs
                assert pools[pool.ident].epoch > epochs.get(pool.ident, 0)
            epochs = {i: p.epoch for i, p in pools.items()}
            stop.set()
            await running
            if life == 0:
                await asyncio.to_thread(expire, own, kafka)
                await asyncio.to_thread(traffic.step)


def expire(own, kafka: str) -> None:
    """Delete everything in chain.pool, as its retention would."""
    tail = TailReader(own, [CHAIN_POOL.name])
    ends = [TopicPartition(topic, partition, end) for (topic, partition), end in tail.ends().items() if end]
    tail.close()
    admin = AdminClient({"bootstrap.servers": kafka})  # held by a name: its answers end with it
    for future in admin.delete_records(ends).values():
        future.result(30)
