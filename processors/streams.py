"""Server-sent events: the newest state of one thing for each client, never a queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

CLIENTS_MAX = 256
PAUSE_S = 0.1
"""Between two events of one client; what changed meanwhile is one event."""
ALIVE_S = 10.0
"""A comment this often shows a quiet client that the line stands."""


class Streams:
    """Wakes the clients of what has changed. ``changed`` may be called from the hot path."""

    def __init__(self) -> None:
        self.wanted: dict[str, set[asyncio.Event]] = {}
        """Waiting clients by what they watch: a book's key, ``cross SYMBOL``, or ``*cross`` for all."""
        self.clients = 0
        self._closed = asyncio.Event()

    def changed(self, name: str) -> None:
        """Something that clients may watch is new."""
        for event in self.wanted.get(name, ()):
            event.set()

    def close(self) -> None:
        """End every client's stream."""
        self._closed.set()
        for events in self.wanted.values():
            for event in events:
                event.set()

    async def serve(self, request: Any, names: list[str], shown: Callable[[], Any]) -> web.StreamResponse:
        """Send ``shown()`` as an event now and after each change, until the client leaves.

        ``shown`` gives what can be JSON, or None when there is nothing to show: then the stream ends.
        """
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        event = asyncio.Event()
        event.set()
        for name in names:
            self.wanted.setdefault(name, set()).add(event)
        self.clients += 1
        last = ""
        try:
            while not self._closed.is_set():
                try:
                    async with asyncio.timeout(ALIVE_S):
                        await event.wait()
                except TimeoutError:
                    await response.write(b": alive\n\n")
                    continue
                event.clear()
                value = shown()
                if value is None:
                    break
                text = json.dumps(value, separators=(",", ":"))
                if text != last:
                    # Waits while the client's socket is full: the next event is as new as it is then.
                    await response.write(f"data: {text}\n\n".encode())
                    last = text
                await asyncio.sleep(PAUSE_S)
        except ConnectionError:
            pass
        finally:
            self.clients -= 1
            for name in names:
                self.wanted[name].discard(event)
                if not self.wanted[name]:
                    del self.wanted[name]
        return response
