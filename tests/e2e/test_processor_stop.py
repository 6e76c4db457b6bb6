"""A worker that is told to stop while Kafka is gone for good ends all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.broker import EmbeddedBroker
from cli.views import Views
from config.settings import Settings
from tests.conftest import ROOT, program

pytestmark = pytest.mark.broker
LONG_S = 180
"""A slow machine; what is waited for takes some ten seconds."""


async def test_it_ends_without_kafka(settings: Callable[..., Settings], tmp_path: Path) -> None:
    own = settings()
    broker = EmbeddedBroker(own.broker)
    address = await asyncio.to_thread(broker.start)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "KAFKA_BOOTSTRAP_SERVERS": address,
        "VENUE_MIRROR_PROCESSOR__WEB_PORT": str(own.processor.web_port),
        "VENUE_MIRROR_PROCESSOR__DATA_DIR": str(own.processor.data_dir),
    }  # fmt: skip
    worker = await asyncio.create_subprocess_exec(*program(), "process", env=environment, cwd=tmp_path)
    try:
        async with asyncio.timeout(LONG_S), Views(f"http://127.0.0.1:{own.processor.web_port}") as views:
            while not await views.ready():
                assert worker.returncode is None
                await asyncio.sleep(0.2)
        status = broker.status()
        assert status is not None
        os.kill(status.pid, signal.SIGKILL)
        await asyncio.sleep(2)
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LONG_S):
            await worker.wait()
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
        await asyncio.to_thread(broker.stop)
