"""A chain's collector killed at random: no event is lost, none stands twice, and the state is the chain's."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from bus.topics import apply
from cli.chain_fuzz import FuzzReport, _settled, audit_events, blocks_of, chain_settings, compare, fold
from collectors.dex.blocks import Header, Log
from collectors.dex.collector import ChainCollector
from collectors.dex.errors import AllNodesFailed
from collectors.dex.follower import Follower
from collectors.dex.mirror import Outcome
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth
from tests.chaos.chain_drill import block_faults, run
from tests.evm_state import require_npm

KILLS, ACTIONS = 6, 40


@pytest.mark.broker
async def test_killed_at_random_no_event_is_lost_and_none_stands_twice(kafka: str, settings, unique: str, tmp_path: Path):
    require_npm()

    def make(**more):
        return settings(kafka={"bootstrap_servers": kafka}, **more)

    await asyncio.to_thread(apply, make())
    report = await run(
        make, f"kill-{unique}", 7, KILLS, tmp_path, actions=ACTIONS, quotes=4, with_solidly=False
    )
    assert not report.wrong, report.first_wrong
    assert report.kills == KILLS and report.heads == report.heads_exact == ACTIONS + 1
    assert report.quotes == report.quotes_exact > ACTIONS
    assert report.deltas > 50 and report.retracts == report.orphaned_events > 5


@pytest.mark.broker
async def test_a_start_that_fails_half_way_retracts_nothing_twice(kafka: str, settings, unique: str, monkeypatch):
    require_npm()
    name, load, failures = f"half-{unique}", Follower._load_tokens, list[str]()

    async def failing(self: Follower, pools: Any, header: Header) -> None:
        if len(failures) == 1:
            failures.append(header.hash)
            raise AllNodesFailed("a block that was replaced a moment ago")
        await load(self, pools, header)

    monkeypatch.setattr(Follower, "_load_tokens", failing)
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 5, reorg_share=0)
        await asyncio.to_thread(traffic.start, 1, 1, 0)
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name))
        await asyncio.to_thread(apply, own)
        mirrored: dict[str, dict[str, int]] = {}
        for life in range(2):
            collector, stop = ChainCollector(own, name), asyncio.Event()
            running = asyncio.create_task(collector.run(stop))
            await _settled(collector, evm, running)
            for _ in range(6):
                await asyncio.to_thread(traffic.step)
            head = await _settled(collector, evm, running)
            stop.set()
            await running
            mirrored = {i: p.slots for i, p in collector.follower.mirror.pools.items()}
            if life == 0:
                failures.append(head)
                await asyncio.to_thread(evm.reorg, 3)  # while nobody follows: the next start takes three blocks back
        assert len(failures) == 2
        report = FuzzReport(5)
        states, standing, _, retracts = await asyncio.to_thread(fold, own, name)
        audit_events(standing, retracts, evm, report)
        assert not report.wrong, report.first_wrong
        assert states == mirrored
        records = await asyncio.to_thread(blocks_of, own, name)
        assert block_faults(records) == [] and [r["kind"] for r in records].count("RETRACTED") == 3


@pytest.mark.broker
async def test_events_of_a_block_that_was_not_finished_are_that_blocks(kafka: str, settings, unique: str, monkeypatch):
    """The proof took them for the block's below, put the pools back, and the events were never applied again."""
    require_npm()
    name, finish = f"open-{unique}", Follower._apply
    dying = list[Follower]()

    def die(self: Follower, header: Header, logs: list[Log]) -> Outcome:
        if not dying or not any(log.address in self.mirror.pools for log in logs):
            return finish(self, header, logs)
        self.mirror.apply(header, logs)
        raise RuntimeError("killed between a block's events and its end")

    monkeypatch.setattr(Follower, "_apply", die)
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 5, reorg_share=0)
        await asyncio.to_thread(traffic.start, 1, 1, 0)
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name))
        await asyncio.to_thread(apply, own)
        collector = ChainCollector(own, name)
        running = asyncio.create_task(collector.run(asyncio.Event()))
        await _settled(collector, evm, running)
        dying.append(collector.follower)
        while not running.done():
            await asyncio.to_thread(traffic.step)
            await asyncio.sleep(0.2)
        with pytest.raises(RuntimeError, match="killed between"):
            await running
        await asyncio.to_thread(collector.producer.flush, 30)
        dying.clear()

        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        report, truth, rng = FuzzReport(5), Truth(evm, dex), random.Random(5)
        for _ in range(4):
            head = await _settled(collector, evm, running)
            await asyncio.to_thread(compare, collector.follower.mirror.pools, traffic.pools, truth, head, rng, 2, report)
            await asyncio.to_thread(traffic.step)
        stop.set()
        await running
        assert not report.wrong, report.first_wrong
        assert collector.counts.mismatches == 0 and report.heads_exact == 4
        assert block_faults(await asyncio.to_thread(blocks_of, own, name)) == []


def test_blocks_that_do_not_follow_are_told_from_those_that_do() -> None:
    def block(kind: str, number: int, parent: int = -1) -> dict:
        return {"kind": kind, "number": number, "hash": bytes([number]), "parent_hash": bytes([parent % 256])}

    chain = [block("COMPLETE", 1), block("COMPLETE", 2, 1), block("RETRACTED", 2), block("COMPLETE", 2, 1), block("FINAL", 1)]
    assert block_faults(chain) == []
    assert block_faults([*chain, block("FINAL", 1)]) == ["block 1 is final twice"]
    assert block_faults([*chain, block("COMPLETE", 4, 3)]) == ["block 4 does not follow 2"]
    assert "was final" in block_faults([block("COMPLETE", 1), block("FINAL", 1), block("RETRACTED", 1)])[0]
