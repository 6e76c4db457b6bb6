"""A spot venue to trade on, in OKX's own protocol: signed v5 REST, the private WebSocket, public instruments and books.

An unmodified client of OKX trades here with only its addresses changed. Sources: OKX API guide (v5), "Overview"
(authentication, signing), "Order Book Trading / Trade", "Trading Account / Get balance", "Public Data / Get instruments".
What differs from others, and catches clients: an order's answer says nothing of its fills; a cancel's answer says only
that it was taken; fees are negative where they are paid; post-only orders that would take are accepted, then cancelled.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import WSMsgType, web

from simulator.matching import Side
from simulator.trading_core import Execution, Listing, TradingError, VenueOrder
from simulator.trading_faults import Call, TradingFaults
from simulator.trading_server import TradingVenue, now_ms
from simulator.truth import plain

API = "/api/v5"
CLIENT_ID = re.compile(r"[A-Za-z0-9]{1,32}")
PAGE = 100
"""Rows of a page, at most; the newest first."""
EXPIRY_MS = 30_000
"""A request whose timestamp is further from the venue's clock is refused (50102)."""
DEAD_MAN_S = (10, 120)
"""Bounds of cancel-all-after; 0 switches it off."""
TIFS = {"limit": "GTC", "ioc": "IOC", "fok": "FOK", "post_only": "POST_ONLY"}
STATES = {"NEW": "live", "PARTIALLY_FILLED": "partially_filled", "FILLED": "filled"}
CALLS: dict[str, Call] = {
    "order": "place", "batch-orders": "place", "cancel-order": "cancel", "cancel-batch-orders": "cancel", "balance": "balance",
}  # fmt: skip
CODES = (
    # What the core refuses, in this venue's numbers.
    ("Invalid symbol", "51001", "Instrument ID does not exist"),
    ("Duplicate order", "51016", "Duplicated client order ID"),
    ("insufficient balance", "51008", "Order failed. Insufficient balance in account"),
    ("NOTIONAL", "51020", "Your order should meet or exceed the minimum order amount."),
    ("LOT_SIZE", "51121", "Order quantity must be a multiple of the lot size."),
    ("PRICE_FILTER", "51006", "Order price is not within the price limit"),
    ("Unknown order", "51400", "Cancellation failed as the order has been filled, canceled or does not exist."),
)


class OkxError(TradingError):
    """A refusal of the whole call, in the venue's own code."""


