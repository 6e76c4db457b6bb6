"""The websocket side of every simulated venue: sockets, who gets which stream, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import WSMsgType, web

QUEUE_FRAMES = 50_000
"""Frames that wait for one slow client before it is disconnected."""
CLOSE_S = 1.0
"""Patience with a client's answer to a closing frame."""
HOLD_SLACK_S = 0.02
"""A timer may be this early."""
HALF_OPEN_S = 60.0
"""After this a half-open connection is given up, as by a keep-alive."""
UNSENDABLE_CODES = (1006, 1015)
"""Close codes that stand for a connection that ended without a closing frame. Source: RFC 6455, 7.4.1."""
NO_CODE = 1005
"""A closing frame without a code."""


class Protocol_(Protocol):  # noqa: N801 - typing's own name is taken
    """What the server asks of a venue's protocol (see wire.Wire)."""

    def greet(self, client: Client) -> None:
        """A client has connected."""

    def receive(self, client: Client, text: str) -> None:
        """It sent a frame."""

    def stamp(self, client: Client, frame: bytes) -> bytes:
        """The frame with what depends on the connection."""
        ...


class Client:
    """One websocket: its streams, and frames on their way to it. A slow client is cut off, never waited for."""

    def __init__(self, number: int, path: str, socket: web.WebSocketResponse, transport: Any) -> None:
        self.number = number
        self.path = path
        self.socket = socket
        self.streams: set[str] = set()
        self.memory: dict[str, Any] = {}
        """What the venue's protocol keeps for this connection."""
        self.queue: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.overflowed = False
        self.frozen_until_s = 0.0
        """Monotonic seconds; what would be sent before is lost."""
        self.held: dict[str, list[bytes]] = {}
        """A frozen instrument's frames that will be sent when it goes on, where they may not be lost."""
        self.half_open = False
        """Nothing is read, answered or sent any more, though the socket stays open."""
        self.dribble_frames = 0
        self.dribble_pause_s = 0.0
        self._transport = transport

    def put(self, frame: bytes) -> None:
        """Queue a text frame, as it is."""
        if self.overflowed or self.half_open or time.monotonic() < self.frozen_until_s:
            return
        if len(self.queue) >= QUEUE_FRAMES:
            # No closing frame: whoever does not read would not read it either, and waiting for that is what blocks.
            self.overflowed = True
            self.abort()
            return
        self.queue.append(frame)
        self.wake.set()

    def write(self, frames: Sequence[bytes], most: int) -> int:
        """Write whole frames (see text_frame) at once, past the queue; gives their bytes. Cut off where ``most`` wait."""
        if self._transport is None or self._transport.is_closing():
            return 0
        if self._transport.get_write_buffer_size() > most:
            self.overflowed = True
            self.abort()
            return 0
        data = b"".join(frames)
        self._transport.write(data)
        return len(data)

    def hold(self, native: str, frame: bytes, until_s: float) -> None:
        """Send this instrument's frame, and what comes behind it, at that monotonic time."""
        if (waiting := self.held.get(native)) is not None:
            waiting.append(frame)
            return
        self.held[native] = [frame]
        wait_s = max(0.0, until_s - time.monotonic()) + HOLD_SLACK_S
        asyncio.get_running_loop().call_later(wait_s, self._let_go, native)

    def _let_go(self, native: str) -> None:
        if time.monotonic() < self.frozen_until_s:  # frozen again meanwhile
            frames = self.held.pop(native)
            self.hold(native, frames[0], self.frozen_until_s)
            self.held[native] += frames[1:]
            return
        for frame in self.held.pop(native):
            self.put(frame)

    def abort(self) -> None:
        """Drop the connection now, with what waits for it."""
        self.queue.clear()
        if self._transport is not None:
            self._transport.abort()

    def hang(self) -> None:
        """Become half-open: as after a router's restart, both ends believe in a connection that carries nothing."""
        self.half_open = True
        self.queue.clear()
        if self._transport is not None:
            self._transport.pause_reading()
            # Not read any more, the client's own closing goes unseen too.
            asyncio.get_running_loop().call_later(HALF_OPEN_S, self.abort)

    async def close(self, code: int) -> None:
        """End the connection as the code says."""
        if code in UNSENDABLE_CODES or self._transport is None or self.half_open:
            self.abort()
            return
        if code == NO_CODE:
            self._transport.write(b"\x88\x00")
            await asyncio.sleep(0.05)
            self.abort()
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_S):
                await self.socket.close(code=code)
        self.abort()

    async def send_all(self) -> None:
        """Write what waits, until cancelled or disconnected."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.wake.wait()
                self.wake.clear()
                while self.queue:
                    frame = self.queue.popleft()
                    if self.dribble_frames > 0:
                        self.dribble_frames -= 1
                        await self._dribble(frame)
                    else:
                        await self.socket.send_frame(frame, WSMsgType.TEXT)
        self.abort()

    async def _dribble(self, frame: bytes) -> None:
        """A slow loris from the venue's side: the frame's bytes come a few at a time."""
        data, pieces = text_frame(frame), 10
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            if self.half_open or self._transport is None or self._transport.is_closing():
                return
            self._transport.write(data[start : start + step])
            await asyncio.sleep(self.dribble_pause_s / pieces)


def text_frame(payload: bytes) -> bytes:
    """A server's whole text frame. Source: RFC 6455, 5.2."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x81, 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 127, size)
    return head + payload


