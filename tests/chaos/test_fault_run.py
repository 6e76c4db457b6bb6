"""The fault run, short: five protocols, every fault, never a wrong book served as LIVE."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.fault_script import KINDS
from tests.chaos.fault_run import LOST, FaultRun

SECONDS = 10


@pytest.mark.broker
async def test_live_books_are_the_venues_own_whatever_five_venues_do_wrong(
    kafka: str, settings, unique: str, tmp_path: Path
):
    run = FaultRun(
        settings(kafka={"bootstrap_servers": kafka}), tmp_path, seconds=SECONDS, instruments=10, rate=40, seed=11,
        every_s=1.0, storm=10, prefix=f"{unique}-",
    )  # fmt: skip
    report = await run.run()
    print(report.text())
    assert not report.problems, report.text()
    assert report.samples["compared"] > 50
    assert report.samples["mismatched"] == 0
    assert report.untold == 0 and report.lost_while_live > 3
    assert report.books_at_end >= 5 * 7
    # Twice each; one that finds no connection at its moment is refused.
    assert len(set(KINDS) - set(report.commanded)) <= 1, report.commanded
    assert {kind for injected in report.injected.values() for kind in injected} & set(LOST)
