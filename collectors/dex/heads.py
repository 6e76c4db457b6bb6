"""New heads as hashes: from every websocket at once, by polling where they are silent, with a watchdog over both.

What is told here is only a hint that there is something new. A hint that is lost costs time, never a block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence

import aiohttp
import msgspec

from collectors.dex.blocks import Header
from collectors.dex.errors import ChainError
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes

log = logging.getLogger(__name__)

RECONNECT_S = (0.1, 0.5, 1.0, 2.0, 5.0)
SUBSCRIBE = '{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}'
WAITING_MAX = 64


class _Head(msgspec.Struct):
    hash: str = ""


class _Params(msgspec.Struct):
    result: _Head = msgspec.field(default_factory=_Head)


class _Frame(msgspec.Struct):
    params: _Params | None = None


_decode = msgspec.json.Decoder(_Frame).decode


class Heads:
    """``next()`` gives hashes that may be new. ``run`` and ``poll`` are tasks of the owner."""

    def __init__(self, ws_urls: Sequence[str], nodes: Nodes, counts: ChainCounts, block_time_s: float) -> None:
        self.ws_urls = list(ws_urls)
        self.nodes = nodes
        self.counts = counts
        self.block_time_s = block_time_s
        self.last_new_s = time.monotonic()
        """When a hash was told that had not been told before."""
        self.open = 0
        self._waiting: deque[str] = deque(maxlen=WAITING_MAX)
        self._seen: deque[str] = deque(maxlen=WAITING_MAX)
        self._arrived = asyncio.Event()

    async def next(self, timeout_s: float) -> str | None:
        """The next hash; None when none came in time."""
        if not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return None
        # The newest first: whatever it stands on is fetched through its parents, and the older hints are then known.
        return self._waiting.pop()

    def again(self, block_hash: str) -> None:
        """Tell this hash once more: it could not be followed."""
        if not self._waiting:
            self._waiting.append(block_hash)
            self._arrived.set()

    def tell(self, block_hash: str) -> None:
        """A node reports this head."""
        self.counts.heads += 1
        if block_hash not in self._seen:
            self._seen.append(block_hash)
            self.last_new_s = time.monotonic()
        # Told again even so: a chain can come back to a branch that it left.
        if block_hash not in self._waiting:
            self._waiting.append(block_hash)
            self._arrived.set()

    def tasks(self) -> list[asyncio.Task[None]]:
        """Start them."""
        return [
            *(asyncio.create_task(self._listen(url), name="heads") for url in self.ws_urls),
            asyncio.create_task(self._poll(), name="heads by polling"),
        ]

    async def _listen(self, url: str) -> None:
        tries = 0
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.ws_connect(url, max_msg_size=1 << 22) as ws:
                        await ws.send_str(SUBSCRIBE)
                        tries = 0
                        self.open += 1
                        try:
                            await self._frames(ws)
                        finally:
                            self.open -= 1
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    log.info("%s: %s", url, error)
                self.counts.ws_reconnects += 1
                await asyncio.sleep(RECONNECT_S[min(tries, len(RECONNECT_S) - 1)])
                tries += 1

    async def _frames(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Read until it closes, or until it is silent for longer than heads may be."""
        patience_s = max(5.0, 4 * self.block_time_s)
        while True:
            frame = await ws.receive(timeout=patience_s)
            if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                return
            try:
                head = _decode(frame.data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if head.params is not None and head.params.result.hash:
                self.tell(head.params.result.hash)

    async def _poll(self) -> None:
        """Ask every endpoint while the websockets are silent (or there is none)."""
        while True:
            await asyncio.sleep(self.block_time_s / (4 if not self.ws_urls else 1))
            if self.ws_urls and time.monotonic() - self.last_new_s < 1.5 * self.block_time_s:
                continue
            for node in self.nodes.order():
                try:
                    head: Header | None = await self.nodes.one(
                        node, "eth_getBlockByNumber", "latest", False, kind=Header | None
                    )
                except ChainError as error:
                    log.info("%s", error)
                    continue
                if head is not None:
                    self.tell(head.hash)
