"""What every simulated venue is made of: one web server with REST, the stream, and its truth."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from simulator.binance_wire import MARKETS, Market, StreamServer
from simulator.truth import TooOld, TruthBook, TruthError

WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"


class SimulatedVenue(ABC):
    """A venue on localhost that speaks Binance's protocol. ``await start()``, use the addresses, ``await stop()``."""

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.market: Market = MARKETS[adapter]
        self.rest_url = ""
        self.ws_url = ""
        self.stream = StreamServer(self.market.streams_max, self.on_clients)
        self.frames_sent = 0
        """Market data frames sent, each counted once for each client that got it."""
        self.rest_calls = 0
        self.dropped = 0
        """Depth frames lost on purpose."""
        self._weights = (0, 0)
        """(minute, request weight used in it)."""
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. Raises OSError when it is taken."""
        app = web.Application()
        prefix = self.market.prefix
        app.add_routes(self.stream.routes())
        app.add_routes(
            [
                web.get(f"{prefix}/exchangeInfo", self._exchange_info),
                web.get(f"{prefix}/depth", self._depth),
                web.get("/truth", self._truths),
                web.get("/truth/{native}", self._truth),
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

    @abstractmethod
    def entries(self) -> list[dict[str, Any]]:
        """Exchange info's ``symbols``."""

    @abstractmethod
    async def snapshot(self, native: str, limit: int) -> web.Response:
        """The answer to a depth request for a known instrument."""

    def truth(self, native: str) -> dict[str, Any]:
        """The venue's own book now, as ``/truth/NATIVE`` gives it; raises KeyError."""
        seq, bids, asks = self.books[native].at()
        return {"seq": seq, "bids": bids, "asks": asks}

    def more_routes(self) -> list[web.RouteDef]:
        """Routes of one kind of venue only."""
        return []

    def on_clients(self) -> None:  # noqa: B027 - most venues need not know
        """Subscriptions changed."""

    def intercept(self) -> web.Response | None:
        """An answer that a REST call gets instead of its own (faults)."""
        return None

    def stats(self) -> dict[str, Any]:
        """Numbers for ``/stats``."""
        return {
            "adapter": self.adapter, "frames_sent": self.frames_sent, "dropped": self.dropped,
            "clients": len(self.stream.clients), "overflows": self.stream.overflows, "rest_calls": self.rest_calls,
        }  # fmt: skip

    async def _exchange_info(self, _: web.Request) -> web.Response:
        used = self._weigh(self.market.info_weight)
        info: dict[str, Any] = {"timezone": "UTC", "serverTime": time.time_ns() // 1_000_000, "rateLimits": []}
        answer = self.intercept() or web.json_response(info | {"symbols": self.entries()})
        answer.headers[WEIGHT_HEADER] = used
        return answer

    def _weigh(self, weight: int) -> str:
        """Count a call; gives the weight used in this minute, as the header says it. Nothing is refused for it."""
        self.rest_calls += 1
        minute = time.time_ns() // 60_000_000_000
        self._weights = (minute, weight + (self._weights[1] if self._weights[0] == minute else 0))
        return str(self._weights[1])

    async def _depth(self, request: web.Request) -> web.Response:
        native = request.query.get("symbol", "")
        limit = self.market.depth_limit(request.query.get("limit", "500" if self.market.futures else "100"))
        used = self._weigh(limit[1] if limit else 1)
        if (answer := self.intercept()) is None:
            if native not in self.books:
                answer = web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
            elif limit is None:
                answer = web.json_response({"code": -4021, "msg": "Depth limit is not valid."}, status=400)
            else:
                answer = await self.snapshot(native, limit[0])
        answer.headers[WEIGHT_HEADER] = used
        return answer

    async def _truths(self, _: web.Request) -> web.Response:
        return web.json_response({"symbols": sorted(self.books)})

    async def _truth(self, request: web.Request) -> web.Response:
        book, seq = self.books.get(request.match_info["native"]), request.query.get("seq")
        if book is None:
            return web.json_response({"error": "no such instrument; /truth lists them"}, status=404)
        try:
            found, bids, asks = book.at(None if seq is None else int(seq))
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
