"""The usual way to write the processor: one Faust agent, ``async for``, a table write and a ``topic.send`` an event.

Run by benchmarks/processor.py; its settings come from the environment: BENCH_BOOTSTRAP, BENCH_EVENTS, BENCH_MODE
(``usual``: the book in a table, the best bid and offer sent on; ``bare``: decode and book in memory, nothing written).
It prints ``done`` when BENCH_EVENTS events are in its books.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import faust

from market.book import OrderBook
from schemas.codec import codec

EVENTS = int(os.environ["BENCH_EVENTS"])
USUAL = os.environ["BENCH_MODE"] == "usual"
PARTITIONS = int(os.environ["BENCH_PARTITIONS"])

app = faust.App(
    os.environ["BENCH_APP_ID"],
    broker=f"kafka://{os.environ['BENCH_BOOTSTRAP']}",
    store="memory://",
    datadir=os.environ["BENCH_DATA_DIR"],
    topic_partitions=PARTITIONS,
    consumer_auto_offset_reset="earliest",
    consumer_max_fetch_size=16 * 1024 * 1024,
    producer_compression_type="lz4",
    broker_max_poll_records=5000,
    stream_wait_empty=False,
)
source = app.topic("market.book", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
bbo = app.topic("derived.bbo", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
table = app.Table("tops", partitions=PARTITIONS)
books: dict[str, OrderBook] = {}
decode, encode_bbo = codec("BookEvent").decode, codec("Bbo").encode
seen = 0


@app.agent(source)
async def follow(stream: Any) -> None:
    """One event at a time, as the documentation shows it."""
    global seen
    async for event in stream.events():
        record = decode(event.value)
        key = f"{record['venue']}|{record['symbol']}"
        book = books.get(key)
        if book is None:
            book = books[key] = OrderBook(record["price_exp"], record["size_exp"])
        book.apply(
            record["bid_prices"], record["bid_sizes"], record["ask_prices"], record["ask_sizes"],
            record["price_exp"], record["size_exp"], replace=record["kind"] != "DELTA",
        )  # fmt: skip
        if USUAL:
            bid, ask = book.bids.best() or (0, 0), book.asks.best() or (0, 0)
            # The top alone: a table write of the whole book for each event would not end today.
            table[key] = [record["epoch"], record["index"], *bid, *ask]
            await bbo.send(key=event.key, value=encode_bbo({
                "venue": record["venue"], "symbol": record["symbol"], "state": "LIVE", "epoch": record["epoch"],
                "index": record["index"], "offset": event.message.offset, "partition": event.message.partition,
                "venue_seq": record["venue_seq"], "bid_price": bid[0], "bid_size": bid[1], "ask_price": ask[0],
                "ask_size": ask[1], "price_exp": book.price_exp, "size_exp": book.size_exp,
                "ts_venue_us": record["ts_venue_us"], "ts_received_ns": record["ts_received_ns"],
            }))  # fmt: skip
        seen += 1
        if seen == EVENTS:
            os.write(1, b"done\n")  # print goes to the worker's log


if __name__ == "__main__":
    app.main()