class TradingOkx(TradingVenue):
    """OKX spot on localhost. Native names are BTC-USDT. ``passphrase`` is the same for all keys."""

    def __init__(
        self,
        listings: list[Listing],
        keys: Mapping[str, str],
        faults: TradingFaults | None = None,
        passphrase: str = "word",  # noqa: S107 - a simulation's
    ) -> None:
        super().__init__(listings, keys, faults)
        self.core.post_only_ends = True
        self.passphrase = passphrase
        self.rate_limit = 0
        """Signed calls within two seconds, all together; 0: none. May shrink at run time."""
        self.dead_man: dict[str, asyncio.TimerHandle] = {}
        self._recent: list[int] = []
        self._seq: dict[str, int] = dict.fromkeys(self.core.listings, 1)
        self._channels: dict[asyncio.Queue[bytes], dict[str, dict[str, str]]] = {}

    def routes(self) -> list[web.RouteDef]:
        gets = ("account/balance", "account/config", "trade/order", "trade/orders-pending", "trade/fills", "trade/fills-history",
                "asset/currencies")  # fmt: skip
        posts = ("trade/order", "trade/batch-orders", "trade/cancel-order", "trade/cancel-batch-orders", "trade/amend-order",
                 "trade/cancel-all-after")  # fmt: skip
        return [
            web.get(f"{API}/public/time", self._time), web.get(f"{API}/public/instruments", self._instruments),
            web.get(f"{API}/market/books", self._books), web.get("/ws/v5/public", self._public),
            web.get("/ws/v5/private", self._private), *(web.get(f"{API}/{path}", self.signed) for path in gets),
            *(web.post(f"{API}/{path}", self.signed) for path in posts),
        ]  # fmt: skip

    # Public.

    async def _time(self, _: web.Request) -> web.Response:
        return _ok([{"ts": str(now_ms())}])

    async def _instruments(self, request: web.Request) -> web.Response:
        if request.query.get("instType") != "SPOT":
            return _ok([])
        return _ok([
            {
                "instType": "SPOT", "instId": x.native, "baseCcy": x.base, "quoteCcy": x.quote, "tickSz": plain(x.tick),
                "lotSz": plain(x.lot), "minSz": plain(x.lot), "state": "live", "lever": "1", "listTime": "1", "ctVal": "",
                "settleCcy": "", "uly": "", "instFamily": "", "expTime": "", "maxLmtSz": "9999999", "maxMktSz": "9999999",
            } for x in self.core.listings.values()
        ])  # fmt: skip

    async def _books(self, request: web.Request) -> web.Response:
        native = request.query.get("instId", "")
        try:
            return _ok([self._book(native, int(request.query.get("sz", "1")))])
        except (TradingError, ValueError) as error:
            return self.refusal(error)

    def _book(self, native: str, size: int) -> dict[str, Any]:
        x, sides = self.core.listings.get(native), self.core.engine(native).depth(size)
        assert x is not None
        bids, asks = ([[plain(p * x.tick), plain(s * x.lot), "0", "1"] for p, s in side] for side in sides)
        return {"bids": bids, "asks": asks, "ts": str(now_ms()), "seqId": self._seq[native]}

    # Signed calls.

    def kind_of(self, request: web.Request) -> Call:
        what = request.path.removeprefix(f"{API}/").partition("/")[2]
        return "query" if (request.method, what) == ("GET", "order") else CALLS.get(what, "other")

    def authenticated(self, request: web.Request, raw: str) -> str:
        head = request.headers
        key, stamp = head.get("OK-ACCESS-KEY", ""), head.get("OK-ACCESS-TIMESTAMP", "")
        self._signed(key, stamp + request.method + request.path_qs + raw, head.get("OK-ACCESS-SIGN", ""))
        if head.get("OK-ACCESS-PASSPHRASE") != self.passphrase:
            raise OkxError(50105, "Request header OK-ACCESS-PASSPHRASE incorrect.")
        sent = datetime.fromisoformat(stamp.replace("Z", "+00:00")).astimezone(UTC)
        if abs(now_ms() - int(sent.timestamp() * 1000)) > EXPIRY_MS:
            raise OkxError(50102, "Timestamp request expired.")
        return key

    def _signed(self, key: str, payload: str, signature: str) -> None:
        if key not in self.keys:
            raise OkxError(50111, "Invalid OK-ACCESS-KEY.")
        wanted = base64.b64encode(hmac.new(self.keys[key].encode(), payload.encode(), hashlib.sha256).digest()).decode()
        if not hmac.compare_digest(wanted, signature):
            raise OkxError(50113, "Invalid Sign.")

    async def answer(self, request: web.Request, call: Call, key: str, raw: str) -> Any:
        self._limited()
        what, v = request.path.removeprefix(f"{API}/"), dict(request.query)
        if request.method == "POST":
            return self._act(what, key, json.loads(raw))
        match what:
            case "account/balance":
                return _all([self._balance(key)])
            case "account/config":
                return _all([{"uid": key, "acctLv": "1", "posMode": "net_mode"}])
            case "trade/order":
                found = self.seen(self._find(key, v))
                if found is None:
                    raise OkxError(51603, "Order does not exist")
                return _all([self._row(found)])
            case "trade/orders-pending":
                orders = self.core.open_orders(key, v.get("instId", ""))
                return _all([self._row(o) for o in _page(orders, v, lambda o: o.order_id)])
            case "trade/fills" | "trade/fills-history":
                begin, end = int(v.get("begin", "0")), int(v.get("end", "9" * 15))
                done = [e for e in self.core.executions if e.owner == key and begin <= e.time_ms <= end]
                done = [e for e in done if v.get("instId", e.native) == e.native]
                done = [e for e in done if v.get("ordId", str(e.order_id)) == str(e.order_id)]
                return _all([_fill(e) for e in _page(done, v, _bill)])
            case _:
                return _all([])

    def _act(self, what: str, key: str, body: Any) -> Any:
        if what == "trade/cancel-all-after":
            return _all([self._cancel_all_after(key, int(body["timeOut"]))])
        each = {"order": self._place, "cancel-order": self._cancel, "amend-order": self._amend}
        name = what.partition("/")[2].replace("batch-orders", "order")
        rows = [self._one(each[name], key, item) for item in (body if isinstance(body, list) else [body])]
        failed = sum(row["sCode"] != "0" for row in rows)
        code = "0" if not failed else "1" if failed == len(rows) else "2"
        return {"code": code, "msg": "", "data": rows}

    def _one(self, act: Any, key: str, v: Mapping[str, Any]) -> dict[str, Any]:
        row = {"clOrdId": v.get("clOrdId", ""), "ordId": str(v.get("ordId", "")), "tag": "", "ts": str(now_ms())}
        try:
            order: VenueOrder = act(key, v)
        except TradingError as error:
            code, text = _code(error)
            return row | {"sCode": code, "sMsg": text}
        return row | {"ordId": str(order.order_id), "clOrdId": order.client_id, "sCode": "0", "sMsg": ""}

    def _place(self, key: str, v: Mapping[str, Any]) -> VenueOrder:
        client_id = v.get("clOrdId") or f"auto{now_ms()}{len(self.core.orders)}"
        if not CLIENT_ID.fullmatch(client_id):
            raise OkxError(51000, "Parameter clOrdId error")
        if v["ordType"] not in TIFS or v.get("tdMode") != "cash":
            raise OkxError(51000, "Parameter ordType or tdMode error")
        side: Side = "BUY" if v["side"] == "buy" else "SELL"
        price, size = Decimal(v["px"]), Decimal(v["sz"])
        return self.core.place(key, v["instId"], side, price, size, TIFS[v["ordType"]], client_id, now_ms())[0]

    def _cancel(self, key: str, v: Mapping[str, Any]) -> VenueOrder:
        return self.cancelled(key, v["instId"], self._find(key, v))

    def _amend(self, key: str, v: Mapping[str, Any]) -> VenueOrder:
        found = self._find(key, v)
        if found is None:
            raise OkxError(51503, "Your order has already been filled or canceled.")
        size = Decimal(v["newSz"]) if v.get("newSz") else found.size
        return self.core.amend(key, found, Decimal(v["newPx"]) if v.get("newPx") else found.price, size, now_ms())

    def _find(self, key: str, v: Mapping[str, Any]) -> VenueOrder | None:
        return self.core.find(key, v["instId"], v.get("clOrdId", ""), int(v.get("ordId") or 0))

    def _cancel_all_after(self, key: str, seconds: int) -> dict[str, str]:
        low, high = DEAD_MAN_S
        if seconds and not low <= seconds <= high:
            raise OkxError(51000, "Parameter timeOut error")
        if (old := self.dead_man.pop(key, None)) is not None:
            old.cancel()
        if seconds:
            self.dead_man[key] = asyncio.get_running_loop().call_later(seconds, self.dead_man_fires, key)
        return {"triggerTime": str(now_ms() + 1000 * seconds) if seconds else "0", "ts": str(now_ms())}

    def dead_man_fires(self, key: str) -> None:
        """Nobody renewed the switch: everything of this account is cancelled."""
        self.dead_man.pop(key, None)
        for order in self.core.open_orders(key):
            self.core.cancel(key, order.native, order, now_ms())

    async def stop(self) -> None:
        for timer in self.dead_man.values():
            timer.cancel()
        await super().stop()

    def _limited(self) -> None:
        now = now_ms()
        self._recent = [at for at in self._recent if now - at < 2000] + [now]
        if self.rate_limit and len(self._recent) > self.rate_limit:
            raise OkxError(50011, "Requests too frequent.")

    def say(self, what: str) -> web.Response:
        if what in ("throttle", "ban"):
            return _failed("50011", "Requests too frequent.", 429 if what == "throttle" else 418)
        if what == "unknown":
            return _failed("50004", "API endpoint request timeout (does not mean that the request was successful or failed)", 400)
        return _failed("50026", "System error. Try again later.", 500)

    def refusal(self, error: Exception) -> web.Response:
        code, text = _code(error) if isinstance(error, TradingError) else ("51000", str(error))
        return _failed(code, text, 429 if code == "50011" else 401 if code.startswith("501") else 200)

    # Rows.

    def _balance(self, key: str) -> dict[str, Any]:
        details = [
            {"ccy": asset, "eq": plain(free + locked), "cashBal": plain(free + locked), "availBal": plain(free),
             "availEq": plain(free), "frozenBal": plain(locked), "uTime": str(now_ms())}
            for asset, (free, locked) in sorted(self.held(key).items())
        ]  # fmt: skip
        return {"uTime": str(now_ms()), "totalEq": "", "details": details}

    def _row(self, o: VenueOrder, e: Execution | None = None) -> dict[str, Any]:
        listing = self.core.listings[o.native]
        received = listing.base if o.side == "BUY" else listing.quote
        mine = [x for x in self.core.executions if x.order_id == o.order_id]
        kind = next(k for k, tif in TIFS.items() if tif == o.tif)
        return {
            "instType": "SPOT", "instId": o.native, "ordId": str(o.order_id), "clOrdId": o.client_id, "tag": "",
            "px": plain(o.price), "sz": plain(o.size), "ordType": kind, "side": o.side.lower(), "posSide": "net",
            "tdMode": "cash", "accFillSz": plain(o.filled), "avgPx": plain(o.quote_filled / o.filled) if o.filled else "",
            "state": STATES.get(o.status, "canceled"), "fee": plain(-sum((x.fee for x in mine), Decimal(0))),
            "feeCcy": received, "fillPx": plain(e.price) if e else "", "fillSz": plain(e.size) if e else "0",
            "tradeId": str(e.trade_id) if e else "", "fillTime": str(e.time_ms) if e else "",
            "fillFee": plain(-e.fee) if e else "0", "fillFeeCcy": e.fee_asset if e else "",
            "execType": ("M" if e.maker else "T") if e else "", "cTime": str(o.time_ms), "uTime": str(o.update_ms),
            "category": "normal", "amendResult": "", "reqId": "", "code": "0", "msg": "", "rebate": "0", "rebateCcy": "",
        }  # fmt: skip

    # Streams.

    async def _private(self, request: web.Request) -> web.WebSocketResponse:
        async with self.socket(request) as (socket, queue):
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                if message.data == "ping":
                    await socket.send_str("pong")
                    continue
                call = json.loads(message.data)
                if call["op"] == "login":
                    v = call["args"][0]
                    try:
                        self._signed(v["apiKey"], f"{v['timestamp']}GET/users/self/verify", v["sign"])
                        if v["passphrase"] != self.passphrase or abs(now_ms() - 1000 * int(v["timestamp"])) > EXPIRY_MS:
                            raise OkxError(60024, "Wrong passphrase, or timestamp request expired")
                    except TradingError as error:
                        await socket.send_json({"event": "error", "code": str(error.code), "msg": str(error)})
                        continue
                    self.private[queue] = v["apiKey"]
                    await socket.send_json({"event": "login", "code": "0", "msg": ""})
                elif queue not in self.private:
                    await socket.send_json({"event": "error", "code": "60011", "msg": "Please log in"})
                elif call["op"] == "subscribe":
                    for arg in call["args"]:
                        self._channels.setdefault(queue, {})[arg["channel"]] = arg
                        await socket.send_json({"event": "subscribe", "arg": arg})
                        if arg["channel"] == "account":
                            await socket.send_json({"arg": arg, "data": [self._balance(self.private[queue])]})
            self._channels.pop(queue, None)
            return socket

    def event(self, order: VenueOrder, done: Execution | None) -> bytes:
        arg = {"channel": "orders", "instType": "ANY", "uid": order.owner}
        return json.dumps({"arg": arg, "data": [self._row(order, done)]}).encode()

    def _heard(self, order: VenueOrder, done: Execution | None) -> None:
        super()._heard(order, done)
        for queue, key in self.private.items():
            channels = self._channels.get(queue, {})
            if key == order.owner and not queue.full():
                if "account" in channels:
                    frame = {"arg": channels["account"], "data": [self._balance(key)]}
                    queue.put_nowait(json.dumps(frame).encode())
                if "fills" in channels and done is not None:
                    queue.put_nowait(json.dumps({"arg": channels["fills"], "data": [_fill(done)]}).encode())

    async def _public(self, request: web.Request) -> web.WebSocketResponse:
        async with self.socket(request) as (socket, queue):
            self.public[queue] = set()
            async for message in socket:
                if message.type != WSMsgType.TEXT:
                    continue
                if message.data == "ping":
                    await socket.send_str("pong")
                    continue
                call = json.loads(message.data)
                for arg in call["args"]:
                    if arg["channel"] != "books" or arg["instId"] not in self.core.listings:
                        await socket.send_json({"event": "error", "code": "60018", "msg": f"{arg} doesn't exist"})
                        continue
                    await socket.send_json({"event": call["op"], "arg": arg})
                    if call["op"] == "subscribe":
                        self.public[queue].add(arg["instId"])
                        book = self._book(arg["instId"], 400) | {"prevSeqId": -1}
                        await socket.send_json({"arg": arg, "action": "snapshot", "data": [book]})
                    else:
                        self.public[queue].discard(arg["instId"])
            return socket

    def book_changed(self, native: str, side: Side, price: Decimal) -> None:
        x = self.core.listings[native]
        size = self.core.engine(native).level(side, int(price / x.tick)) * x.lot
        before = self._seq[native]
        self._seq[native] += 1
        level = [[plain(price), plain(size), "0", "1"]]
        data = {"bids": [], "asks": [], "ts": str(now_ms()), "prevSeqId": before, "seqId": before + 1}
        data["bids" if side == "BUY" else "asks"] = level
        frame = json.dumps({"arg": {"channel": "books", "instId": native}, "action": "update", "data": [data]}).encode()
        for queue, wanted in self.public.items():
            if native in wanted and not queue.full():
                queue.put_nowait(frame)


