"""Coinbase Advanced Trade from the venue's side: ``level2`` with one sequence number for all frames of a connection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from simulator.faults import ControlError
from simulator.instrument import Name, SyntheticInstrument, decimal_text
from simulator.order_flow import Changes
from simulator.stream_server import Client
from simulator.wire import Change, Wire, answer, bases, best, checked_base, compact, iso_us

CHANNELS = ("level2", "market_trades", "ticker", "ticker_batch", "heartbeats", "status", "candles")
PLACE = b'"sequence_num":-1'
"""Where a frame's number is written when it is known who gets it."""
SNAPSHOT_TIME = "1970-01-01T00:00:00Z"


class CoinbaseWire(Wire):
    """Source: Coinbase Advanced Trade API, "WebSocket Channels" (level2, market_trades, ticker, heartbeats, subscriptions),
    "Sequence Numbers" (``sequence_num`` grows by one with each frame of a connection, whatever its channel), "List Public
    Products", "Get Public Product Book"."""

    ws_paths = ("/ws",)
    by_time = True
    trading, halted = "online", "offline"

    def names(self) -> Iterator[Name]:
        return (self._name(base) for base in bases())

    def name_of(self, native: str) -> Name:
        base, _, quote = native.partition("-")
        if quote != "USD":
            raise ControlError(f"a symbol here is BASE-USD, {native!r} is not")
        return self._name(checked_base(native, base, "-USD"))

    def _name(self, base: str) -> Name:
        return Name(f"{base}-USD", base, "USD", f"{base}/USD")

    def refusal(self, status: int) -> dict[str, Any]:
        text = "service unavailable" if status == 503 else "rate limit exceeded"
        return {"error": text.upper().replace(" ", "_"), "message": text}

    def stamp(self, client: Client, frame: bytes) -> bytes:
        number = client.memory.get("sequence", 0)
        client.memory["sequence"] = number + 1
        return frame.replace(PLACE, b'"sequence_num":%d' % number, 1)

    def tick(self, client: Client) -> None:
        if "heartbeats" not in client.streams:
            return
        counter = client.memory["heartbeat"] = client.memory.get("heartbeat", 0) + 1
        now = iso_us(self.venue.now_us())
        event = {"current_time": f"{now[:10]} {now[11:-1]} +0000 UTC m=+1.0", "heartbeat_counter": counter}
        self.stream.put(client, self._frame("heartbeats", [event], now))

    # REST.

    def routes(self) -> list[tuple[str, Any]]:
        prefix = "/api/v3/brokerage/market"
        return [
            (f"{prefix}/products", self._products),
            (f"{prefix}/products/{{native}}", self._product),
            (f"{prefix}/product_book", self._product_book),
            ("/api/v3/brokerage/time", self._time),
        ]

    async def _products(self, request: web.Request) -> web.Response:
        query = request.query
        if query.get("product_type", "SPOT") not in ("SPOT", "UNKNOWN_PRODUCT_TYPE"):
            return answer({"products": [], "num_products": 0})
        ones = list(self.venue.instruments.values())
        start, limit = int(query.get("offset") or 0), int(query.get("limit") or 0)
        chosen = ones[start : start + limit] if limit else ones[start:]
        return answer({"products": [_product(one) for one in chosen], "num_products": len(ones)})

    async def _product(self, request: web.Request) -> web.Response:
        one = self.listed(request.match_info["native"])
        return answer({"error": "NOT_FOUND", "message": "product not found"}, 404) if one is None else answer(_product(one))

    async def _product_book(self, request: web.Request) -> web.Response:
        one, limit = self.listed(request.query.get("product_id")), request.query.get("limit", "")
        if one is None:
            return answer({"error": "NOT_FOUND", "message": "product not found"}, 404)
        bids, asks = best(one, int(limit) if limit.isdigit() and int(limit) else 10**6)
        book = {
            "product_id": one.native,
            "bids": [{"price": one.price(p), "size": one.size(s)} for p, s in bids],
            "asks": [{"price": one.price(p), "size": one.size(s)} for p, s in asks],
            "time": iso_us(one.truth.ts_us),
        }
        return answer({"pricebook": book})

    async def _time(self, _: web.Request) -> web.Response:
        now_us = self.venue.now_us()
        seconds = str(now_us // 1_000_000)
        return answer({"iso": iso_us(now_us), "epochSeconds": seconds, "epochMillis": str(now_us // 1000)})

    # The stream.

    def receive(self, client: Client, text: str) -> None:
        try:
            message = json.loads(text)
            kind, channel, natives = message["type"], message["channel"], message.get("product_ids") or []
        except (ValueError, KeyError, TypeError, AttributeError):
            client.put(compact({"type": "error", "message": "failed to parse message"}))
            return
        if kind not in ("subscribe", "unsubscribe") or channel not in CHANNELS or not isinstance(natives, list):
            client.put(compact({"type": "error", "message": f"invalid {kind} request: channel {channel}"}))
            return
        if channel == "heartbeats":
            natives = [None]
        for native in natives:
            stream = channel if native is None else f"{channel}:{native}"
            if kind == "unsubscribe":
                self.stream.unsubscribe(client, stream)
                continue
            one = self.listed(native)
            if one is None and native is not None:
                client.put(compact({"type": "error", "message": f"{native} is not a valid product"}))
                continue
            self.stream.subscribe(client, stream)
            if one is not None:
                self._begin(client, channel, one)
        self.stream.put(client, self._subscriptions(client))
        self.stream.changed()

    def _begin(self, client: Client, channel: str, one: SyntheticInstrument) -> None:
        """What a channel sends first: before the confirmation."""
        now = iso_us(one.truth.ts_us)
        if channel == "level2":
            updates = _updates(one, *best(one, 10**6), SNAPSHOT_TIME)
            event = {"type": "snapshot", "product_id": one.native, "updates": updates}
            self.stream.put(client, self._frame("l2_data", [event], now))
        elif channel == "market_trades":
            self.stream.put(client, self._frame("market_trades", [{"type": "snapshot", "trades": []}], now))

    def _subscriptions(self, client: Client) -> bytes:
        held: dict[str, list[str]] = {}
        for stream in sorted(client.streams):
            channel, _, native = stream.partition(":")
            held.setdefault(channel, []).append(native or channel)
        return self._frame("subscriptions", [{"subscriptions": held}], iso_us(self.venue.now_us()))

    def _frame(self, channel: str, events: list[Mapping[str, Any]], timestamp: str) -> bytes:
        head = {"channel": channel, "client_id": "", "timestamp": timestamp, "sequence_num": -1}
        return compact({**head, "events": events})

    def publish(self, change: Change) -> None:
        one, now = change.one, iso_us(change.ts_us)
        stream = f"level2:{one.native}"
        if self.stream.wanted(stream):
            updates = _updates(one, change.bids, change.asks, now)
            event = {"type": "update", "product_id": one.native, "updates": updates}
            self.send_book(stream, self._frame("l2_data", [event], now), change)
        stream = f"market_trades:{one.native}"
        if change.trade is not None and self.stream.wanted(stream):
            price, size, buyer_is_maker = change.trade
            # Source: "Market Trades Channel": the side is the maker's.
            trade = {
                "product_id": one.native, "trade_id": str(one.trade_id), "price": one.price(price),
                "size": one.size(size), "time": now, "side": "BUY" if buyer_is_maker else "SELL",
            }  # fmt: skip
            self.stream.send(stream, self._frame("market_trades", [{"type": "update", "trades": [trade]}], now))
        stream = f"ticker:{one.native}"
        if self.stream.wanted(stream):
            self.stream.send(stream, self._frame("ticker", [{"type": "update", "tickers": [_ticker(one)]}], now))

    def bad_frames(self, native: str) -> tuple[bytes, bytes]:
        def frame(name: str, price: Any) -> bytes:
            # Without a number that the connection's own would have to follow.
            update = {"side": "bid", "event_time": SNAPSHOT_TIME, "price_level": price, "new_quantity": "1"}
            event = {"type": "update", "product_id": name, "updates": [update]}
            return compact({"channel": "l2_data", "client_id": "", "timestamp": SNAPSHOT_TIME, "events": [event]})

        return frame(native, ["not a number"]), frame("NOBODY-USD", "1")


def _updates(one: SyntheticInstrument, bids: Changes, asks: Changes, event_time: str) -> list[dict[str, str]]:
    return [
        {"side": side, "event_time": event_time, "price_level": one.price(p), "new_quantity": one.size(s) if s else "0"}
        for side, levels in (("bid", bids), ("offer", asks))
        for p, s in levels
    ]


def _product(one: SyntheticInstrument) -> dict[str, Any]:
    tick, lot = decimal_text(1, one.price_decimals), decimal_text(1, one.size_decimals)
    return {
        "product_id": one.native, "price": one.price(one.flow.best_bid), "base_increment": lot, "quote_increment": tick,
        "quote_min_size": "1", "quote_max_size": "150000000", "base_min_size": lot, "base_max_size": "3400",
        "base_name": one.base, "quote_name": "US Dollar", "watched": False, "is_disabled": False, "new": False,
        "status": one.status, "cancel_only": False, "limit_only": False, "post_only": False,
        "trading_disabled": one.status != CoinbaseWire.trading, "auction_mode": False, "product_type": "SPOT",
        "quote_currency_id": one.quote, "base_currency_id": one.base, "base_display_symbol": one.base,
        "quote_display_symbol": one.quote, "view_only": False, "price_increment": tick, "alias": "", "alias_to": [],
        "display_name": one.native, "product_venue": "CBE", "approximate_quote_24h_volume": "1000000",
    }  # fmt: skip


def _ticker(one: SyntheticInstrument) -> dict[str, str]:
    flow = one.flow
    return {
        "type": "ticker", "product_id": one.native, "price": one.price(flow.best_bid), "volume_24_h": "1000",
        "best_bid": one.price(flow.best_bid), "best_bid_quantity": one.size(flow.bids[flow.best_bid]),
        "best_ask": one.price(flow.best_ask), "best_ask_quantity": one.size(flow.asks[flow.best_ask]),
    }  # fmt: skip
