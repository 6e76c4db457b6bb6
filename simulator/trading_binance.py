"""A spot venue to trade on, in Binance's own protocol: signed REST, the WebSocket API's user stream, public depth.

An unmodified client of Binance trades here with only its addresses changed. Sources: Binance Spot API documentation,
"Trading endpoints", "Account endpoints", "User Data Stream", "WebSocket API". Faults by ``faults`` (trading_faults).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import WSMsgType, web

from simulator.matching import Side
from simulator.trading_core import Execution, Listing, TradingCore, TradingError, VenueOrder
from simulator.trading_faults import TradingFaults
from simulator.truth import plain

SEND_QUEUE_MAX = 10_000
STREAMS = "@depth@100ms"


class TradingBinance:
    """The venue on localhost. ``keys``: api key → secret; the key is also the account's name in ``core``."""

    def __init__(self, listings: list[Listing], keys: Mapping[str, str], faults: TradingFaults | None = None) -> None:
        self.core = TradingCore({x.native: x for x in listings})
        self.core.listen = self._heard
        self.core.on_book = self._book_changed
        self.faults = faults or TradingFaults()
        self.keys = dict(keys)
        self.rest_url = ""
        self.ws_url = ""
        self.weight_limit = 6000
        self.calls: list[tuple[str, str]] = []
        """(method, path) of the signed calls, newest last; at most 10,000."""
        self._weights = (0, 0)
        self._seq: dict[str, int] = dict.fromkeys(self.core.listings, 1)
        self._private: dict[asyncio.Queue[bytes], str] = {}
        self._public: dict[asyncio.Queue[bytes], set[str]] = {}
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        app = web.Application()
        v3 = "/api/v3"
        app.add_routes([
            web.get(f"{v3}/ping", self._empty), web.get(f"{v3}/time", self._time), web.get(f"{v3}/exchangeInfo", self._info),
            web.get(f"{v3}/depth", self._depth), web.get(f"{v3}/account", self._signed), web.post(f"{v3}/order", self._signed),
            web.get(f"{v3}/order", self._signed), web.delete(f"{v3}/order", self._signed),
            web.get(f"{v3}/openOrders", self._signed), web.delete(f"{v3}/openOrders", self._signed),
            web.get("/sapi/v1/capital/config/getall", self._none), web.get("/sapi/v1/margin/allPairs", self._none),
            web.get("/sapi/v1/margin/isolated/allPairs", self._none),
            web.get(f"{v3}/myTrades", self._signed), web.get("/ws-api/v3", self._ws_api), web.get("/stream", self._stream),
        ])  # fmt: skip
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

    # REST.

    async def _empty(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _none(self, _: web.Request) -> web.Response:
        """Services around an account that this venue does not have."""
        return web.json_response([])

    async def _time(self, _: web.Request) -> web.Response:
        return web.json_response({"serverTime": _now_ms()})

    async def _info(self, _: web.Request) -> web.Response:
        symbols = [
            {
                "symbol": x.native, "status": "TRADING", "baseAsset": x.base, "quoteAsset": x.quote, "baseAssetPrecision": 8,
                "quoteAssetPrecision": 8, "quotePrecision": 8, "orderTypes": ["LIMIT", "LIMIT_MAKER"],
                "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"],
                "permissionSets": [["SPOT"]],
                "filters": [
                    {"filterType": "PRICE_FILTER", "minPrice": plain(x.tick), "maxPrice": "10000000", "tickSize": plain(x.tick)},
                    {"filterType": "LOT_SIZE", "minQty": plain(x.lot), "maxQty": "9000000", "stepSize": plain(x.lot)},
                    {"filterType": "NOTIONAL", "minNotional": plain(x.min_notional)},
                ],
            }
            for x in self.core.listings.values()
        ]  # fmt: skip
        limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.weight_limit}]
        return self._answer({"timezone": "UTC", "serverTime": _now_ms(), "rateLimits": limits, "symbols": symbols}, weight=20)

    async def _depth(self, request: web.Request) -> web.Response:
        native = request.query.get("symbol", "")
        try:
            bids, asks = self.core.engine(native).depth(int(request.query.get("limit", "100")))
        except (TradingError, ValueError) as error:
            return _refusal(error)
        x = self.core.listings[native]
        sides = ([[plain(p * x.tick), plain(s * x.lot)] for p, s in side] for side in (bids, asks))
        return self._answer({"lastUpdateId": self._seq[native], "bids": next(sides), "asks": next(sides)}, weight=5)

    async def _signed(self, request: web.Request) -> web.Response:
        raw = request.query_string or (await request.text())
        self.calls.append((request.method, request.path))
        del self.calls[:-10_000]
        if (refusal := self.faults.before(request.method, request.path)) is not None:
            status, body, headers = refusal
            return web.json_response(body, status=status, headers=headers)
        try:
            key, values = self._authenticated(request.headers.get("X-MBX-APIKEY", ""), raw)
            await asyncio.sleep(self.faults.delay_s(request.method, request.path))
            body = self._act(request.method, request.path.rsplit("/", 1)[1], key, values)
        except TradingError as error:
            return _refusal(error)
        except (KeyError, ValueError, ArithmeticError) as error:
            return _refusal(TradingError(-1102, f"Mandatory parameter was not sent or malformed: {error}"))
        if self.faults.loses_answer(request.method, request.path):
            # Accepted, but the client never hears of it.
            if request.transport is not None:
                request.transport.close()
            return web.Response(status=502)
        if (late := self.faults.after(request.method, request.path)) is not None:
            return web.json_response(late[1], status=late[0])
        return self._answer(body)

    def _authenticated(self, key: str, raw: str) -> tuple[str, dict[str, str]]:
        """(account, values); raises TradingError as the venue does."""
        if key not in self.keys:
            raise TradingError(-2015, "Invalid API-key, IP, or permissions for action.")
        payload, _, signature = raw.rpartition("&signature=")
        wanted = hmac.new(self.keys[key].encode(), payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, unquote(signature)):
            raise TradingError(-1022, "Signature for this request is not valid.")
        values = dict(parse_qsl(payload))
        age = _now_ms() - int(values["timestamp"])
        if age > int(values.get("recvWindow", "5000")) or age < -1000:
            raise TradingError(-1021, "Timestamp for this request is outside of the recvWindow.")
        return key, values

    def _act(self, method: str, what: str, key: str, v: Mapping[str, str]) -> Any:
        core, now = self.core, _now_ms()
        match method, what:
            case "GET", "account":
                held = core.balances.get(key, {})
                rows = [{"asset": a, "free": plain(f), "locked": plain(x)} for a, (f, x) in sorted(held.items())]
                return {"accountType": "SPOT", "canTrade": True, "updateTime": now, "balances": rows, "permissions": ["SPOT"]}
            case "POST", "order":
                tif = "POST_ONLY" if v["type"] == "LIMIT_MAKER" else v.get("timeInForce", "GTC")
                client_id = v.get("newClientOrderId") or f"auto{now}{len(core.orders)}"
                side: Side = "BUY" if v["side"] == "BUY" else "SELL"
                order, done = core.place(key, v["symbol"], side, Decimal(v["price"]), Decimal(v["quantity"]), tif, client_id, now)
                fills = [
                    {"price": plain(e.price), "qty": plain(e.size), "commission": plain(e.fee), "commissionAsset": e.fee_asset,
                     "tradeId": e.trade_id} for e in done
                ]  # fmt: skip
                return _row(order) | {"transactTime": now, "fills": fills}
            case "GET", "order":
                if self.faults.hides_orders():
                    raise TradingError(-2013, "Order does not exist.")
                if (found := self._find(key, v)) is None:
                    raise TradingError(-2013, "Order does not exist.")
                return _row(found)
            case "DELETE", "order":
                return _row(core.cancel(key, v["symbol"], self._find(key, v), now))
            case "GET", "openOrders":
                return [_row(o) for o in core.open_orders(key, v.get("symbol", ""))]
            case "DELETE", "openOrders":
                return [_row(core.cancel(key, o.native, o, now)) for o in core.open_orders(key, v["symbol"])]
            case "GET", "myTrades":
                found_trades = core.trades(key, v["symbol"], int(v.get("startTime", "0")))
                if "orderId" in v:
                    found_trades = [e for e in found_trades if e.order_id == int(v["orderId"])]
                return [_trade_row(e) for e in found_trades[: int(v.get("limit", "500"))]]
            case _:
                raise TradingError(-1000, f"no such call: {method} {what}")

    def _find(self, key: str, v: Mapping[str, str]) -> VenueOrder | None:
        return self.core.find(key, v["symbol"], v.get("origClientOrderId", ""), int(v.get("orderId", "0")))

    def _answer(self, body: Any, weight: int = 1) -> web.Response:
        minute = time.time_ns() // 60_000_000_000
        self._weights = (minute, weight + (self._weights[1] if self._weights[0] == minute else 0))
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._weights[1])}
        if self._weights[1] > self.weight_limit:
            body = {"code": -1003, "msg": "Too many requests; current limit is exceeded."}
            return web.json_response(body, status=429, headers=headers | {"Retry-After": "1"})
        return web.json_response(body, headers=headers)

    # Streams.

    async def _ws_api(self, request: web.Request) -> web.WebSocketResponse:
        socket, queue = web.WebSocketResponse(heartbeat=20), asyncio.Queue[bytes](SEND_QUEUE_MAX)
        await socket.prepare(request)
        self._sockets.add(socket)
        sender = asyncio.create_task(_pump(queue, socket))
        try:
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                call = json.loads(message.data)
                if call["method"] == "userDataStream.subscribe.signature":
                    params = {k: str(p) for k, p in call["params"].items()}
                    payload = "&".join(f"{k}={params[k]}" for k in sorted(params) if k != "signature")
                    try:
                        key, _ = self._authenticated(params["apiKey"], f"{payload}&signature={params['signature']}")
                    except (TradingError, KeyError) as error:
                        code = getattr(error, "code", -1102)
                        await socket.send_json({"id": call["id"], "status": 400, "error": {"code": code, "msg": str(error)}})
                        continue
                    self._private[queue] = key
                    await socket.send_json({"id": call["id"], "status": 200, "result": {"subscriptionId": 0}})
                else:
                    await socket.send_json({"id": call["id"], "status": 200, "result": {}})
        finally:
            sender.cancel()
            self._private.pop(queue, None)
            self._sockets.discard(socket)
        return socket

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        socket, queue = web.WebSocketResponse(heartbeat=20), asyncio.Queue[bytes](SEND_QUEUE_MAX)
        await socket.prepare(request)
        self._sockets.add(socket)
        self._public[queue] = {s for s in request.query.get("streams", "").split("/") if s}
        sender = asyncio.create_task(_pump(queue, socket))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    call = json.loads(message.data)
                    wanted = set(call.get("params", []))
                    streams = self._public[queue]
                    self._public[queue] = streams | wanted if call["method"] == "SUBSCRIBE" else streams - wanted
                    await socket.send_json({"result": None, "id": call["id"]})
        finally:
            sender.cancel()
            self._public.pop(queue, None)
            self._sockets.discard(socket)
        return socket

    def _heard(self, order: VenueOrder, done: Execution | None) -> None:
        """An order changed: its owner's streams are told, as far as the faults let them be."""
        event = _report(order, done)
        for frame in self.faults.private(json.dumps({"subscriptionId": 0, "event": event}).encode(), done is not None):
            for queue, key in self._private.items():
                if key == order.owner and not queue.full():
                    queue.put_nowait(frame)

    def _book_changed(self, native: str, side: Side, price: Decimal) -> None:
        x = self.core.listings[native]
        size = self.core.engine(native).level(side, int(price / x.tick)) * x.lot
        self._seq[native] += 1
        seq, level = self._seq[native], [[plain(price), plain(size)]]
        stream = f"{native.lower()}{STREAMS}"
        data = {"e": "depthUpdate", "E": _now_ms(), "s": native, "U": seq, "u": seq, "b": [], "a": []}
        data["b" if side == "BUY" else "a"] = level
        frame = json.dumps({"stream": stream, "data": data}).encode()
        for queue, streams in self._public.items():
            if stream in streams and not queue.full():
                queue.put_nowait(frame)


