"""Binance's three markets from the venue's side: paths, exchange info, the combined stream. Knows nothing of collectors."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument, decimal_text
from simulator.stream_server import Client
from simulator.truth import TruthBook
from simulator.wire import Change, Wire, World, answer, bases, checked_base, compact

FORCED = "forceOrder"
WEIGHT_HEADER = "X-MBX-USED-WEIGHT-1M"
FUTURES_DEPTHS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
"""limit → request weight. Source: USD-M and COIN-M Futures, "Order Book"."""
ROUTES = {"public": ("depth", "trade", "bookTicker"), "market": (FORCED,)}
"""route → the streams that USD-M sends on it; the root sends all. Source: "Important WebSocket Change Notice"."""
FORCED_EVERY = 16
"""One trade in so many is a liquidation's."""
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


class BinanceVenue(World, Protocol):
    """What this protocol asks of its venue, which may also play a capture."""

    @property
    def books(self) -> Mapping[str, TruthBook]:
        """The exact books by the venue's names."""
        ...

    @abstractmethod
    def entries(self) -> list[dict[str, Any]]:
        """Exchange info's ``symbols``."""

    @abstractmethod
    async def snapshot(self, native: str, limit: int) -> web.Response:
        """The answer to a depth request for a known instrument."""
        ...


