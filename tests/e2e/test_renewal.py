"""A connection is renewed before the venue cuts it: overlapping, without a hole, whatever the venue's way to number."""

from __future__ import annotations

import asyncio

import pytest

from simulator.synthetic import SyntheticVenue
from tests.collector_bench import bench


@pytest.mark.parametrize("adapter", ["binance-usdm", "binance-spot", "okx", "deribit", "kraken"])
async def test_a_renewed_connection_takes_over_without_a_hole(adapter: str) -> None:
    venue = SyntheticVenue(adapter, instruments=8, rate=300, levels=30)
    async with bench(venue) as found:
        await found.live(8)
        workers = found.pipeline.workers
        before = {native: (worker.epoch, worker.index) for native, worker in workers.items()}
        for old in tuple(found.pool.connections):
            assert await found.pool.renew_connection(old)
            assert old not in found.pool.connections
        await asyncio.sleep(0.5)
        assert found.counts.gaps == found.counts.crossed == found.counts.checksum_bad == 0
        beside = found.pool.beside.open_count() if found.pool.beside is not None else 0
        assert found.counts.renewals == len(found.pool.connections) == found.pool.open_count() - beside
        assert all(worker.state == "LIVE" for worker in workers.values())
        assert sum(worker.index for worker in workers.values()) > 0
        if adapter.startswith("binance"):
            # Numbered by the venue and snapshots from REST: not even a new epoch.
            assert {native: worker.epoch for native, worker in workers.items()} == {n: e for n, (e, _) in before.items()}
            assert all(worker.index > before[native][1] for native, worker in workers.items())
        told = [found.compare(native) for native in workers]
        assert False not in told
        assert True in told


async def test_a_renewal_that_the_venue_does_not_take_leaves_the_old_connection() -> None:
    venue = SyntheticVenue("binance-usdm", instruments=2, rate=100, levels=20)
    async with bench(venue) as found:
        await found.live(2)
        epochs = {native: worker.epoch for native, worker in found.pipeline.workers.items()}
        (old,) = found.pool.connections
        plain, found.pool.url = found.pool.url, found.pool.url.replace("/stream", "/nowhere")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("collectors.renewal.PATIENCE_S", 1.0)
            assert not await found.pool.renew_connection(old)
        found.pool.url = plain
        assert found.pool.connections == [old]
        assert old.is_open
        assert {native: worker.epoch for native, worker in found.pipeline.workers.items()} == epochs
