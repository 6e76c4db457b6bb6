"""Bybit v5 from the venue's side: spot or linear, ``orderbook`` with contiguous update ids, tickers with funding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument, decimal_text
from simulator.order_flow import Changes
from simulator.stream_server import Client
from simulator.wire import Change, Wire, World, answer, bases, best, checked_base, compact

DEPTHS = (1, 50, 200, 1000)
SNAPSHOT_ONLY = 1
"""Every message of this depth is a whole book."""
SPOT_ARGUMENTS = 10
"""Most arguments in one subscription of the spot stream."""
ARGUMENTS_LENGTH = 21_000
"""Most characters of the arguments of one connection."""
PAGE = 500
TICKERS_EVERY = 4


class BybitWire(Wire):
    """Source: Bybit API v5, "Orderbook" (levels 1, 50, 200, 1000; snapshot, then delta; ``u`` is consecutive for each
    topic, a snapshot with ``u`` 1 follows a restart; ``seq`` compares topics), "Trade", "Ticker", "Connect" (ping, at most
    10 arguments a request on spot), "Get Instruments Info"."""

    unknown_deletes = False
    trading, halted = "Trading", "PreLaunch"

    def __init__(self, venue: World, category: str) -> None:
        super().__init__(venue)
        self.category = category
        self.ws_paths = (f"/v5/public/{category}",)
        self._updates: dict[str, int] = {}
        """topic → its last update id."""

    def names(self) -> Iterator[Name]:
        return (self._name(base) for base in bases())

    def name_of(self, native: str) -> Name:
        if not native.endswith("USDT"):
            raise ControlError(f"a symbol here is capitals and digits before USDT, {native!r} is not")
        return self._name(checked_base(native, native.removesuffix("USDT"), "USDT"))

    def _name(self, base: str) -> Name:
        if self.category == "spot":
            return Name(f"{base}USDT", base, "USDT", f"{base}/USDT")
        return Name(f"{base}USDT", base, "USDT", f"{base}/USDT:USDT", "linear")

    def refusal(self, status: int) -> dict[str, Any]:
        code, text = (10016, "Server error.") if status == 503 else (10006, "Too many visits!")
        return self._result(code, text, {})

    def number(self, one: SyntheticInstrument) -> tuple[int, int]:
        # The order book's own: one more for each event.
        return one.last_u + 1, one.last_u + 1

    def restart(self, one: SyntheticInstrument) -> None:
        """Source: "Orderbook": a snapshot with ``u`` 1 comes after a restart of the service, and replaces the book."""
        one.last_u = 1
        bids, asks = best(one, 10**6)
        one.truth.load(1, one.texts(bids), one.texts(asks), one.truth.ts_us)
        for depth in DEPTHS:
            topic = f"orderbook.{depth}.{one.native}"
            if self.stream.wanted(topic):
                self._updates[topic] = 1
                self.stream.send(topic, self._book(one, topic, "snapshot", *best(one, depth), one.truth.ts_us))

    def forget(self, one: SyntheticInstrument) -> None:
        super().forget(one)
        for depth in DEPTHS:
            self._updates.pop(f"orderbook.{depth}.{one.native}", None)

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        return [
            ("/v5/market/instruments-info", self._instruments),
            ("/v5/market/orderbook", self._orderbook),
            ("/v5/market/tickers", self._tickers),
            ("/v5/market/time", self._time),
        ]

    def _result(self, code: int, text: str, result: Mapping[str, Any]) -> dict[str, Any]:
        now_ms = self.venue.now_us() // 1000
        return {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": now_ms}

    async def _instruments(self, request: web.Request) -> web.Response:
        query = request.query
        if query.get("category") not in ("spot", "linear", "inverse", "option"):
            return answer(self._result(10001, "params error: Category is invalid", {}))
        # Another category than this venue's own has nothing; spot has no pages.
        ones = list(self.venue.instruments.values()) if query["category"] == self.category else []
        ones = [one for one in ones if query.get("symbol", one.native) == one.native]
        start, cursor = int(query.get("cursor") or 0), ""
        if self.category != "spot":
            limit = max(1, min(1000, int(query.get("limit") or PAGE)))
            cursor = str(start + limit) if start + limit < len(ones) else ""
            ones = ones[start : start + limit]
        found = {"category": query["category"], "list": [self._entry(one) for one in ones], "nextPageCursor": cursor}
        return answer(self._result(0, "OK", found))

    def _entry(self, one: SyntheticInstrument) -> dict[str, Any]:
        tick, lot = decimal_text(1, one.price_decimals), decimal_text(1, one.size_decimals)
        head = {"symbol": one.native, "baseCoin": one.base, "quoteCoin": one.quote, "status": one.status}
        if self.category == "spot":
            return head | {
                "innovation": "0", "marginTrading": "none", "stTag": "0", "priceFilter": {"tickSize": tick},
                "lotSizeFilter": {
                    "basePrecision": lot, "quotePrecision": "0.0000001", "minOrderQty": lot, "maxOrderQty": "1000000",
                    "minOrderAmt": "5", "maxOrderAmt": "4000000",
                },
            }  # fmt: skip
        return head | {
            "contractType": "LinearPerpetual", "launchTime": "1585526400000", "deliveryTime": "0",
            "deliveryFeeRate": "", "priceScale": str(one.price_decimals), "settleCoin": "USDT", "fundingInterval": 480,
            "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
            "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
            "lotSizeFilter": {
                "maxOrderQty": "1190.000", "minOrderQty": lot, "qtyStep": lot, "minNotionalValue": "5",
            },
            "unifiedMarginTrade": True, "copyTrading": "both", "isPreListing": False, "preListingInfo": None,
        }  # fmt: skip

    async def _orderbook(self, request: web.Request) -> web.Response:
        one, limit = self.listed(request.query.get("symbol")), request.query.get("limit", "25")
        if one is None or request.query.get("category") != self.category:
            return answer(self._result(10001, "Not supported symbols", {}))
        bids, asks = best(one, min(1000, int(limit)) if limit.isdigit() else 25)
        now_ms = self.venue.now_us() // 1000
        book = {"s": one.native, "b": one.texts(bids), "a": one.texts(asks), "ts": now_ms, "u": one.last_u}
        return answer(self._result(0, "OK", book | {"seq": one.last_u * 3, "cts": now_ms}))

    async def _tickers(self, request: web.Request) -> web.Response:
        ones = self.venue.instruments.values() if request.query.get("category") == self.category else ()
        now_us = self.venue.now_us()
        found = [self._ticker(one, now_us) for one in ones if request.query.get("symbol", one.native) == one.native]
        return answer(self._result(0, "OK", {"category": self.category, "list": found}))

    async def _time(self, _: web.Request) -> web.Response:
        now_us = self.venue.now_us()
        return answer(self._result(0, "OK", {"timeSecond": str(now_us // 1_000_000), "timeNano": str(now_us * 1000)}))

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        try:
            message = json.loads(text)
            operation, arguments = message["op"], message.get("args", [])
        except (ValueError, KeyError, TypeError, AttributeError):
            self._reply(client, {}, "", "error:invalid request")
            return
        if operation == "ping":
            client.put(compact({"success": True, "ret_msg": "pong", "conn_id": self._id(client), "op": "ping"}))
            return
        if operation not in ("subscribe", "unsubscribe"):
            self._reply(client, message, operation, "error:invalid op")
            return
        problem = self._problem(client, operation, arguments)
        self._reply(client, message, operation, problem)
        if problem:
            return
        for topic in arguments:
            self._subscription(client, operation, topic)
        self.stream.changed()

    def _problem(self, client: Client, operation: str, arguments: Any) -> str:
        """Why the request as a whole is refused: one bad topic refuses them all."""
        if not isinstance(arguments, list) or not arguments or not all(isinstance(a, str) for a in arguments):
            return "Params Error"
        if self.category == "spot" and len(arguments) > SPOT_ARGUMENTS:
            return "args size >10"
        if operation == "unsubscribe":
            return ""
        if sum(map(len, (*client.streams, *arguments))) > ARGUMENTS_LENGTH:
            return "args length over 21000"
        for topic in arguments:
            head, _, native = topic.rpartition(".")
            if head not in self._heads() or self.listed(native) is None:
                return f"error:handler not found,topic:{topic}"
        return ""

    def _heads(self) -> tuple[str, ...]:
        more = () if self.category == "spot" else ("liquidation", "allLiquidation", "priceLimit")
        return (*(f"orderbook.{depth}" for depth in DEPTHS), "publicTrade", "tickers", *more)

    def _reply(self, client: Client, message: Mapping[str, Any], operation: str, problem: str) -> None:
        reply = {"success": not problem, "ret_msg": problem, "conn_id": self._id(client)}
        client.put(compact({**reply, "req_id": message.get("req_id", ""), "op": operation}))

    def _id(self, client: Client) -> str:
        return f"a38867ec-70b5-4044-a765-{client.number:012x}"

    def _subscription(self, client: Client, operation: str, topic: str) -> None:
        head, _, native = topic.rpartition(".")
        one = self.listed(native)
        if operation == "unsubscribe" or one is None:
            self.stream.unsubscribe(client, topic)
        elif head.startswith("orderbook."):
            first = not self.stream.wanted(topic)
            _, bids, asks = self.open_book(client, topic, one, int(head.partition(".")[2]))
            if first or topic not in self._updates:
                self._updates[topic] = one.last_u
            client.put(self._book(one, topic, "snapshot", bids, asks, one.truth.ts_us))
        else:
            self.stream.subscribe(client, topic)
            if head == "tickers":
                client.put(self._ticker_frame(one, topic, "snapshot", self.venue.now_us()))

    def _book(
        self, one: SyntheticInstrument, topic: str, kind: str, bids: Changes, asks: Changes, ts_us: int
    ) -> bytes:
        data = {
            "s": one.native, "b": one.texts(bids), "a": one.texts(asks), "u": self._updates[topic],
            "seq": one.last_u * 3,
        }  # fmt: skip
        return compact({"topic": topic, "type": kind, "ts": ts_us // 1000 + 2, "data": data, "cts": ts_us // 1000})

    def publish(self, change: Change) -> None:
        one = change.one
        for depth in DEPTHS:
            topic = f"orderbook.{depth}.{one.native}"
            if not self.stream.wanted(topic) or (told := self.told(topic, change)) is None:
                continue
            _, bids, asks = told
            kind = "delta"
            if depth == SNAPSHOT_ONLY:
                kind, (bids, asks) = "snapshot", best(one, SNAPSHOT_ONLY)
            self._updates[topic] = change.seq if topic not in self._windows else self._updates[topic] + 1
            self.send_book(topic, self._book(one, topic, kind, bids, asks, change.ts_us), change)
        topic = f"publicTrade.{one.native}"
        if change.trade is not None and self.stream.wanted(topic):
            self.stream.send(topic, self._trade(topic, change, *change.trade))
        topic = f"tickers.{one.native}"
        if one.events % TICKERS_EVERY == 0 and self.stream.wanted(topic):
            kind = "snapshot" if self.category == "spot" else "delta"
            self.stream.send(topic, self._ticker_frame(one, topic, kind, change.ts_us))

    def _trade(self, topic: str, change: Change, price: int, size: int, buyer_is_maker: bool) -> bytes:
        one, now_ms = change.one, change.ts_us // 1000
        trade = {
            "T": now_ms, "s": one.native, "S": "Sell" if buyer_is_maker else "Buy", "v": one.size(size),
            "p": one.price(price), "L": "PlusTick", "i": f"20f43950-d8dd-5b31-9112-{one.trade_id:012x}", "BT": False,
            "RPI": False, "seq": change.seq * 3,
        }  # fmt: skip
        return compact({"topic": topic, "type": "snapshot", "ts": now_ms + 2, "data": [trade]})

    def _ticker_frame(self, one: SyntheticInstrument, topic: str, kind: str, ts_us: int) -> bytes:
        data = self._ticker(one, ts_us)
        if kind == "delta":
            # Only what changed is told.
            told: Sequence[str] = ("symbol", "bid1Price", "bid1Size", "ask1Price", "ask1Size", "markPrice", "openInterest")
            data = {name: data[name] for name in told}
        return compact({"topic": topic, "type": kind, "data": data, "cs": one.last_u * 3, "ts": ts_us // 1000})

    def _ticker(self, one: SyntheticInstrument, ts_us: int) -> dict[str, str]:
        flow = one.flow
        last = one.price(flow.best_bid)
        data = {
            "symbol": one.native, "lastPrice": last, "highPrice24h": last, "lowPrice24h": last, "prevPrice24h": last,
            "volume24h": "1000", "turnover24h": "100000", "price24hPcnt": "0.01",
        }  # fmt: skip
        if self.category == "spot":
            return data | {"usdIndexPrice": last}
        period_ms = 8 * 3600 * 1000
        return data | {
            "markPrice": last, "indexPrice": last, "openInterest": one.size(1_000_000 + one.trade_id),
            "openInterestValue": "1000000", "nextFundingTime": str((ts_us // 1000 // period_ms + 1) * period_ms),
            "fundingRate": "-0.000212", "bid1Price": last, "bid1Size": one.size(flow.bids[flow.best_bid]),
            "ask1Price": one.price(flow.best_ask), "ask1Size": one.size(flow.asks[flow.best_ask]),
            "fundingIntervalHour": "8",
        }  # fmt: skip

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(name: str, update: Any) -> bytes:
            data = {"s": name, "b": [], "a": [], "u": update, "seq": 1}
            return compact({"topic": f"orderbook.50.{name}", "type": "delta", "ts": 1, "data": data, "cts": 1})

        return frame(native, "not a number"), frame("NOBODYUSDT", 2)