class StreamServer:
    """Accepts sockets, hands a client's frames to the protocol, and streams' frames to their subscribers."""

    def __init__(self, wire: Protocol_, on_change: Callable[[], None] = lambda: None) -> None:
        self.clients: dict[Client, None] = {}
        """In the order of their coming."""
        self.overflows = 0
        """Clients that were disconnected because they did not read."""
        self.connections = 0
        """Clients that ever came."""
        self.refusing_until_s = 0.0
        """Monotonic seconds; new clients get 503 before (maintenance)."""
        self._wire = wire
        self._on_change = on_change
        self._subscribers: dict[str, dict[Client, None]] = {}

    def subscribe(self, client: Client, stream: str) -> None:
        """Send this stream's frames to the client from now on."""
        client.streams.add(stream)
        self._subscribers.setdefault(stream, {})[client] = None

    def unsubscribe(self, client: Client, stream: str) -> None:
        """No longer."""
        client.streams.discard(stream)
        if (holders := self._subscribers.get(stream)) is not None:
            holders.pop(client, None)
            if not holders:
                del self._subscribers[stream]

    def subscribers(self, stream: str) -> list[Client]:
        """Clients that want this stream."""
        return list(self._subscribers.get(stream, ()))

    def wanted(self, stream: str) -> bool:
        """Whether anybody does."""
        return stream in self._subscribers

    def put(self, client: Client, frame: bytes) -> None:
        """Send one client a frame that is for it alone."""
        client.put(self._wire.stamp(client, frame))

    def send(self, stream: str, frame: bytes) -> int:
        """Queue a frame for its subscribers; gives how many there are."""
        clients = self._subscribers.get(stream)
        if clients is None:
            return 0
        for client in clients:
            client.put(self._wire.stamp(client, frame))
        return len(clients)

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame for every client, whatever it subscribed."""
        for client in self.clients:
            client.put(frame)

    async def cut(self, code: int = 1012) -> None:
        """Close every socket at once, as a venue's restart does; returns when all are closed."""
        await asyncio.gather(*(client.close(code) for client in list(self.clients)), return_exceptions=True)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One client, from its coming to its end."""
        if time.monotonic() < self.refusing_until_s:
            return web.Response(status=503, text="Service Unavailable")
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 20, timeout=CLOSE_S)
        await socket.prepare(request)
        self.connections += 1
        client = Client(self.connections, request.path, socket, request.transport)
        self.clients[client] = None
        sender = asyncio.create_task(client.send_all())
        try:
            self._wire.greet(client)
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._wire.receive(client, message.data)
        finally:
            self.clients.pop(client, None)
            for stream in list(client.streams):
                self.unsubscribe(client, stream)
            self.overflows += client.overflowed
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender
            self._on_change()
        return socket

    def changed(self) -> None:
        """Subscriptions changed."""
        self._on_change()