class BinanceWire(Wire):
    """Spot, USD-M or COIN-M. Source: Binance's API documentation of each market, "WebSocket Market Streams", "Diff. Depth
    Stream", "Exchange Information", "Order Book"."""

    trading = "TRADING"
    ws_paths = ("/stream", "/public/stream", "/market/stream")

    def __init__(self, venue: BinanceVenue, market: Market) -> None:
        super().__init__(venue)
        self._binance = venue
        self.market = market
        self.halted = "PENDING_TRADING" if market.futures else "BREAK"
        self._ending = "USD_PERP" if market.inverse else "USDT"
        self._weights = (0, 0)
        """(minute, request weight used in it)."""

    def names(self) -> Iterator[Name]:
        return (self._name(base) for base in bases())

    def name_of(self, native: str) -> Name:
        if not native.endswith(self._ending):
            raise ControlError(f"a symbol here is capitals and digits before {self._ending}, {native!r} is not")
        return self._name(checked_base(native, native.removesuffix(self._ending), self._ending))

    def _name(self, base: str) -> Name:
        quote = "USD" if self.market.inverse else "USDT"
        settle = f":{base if self.market.inverse else quote}" if self.market.futures else ""
        kind = "inverse" if self.market.inverse else "linear" if self.market.futures else "spot"
        return Name(base + self._ending, base, quote, f"{base}/{quote}{settle}", kind)

    def number(self, one: SyntheticInstrument) -> tuple[int, int]:
        if self.market.futures:
            return super().number(one)
        # Spot's ids are the instrument's own and have no holes.
        return one.last_u + 1, one.last_u + 1 + self.venue.events % 4

    def refusal(self, status: int) -> dict[str, Any]:
        if status == 503:
            return {"code": -1008, "msg": "Server is currently overloaded with other requests."}
        return {"code": -1003, "msg": "Too much request weight used"}

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        prefix = self.market.prefix
        found = [(f"{prefix}/exchangeInfo", self._exchange_info), (f"{prefix}/depth", self._depth)]
        return [*found, (f"{prefix}/openInterest", self._open_interest)] if self.market.futures else found

    def synthetic_entries(self) -> list[dict[str, Any]]:
        """Exchange info's ``symbols`` of generated instruments."""
        return [
            instrument_entry(
                self.market, one.native, one.base, one.quote,
                decimal_text(1, one.price_decimals), decimal_text(1, one.size_decimals), one.status,
            )
            for one in self.venue.instruments.values()
        ]  # fmt: skip

    async def _exchange_info(self, _: web.Request) -> web.Response:
        info: dict[str, Any] = {"timezone": "UTC", "serverTime": self.venue.now_us() // 1000, "rateLimits": []}
        return self._weighed(self.market.info_weight, answer(info | {"symbols": self._binance.entries()}))

    async def _depth(self, request: web.Request) -> web.Response:
        native = request.query.get("symbol", "")
        limit = self.market.depth_limit(request.query.get("limit", "500" if self.market.futures else "100"))
        if native not in self._binance.books:
            found = answer({"code": -1121, "msg": "Invalid symbol."}, 400)
        elif limit is None:
            found = answer({"code": -4021, "msg": "Depth limit is not valid."}, 400)
        else:
            found = await self._binance.snapshot(native, limit[0])
        return self._weighed(limit[1] if limit else 1, found)

    async def _open_interest(self, request: web.Request) -> web.Response:
        if (one := self.listed(request.query.get("symbol"))) is None:
            return self._weighed(1, answer({"code": -1121, "msg": "Invalid symbol."}, 400))
        pair = {"pair": one.native.partition("_")[0], "contractType": "PERPETUAL"} if self.market.inverse else {}
        found = {"openInterest": one.size(1_000_000 + one.trade_id), "symbol": one.native}
        return self._weighed(1, answer(found | pair | {"time": self.venue.now_us() // 1000}))

    def _weighed(self, weight: int, response: web.Response) -> web.Response:
        """Count a call; the header says the weight used in this minute. Nothing is refused for it."""
        minute = time.time_ns() // 60_000_000_000
        self._weights = (minute, weight + (self._weights[1] if self._weights[0] == minute else 0))
        response.headers[WEIGHT_HEADER] = str(self._weights[1])
        return response

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        client.put(self._answer(client, text))

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
                most = self.market.streams_max
                if len(client.streams | set(params)) > most:
                    return _error(number, 2, f"Invalid request: more than {most} streams on a connection")
                for name in params:
                    if _sent_on(client.path, name):
                        self.stream.subscribe(client, name)
            case "UNSUBSCRIBE":
                for name in params:
                    self.stream.unsubscribe(client, name)
            case "LIST_SUBSCRIPTIONS":
                result = sorted(client.streams)
            case _:
                return _error(number, 2, f"Invalid request: unknown method {method}")
        self.stream.changed()
        return json.dumps({"result": result, "id": number}).encode()

    def publish(self, change: Change) -> None:
        one, now_ms = change.one, change.ts_us // 1000
        self._publish_depth(change, now_ms)
        if change.trade is not None:
            price, size, buyer_is_maker = change.trade
            trade = {
                "e": "trade", "E": now_ms, "T": now_ms, "s": one.native, "t": one.trade_id, "p": one.price(price),
                "q": one.size(size), "m": buyer_is_maker,
            }  # fmt: skip
            self._send(f"{one.stream}@trade", trade)
            if self.market.futures and one.trade_id % FORCED_EVERY == 0:
                self._publish_forced(change, trade)
        if self.stream.wanted(f"{one.stream}@bookTicker"):
            flow = one.flow
            ticker: dict[str, Any] = {
                "u": change.seq, "s": one.native, "b": one.price(flow.best_bid), "B": one.size(flow.bids[flow.best_bid]),
                "a": one.price(flow.best_ask), "A": one.size(flow.asks[flow.best_ask]),
            }  # fmt: skip
            if self.market.futures:
                ticker = {"e": "bookTicker"} | ticker | {"T": now_ms, "E": now_ms}
            self._send(f"{one.stream}@bookTicker", ticker)

    def _publish_forced(self, change: Change, trade: Mapping[str, Any]) -> None:
        size = trade["q"]
        order = {"s": trade["s"]} | ({"ps": trade["s"].partition("_")[0]} if self.market.inverse else {})
        order |= {"S": "SELL" if trade["m"] else "BUY", "o": "LIMIT", "f": "IOC", "q": size, "p": trade["p"], "ap": trade["p"],
                  "X": "FILLED", "l": size, "z": size, "T": trade["T"]}  # fmt: skip
        self._send(f"{change.one.stream}@{FORCED}", {"e": FORCED, "E": trade["E"], "o": order})

    def _publish_depth(self, change: Change, now_ms: int) -> None:
        one, market = change.one, self.market
        stream = f"{one.stream}@{market.depth_stream}"
        if not self.stream.wanted(stream):
            return
        data: dict[str, Any] = {"e": "depthUpdate", "E": now_ms}
        if market.futures:
            data["T"] = now_ms
        data["s"] = one.native
        if market.inverse:
            data["ps"] = one.native.partition("_")[0]
        data |= {"U": change.first, "u": change.seq}
        if market.futures:
            data["pu"] = change.previous
        data |= {"b": one.texts(change.bids), "a": one.texts(change.asks)}
        self.send_book(stream, compact({"stream": stream, "data": data}), change)

    def _send(self, stream: str, data: Mapping[str, Any]) -> None:
        if self.stream.wanted(stream):
            self.stream.send(stream, compact({"stream": stream, "data": data}))

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(fields: Mapping[str, Any]) -> bytes:
            stream = f"{fields['s'].lower()}@{self.market.depth_stream}"
            data = {"e": "depthUpdate", "E": 1, "T": 1, **fields, "pu": 1, "b": [], "a": []}
            return compact({"stream": stream, "data": data})

        return frame({"s": native, "U": 1, "u": "not a number"}), frame({"s": "NOBODYUSDT", "U": 1, "u": 1})


def _sent_on(path: str, stream: str) -> bool:
    kinds = ROUTES.get(path.split("/")[1])
    return kinds is None or stream.partition("@")[2].startswith(kinds)


def _error(number: Any, code: int, text: str) -> bytes:
    return json.dumps({"error": {"code": code, "msg": text}, "id": number}).encode()
