"""Drives one ccxt.pro exchange: keeps its subscriptions alive, and taps every change of its books and trades.

A plain ``watch_order_book`` loop only sees the book as it is when it looks: updates in between are coalesced away. Here
the sides of ccxt's books note every price that is stored, and each time that ccxt tells its watchers about a book, what
was noted becomes one delta. So no update is lost, however slow the reader is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

from collectors.cex.ccxt_pro import CcxtVenue, text_of
from collectors.errors import RestError
from collectors.events import BookDelta, BookSnapshot, Event, TradeEvent
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.venue import TRADE, Listing
from config.settings import VenueSettings

log = logging.getLogger(__name__)

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
REFUSED_RETRY_S = 60.0
SIDES = {"buy": "BUY", "sell": "SELL"}


class Tap:
    """What changed in one ccxt book since it was told last."""

    __slots__ = ("touched", "whole")

    def __init__(self) -> None:
        self.whole = True
        """The book is new, or was reset: its whole content is the news."""
        self.touched: tuple[set[float], set[float]] = (set(), set())

    def clear(self) -> None:
        """It has been told."""
        self.whole = False
        self.touched[0].clear()
        self.touched[1].clear()


def tapped(book: Any) -> Any:
    """Make an order book of ccxt's note what is stored in it; gives the same book, with its Tap as ``tap``."""
    tap = Tap()
    for number, name in enumerate(("bids", "asks")):
        side = book[name]
        side.__class__ = _tapped_side(type(side))
        side.tap, side.noted = tap, tap.touched[number]
    book.__class__ = _tapped_book(type(book))
    book.tap = tap
    return book


_classes: dict[tuple[str, type], type] = {}


def _tapped_side(kind: Any) -> Any:
    """A subclass of this kind of side that notes prices; one for each kind."""
    if ("side", kind) not in _classes:

        class Side(kind):  # the base is one of ccxt's six
            def storeArray(self, delta: Any) -> None:  # noqa: N802 - ccxt's name
                if delta[0] is None or getattr(self, "_hashmap", None):
                    self.tap.whole = True  # a book of orders: an order may move to a price that it does not name
                else:
                    self.noted.add(delta[0])
                super().storeArray(delta)

            def limit(self) -> None:
                for order in self[self._depth :]:
                    self.noted.add(order[0])
                super().limit()

        _classes["side", kind] = Side
    return _classes["side", kind]


def _tapped_book(kind: Any) -> Any:
    if ("book", kind) not in _classes:

        class Book(kind):
            def reset(self, snapshot: Any = None) -> None:
                self.tap.whole = True
                super().reset(snapshot or {})

        _classes["book", kind] = Book
    return _classes["book", kind]


def news_of(book: Any, native: str) -> BookSnapshot | BookDelta | None:
    """What changed since the last time, as an event; None when nothing did. Raises ValueError for what is no number."""
    tap: Tap = book.tap
    ts_us = int(book["timestamp"] or 0) * 1000
    if tap.whole:
        event = BookSnapshot(native, -1, _levels(book["bids"]), _levels(book["asks"]), ts_us, refresh=True)
    elif tap.touched[0] or tap.touched[1]:
        bids = [(text_of(price), text_of(_size_at(book["bids"], price))) for price in tap.touched[0]]
        asks = [(text_of(price), text_of(_size_at(book["asks"], price))) for price in tap.touched[1]]
        event = BookDelta(native, -1, -1, -1, bids, asks, ts_us)
    else:
        return None
    tap.clear()
    return event


def _levels(side: Any) -> list[tuple[str, str]]:
    sizes: dict[float, Any] = {}
    for order in side:
        # A book of orders holds several at a price; floats are added as ccxt itself would.
        sizes[order[0]] = order[1] if order[0] not in sizes else sizes[order[0]] + order[1]
    return [(text_of(price), text_of(size)) for price, size in sizes.items()]


def _size_at(side: Any, price: float) -> Any:
    key = -price if side.side else price
    at = bisect_left(side._index, key)
    return side[at][1] if at < len(side._index) and side._index[at] == key else 0


