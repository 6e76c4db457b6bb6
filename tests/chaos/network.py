"""A network between the members of a cluster and their clients, of TCP links that can be cut, slowed and made lossy.

    python -m tests.chaos.network < LINES

A process of its own, so that nobody's event loop delays what it carries. The first line on its input is a list of links,
``[{"name": "1>2", "listen": ["127.0.11.12", 9092], "target": ["127.0.1.2", 9092]}, …]``; each further line changes some,
``{"links": ["1>2"], "cut": true, "delay_ms": 0, "jitter_ms": 0, "loss": 0}``, and is answered by a line ``ok``.

A cut link behaves as a black hole does: connections stay open and carry nothing, new ones are accepted by nobody. What
is lost below TCP shows above it as a wait, so ``loss`` makes that share of the chunks, and all behind them, wait for a
retransmission: 200 ms, doubled each time that it is lost again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from dataclasses import dataclass, field
from typing import Any

CHUNK = 64 * 1024
QUEUE_MAX = 64
"""Chunks under way in one direction of a connection; beyond them the sender is held back, as by a full window."""
RETRANSMIT_S = 0.2


@dataclass
class Link:
    """One direction of calls, with answers: who listens for whom."""

    name: str
    listen: tuple[str, int]
    target: tuple[str, int]
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self, *, cut: bool = False, delay_ms: float = 0, jitter_ms: float = 0, loss: float = 0) -> None:
        """What is not named is well again."""
        self.delay_s, self.jitter_s, self.loss = delay_ms / 1000, jitter_ms / 1000, loss
        (self.open.clear if cut else self.open.set)()

    def wait_s(self) -> float:
        """How long the next chunk is under way."""
        wait = self.delay_s + self.jitter_s * random.random()
        again = RETRANSMIT_S
        while self.loss and random.random() < self.loss:
            wait += again
            again *= 2
        return wait

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        await self.open.wait()
        try:
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pumps = [asyncio.ensure_future(self._pump(reader, back)), asyncio.ensure_future(self._pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for side in (writer, back):
                side.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUE_MAX)
        sender = asyncio.ensure_future(self._send(queue, writer))
        clock = asyncio.get_running_loop().time
        due = 0.0
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(CHUNK):
                    due = max(due, clock() + self.wait_s())
                    await queue.put((due, data))
                    if sender.done():
                        return
                while not queue.empty() and not sender.done():
                    await asyncio.sleep(0.01)
        finally:
            sender.cancel()

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while True:
                due, data = await queue.get()
                if (wait := due - clock()) > 0:
                    await asyncio.sleep(wait)
                await self.open.wait()
                writer.write(data)
                await writer.drain()


class Network:
    """The process, from outside. ``await start()`` first."""

    def __init__(self, links: list[dict[str, Any]]) -> None:
        self.names = [link["name"] for link in links]
        self._links = links
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Listen on all links; raises OSError when one cannot."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.network", stdin=pipe, stdout=pipe, start_new_session=True
        )
        await self._say(self._links)

    async def change(self, names: list[str], **how: Any) -> None:
        """Change these links: cut, delay_ms, jitter_ms, loss; none of them: well again."""
        await self._say({"links": names, **how})

    async def _say(self, line: Any) -> None:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        async with self._turn:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            await process.stdin.drain()
            if (answer := await process.stdout.readline()) != b"ok\n":
                raise OSError(f"the network did not do it: {answer.decode()!r}")

    async def stop(self) -> None:
        """Close every link."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def main() -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    asked = json.loads(await lines.readline())
    links = {one["name"]: Link(one["name"], tuple(one["listen"]), tuple(one["target"])) for one in asked}
    servers = list[asyncio.Server]()
    for link in links.values():
        link.open.set()
        servers.append(await asyncio.start_server(link.serve, *link.listen))
    print("ok", flush=True)
    while line := await lines.readline():
        how = json.loads(line)
        for name in how.pop("links"):
            links[name].change(**how)
        print("ok", flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
