"""schemathesis against a live processor: nothing that may be asked, and nothing that may not, surprises it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import rooms_of, section

INSTRUMENTS = 3


@pytest.mark.broker
async def test_what_the_description_promises_holds_for_generated_requests(
    kafka: str, settings, unique: str, tmp_path: Path
) -> None:
    pytest.importorskip("schemathesis")
    name = f"asked-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=60, levels=10)
    await venue.start()
    own = settings(kafka={"bootstrap_servers": kafka}, venues={name: section("binance-usdm", venue)})
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.processor()
        await rooms.collector(name)
        await rooms.live(name, INSTRUMENTS)
        # Endless answers are left out: test_processor_views asks for them.
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{rooms.views.url}/openapi.json",
            "--checks", "all", "--max-examples", "8", "--seed", "1", "--exclude-path-regex", "^/stream", "--no-color",
            "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off",
        ]  # fmt: skip
        run = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
        )
        assert run.returncode == 0, (run.stdout + run.stderr)[-8000:]
        async with aiohttp.ClientSession() as session, session.get(f"{rooms.views.url}/readyz") as response:
            assert response.status == 200
    await venue.stop()