async def _pump(queue: asyncio.Queue[bytes], socket: web.WebSocketResponse) -> None:
    while True:
        frame = await queue.get()
        await socket.send_str(frame.decode())


def _row(o: VenueOrder) -> dict[str, Any]:
    return {
        "symbol": o.native, "orderId": o.order_id, "orderListId": -1, "clientOrderId": o.client_id, "price": plain(o.price),
        "origQty": plain(o.size), "executedQty": plain(o.filled), "cummulativeQuoteQty": plain(o.quote_filled),
        "status": o.status, "timeInForce": "GTC" if o.tif == "POST_ONLY" else o.tif,
        "type": "LIMIT_MAKER" if o.tif == "POST_ONLY" else "LIMIT", "side": o.side, "time": o.time_ms,
        "updateTime": o.update_ms, "isWorking": True, "origClientOrderId": o.client_id,
    }  # fmt: skip


def _trade_row(e: Execution) -> dict[str, Any]:
    return {
        "symbol": e.native, "id": e.trade_id, "orderId": e.order_id, "price": plain(e.price), "qty": plain(e.size),
        "quoteQty": plain(e.price * e.size), "commission": plain(e.fee), "commissionAsset": e.fee_asset, "time": e.time_ms,
        "isBuyer": e.side == "BUY", "isMaker": e.maker, "isBestMatch": True,
    }  # fmt: skip


