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
PARAMS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Market:
    """What differs between the three markets."""

    adapter: str
    prefix: str
    depth_stream: str
    futures: bool
    inverse: bool


MARKETS = {
    "binance-spot": Market("binance-spot", "/api/v3", "depth@100ms", False, False),
    "binance-usdm": Market("binance-usdm", "/fapi/v1", "depth@0ms", True, False),
    "binance-coinm": Market("binance-coinm", "/dapi/v1", "depth@0ms", True, True),
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

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self.streams: set[str] = set()
        self.queue: deque[bytes] = deque()
        self.wake = asyncio.Event()
        self.overflowed = False

    def put(self, frame: bytes) -> None:
        """Queue a text frame."""
        if len(self.queue) >= QUEUE_FRAMES:
            self.overflowed = True
        else:
            self.queue.append(frame)
        self.wake.set()

    async def send_all(self) -> None:
        """Write what waits, until cancelled or overflowed."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.queue:
                await self.socket.send_frame(self.queue.popleft(), WSMsgType.TEXT)
            if self.overflowed:
                await self.socket.close(code=1008, message=b"too slow")
                return


class StreamServer:
    """The combined stream: accepts sockets at ``/stream``, answers subscriptions, sends frames to subscribers."""

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, known: Callable[[str], bool] | None = None
    ) -> None:
        self.clients: set[Client] = set()
        self.overflows = 0
        self._on_change = on_change
        self._known = known

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

    async def cut(self) -> None:
        """Close every socket at once, as a venue's restart does."""
        await asyncio.gather(*(client.socket.close(code=1012) for client in list(self.clients)), return_exceptions=True)

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 20)
        await socket.prepare(request)
        client = Client(socket)
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
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE") or not isinstance(params, list):
            return _error(number, 2, f"Invalid request: unknown method {method}")
        if len(params) > PARAMS_MAX:
            return _error(number, 2, f"Invalid request: more than {PARAMS_MAX} params")
        if method == "SUBSCRIBE":
            unknown = [p for p in params if self._known is not None and not self._known(p)]
            if unknown:
                return _error(number, 2, f"Invalid request: unknown stream {unknown[0]}")
            client.streams.update(params)
        else:
            client.streams.difference_update(params)
        self._on_change()
        return json.dumps({"result": None, "id": number}).encode()


def _error(number: Any, code: int, text: str) -> bytes:
    return json.dumps({"error": {"code": code, "msg": text}, "id": number}).encode()