class CcxtFeed:
    """Stands where a native venue has its ConnectionPool; its methods are the same."""

    def __init__(
        self, name: str, venue: CcxtVenue, own: VenueSettings, pipeline: Pipeline, counts: Counts
    ) -> None:  # fmt: skip
        self.name = name
        self.venue = venue
        self._pipeline = pipeline
        self._counts = counts
        self._receive: Callable[[Any, int], None] = pipeline.receiver(lambda events: events)  # pyright: ignore[reportArgumentType]
        self._exchange = venue.exchange(own.rest_url, own.ws_url, own.options)
        self._batches: dict[str, set[str]] = {}
        """symbol → the batch that it is watched in."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_trade: dict[int, Any] = {}
        self._many = bool(self._exchange.has.get("watchOrderBookForSymbols"))
        self._tap()

    async def listings(self) -> list[Listing]:
        """Every market, loaded anew. Raises RestError."""
        import ccxt

        try:
            markets = await self._exchange.load_markets(True)
        except ccxt.BaseError as error:
            self._counts.rest_errors += 1
            raise RestError(f"{self.name}: {type(error).__name__}: {str(error)[:300]}") from error
        return self.venue.listings(markets, self._exchange.precisionMode)

    def open_count(self) -> int:
        """Connections that are open now."""
        clients = (self._exchange.clients or {}).values()
        return sum(bool(client.isConnected) for client in clients)

    def brings_books(self) -> bool:
        """Whether a connection is open: which of them books come by is not known."""
        return self.open_count() > 0

    def groups(self) -> Iterable[tuple[object, Iterable[str]]]:
        """All instruments: which of ccxt's connections one came by is not known."""
        return ((0, self._batches),)

    def open_anew(self, names: Iterable[object], reason: str) -> None:
        """Nothing: the connections are ccxt's own."""

    def subscribe(self, natives: Iterable[str]) -> None:
        """Watch these symbols: in batches where the venue can, else each alone."""
        new = [native for native in natives if native not in self._batches]
        size = self.venue.limits.instruments_per_request if self._many else 1
        for start in range(0, len(new), size):
            self._watch(set(new[start : start + size]))

    def unsubscribe(self, native: str) -> None:
        """Watch this symbol no more; what still comes of it is ignored."""
        batch = self._batches.pop(native, None)
        if batch is not None:
            batch.discard(native)
            self._start(self._cancel(native))

    def renew(self, native: str) -> None:
        """Take the book anew, from a new subscription."""
        if native in self._batches:
            self._start(self._again(native))

    async def renew_old(self) -> None:
        """Nothing to do: ccxt opens its connections anew itself, after they were cut."""

    async def close(self) -> None:
        """Stop watching and close every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._batches.clear()
        await self._exchange.close()

    # The tap.

    def _tap(self) -> None:
        exchange = self._exchange
        for factory in ("order_book", "indexed_order_book", "counted_order_book"):
            plain = getattr(exchange, factory)

            def make(snapshot: Any = None, depth: Any = None, plain: Any = plain) -> Any:
                return tapped(plain(snapshot or {}, depth))

            setattr(exchange, factory, make)
        client_of = exchange.client

        def client(url: str) -> Any:
            made = client_of(url)
            if "resolve" not in vars(made):
                resolve = made.resolve

                def heard(result: Any, message_hash: Any = None) -> Any:
                    self._told(result)
                    return resolve(result, message_hash)

                made.resolve = heard
            return made

        exchange.client = client

    def _told(self, result: Any) -> None:
        """ccxt tells its watchers about this object: take what is new in it. Never raises."""
        now_ns = time.time_ns()
        try:
            if hasattr(result, "tap"):
                symbol = result.get("symbol")
                event = news_of(result, symbol) if symbol in self._batches else None
                events: list[Event] = [] if event is None else [event]
            elif isinstance(result, list) and type(result).__name__.startswith("ArrayCache"):
                events = self._new_trades(result)
            else:
                return
        except (ValueError, TypeError, KeyError) as error:
            self._pipeline.publisher.dead_letter(repr(result).encode()[:4096], f"ccxt: {error}", now_ns)
            return
        if events:
            self._receive(events, now_ns)

    def _new_trades(self, cache: Any) -> list[Event]:
        last = self._last_trade.get(id(cache))
        fresh: list[Any] = []
        for trade in reversed(cache):
            if trade is last:
                break
            fresh.append(trade)
        if fresh:
            self._last_trade[id(cache)] = fresh[0]
        return [
            TradeEvent(
                trade["symbol"], str(trade.get("id") or ""), SIDES.get(trade.get("side") or "", "UNKNOWN"),
                text_of(trade["price"]), text_of(trade["amount"]), int(trade.get("timestamp") or 0) * 1000,
            )
            for trade in reversed(fresh) if trade.get("symbol") in self._batches and "price" in trade
        ]  # fmt: skip

    # Watching.

    def _watch(self, batch: set[str]) -> None:
        for native in batch:
            self._batches[native] = batch
        self._start(self._follow(batch, "watch_order_book", "watch_order_book_for_symbols"))
        if TRADE in self.venue.channels and self._exchange.has.get("watchTrades"):
            self._start(self._follow(batch, "watch_trades", "watch_trades_for_symbols", books=False))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, batch: set[str], one: str, many: str, *, books: bool = True) -> None:
        """Keep the subscription of a batch alive until nobody wants it; its data comes through the tap."""
        import ccxt

        backoff_s = FIRST_BACKOFF_S
        in_one = self._many if books else bool(self._exchange.has.get("watchTradesForSymbols"))
        if not in_one and len(batch) > 1:
            for native in sorted(batch):
                self._start(self._follow({native}, one, many, books=books))
            return
        while batch and any(native in self._batches for native in batch):
            symbols = sorted(batch)
            try:
                await (getattr(self._exchange, many)(symbols) if in_one else getattr(self._exchange, one)(symbols[0]))
                backoff_s = FIRST_BACKOFF_S
                continue
            except ccxt.NetworkError as error:
                self._counts.reconnects += books
                self._lost(batch, f"{type(error).__name__}: {str(error)[:200]}", books)
            except ccxt.BaseError as error:
                text = f"{type(error).__name__}: {str(error)[:200]}"
                if len(batch) > 1 and isinstance(error, ccxt.BadSymbol | ccxt.BadRequest | ccxt.ArgumentsRequired):
                    # One bad symbol never breaks a batch: each is tried alone.
                    log.warning("%s: a batch of %d was refused (%s); trying each alone", self.name, len(batch), text)
                    for native in symbols:
                        self._start(self._follow({native}, one, many, books=books))
                    return
                if books and len(batch) == 1:
                    self._refuse(symbols[0], text)
                    backoff_s = REFUSED_RETRY_S
                else:
                    self._lost(batch, text, books)
            except Exception as error:  # ccxt's own mistakes must not end the subscription
                self._counts.internal_errors += 1
                log.exception("%s", self.name)
                self._lost(batch, type(error).__name__, books)
            await asyncio.sleep(backoff_s)
            backoff_s = min(LONGEST_BACKOFF_S, backoff_s * 2)

    def _lost(self, batch: set[str], reason: str, books: bool) -> None:
        if not books:
            return
        for native in batch:
            if (worker := self._pipeline.workers.get(native)) is not None:
                worker.on_stream_lost(reason)
            if (book := self._exchange.orderbooks.get(native)) is not None and hasattr(book, "tap"):
                book.tap.whole = True

    def _refuse(self, native: str, reason: str) -> None:
        self._counts.refused_subscriptions += 1
        if (worker := self._pipeline.workers.get(native)) is not None:
            worker.refused(f"the venue refused the subscription: {reason}")

    async def _cancel(self, native: str) -> None:
        import ccxt

        try:
            if self._exchange.has.get("unWatchOrderBook"):
                await self._exchange.un_watch_order_book(native)
        except ccxt.BaseError as error:
            log.info("%s: %s: %s", self.name, native, error)

    async def _again(self, native: str) -> None:
        if self._exchange.has.get("unWatchOrderBook"):
            await self._cancel(native)
            return
        for client in list((self._exchange.clients or {}).values()):
            await client.close()
