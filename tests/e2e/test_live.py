"""``live VENUE`` as a user types it, for a venue with an adapter of its own and for one by ccxt: only the addresses differ."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from simulator.synthetic import SyntheticVenue
from tests.conftest import ROOT, SMALL, free_port, program

SYMBOLS = ["BTC/USDT", "SOL/USDT"]
AWAY = "away"
"""A name of its own: a venue whose instruments stand in Kafka already is waited for without end, as a desk would."""
LONG_S = 240
"""A slow machine, and ccxt's own start."""


def config(folder: Path, venue: str, rest_url: str, ws_url: str) -> str:
    """A settings file in which the venue is somewhere else."""
    options = '\noptions = {fetchMarkets = {types = ["spot", "swap"]}}' if venue.startswith("ccxt:") else ""
    file = folder / "live.toml"
    kind = venue if venue != AWAY else "okx"
    own = f'adapter = "{kind}"\nrest_url = "{rest_url}"\nws_url = "{ws_url}"{options}\n'
    file.write_text(f'[collector]\nlag_max_s = 60\n[venues."{venue}"]\n{own}')
    return str(file)


@pytest.mark.parametrize("venue", ["okx", "ccxt:okx"])
async def test_any_venue_by_its_name(tmp_path: Path, kafka: str, unique: str, venue: str) -> None:
    simulated = SyntheticVenue("okx", instruments=3, rate=60, levels=30)
    await simulated.start()
    process = await asyncio.create_subprocess_exec(
        *program(), "live", venue, "--symbols", ",".join(SYMBOLS),
        "--config", config(tmp_path, venue, simulated.rest_url, simulated.ws_url),
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **SMALL, "KAFKA_BOOTSTRAP_SERVERS": kafka,
             "VENUE_MIRROR_PROCESSOR__APP_ID": f"live-{unique}"},
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[str] = []
    try:
        async with asyncio.timeout(LONG_S):
            async for raw in process.stdout:
                seen.append(raw.decode().rstrip())
                if "LIVE=2" in seen[-1]:
                    break
            assert "LIVE=2" in seen[-1], "\n".join(seen)
            process.send_signal(signal.SIGINT)
            seen += (await process.stdout.read()).decode().splitlines()
            code = await process.wait()
    except TimeoutError:
        pytest.fail("\n".join(seen))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await simulated.stop()
    last = dict(word.split("=") for word in seen[-1].split())
    assert code == 0, "\n".join(seen)
    # The broker still holds the other venue's books: nobody looks after those any more, and they say so.
    assert (last["live"], last["mismatches"]) == ("2", "0"), seen[-1]
    assert int(last["updates"]) > 0


def test_a_venue_that_cannot_be_reached_ends_with_its_address(
    tmp_path: Path, kafka: str, unique: str, run_cli: Callable[..., CompletedProcess[str]]
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    ended = run_cli(
        "live", AWAY, "--symbols", "BTC/USDT",
        "--config", config(tmp_path, AWAY, f"http://{nowhere}", f"ws://{nowhere}"),
        env={"KAFKA_BOOTSTRAP_SERVERS": kafka, "VENUE_MIRROR_PROCESSOR__APP_ID": f"live-{unique}"}, timeout_s=LONG_S,
    )  # fmt: skip
    assert ended.returncode != 0
    assert nowhere in ended.stdout + ended.stderr, json.dumps([ended.stdout, ended.stderr])
    assert "Traceback" not in ended.stdout + ended.stderr
