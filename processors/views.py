"""The web views, read-only: any worker answers for any key, by asking the worker that holds it.

=============================  =========================================================================
``/books``                     every book of this worker with its state, best bid and offer (``?venue=``)
``/books/VENUE/SYMBOL``        one book, all levels or ``?depth=N``; the symbol as it is written, BTC/USDT:USDT
``/bbo?symbol=``               the best bid and offer of one instrument, all venues side by side
``/cross/BASE/QUOTE``          best bid and best offer over all venues; QUOTE may be USDT:USDT
``/bars/VENUE/SYMBOL``         bars, ``?interval=1s|1m|1h&limit=``, the open one last
``/instruments``               every instrument (``?venue=&base=&quote=&state=``)
``/status``                    books of all workers by state, and those in ``?state=``
``/stream/books/VENUE/SYMBOL`` server-sent events: the book at each change, conflated (``?depth=``)
``/stream/cross``              the same for crosses (``?symbol=``; without: those that this worker holds)
``/openapi.json``              all of this for machines
``/healthz`` ``/readyz``       alive and positions; 200 once partitions are assigned and the tables recovered, else 503
``/metrics``                   Prometheus
=============================  =========================================================================

Errors are ``{"error": reason}``: 400 what was asked makes no sense, 401 without the token, 404 there is no such thing,
429 too often, 503 ask again. With ``processor.web_token_file`` all but ``/healthz`` and ``/readyz`` need
``Authorization: Bearer …`` (see guard.py); who follows the redirect of a stream must send it again.
"""

from __future__ import annotations

import time
from collections import Counter
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from market.decimals import format_decimal
from processors.asked import Refused, answer, choice, listed, only, refusal, whole, word
from processors.bar import INTERVALS_S
from processors.mirror_book import MirrorBook
from processors.openapi import STATES, describe
from processors.routing import Elsewhere, NotReady, Router
from processors.streams import CLIENTS_MAX
from schemas.topics import market_key

if TYPE_CHECKING:
    from processors.app import Processor

INTERVALS = {"1s": 1, "1m": 60, "1h": 3600}
assert tuple(INTERVALS.values()) == INTERVALS_S
LISTED_MAX = 1000
RECOVERS = "this worker reads on from its checkpoint; ask again"