def _all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"code": "0", "msg": "", "data": rows}


def _ok(rows: list[dict[str, Any]]) -> web.Response:
    return web.json_response(_all(rows))


def _failed(code: str, text: str, status: int) -> web.Response:
    return web.json_response({"code": code, "msg": text, "data": []}, status=status)


def _code(error: TradingError) -> tuple[str, str]:
    if isinstance(error, OkxError):
        return str(error.code), str(error)
    return next(((code, text) for part, code, text in CODES if part in str(error)), ("51000", str(error)))


def _bill(e: Execution) -> int:
    """A bill's id: a trade with oneself has two of them."""
    return 2 * e.trade_id + e.maker


def _page(rows: list[Any], v: Mapping[str, str], number: Any) -> list[Any]:
    """The newest first; ``after``: those older than that id."""
    older = [r for r in reversed(rows) if "after" not in v or number(r) < int(v["after"])]
    return older[: min(PAGE, int(v.get("limit", PAGE)))]


def _fill(e: Execution) -> dict[str, Any]:
    return {
        "instType": "SPOT", "instId": e.native, "tradeId": str(e.trade_id), "ordId": str(e.order_id), "clOrdId": e.client_id,
        "billId": str(_bill(e)), "tag": "", "fillPx": plain(e.price), "fillSz": plain(e.size), "side": e.side.lower(),
        "posSide": "net", "execType": "M" if e.maker else "T", "feeCcy": e.fee_asset, "fee": plain(-e.fee),
        "ts": str(e.time_ms), "fillTime": str(e.time_ms),
    }  # fmt: skip
