"""All websocket connections of one venue in one process: instruments are put where there is room, connections renewed.

Each connection holds up to Limits.instruments_per_connection instruments; what is unchanged is never subscribed again.
Where a venue sends some channels on another address than the books, a second pool holds their connections.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.renewal import renew
from collectors.rest import RestClient
from collectors.stream import Connection
from collectors.venue import Venue

if TYPE_CHECKING:
    from collectors.worker import BookWorker

RENEWAL_LOOK_S = 30.0


class ConnectionPool:
    """All connections of one venue in this process."""

    def __init__(
        self,
        name: str,
        venue: Venue,
        url: str,
        pipeline: Pipeline,
        counts: Counts,
        *,
        silence_s: float,
        rest: RestClient | None = None,
        beside: Venue | None = None,
    ) -> None:
        self._rest = rest
        self._fixed_url = bool(url)
        self.name = name
        self.venue = venue
        self.url = (url or venue.ws_url) + venue.ws_path()
        self.pipeline = pipeline
        self.counts = counts
        self.silence_s = math.inf if venue.limits.quiet else silence_s
        self.beside = None if beside is None else SidePool(self, beside, url, silence_s=silence_s, rest=rest)
        self.connections: list[Connection] = []
        self.connected = asyncio.Event()
        """Set once any connection was open."""
        self._by_native: dict[str, Connection] = {}
        self._turn = asyncio.Lock()
        self._turns = float(venue.limits.connect_burst)
        self._counted_s = time.monotonic()

    def open_count(self) -> int:
        """Connections that are open now."""
        beside = 0 if self.beside is None else self.beside.open_count()
        return sum(connection.is_open for connection in self.connections) + beside

    def brings_books(self) -> bool:
        """Whether a connection is open that books come by; one beside them does not count."""
        return any(connection.is_open for connection in self.connections)

    def book_of(self, native: str) -> BookWorker | None:
        """The worker whose book these connections bring."""
        return self.pipeline.workers.get(native)

    def groups(self) -> Iterable[tuple[object, Iterable[str]]]:
        """The instruments of each connection, with something that tells the connections apart."""
        return ((_name(connection), connection.natives) for connection in self.connections)

    def open_anew(self, names: Iterable[object], reason: str) -> None:
        """Close these connections, by their names from groups(); each opens again by itself."""
        wanted = set(names)
        for connection in self.connections:
            if _name(connection) in wanted:
                connection.break_off(reason)

    def subscribe(self, natives: Iterable[str]) -> None:
        """Put these instruments on connections with room, opening new ones as needed."""
        for native in natives:
            if native in self._by_native:
                continue
            connection = self._with_room()
            self._by_native[native] = connection
            connection.add(native)
            if self.beside is not None:
                self.beside.subscribe([native])

    def renew(self, native: str) -> None:
        """Subscribe an instrument anew, for its snapshot."""
        if (connection := self._by_native.get(native)) is not None:
            connection.renew(native)

    async def endpoint(self) -> str:
        """Where to connect. Raises CollectorError when the venue has to be asked and does not say."""
        request = self.venue.endpoint_request()
        if request is None or self._rest is None:
            return self.url
        url = self.venue.parse_endpoint(await self._rest.call(request))
        return self.url + "?" + url.partition("?")[2] if self._fixed_url else url

    def unsubscribe(self, native: str) -> None:
        """Take an instrument off; a connection without any is closed."""
        if self.beside is not None:
            self.beside.unsubscribe(native)
        connection = self._by_native.pop(native, None)
        if connection is None:
            return
        connection.remove(native)
        if not connection.natives:
            self.connections.remove(connection)
            if connection.task is not None:
                connection.task.cancel()

    async def connect_turn(self) -> None:
        """Wait until the venue's limits allow one more new connection: a burst, then one an interval."""
        limits = self.venue.limits
        async with self._turn:
            self._count_turns()
            if self._turns < 1:
                await asyncio.sleep((1 - self._turns) * limits.connect_interval_s)
                self._count_turns()
            self._turns -= 1

    def _count_turns(self) -> None:
        limits, now_s = self.venue.limits, time.monotonic()
        earned = (now_s - self._counted_s) / limits.connect_interval_s if limits.connect_interval_s else limits.connect_burst
        self._turns = min(float(limits.connect_burst), self._turns + earned)
        self._counted_s = now_s

    async def close(self) -> None:
        """Close every connection."""
        if self.beside is not None:
            await self.beside.close()
        tasks = [c.task for c in self.connections if c.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.connections.clear()
        self._by_native.clear()

    async def renew_old(self) -> None:
        """Replace each connection before the venue's limit of age, one at a time; runs until cancelled."""
        if self.beside is not None:
            await asyncio.gather(self._renew_old(), self.beside.renew_old())
        else:
            await self._renew_old()

    async def _renew_old(self) -> None:
        age_s = self.venue.limits.max_age_s
        while age_s:
            await asyncio.sleep(min(RENEWAL_LOOK_S, age_s / 4))
            for old in [c for c in self.connections if c.is_open and time.monotonic() - c.opened_s > age_s * 0.9]:
                await self.renew_connection(old)

    async def renew_connection(self, old: Connection) -> bool:
        """Open a second connection for the same instruments and let it take over; gives whether it did."""
        new = Connection(self, old.number, shadows=True)
        for native in sorted(old.natives):
            new.add(native)
        new.task = asyncio.create_task(new.run())
        if await renew(old, new) and old in self.connections:
            self.connections[self.connections.index(old)] = new
            # What came and went meanwhile: old.natives is empty by now, the map tells what is wanted.
            for native in list(new.natives):
                if self._by_native.get(native) is old:
                    self._by_native[native] = new
                else:
                    new.remove(native)
            for native in [n for n, c in self._by_native.items() if c is old]:
                self._by_native[native] = new
                new.add(native)
            self.counts.renewals += 1
            return True
        new.abandon()
        return False

    def _with_room(self) -> Connection:
        most = self.venue.limits.instruments_per_connection
        for connection in self.connections:
            if len(connection.natives) < most:
                return connection
        connection = Connection(self, len(self.connections))
        connection.task = asyncio.create_task(connection.run())
        self.connections.append(connection)
        return connection


class SidePool(ConnectionPool):
    """The connections of what travels beside the books: the books do not hear of them, the venue's limit is the same."""

    def __init__(
        self, main: ConnectionPool, venue: Venue, url: str, *, silence_s: float, rest: RestClient | None
    ) -> None:
        super().__init__(
            f"{main.name} beside the books", venue, url, main.pipeline, main.counts, silence_s=silence_s, rest=rest
        )
        self._main = main

    def book_of(self, native: str) -> BookWorker | None:
        return None

    async def connect_turn(self) -> None:
        await self._main.connect_turn()


def _name(connection: Connection) -> tuple[int, float]:
    return connection.number, connection.opened_s