class Answers:
    """What the views say, from what this worker holds."""

    def __init__(self, processor: Processor) -> None:
        self._p = processor

    def head(self, book: MirrorBook, partition: int) -> dict[str, Any]:
        """What every answer about a book carries."""
        received = book.ts_received_ns
        return {
            "venue": book.venue,
            "symbol": book.symbol,
            "state": self._p.books.state(book, partition),
            "reason": self._p.books.reason(book, partition),
            "epoch": book.epoch,
            "index": book.index,
            "offset": book.offset,
            "venue_seq": book.venue_seq,
            "ts_venue_us": book.ts_venue_us,
            "ts_received_ns": received,
            "age_ms": max(0, time.time_ns() - received) // 1_000_000 if received else None,
        }

    def summary(self, book: MirrorBook, partition: int) -> dict[str, Any]:
        """One line of the list of books."""
        pe, se = book.book.price_exp, book.book.size_exp
        best = {
            side: None if level is None else [format_decimal(level[0], pe), format_decimal(level[1], se)]
            for side, level in (("bid", book.book.bids.best()), ("ask", book.book.asks.best()))
        }
        return {**self.head(book, partition), **best, "levels": len(book.book.bids) + len(book.book.asks)}

    def book(self, venue: str, symbol: str, depth: int | None) -> dict[str, Any]:
        """One book: decimal texts, best first; raises Refused."""
        key = market_key(venue, symbol)
        found = self._p.find(key)
        if found is None:
            if not self._p.ready or self._p.books.recovering(self._p.partition_of(key)):
                raise Refused(503, RECOVERS)
            raise Refused(404, f"no book of {venue} {symbol}; /books lists those of each worker")
        bids, asks = found[1].book.level_texts(depth)
        return {**self.head(found[1], found[0]), "bids": bids, "asks": asks}

    def bbo(self, symbol: str) -> dict[str, Any]:
        """All venues of a symbol side by side; raises Refused."""
        group, now_s = self._group(symbol), time.time()
        quotes = []
        for venue in sorted(group.quotes):
            quote = group.quotes[venue]
            r = quote.record
            pe, se = r["price_exp"], r["size_exp"]
            sides = {
                side: [format_decimal(r[f"{side}_price"], pe), format_decimal(r[f"{side}_size"], se)]
                if r[f"{side}_size"] else None for side in ("bid", "ask")
            }  # fmt: skip
            own = {name: r[name] for name in ("venue", "state", "epoch", "index", "offset", "partition", "ts_received_ns")}
            age_ms = max(0, time.time_ns() - r["ts_received_ns"]) // 1_000_000
            quotes.append({**own, **sides, "age_ms": age_ms, "repeated_ms": max(0, int((now_s - quote.heard_s) * 1000))})
        return {"symbol": symbol, "venues": quotes}

    def cross(self, symbol: str) -> dict[str, Any]:
        """Best bid and offer over all venues; raises Refused."""
        return self._p.crosses.view(self._group(symbol))

    def _group(self, symbol: str) -> Any:
        if "cross" not in self._p.settings.processor.derived:
            raise Refused(404, "this deployment derives no crosses (processor.derived)")
        group = self._p.crosses.find(symbol, self._p.partition_of(symbol))
        if group is None:
            if not self._p.ready:
                raise Refused(503, RECOVERS)
            raise Refused(404, f"no venue has a book of {symbol}; /instruments lists what there is")
        return group

    def bars(self, venue: str, symbol: str, interval: str, limit: int) -> dict[str, Any]:
        """Bars of one instrument; raises Refused."""
        if "bar" not in self._p.settings.processor.derived:
            raise Refused(404, "this deployment derives no bars (processor.derived)")
        key = market_key(venue, symbol)
        partition = self._p.partition_of(key)
        found = self._p.bars.view(key, partition, INTERVALS[interval], limit)
        if found is None:
            if not self._p.ready:
                raise Refused(503, RECOVERS)
            raise Refused(404, f"no trade of {venue} {symbol} was seen since this worker took it over")
        return {"venue": venue, "symbol": symbol, "interval": interval, "bars": found}

    async def books(self, venue: str | None) -> dict[str, Any]:
        """Every book of this worker, or of one venue."""
        chosen = [(p, b) for p, b in self._p.books.all() if venue is None or b.venue == venue]
        found = await listed(sorted(chosen, key=lambda one: one[1].key), lambda one: self.summary(one[1], one[0]))
        return {"worker": self._p.url, "books": found}

    async def status(self, state: str | None) -> dict[str, Any]:
        """This worker's books by state, and the first of those in one state."""
        held, of = list(self._p.books.all()), self._p.books.state
        states = await listed(held, lambda one: of(one[1], one[0]))
        chosen = [one for one, own in zip(held, states, strict=True) if own == state][:LISTED_MAX]
        rows = await listed(chosen, lambda one: self.head(one[1], one[0]))
        return {"states": dict(Counter(states)), "books": [row for row in rows if row["state"] == state]}

    async def instruments(self, request: Any) -> dict[str, Any]:
        """Every instrument that passes the query's filters; raises Refused."""
        if not self._p.instruments.complete:
            raise Refused(503, "market.instrument is still being read; ask again")
        wanted = {name: value for name in ("venue", "base", "quote") if (value := word(request, name)) is not None}
        if (state := choice(request, "state", ("TRADING", "HALTED", "DELISTED"))) is not None:
            wanted["state"] = state
        found = await listed(self._p.instruments.all(), lambda r: all(r[n] == value for n, value in wanted.items()) and r)
        kept = [r for r in found if r]
        return {"count": len(kept), "instruments": kept}


