"""A connection goes on whatever a server answers to the handshake, and whatever goes wrong in its own tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.pool import ConnectionPool
from collectors.publisher import Publisher
from collectors.venue import adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings
from simulator.synthetic import SyntheticVenue

Okx = adapter("okx")


class Failing(Okx):  # type: ignore[misc, valid-type]
    """Cannot write its first subscription."""

    failures = 1

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        if type(self).failures:
            type(self).failures -= 1
            raise RuntimeError("nobody foresaw this")
        return super().subscribe(natives, request_id)


def pool_of(venue: object, url: str) -> tuple[ConnectionPool, Counts]:
    counts = Counts()
    pipeline = Pipeline(Publisher("okx", lambda *_: None, counts), counts)
    return ConnectionPool("okx", venue, url, pipeline, counts, silence_s=60), counts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"\x00\xff\xfe nonsense\r\n\r\n", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nlater",
        b"HTTP/1.1 302 Found\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: ftp://[::1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 " + b"9" * 400 + b" x\r\n\r\n",
        b"HTTP/1.1 101 \xff\r\n" + b"a: \xfe\r\n" * 9 + b"\r\n",
    ],
)  # fmt: skip
async def test_a_handshake_that_is_none_is_tried_again(answer: bytes) -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(100)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool, counts = pool_of(Okx(), f"ws://127.0.0.1:{port}")
    pool.subscribe(["BTC-USDT"])
    try:
        async with asyncio.timeout(60):
            while tries < 3:
                await asyncio.sleep(0.02)
                (connection,) = pool.connections
                assert connection.task is not None and not connection.task.done()
        assert counts.connection_errors >= 2
    finally:
        await pool.close()
        server.close()


async def test_an_error_in_a_connections_own_task_ends_the_connection_and_the_next_one_is_whole() -> None:
    simulated = SyntheticVenue("okx", instruments=2, rate=50, levels=12)
    await simulated.start()
    Failing.failures = 1
    pool, counts = pool_of(Failing(), simulated.ws_url)
    natives = list(simulated.instruments)
    for native in natives:
        worker = BookWorker(
            native, native, pool.venue.rule(native), pool.pipeline.publisher, counts, CollectorSettings(),
            lambda worker, _: pool.renew(worker.native),
        )  # fmt: skip
        worker.announce()
        pool.pipeline.workers[native] = worker
    pool.subscribe(natives)
    try:
        async with asyncio.timeout(60):
            while any(worker.state != "LIVE" for worker in pool.pipeline.workers.values()):
                await asyncio.sleep(0.02)
        assert (counts.internal_errors, counts.reconnects) == (1, 1)
    finally:
        await pool.close()
        await simulated.stop()
