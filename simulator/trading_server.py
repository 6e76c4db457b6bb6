"""What all trading venues on localhost share: the sockets, the calls' order of events, and the faults between them.

A venue is a subclass that speaks its own words: ``routes``, ``answer`` for what a signed call does, ``say`` for the words
of a refusal, ``event`` for a private event.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

from aiohttp import web

from simulator.matching import Side
from simulator.trading_core import Execution, Listing, TradingCore, TradingError, VenueOrder
from simulator.trading_faults import Call, TradingFaults

SEND_QUEUE_MAX = 10_000
CALLS_MAX = 10_000


class TradingVenue(ABC):
    """The venue on localhost. ``keys``: api key → secret; the key is also the account's name in ``core``."""

    def __init__(self, listings: list[Listing], keys: Mapping[str, str], faults: TradingFaults | None = None) -> None:
        self.core = TradingCore({x.native: x for x in listings})
        self.core.listen = self._heard
        self.core.on_book = self.book_changed
        self.faults = faults or TradingFaults()
        self.keys = dict(keys)
        self.rest_url = ""
        self.ws_url = ""
        self.calls: list[tuple[str, str]] = []
        """(method, path) of the signed calls, newest last; at most CALLS_MAX."""
        self.private: dict[asyncio.Queue[bytes], str] = {}
        """The private streams' queues → whose they are."""
        self.public: dict[asyncio.Queue[bytes], set[str]] = {}
        """The public streams' queues → what they subscribed."""
        self._before_trade: dict[str, dict[str, list[Decimal]]] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""

    @abstractmethod
    async def answer(self, request: web.Request, call: Call, key: str, raw: str) -> Any:
        """Do what a signed call asks; raises TradingError."""

    @abstractmethod
    def authenticated(self, request: web.Request, raw: str) -> str:
        """The account of a signed call; raises TradingError as the venue does."""

    @abstractmethod
    def kind_of(self, request: web.Request) -> Call:
        """What a signed call is."""

    @abstractmethod
    def say(self, what: str) -> web.Response:
        """The venue's words for: throttle, ban, fail, unknown (done, but nobody says so)."""

    @abstractmethod
    def refusal(self, error: Exception) -> web.Response:
        """The venue's words for a TradingError, or for a call that makes no sense."""

    @abstractmethod
    def event(self, order: VenueOrder, done: Execution | None) -> bytes:
        """A private event's frame."""

    @abstractmethod
    def book_changed(self, native: str, side: Side, price: Decimal) -> None:
        """A level of the book changed."""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        app = web.Application()
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        port = self._runner.addresses[0][1]
        self.rest_url, self.ws_url = f"http://{host}:{port}", f"ws://{host}:{port}"

    async def stop(self) -> None:
        """Close every socket and stop listening."""
        await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()

    async def cut(self) -> None:
        """Close every socket."""
        for socket in list(self._sockets):
            await socket.close()

    async def signed(self, request: web.Request) -> web.Response:
        """A private call from its arrival to its answer, with the faults between."""
        raw = await request.text()
        self.calls.append((request.method, request.path))
        del self.calls[:-CALLS_MAX]
        call = self.kind_of(request)
        if what := self.faults.before(call):
            return self.say(what)
        try:
            key = self.authenticated(request, raw)
            await asyncio.sleep(self.faults.delay_s(call))
            body = await self.answer(request, call, key, raw)
        except TradingError as error:
            return self.refusal(error)
        except (KeyError, ValueError, ArithmeticError, IndexError, TypeError) as error:
            return self.refusal(ValueError(f"a parameter was not sent or is malformed: {error}"))
        what = self.faults.after(call)
        if what == "drop" and request.transport is not None:
            # Done, but the client never hears of it.
            request.transport.close()
        return self.say("unknown") if what else self.counted(body)

    def counted(self, body: Any) -> web.Response:
        """The answer, once it has been counted against the venue's limits."""
        return web.json_response(body)

    def cancelled(self, key: str, native: str, order: VenueOrder | None) -> VenueOrder:
        """Cancel; where a fault says so, somebody trades with the order a moment before. Raises TradingError."""
        rests = order is not None and order.status in ("NEW", "PARTIALLY_FILLED")
        if order is not None and rests and self.faults.take("fill_before_cancel"):
            self.core.hit(order, "stranger", now_ms())
        return self.core.cancel(key, native, order, now_ms())

    def held(self, key: str) -> dict[str, list[Decimal]]:
        """asset → [free, locked] as a balance query shows it."""
        if key in self._before_trade and self.faults.take("lag_balance"):
            return self._before_trade[key]
        return self.core.balances.get(key, {})

    def seen(self, order: VenueOrder | None) -> VenueOrder | None:
        """An order as a query shows it; None where the venue cannot find it."""
        if order is None or self.faults.take("not_found"):
            return None
        if self.faults.take("stale"):
            return VenueOrder(
                order.order_id, order.client_id, order.owner, order.native, order.side, order.price, order.size, order.tif,
                "NEW", order.time_ms, update_ms=order.time_ms,
            )  # fmt: skip
        return order

    def _heard(self, order: VenueOrder, done: Execution | None) -> None:
        """An order changed: its owner's streams are told, as far as the faults let them be."""
        if done is None:
            self._before_trade[order.owner] = {a: list(v) for a, v in self.core.balances.get(order.owner, {}).items()}
        for frame in self.faults.private(self.event(order, done), done is not None):
            for queue, key in self.private.items():
                if key == order.owner and not queue.full():
                    queue.put_nowait(frame)

    @contextlib.asynccontextmanager
    async def socket(self, request: web.Request) -> AsyncIterator[tuple[web.WebSocketResponse, asyncio.Queue[bytes]]]:
        """A WebSocket, and the bounded queue of what is sent to it."""
        socket, queue = web.WebSocketResponse(heartbeat=20), asyncio.Queue[bytes](SEND_QUEUE_MAX)
        await socket.prepare(request)
        self._sockets.add(socket)
        sender = asyncio.create_task(_pump(queue, socket))
        try:
            yield socket, queue
        finally:
            sender.cancel()
            self.private.pop(queue, None)
            self.public.pop(queue, None)
            self._sockets.discard(socket)


async def _pump(queue: asyncio.Queue[bytes], socket: web.WebSocketResponse) -> None:
    while True:
        frame = await queue.get()
        await socket.send_str(frame.decode())


def now_ms() -> int:
    """The venue's clock."""
    return time.time_ns() // 1_000_000
