"""Binance's three markets from the venue's side: paths, exchange info, the combined stream. Knows nothing of collectors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

QUEUE_FRAMES = 50_000
"""Frames that wait for one slow client before it is disconnected."""
CLOSE_S = 1.0
"""Patience with a client's answer to a closing frame."""
FUTURES_DEPTHS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
"""limit → request weight. Source: USD-M and COIN-M Futures, "Order Book"."""
SPOT_DEPTHS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
"""(up to this limit, request weight). Source: Spot, "Order book"."""


@dataclass(frozen=True, slots=True)
class Market:
    """What differs between the three markets."""

    adapter: str
    prefix: str
    depth_stream: str
    futures: bool
    inverse: bool
    streams_max: int
    """Streams that one connection may carry."""
    info_weight: int
    """Request weight of exchange info."""

    def depth_limit(self, text: str) -> tuple[int, int] | None:
        """(levels a side, request weight) for the ``limit`` of a depth request; None where the venue refuses it."""
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if self.futures:
            return (limit, FUTURES_DEPTHS[limit]) if limit in FUTURES_DEPTHS else None
        limit = min(limit, SPOT_DEPTHS[-1][0])
        return next(((limit, weight) for most, weight in SPOT_DEPTHS if 0 < limit <= most), None)


MARKETS = {
    "binance-spot": Market("binance-spot", "/api/v3", "depth@100ms", False, False, 1024, 20),
    "binance-usdm": Market("binance-usdm", "/fapi/v1", "depth@0ms", True, False, 200, 1),
    "binance-coinm": Market("binance-coinm", "/dapi/v1", "depth@0ms", True, True, 200, 1),
}


def instrument_entry(
    market: Market, native: str, base: str, quote: str, tick: str, lot: str, status: str = "TRADING"
) -> dict[str, Any]:
    """One entry of exchange info's ``symbols``, with the fields of the real one that describe an instrument."""
    filters: list[dict[str, str]] = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "9000000", "stepSize": lot},
    ]
    entry: dict[str, Any] = {"symbol": native, "baseAsset": base, "quoteAsset": quote, "filters": filters}
    if not market.futures:
        filters.append({"filterType": "NOTIONAL", "minNotional": "5.00000000"})
        return entry | {"status": status}
    entry |= {"pair": native.partition("_")[0], "contractType": "PERPETUAL", "deliveryDate": 4133404800000}
    if market.inverse:
        return entry | {"contractStatus": status, "contractSize": 100, "marginAsset": base}
    filters.append({"filterType": "MIN_NOTIONAL", "notional": "5"})
    return entry | {"status": status, "marginAsset": quote}


class Client:
    """One websocket: its subscriptions, and frames on their way to it. A slow client is cut off, never waited for."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport | None) -> None:
        self.socket = socket
        self._transport = transport
        self.streams: set[str] = set()
        self.queue: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.overflowed = False

    def put(self, frame: bytes) -> None:
        """Queue a text frame."""
        if self.overflowed:
            return
        if len(self.queue) >= QUEUE_FRAMES:
            # No closing frame: whoever does not read would not read it either, and waiting for that is what blocks.
            self.overflowed = True
            self.abort()
            return
        self.queue.append(frame)
        self.wake.set()

    def abort(self) -> None:
        """Drop the connection now, with what waits for it."""
        self.queue.clear()
        if self._transport is not None:
            self._transport.abort()

    async def send_all(self) -> None:
        """Write what waits, until cancelled or disconnected."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.wake.wait()
                self.wake.clear()
                while self.queue:
                    await self.socket.send_frame(self.queue.popleft(), WSMsgType.TEXT)
        self.abort()


class StreamServer:
    """The combined stream: accepts sockets at ``/stream``, answers subscriptions, sends frames to subscribers."""

    def __init__(self, streams_max: int, on_change: Callable[[], None] = lambda: None) -> None:
        self.clients: set[Client] = set()
        self.overflows = 0
        """Clients that were disconnected because they did not read."""
        self._streams_max = streams_max
        self._on_change = on_change

    def routes(self) -> list[web.RouteDef]:
        """Where it listens; USD-M's public route too."""
        return [web.get("/stream", self._serve), web.get("/public/stream", self._serve)]

    def subscribers(self, stream: str) -> list[Client]:
        """Clients that want this stream."""
        return [client for client in self.clients if stream in client.streams]

    def send(self, stream: str, frame: bytes) -> int:
        """Queue a frame for its subscribers; gives how many there are."""
        count = 0
        for client in self.clients:
            if stream in client.streams:
                client.put(frame)
                count += 1
        return count

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame for every client, whatever it subscribed."""
        for client in list(self.clients):
            client.put(frame)

    async def cut(self) -> None:
        """Close every socket at once, as a venue's restart does; returns when all are closed."""
        clients = list(self.clients)
        if clients:
            closing = [asyncio.create_task(client.socket.close(code=1012)) for client in clients]
            _, open_still = await asyncio.wait(closing, timeout=CLOSE_S)
            for client in clients:
                client.abort()
            for task in open_still:
                task.cancel()
            await asyncio.gather(*closing, return_exceptions=True)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 20, timeout=CLOSE_S)
        await socket.prepare(request)
        client = Client(socket, request.transport)
        self.clients.add(client)
        sender = asyncio.create_task(client.send_all())
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    client.put(self._answer(client, message.data))
        finally:
            self.clients.discard(client)
            self.overflows += client.overflowed
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sender
            self._on_change()
        return socket

    def _answer(self, client: Client, text: str) -> bytes:
        try:
            message = json.loads(text)
            method, params, number = message["method"], message.get("params", []), message["id"]
        except (ValueError, KeyError, TypeError):
            return b'{"error":{"code":2,"msg":"Invalid request: request must be valid JSON"}}'
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return _error(number, 2, "Invalid request: params must be an array of strings")
        result: list[str] | None = None
        match method:
            case "SUBSCRIBE":
                # Any name is taken, as Binance does: for one that nothing is sent on, nothing comes.
                wanted = client.streams | set(params)
                if len(wanted) > self._streams_max:
                    return _error(number, 2, f"Invalid request: more than {self._streams_max} streams on a connection")
                client.streams = wanted
            case "UNSUBSCRIBE":
                client.streams.difference_update(params)
            case "LIST_SUBSCRIPTIONS":
                result = sorted(client.streams)
            case _:
                return _error(number, 2, f"Invalid request: unknown method {method}")
        self._on_change()
        return json.dumps({"result": result, "id": number}).encode()


def _error(number: Any, code: int, text: str) -> bytes:
    return json.dumps({"error": {"code": code, "msg": text}, "id": number}).encode()
