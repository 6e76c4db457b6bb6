"""Renews a connection before the venue cuts it: the new one is subscribed first, then takes over without a hole.

While both are open, what the new one receives is only kept. Once everything on it is confirmed, and a moment later so that
the old one has told what came before that, the old one is closed and what was kept is handled: what the books hold
already is skipped by its sequence, a snapshot in the stream simply starts a new epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from collectors.errors import MalformedFrame
from collectors.events import Answer, Reply
from collectors.venue import Parser

if TYPE_CHECKING:
    from collectors.stream import Connection

log = logging.getLogger(__name__)

OVERLAP_S = 2.0
"""Both are open this long after the last confirmation."""
PATIENCE_S = 120.0
"""For the new connection to be open and everything on it confirmed."""
HELD_MAX = 50_000
"""Frames kept of the new connection; one more, and the renewal is given up and tried again later."""

Receive = Callable[[bytes, int], None]


class Shadow:
    """Stands before a new connection's receiver until it takes over."""

    def __init__(self, receive: Receive, peek: Parser, on_reply: Callable[[Reply], None], send: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._peek = peek
        self._on_reply = on_reply
        self._send = send
        self._held: deque[tuple[bytes, int]] | None = deque()
        self.overflown = False

    def __call__(self, frame: bytes, ts_ns: int) -> None:
        """Keep the frame, and handle what cannot wait: confirmations and the venue's pings."""
        if self._held is None:
            self._receive(frame, ts_ns)
            return
        if len(self._held) >= HELD_MAX:
            self.overflown = True
            return
        try:
            urgent = [event for event in self._peek(frame) if isinstance(event, Reply | Answer)]
        except MalformedFrame:
            urgent = []
        for event in urgent:
            if isinstance(event, Reply):
                self._on_reply(event)
            else:
                self._send(event.frame)
        if not urgent:
            self._held.append((frame, ts_ns))

    def take_over(self) -> int:
        """Handle what was kept, and from now on everything at once; gives how many frames were kept."""
        held, self._held = self._held or deque(), None
        for frame, ts_ns in held:
            self._receive(frame, ts_ns)
        return len(held)


async def renew(old: Connection, new: Connection) -> bool:
    """Move everything from ``old`` to ``new``, which has been started with the same instruments.

    Gives whether it worked; when not, ``new`` is to be thrown away and ``old`` goes on.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            await new.confirmed.wait()
    except TimeoutError:
        log.warning("%s: connection %d could not be renewed: no confirmation", old.name, old.number)
        return False
    await asyncio.sleep(OVERLAP_S)
    shadow = new.shadow
    if shadow is None or shadow.overflown or not new.is_open:
        log.warning("%s: connection %d could not be renewed", old.name, old.number)
        return False
    # No await from here on: no frame of the old one comes between its end and the new one's beginning.
    old.abandon()
    kept = shadow.take_over()
    new.shadow = None
    log.info("%s: connection %d was renewed; %d frames overlapped", old.name, old.number, kept)
    return True
