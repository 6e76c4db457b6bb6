"""What every simulated venue is made of: one web server with REST, the stream, and its truth."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from simulator.faults import Faults
from simulator.instrument import SyntheticInstrument
from simulator.stream_server import Client, StreamServer
from simulator.truth import TooOld, TruthBook, TruthError

if TYPE_CHECKING:
    from simulator.wire import Change, Wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SimulatedVenue(ABC):
    """A venue on localhost that speaks ``wire``. ``await start()``, use the addresses, ``await stop()``."""

    wire: Wire
    stream: StreamServer

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        """Whose protocol it speaks (see protocols.PROTOCOLS)."""
        self.rest_url = ""
        self.ws_url = ""
        self.frames_sent = 0
        """Market data frames sent, each counted once for each client that got it."""
        self.rest_calls = 0
        self.dropped = 0
        """Depth frames lost on purpose."""
        self.faults = Faults()
        self.events = 0
        """Book events generated."""
        self.next_id = 1_000_000
        """The last id given to anything, where a venue's instruments share them."""
        self._runner: web.AppRunner | None = None

    def speak(self, wire: Wire) -> None:
        """Take the protocol; once, before ``start``."""
        self.wire = wire
        self.stream = wire.stream = StreamServer(wire, self.on_clients)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises OSError when it is taken."""
        app = web.Application()
        app.add_routes([web.get(path, self.guarded(handler)) for path, handler in self.wire.routes()])
        # The settings may name the address alone: then the websocket is asked for at the root.
        app.add_routes([web.get(path, self.stream.serve) for path in dict.fromkeys((*self.wire.ws_paths, "/"))])
        app.add_routes(
            [
                web.get("/truth", self._truths),
                web.get("/truth/{native:.+}", self._truth),
                web.get("/stats", self._stats),
                *self.more_routes(),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.rest_url, self.ws_url = f"http://{host}:{port}", f"ws://{host}:{port}"

    async def stop(self) -> None:
        """Close every socket and stop listening."""
        await self.stream.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    @abstractmethod
    def books(self) -> Mapping[str, TruthBook]:
        """The exact books by the venue's names."""

    @property
    def instruments(self) -> Mapping[str, SyntheticInstrument]:
        """What is generated and listed now, by the venue's names."""
        return {}

    def now_us(self) -> int:
        """The venue's clock, as wrong as it was told to be."""
        return time.time_ns() // 1000 + self.faults.skew_us

    def book_frame(self, client: Client, stream: str, frame: bytes, change: Change) -> None:
        """Send a book's frame."""
        client.put(frame)
        self.frames_sent += 1

    def truth(self, native: str) -> dict[str, Any]:
        """The venue's own book now, as ``/truth/NATIVE`` gives it; raises KeyError."""
        seq, bids, asks = self.books[native].at()
        return {"seq": seq, "bids": bids, "asks": asks}

    def more_routes(self) -> list[web.RouteDef]:
        """Routes of one kind of venue only."""
        return []

    def on_clients(self) -> None:  # noqa: B027 - most venues need not know
        """Subscriptions changed."""

    def guarded(self, handler: Handler) -> Handler:
        """The handler of a REST call, behind what every call goes through."""

        async def call(request: web.Request) -> web.StreamResponse:
            self.rest_calls += 1
            return await handler(request)

        return call

    def natives_by_symbol(self) -> Mapping[str, str]:
        """The native name of each unified symbol, where the venue knows it."""
        return {}

    def stats(self) -> dict[str, Any]:
        """Numbers for ``/stats``."""
        return {
            "adapter": self.adapter, "frames_sent": self.frames_sent, "dropped": self.dropped,
            "clients": len(self.stream.clients), "overflows": self.stream.overflows, "rest_calls": self.rest_calls,
        }  # fmt: skip

    async def _truths(self, _: web.Request) -> web.Response:
        unified = dict(self.natives_by_symbol())
        return web.json_response({"symbols": sorted(self.books), "unified": unified, "by_time": self.wire.by_time})

    async def _truth(self, request: web.Request) -> web.Response:
        book, query = self.books.get(request.match_info["native"]), request.query
        if book is None:
            return web.json_response({"error": "no such instrument; /truth lists them"}, status=404)
        try:
            seq = int(query["seq"]) if "seq" in query else None
            if "ts_us" in query:
                seq = book.seq_at_time(int(query["ts_us"]))
            found, bids, asks = book.at(seq)
        except TooOld as error:
            return web.json_response({"error": str(error)}, status=404)
        except (TruthError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=409)
        return web.json_response({"seq": found, "bids": bids, "asks": asks})

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats())


async def serve_forever(venue: SimulatedVenue, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; prints one line with the addresses when ready."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await venue.start(host, port)
    print(f"listening rest={venue.rest_url} ws={venue.ws_url} truth={venue.rest_url}/truth", flush=True)
    await stop.wait()
    with contextlib.suppress(Exception):
        await venue.stop()
