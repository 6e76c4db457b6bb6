"""One websocket connection to a venue: opened, subscribed in batches inside the venue's limits, replaced when it fails.

Frames are handled inside the socket's own callback: no queue stands between the wire and the worker, so a slow process
slows the sender down.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import picows

from collectors.events import Reply
from collectors.renewal import Shadow

if TYPE_CHECKING:
    from collectors.pool import ConnectionPool

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 30.0
REFUSED_RETRY_S = 60.0
MAX_FRAME = 64 * 1024 * 1024


class _Listener(picows.WSListener):
    """One open socket; hands whole messages on."""

    def __init__(self, receive: Callable[[bytes, int], None]) -> None:
        self._receive = receive
        self._parts: list[bytes] = []
        self.last_frame_s = time.monotonic()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        kind = frame.msg_type
        if kind in (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            self.last_frame_s = time.monotonic()
            payload = frame.get_payload_as_bytes()
            if not frame.fin:
                self._parts.append(payload)
                if sum(map(len, self._parts)) > MAX_FRAME:
                    transport.disconnect()
                return
            if self._parts:
                payload = b"".join([*self._parts, payload])
                self._parts.clear()
            self._receive(payload, time.time_ns())
        elif kind is picows.WSMsgType.CLOSE:
            transport.send_close(picows.WSCloseCode.OK)
            transport.disconnect()


class _Waiting:
    """A subscription that the venue has not answered yet, whole or instrument by instrument."""

    def __init__(self, batch: list[str]) -> None:
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left = set(batch)
        self.errors: dict[str, str] = {}

    def take(self, reply: Reply) -> None:
        """An answer to this subscription, or to one instrument of it."""
        if not reply.native:
            self._finish(reply.error)
        elif reply.native in self.left:
            self.left.discard(reply.native)
            if reply.error:
                self.errors[reply.native] = reply.error
            if not self.left:
                self._finish("")

    def _finish(self, error: str) -> None:
        if not self.answered.done():
            self.answered.set_result(error)


class Connection:
    """One websocket and the instruments on it. ``run`` keeps it open until cancelled."""

    def __init__(self, pool: ConnectionPool, number: int, *, shadows: bool = False) -> None:
        self._pool = pool
        self._shadows = shadows
        self.name = pool.name
        self.number = number
        self.shadow: Shadow | None = None
        """Keeps what arrives, while this connection is to take over from another."""
        self.confirmed = asyncio.Event()
        """Everything on it has been subscribed once."""
        self.opened_s = 0.0
        self.natives: set[str] = set()
        self._to_subscribe: deque[str] = deque()
        self._to_unsubscribe: deque[str] = deque()
        self._to_renew: deque[str] = deque()
        self._wake = asyncio.Event()
        self._replies: dict[int, _Waiting] = {}
        self._next_id = 1
        self._transport: picows.WSTransport | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the socket is connected now."""
        return self._transport is not None

    def add(self, native: str) -> None:
        """Put an instrument on this connection; it is subscribed as the limits allow."""
        self.natives.add(native)
        self._to_subscribe.append(native)
        self._wake.set()

    def remove(self, native: str) -> None:
        """Take it off."""
        self.natives.discard(native)
        if self._transport is not None:
            self._to_unsubscribe.append(native)
            self._wake.set()

    def renew(self, native: str) -> None:
        """Cancel and subscribe again: how a snapshot is asked for that only comes in the stream."""
        if self._transport is not None and native not in self._to_renew and native not in self._to_subscribe:
            self._to_renew.append(native)
            self._wake.set()

    def abandon(self) -> None:
        """Another connection has taken over: end, without a word to the books."""
        self.natives.clear()
        if self._transport is not None:
            self._transport.disconnect()
        if self.task is not None:
            self.task.cancel()

    def break_off(self, reason: str) -> None:
        """Close the socket because what it sends cannot be trusted; it is opened again."""
        log.warning("%s: connection %d closed: %s", self._pool.name, self.number, reason)
        if self._transport is not None:
            # At once: where the other side is gone, closing in order waits for it as long as TCP does.
            self._transport.disconnect(graceful=False)

    async def run(self) -> None:
        """Connect, subscribe, watch; again after every loss, with jitter and backoff."""
        pool, backoff_s = self._pool, FIRST_BACKOFF_S
        while True:
            await pool.connect_turn()
            try:
                transport, listener = await self._open()
            except Exception as error:  # whatever was answered: this task ends with the connection's last instrument only
                pool.counts.connection_errors += 1
                log.warning("%s: %s: %s: %s", pool.name, pool.url, type(error).__name__, error)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
                backoff_s = min(LONGEST_BACKOFF_S, backoff_s * 2)
                continue
            self._transport = transport
            self._to_unsubscribe.clear()
            self._to_renew.clear()
            self._to_subscribe = deque(sorted(self.natives))
            opened_s = self.opened_s = time.monotonic()
            pool.connected.set()
            feeder = asyncio.create_task(self._kept(self._feed()))
            watcher = asyncio.create_task(self._kept(self._watch(transport, listener)))
            try:
                await transport.wait_disconnected()
            except Exception as error:
                # Bytes that are no websocket frames, a closing code that may not be sent: a loss like any other.
                log.warning("%s: connection %d ended: %s: %s", pool.name, self.number, type(error).__name__, error)
            finally:
                feeder.cancel()
                watcher.cancel()
                self._transport = None
                for waiting in self._replies.values():
                    waiting.answered.cancel()
                self._replies.clear()
                transport.disconnect()
            pool.counts.reconnects += 1
            for native in sorted(self.natives):
                if self.shadow is None and (worker := pool.book_of(native)) is not None:
                    worker.on_stream_lost("the connection was lost")
            if time.monotonic() - opened_s > 60:
                backoff_s = FIRST_BACKOFF_S
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311
            backoff_s = min(LONGEST_BACKOFF_S, backoff_s * 2)

    async def _kept(self, work: Coroutine[None, None, None]) -> None:
        """An open connection's own task: an error that nobody foresaw ends the connection, which is seen and mended."""
        try:
            await work
        except Exception as error:
            self._pool.counts.internal_errors += 1
            log.error("%s: connection %d", self._pool.name, self.number, exc_info=error)
            self.break_off(f"internal error: {type(error).__name__}")

    async def _open(self) -> tuple[picows.WSTransport, _Listener]:
        pool = self._pool
        receive = pool.pipeline.receiver(pool.venue.connection(), self._on_reply, self.break_off, self._send)
        if self._shadows and not self.confirmed.is_set():
            receive = self.shadow = Shadow(receive, pool.venue.connection(), self._on_reply, self._send)
        transport, listener = await picows.ws_connect(
            lambda: _Listener(receive),
            await pool.endpoint(),
            enable_auto_ping=pool.venue.heartbeat() is None,
            auto_ping_idle_timeout=pool.venue.limits.heartbeat_s,
            auto_ping_reply_timeout=pool.venue.limits.heartbeat_s,
            extra_headers=dict(pool.venue.headers),
            max_frame_size=MAX_FRAME,
            disconnect_on_exception=False,
            logger_name="stream",
        )
        if not isinstance(listener, _Listener):  # picows gives none where the server closes before it has answered
            raise ConnectionError("the server closed the connection in the handshake")
        return transport, listener

    def _on_reply(self, reply: Reply) -> None:
        if reply.native:
            for waiting in tuple(self._replies.values()):
                waiting.take(reply)
        elif (waiting := self._replies.get(reply.request_id)) is not None:
            waiting.take(reply)
        elif reply.error:
            log.warning("%s: the venue says: %s", self._pool.name, reply.error)

    def _send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.send(picows.WSMsgType.TEXT, frame)

    async def _feed(self) -> None:
        """Send subscriptions and cancellations, one frame a request_interval_s."""
        limits = self._pool.venue.limits
        while True:
            if not self._to_subscribe and not self._to_unsubscribe and not self._to_renew:
                self.confirmed.set()
                self._wake.clear()
                await self._wake.wait()
            if self._to_unsubscribe:
                batch = _take(self._to_unsubscribe, limits.instruments_per_request)
                batch = [n for n in batch if n not in self.natives]
                if batch:
                    await self._send_all(self._pool.venue.unsubscribe(batch, self._id()))
            elif self._to_renew:
                batch = [n for n in _take(self._to_renew, limits.instruments_per_request) if n in self.natives]
                if batch:
                    await self._send_all(self._pool.venue.unsubscribe(batch, self._id()))
                    self._to_subscribe.extend(batch)
            else:
                batch = [n for n in _take(self._to_subscribe, limits.instruments_per_request) if n in self.natives]
                if batch:
                    await self._subscribe(batch)
            await asyncio.sleep(limits.request_interval_s)

    async def _send_all(self, frames: list[bytes]) -> None:
        for number, frame in enumerate(frames):
            if number:
                await asyncio.sleep(self._pool.venue.limits.request_interval_s)
            self._send(frame)

    async def _subscribe(self, batch: list[str]) -> None:
        pool, request_id = self._pool, self._id()
        waiting = self._replies[request_id] = _Waiting(batch)
        timeout_s = pool.venue.limits.reply_timeout_s
        try:
            await self._send_all(pool.venue.subscribe(batch, request_id))
            error = ""
            if timeout_s:
                async with asyncio.timeout(timeout_s):
                    error = await waiting.answered
        except TimeoutError:
            self.break_off(f"no answer to a subscription within {timeout_s:g} s")
            return
        finally:
            self._replies.pop(request_id, None)
        if error and len(batch) > 1:
            # One bad symbol never breaks a batch: each is tried alone.
            log.warning("%s: a batch of %d was refused (%s); trying each alone", pool.name, len(batch), error)
            for native in batch:
                if native in self.natives:
                    await self._subscribe([native])
                    await asyncio.sleep(pool.venue.limits.request_interval_s)
            return
        for native in batch:
            if native not in pool.pipeline.workers:
                continue
            if self.shadow is not None:
                continue  # the books are the old connection's until this one takes over
            worker = pool.book_of(native)
            if refusal := error or waiting.errors.get(native, ""):
                pool.counts.refused_subscriptions += 1
                if worker is None:
                    log.warning("%s: the venue refused the subscription of %s: %s", pool.name, native, refusal)
                else:
                    worker.refused(f"the venue refused the subscription: {refusal}")
                asyncio.get_running_loop().call_later(REFUSED_RETRY_S, self._again, native)
            elif worker is not None:
                worker.on_subscribed()

    def _again(self, native: str) -> None:
        if native in self.natives:
            self._to_subscribe.append(native)
            self._wake.set()

    async def _watch(self, transport: picows.WSTransport, listener: _Listener) -> None:
        """Send the venue's own heartbeat; replace a connection that is silent as a whole."""
        pool = self._pool
        while True:
            await asyncio.sleep(min(pool.venue.limits.heartbeat_s, pool.silence_s / 4))
            if (beat := pool.venue.heartbeat()) is not None:
                transport.send(picows.WSMsgType.TEXT, beat)
            silent_s = time.monotonic() - listener.last_frame_s
            if self.natives and silent_s > pool.silence_s:
                self.break_off(f"silent for {silent_s:.0f} s")

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id


def _take(queue: deque[str], most: int) -> list[str]:
    return [queue.popleft() for _ in range(min(most, len(queue)))]
