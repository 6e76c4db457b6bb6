"""Reorganisations on a real EVM with the real contracts: the mirror is the chain at every head, and so is Kafka."""

from __future__ import annotations

import asyncio

import pytest

from bus.topics import apply
from cli.chain_fuzz import fuzz
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES
from tests.evm_state import require_npm


@pytest.mark.broker
@pytest.mark.parametrize("seed", [1, 2])
async def test_under_reorganisations_every_head_and_every_quote_is_the_chains(kafka: str, settings, unique: str, seed: int):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES)

    def make(chains):
        return settings(kafka={"bootstrap_servers": kafka}, chains=chains)

    await asyncio.to_thread(apply, make({}))
    report = await fuzz(make, f"fuzz-{unique}", seed, steps=60, quotes=4, with_solidly=seed == 1)
    assert not report.wrong, report.first_wrong
    assert report.heads == report.heads_exact == 60
    assert report.quotes == report.quotes_exact > 150
    assert report.reorgs > 5 and report.rebuilt_exact
    assert report.retracts == report.orphaned_events > 10
