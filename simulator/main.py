"""Simulated venues as processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.capture_venue import CaptureVenue
from simulator.load_venue import LoadVenue
from simulator.synthetic import SyntheticVenue
from simulator.venue_server import serve_forever

FAULTS_S = 24 * 3600
"""A script's length: nobody lets a failing venue run for longer."""


def run_synthetic(
    *,
    adapter: str,
    instruments: int,
    rate: float,
    seed: int,
    host: str,
    port: int,
    levels: int | None = None,
    fault_every_s: float = 0.0,
    common: int = 0,
) -> None:
    """Serve a synthetic venue until SIGTERM or SIGINT; with ``fault_every_s`` it fails so often, as ``seed`` says.

    Raises UnknownProtocol.
    """
    import uvloop

    async def run() -> None:
        venue = SyntheticVenue(adapter, instruments=instruments, rate=rate, seed=seed, levels=levels, common=common)
        if fault_every_s:
            venue.control("script", seed=seed, seconds=FAULTS_S, every=fault_every_s)
        await serve_forever(venue, host, port)

    uvloop.run(run())


def run_load(*, instruments: int, rate: float, levels: int, seed: int, host: str, port: int) -> None:
    """Serve a venue under load until SIGTERM or SIGINT."""
    import uvloop

    async def run() -> None:
        await serve_forever(LoadVenue(instruments=instruments, rate=rate, seed=seed, levels=levels), host, port)

    uvloop.run(run())


def run_capture(paths: Sequence[Path], *, speed: float, drop_every: int, seed: int, host: str, port: int) -> None:
    """Serve captures until SIGTERM or SIGINT. Raises CaptureError."""
    import uvloop

    async def run() -> None:
        await serve_forever(CaptureVenue(paths, speed=speed, drop_every=drop_every, seed=seed), host, port)

    uvloop.run(run())
