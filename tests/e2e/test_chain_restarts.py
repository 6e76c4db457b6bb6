"""A chain's collector killed at random: no event is lost, none stands twice, and the state is the chain's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.topics import apply
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


def test_blocks_that_do_not_follow_are_told_from_those_that_do() -> None:
    def block(kind: str, number: int, parent: int = -1) -> dict:
        return {"kind": kind, "number": number, "hash": bytes([number]), "parent_hash": bytes([parent % 256])}

    chain = [block("COMPLETE", 1), block("COMPLETE", 2, 1), block("RETRACTED", 2), block("COMPLETE", 2, 1), block("FINAL", 1)]
    assert block_faults(chain) == []
    assert block_faults([*chain, block("FINAL", 1)]) == ["block 1 is final twice"]
    assert block_faults([*chain, block("COMPLETE", 4, 3)]) == ["block 4 does not follow 2"]
    assert "was final" in block_faults([block("COMPLETE", 1), block("FINAL", 1), block("RETRACTED", 1)])[0]
