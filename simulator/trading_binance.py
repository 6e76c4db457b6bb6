"""A spot venue to trade on, in Binance's own protocol: signed REST, the WebSocket API's user stream, public depth.

An unmodified client of Binance trades here with only its addresses changed. Sources: Binance Spot API documentation,
"Trading endpoints", "Account endpoints", "User Data Stream", "WebSocket API". Faults by ``faults`` (trading_faults).
"""

from __future__ import annotations

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
from simulator.trading_core import Execution, Listing, TradingError, VenueOrder
from simulator.trading_faults import Call, TradingFaults
from simulator.trading_server import TradingVenue, now_ms
from simulator.truth import plain

STREAMS = "@depth@100ms"
API = "/api/v3"


class TradingBinance(TradingVenue):
    """Binance spot on localhost."""

    def __init__(self, listings: list[Listing], keys: Mapping[str, str], faults: TradingFaults | None = None) -> None:
        super().__init__(listings, keys, faults)
        self.weight_limit = 6000
        self._weights = (0, 0)
        self._seq: dict[str, int] = dict.fromkeys(self.core.listings, 1)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/ping", self._empty), web.get(f"{API}/time", self._time), web.get(f"{API}/exchangeInfo", self._info),
            web.get(f"{API}/depth", self._depth), web.get(f"{API}/account", self.signed), web.post(f"{API}/order", self.signed),
            web.get(f"{API}/order", self.signed), web.delete(f"{API}/order", self.signed),
            web.get(f"{API}/openOrders", self.signed), web.delete(f"{API}/openOrders", self.signed),
            web.get("/sapi/v1/capital/config/getall", self._none), web.get("/sapi/v1/margin/allPairs", self._none),
            web.get("/sapi/v1/margin/isolated/allPairs", self._none),
            web.get(f"{API}/myTrades", self.signed), web.get("/ws-api/v3", self._ws_api), web.get("/stream", self._stream),
        ]  # fmt: skip

    # REST.

    async def _empty(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _none(self, _: web.Request) -> web.Response:
        """Services around an account that this venue does not have."""
        return web.json_response([])

    async def _time(self, _: web.Request) -> web.Response:
        return web.json_response({"serverTime": now_ms()})

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
        return self.counted({"timezone": "UTC", "serverTime": now_ms(), "rateLimits": limits, "symbols": symbols}, weight=20)

    async def _depth(self, request: web.Request) -> web.Response:
        native = request.query.get("symbol", "")
        try:
            bids, asks = self.core.engine(native).depth(int(request.query.get("limit", "100")))
        except (TradingError, ValueError) as error:
            return self.refusal(error)
        x = self.core.listings[native]
        sides = ([[plain(p * x.tick), plain(s * x.lot)] for p, s in side] for side in (bids, asks))
        return self.counted({"lastUpdateId": self._seq[native], "bids": next(sides), "asks": next(sides)}, weight=5)

    def kind_of(self, request: web.Request) -> Call:
        what = request.path.rsplit("/", 1)[1]
        if what == "account":
            return "balance"
        if what != "order":
            return "cancel" if request.method == "DELETE" else "other"
        return {"POST": "place", "DELETE": "cancel"}.get(request.method, "query")  # pyright: ignore[reportReturnType]

    async def answer(self, request: web.Request, call: Call, key: str, raw: str) -> Any:
        values = dict(parse_qsl(request.query_string or raw))
        return self._act(request.method, request.path.rsplit("/", 1)[1], key, values)

    def authenticated(self, request: web.Request, raw: str) -> str:
        return self._authenticated(request.headers.get("X-MBX-APIKEY", ""), request.query_string or raw)

    def say(self, what: str) -> web.Response:
        if what in ("throttle", "ban"):
            body = {"code": -1003, "msg": "Too many requests."}
            headers = {"Retry-After": str(self.faults.retry_after_s)}
            return web.json_response(body, status=429 if what == "throttle" else 418, headers=headers)
        if what == "unknown":
            body = {"code": -1006, "msg": "An unexpected response was received; execution status unknown."}
        else:
            body = {"code": -1001, "msg": "Internal error; unable to process your request."}
        return web.json_response(body, status=503)

    def refusal(self, error: Exception) -> web.Response:
        code = error.code if isinstance(error, TradingError) else -1102
        return web.json_response({"code": code, "msg": str(error)}, status=400)

    def _authenticated(self, key: str, raw: str) -> str:
        if key not in self.keys:
            raise TradingError(-2015, "Invalid API-key, IP, or permissions for action.")
        payload, _, signature = raw.rpartition("&signature=")
        wanted = hmac.new(self.keys[key].encode(), payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, unquote(signature)):
            raise TradingError(-1022, "Signature for this request is not valid.")
        values = dict(parse_qsl(payload))
        age = now_ms() - int(values["timestamp"])
        if age > int(values.get("recvWindow", "5000")) or age < -1000:
            raise TradingError(-1021, "Timestamp for this request is outside of the recvWindow.")
        return key

    def _act(self, method: str, what: str, key: str, v: Mapping[str, str]) -> Any:
        core, now = self.core, now_ms()
        match method, what:
            case "GET", "account":
                held = self.held(key)
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
                if (found := self.seen(self._find(key, v))) is None:
                    raise TradingError(-2013, "Order does not exist.")
                return _row(found)
            case "DELETE", "order":
                return _row(self.cancelled(key, v["symbol"], self._find(key, v)))
            case "GET", "openOrders":
                return [_row(o) for o in core.open_orders(key, v.get("symbol", ""))]
            case "DELETE", "openOrders":
                return [_row(self.cancelled(key, o.native, o)) for o in core.open_orders(key, v["symbol"])]
            case "GET", "myTrades":
                found_trades = core.trades(key, v["symbol"], int(v.get("startTime", "0")))
                if "orderId" in v:
                    found_trades = [e for e in found_trades if e.order_id == int(v["orderId"])]
                return [_trade_row(e) for e in found_trades[: int(v.get("limit", "500"))]]
            case _:
                raise TradingError(-1000, f"no such call: {method} {what}")

    def _find(self, key: str, v: Mapping[str, str]) -> VenueOrder | None:
        return self.core.find(key, v["symbol"], v.get("origClientOrderId", ""), int(v.get("orderId", "0")))

    def counted(self, body: Any, weight: int = 1) -> web.Response:
        minute = time.time_ns() // 60_000_000_000
        self._weights = (minute, weight + (self._weights[1] if self._weights[0] == minute else 0))
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._weights[1])}
        if self._weights[1] > self.weight_limit:
            body = {"code": -1003, "msg": "Too many requests; current limit is exceeded."}
            return web.json_response(body, status=429, headers=headers | {"Retry-After": "1"})
        return web.json_response(body, headers=headers)

    # Streams.

    async def _ws_api(self, request: web.Request) -> web.WebSocketResponse:
        async with self.socket(request) as (socket, queue):
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                call = json.loads(message.data)
                if call["method"] == "userDataStream.subscribe.signature":
                    params = {k: str(p) for k, p in call["params"].items()}
                    payload = "&".join(f"{k}={params[k]}" for k in sorted(params) if k != "signature")
                    try:
                        key = self._authenticated(params["apiKey"], f"{payload}&signature={params['signature']}")
                    except (TradingError, KeyError) as error:
                        code = getattr(error, "code", -1102)
                        await socket.send_json({"id": call["id"], "status": 400, "error": {"code": code, "msg": str(error)}})
                        continue
                    self.private[queue] = key
                    await socket.send_json({"id": call["id"], "status": 200, "result": {"subscriptionId": 0}})
                else:
                    await socket.send_json({"id": call["id"], "status": 200, "result": {}})
            return socket

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        async with self.socket(request) as (socket, queue):
            self.public[queue] = {s for s in request.query.get("streams", "").split("/") if s}
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    call = json.loads(message.data)
                    wanted = set(call.get("params", []))
                    streams = self.public[queue]
                    self.public[queue] = streams | wanted if call["method"] == "SUBSCRIBE" else streams - wanted
                    await socket.send_json({"result": None, "id": call["id"]})
            return socket

    def event(self, order: VenueOrder, done: Execution | None) -> bytes:
        return json.dumps({"subscriptionId": 0, "event": _report(order, done)}).encode()

    def book_changed(self, native: str, side: Side, price: Decimal) -> None:
        x = self.core.listings[native]
        size = self.core.engine(native).level(side, int(price / x.tick)) * x.lot
        self._seq[native] += 1
        seq, level = self._seq[native], [[plain(price), plain(size)]]
        stream = f"{native.lower()}{STREAMS}"
        data = {"e": "depthUpdate", "E": now_ms(), "s": native, "U": seq, "u": seq, "b": [], "a": []}
        data["b" if side == "BUY" else "a"] = level
        frame = json.dumps({"stream": stream, "data": data}).encode()
        for queue, streams in self.public.items():
            if stream in streams and not queue.full():
                queue.put_nowait(frame)


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
        "e": "executionReport", "E": now_ms(), "s": o.native, "c": o.client_id, "S": o.side,
        "o": "LIMIT_MAKER" if o.tif == "POST_ONLY" else "LIMIT", "f": "GTC" if o.tif == "POST_ONLY" else o.tif,
        "q": plain(o.size), "p": plain(o.price), "P": "0", "F": "0", "g": -1, "C": "", "x": kind, "X": o.status, "r": "NONE",
        "i": o.order_id, "l": plain(e.size) if e else "0", "z": plain(o.filled), "L": plain(e.price) if e else "0",
        "n": plain(e.fee) if e else "0", "N": e.fee_asset if e else None, "T": o.update_ms, "t": e.trade_id if e else -1,
        "w": o.status in ("NEW", "PARTIALLY_FILLED"), "m": bool(e and e.maker), "O": o.time_ms, "Z": plain(o.quote_filled),
        "Y": plain(e.price * e.size) if e else "0", "Q": "0",
    }  # fmt: skip
