"""The web views, read-only: any worker answers for any book, by asking the worker that holds its key.

========================  ==============================================================================
``/books``                every book of this worker with its state, best bid and offer (``?venue=``)
``/books/VENUE/SYMBOL``   one book, all levels or ``?depth=N``; the symbol as it is written, BTC/USDT:USDT
``/healthz``              alive, and the next offset to process of each partition
``/readyz``               200 once partitions are assigned and the table is recovered, else 503
``/metrics``              Prometheus
========================  ==============================================================================
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from market.decimals import format_decimal
from processors.mirror_book import MirrorBook
from schemas.topics import market_key

if TYPE_CHECKING:
    from processors.app import Processor


def book_view(book: MirrorBook, state: str, reason: str, depth: int | None) -> dict[str, Any]:
    """One book as JSON: decimal texts, best first."""
    bids, asks = book.book.level_texts(depth)
    return {**_head(book, state, reason), "bids": bids, "asks": asks}


def summary_view(book: MirrorBook, state: str, reason: str) -> dict[str, Any]:
    """One line of the list of books."""
    pe, se = book.book.price_exp, book.book.size_exp
    best = {
        side: None if level is None else [format_decimal(level[0], pe), format_decimal(level[1], se)]
        for side, level in (("bid", book.book.bids.best()), ("ask", book.book.asks.best()))
    }
    return {**_head(book, state, reason), **best, "levels": len(book.book.bids) + len(book.book.asks)}


def _head(book: MirrorBook, state: str, reason: str) -> dict[str, Any]:
    received = book.ts_received_ns
    return {
        "venue": book.venue,
        "symbol": book.symbol,
        "state": state,
        "reason": reason,
        "epoch": book.epoch,
        "index": book.index,
        "venue_seq": book.venue_seq,
        "ts_venue_us": book.ts_venue_us,
        "ts_received_ns": received,
        "age_ms": max(0, time.time_ns() - received) // 1_000_000 if received else None,
    }


def add_views(app: Any, table: Any, processor: Processor) -> None:
    """Register the views on the Faust app's web server."""

    @app.page("/books")
    async def books(view: Any, request: Any) -> Any:
        venue = request.query.get("venue")
        found = [
            summary_view(book, processor.books.state(book, partition), processor.books.reason(book, partition))
            for partition, book in processor.books.all()
            if venue is None or book.venue == venue
        ]
        return view.json({"worker": processor.url, "books": sorted(found, key=lambda b: (b["venue"], b["symbol"]))})

    @app.page("/books/{venue}/{symbol:.+}")
    async def book(view: Any, request: Any, venue: str, symbol: str) -> Any:
        depth: int | None = None
        if (text := request.query.get("depth")) is not None:
            if not (text.isascii() and text.isdigit() and 0 < len(text) <= 6 and int(text) > 0):
                return view.json({"error": f"depth is a number of levels from 1, not {text[:20]!r}"}, status=400)
            depth = int(text)
        key = market_key(venue, symbol)
        from faust.exceptions import SameNode

        try:
            return await app.router.route_req(table.name, key, view.web, request)
        except SameNode:
            pass
        except Exception as error:  # no assignment yet, or the other worker does not answer
            if not processor.ready:
                return view.json({"error": "this worker has no partitions yet; ask again"}, status=503)
            text = f"the worker that holds this book does not answer: {type(error).__name__}"
            return view.json({"error": text}, status=503)
        found = processor.find(key)
        if found is None:
            if not processor.ready or processor.books.recovering(processor.partition_of(key)):
                return view.json({"error": "this worker reads on from its checkpoint; ask again"}, status=503)
            text = f"no book of {venue} {symbol}; /books lists those of each worker"
            return view.json({"error": text}, status=404)
        partition, mirrored = found
        return view.json(book_view(
                mirrored, processor.books.state(mirrored, partition), processor.books.reason(mirrored, partition), depth
            ))

    @app.page("/healthz")
    async def healthz(view: Any, _: Any) -> Any:
        return view.json(processor.health())

    @app.page("/readyz")
    async def readyz(view: Any, _: Any) -> Any:
        return view.json({"ready": processor.ready}, status=200 if processor.ready else 503)

    @app.page("/metrics")
    async def metrics(view: Any, _: Any) -> Any:
        return view.text(processor.metrics.exposition().decode(), content_type="text/plain")
