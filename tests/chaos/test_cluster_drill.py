"""The cluster's drill, a minute of it: `make drill` is the long one, with a chain and every fault."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.chaos.cluster_drill import ClusterDrill

FAULTS = ("broker kill -9", "leader partitioned", "process kill -9", "venue frames", "schema upgraded")


@pytest.mark.broker
async def test_every_promise_holds_on_three_brokers_through_a_minute_of_faults(tmp_path: Path):
    drill = ClusterDrill(
        tmp_path, seed=3, minutes=1, instruments=4, rate=20, processors=2, kinds=FAULTS,
        say=lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    report = await drill.run()
    print(report.text())
    assert report.clean, report.text()
    assert len(report.happened) >= 2
    looked = report.findings.looked
    for what in (
        "LIVE and equal", "book events in order", "records acknowledged to the witness", "records in the archive",
        "orders at the venue", "positions",
    ):  # fmt: skip
        assert looked[what] > 0, f"no {what}: {report.text()}"