def add_views(app: Any, table: Any, processor: Processor) -> None:
    """Register the views on the Faust app's web server."""
    answers, router = Answers(processor), Router(app, table, processor, processor.guard)
    processor.guard.install(app.web.web_app)

    def page(path: str, names: tuple[str, ...], key_of: Any, found: Any) -> None:
        """``found(request, **parts)`` is asked of the worker that holds ``key_of(request, **parts)``, or of any."""

        async def respond(_: Any, request: Any, **parts: str) -> Any:
            try:
                only(request, names)
                if key_of is not None and (key := key_of(request, **parts)) is not None:
                    await router.require(key, request)
                value = found(request, **parts)
                return answer(await value if isawaitable(value) else value)
            except Refused as refused:
                return refusal(refused, refused.status)
            except Elsewhere as other:
                kind = "application/json"
                return web.Response(text=other.text, status=other.status, content_type=kind, headers=other.headers)
            except NotReady as error:
                return refusal(error, 503)

        app.page(path)(respond)

    def key(_: Any, venue: str, symbol: str) -> str:
        return market_key(venue, symbol)

    def group(_: Any, base: str, quote: str) -> str:
        return f"{base}/{quote}"

    def asked_symbol(request: Any) -> str:
        if not (symbol := request.query.get("symbol")):
            raise Refused(400, "name a symbol: /bbo?symbol=BTC/USDT")
        return symbol

    def interval(request: Any) -> str:
        return choice(request, "interval", INTERVALS) or "1m"

    page("/books", ("venue",), None, lambda r: answers.books(word(r, "venue")))
    page("/books/{venue}/{symbol:.+}", ("depth",), key, lambda r, venue, symbol: answers.book(
        venue, symbol, whole(r, "depth", None, 1_000_000)))  # fmt: skip
    page("/bbo", ("symbol",), asked_symbol, lambda r: answers.bbo(asked_symbol(r)))
    page("/cross/{base}/{quote:.+}", (), group, lambda _, base, quote: answers.cross(f"{base}/{quote}"))
    page("/bars/{venue}/{symbol:.+}", ("interval", "limit"), key, lambda r, venue, symbol: answers.bars(
        venue, symbol, interval(r), whole(r, "limit", 100, 240) or 100))  # fmt: skip
    page("/instruments", ("venue", "base", "quote", "state"), None, answers.instruments)
    page("/openapi.json", (), None, lambda _: describe(processor.guard.asks_for_a_token))
    page("/healthz", (), None, lambda _: processor.health())

    async def status(request: Any) -> dict[str, Any]:
        own = await answers.status(choice(request, "state", STATES))
        return await router.add_others("/status", request, own)

    page("/status", ("state",), None, status)

    @app.page("/stream/books/{venue}/{symbol:.+}")
    async def stream_book(_: Any, request: Any, venue: str, symbol: str) -> Any:
        own = market_key(venue, symbol)

        def shown() -> Any:
            try:
                return answers.book(venue, symbol, depth)
            except Refused:
                return None

        try:
            only(request, ("depth",))
            depth = whole(request, "depth", 10, 1000)
            answers_here(own, request)
            answers.book(venue, symbol, 1)
        except Refused as refused:
            return refusal(refused, refused.status)
        return await processor.streams.serve(request, [own], shown)

    @app.page("/stream/cross")
    async def stream_cross(_: Any, request: Any) -> Any:
        symbol, told = "", dict[str, str]()

        def shown() -> Any:
            if symbol:
                try:
                    return answers.cross(symbol)
                except Refused:
                    return None
            groups = [g for held in processor.crosses.by_partition.values() for g in held.values()]
            new = {g.symbol: str(g.last) for g in groups}
            changed = [g for g in groups if told.get(g.symbol) != new[g.symbol]]
            told.update(new)
            return [processor.crosses.view(g) for g in changed]

        try:
            only(request, ("symbol",))
            if symbol := word(request, "symbol") or "":
                answers_here(symbol, request)
                answers.cross(symbol)
        except Refused as refused:
            return refusal(refused, refused.status)
        return await processor.streams.serve(request, [f"cross {symbol}" if symbol else "*cross"], shown)

    def answers_here(own: str, request: Any) -> None:
        """Redirect a stream to the worker that holds the key; raises Refused, or web.HTTPTemporaryRedirect."""
        if processor.streams.clients >= CLIENTS_MAX:
            raise Refused(503, f"{CLIENTS_MAX} clients listen already; ask another worker")
        try:
            other = router.owner(own)
        except NotReady as error:
            raise Refused(503, str(error)) from None
        if other is not None:
            raise web.HTTPTemporaryRedirect(f"{other}{request.path_qs}")

    @app.page("/readyz")
    async def readyz(_: Any, __: Any) -> Any:
        return answer({"ready": processor.ready}, 200 if processor.ready else 503)

    @app.page("/metrics")
    async def metrics(view: Any, _: Any) -> Any:
        return view.text(processor.metrics.exposition().decode(), content_type="text/plain")