def _report(o: VenueOrder, e: Execution | None) -> dict[str, Any]:
    """An executionReport."""
    kind = "TRADE" if e else {"NEW": "NEW", "CANCELED": "CANCELED"}.get(o.status, "EXPIRED")
    return {
        "e": "executionReport", "E": _now_ms(), "s": o.native, "c": o.client_id, "S": o.side,
        "o": "LIMIT_MAKER" if o.tif == "POST_ONLY" else "LIMIT", "f": "GTC" if o.tif == "POST_ONLY" else o.tif,
        "q": plain(o.size), "p": plain(o.price), "P": "0", "F": "0", "g": -1, "C": "", "x": kind, "X": o.status, "r": "NONE",
        "i": o.order_id, "l": plain(e.size) if e else "0", "z": plain(o.filled), "L": plain(e.price) if e else "0",
        "n": plain(e.fee) if e else "0", "N": e.fee_asset if e else None, "T": o.update_ms, "t": e.trade_id if e else -1,
        "w": o.status in ("NEW", "PARTIALLY_FILLED"), "m": bool(e and e.maker), "O": o.time_ms, "Z": plain(o.quote_filled),
        "Y": plain(e.price * e.size) if e else "0", "Q": "0",
    }  # fmt: skip


def _refusal(error: Exception) -> web.Response:
    return web.json_response({"code": getattr(error, "code", -1000), "msg": str(error)}, status=400)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
