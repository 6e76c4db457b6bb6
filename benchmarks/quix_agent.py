"""The same book job as plain_agent.py with quixstreams, as its documentation advises: a stateful function on a dataframe.

Run by benchmarks/processor.py with the interpreter of .venv-bench; settings come from the environment: BENCH_BOOTSTRAP,
BENCH_EVENTS, BENCH_APP_ID, BENCH_DATA_DIR. The book is held in memory, its top goes to the state store (RocksDB, with its
changelog topic) and to derived.bbo for each event. It prints ``done`` when BENCH_EVENTS events are in its books.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from quixstreams import Application, message_context  # pyright: ignore[reportMissingImports]

from market.book import OrderBook
from schemas.codec import codec

EVENTS = int(os.environ["BENCH_EVENTS"])
books: dict[str, OrderBook] = {}
decode, encode_bbo = codec("BookEvent").decode, codec("Bbo").encode
seen = 0


def follow(value: bytes, state: Any) -> bytes:
    """One event."""
    global seen
    record = decode(value)
    key = f"{record['venue']}|{record['symbol']}"
    book = books.get(key)
    if book is None:
        book = books[key] = OrderBook(record["price_exp"], record["size_exp"])
    book.apply(
        record["bid_prices"], record["bid_sizes"], record["ask_prices"], record["ask_sizes"],
        record["price_exp"], record["size_exp"], replace=record["kind"] != "DELTA",
    )  # fmt: skip
    bid, ask = book.bids.best() or (0, 0), book.asks.best() or (0, 0)
    state.set("top", [record["epoch"], record["index"], *bid, *ask])
    context = message_context()
    seen += 1
    if seen == EVENTS:
        os.write(1, b"done\n")
    return encode_bbo({
        "venue": record["venue"], "symbol": record["symbol"], "state": "LIVE", "epoch": record["epoch"],
        "index": record["index"], "offset": context.offset, "partition": context.partition,
        "venue_seq": record["venue_seq"], "bid_price": bid[0], "bid_size": bid[1], "ask_price": ask[0],
        "ask_size": ask[1], "price_exp": book.price_exp, "size_exp": book.size_exp,
        "ts_venue_us": record["ts_venue_us"], "ts_received_ns": record["ts_received_ns"],
    })  # fmt: skip


def main() -> None:
    """Until SIGTERM."""
    app = Application(
        broker_address=os.environ["BENCH_BOOTSTRAP"], consumer_group=os.environ["BENCH_APP_ID"],
        auto_offset_reset="earliest", state_dir=os.environ["BENCH_DATA_DIR"], loglevel="ERROR",
        producer_extra_config={"compression.type": "lz4"},
    )  # fmt: skip
    source = app.topic("market.book", key_deserializer="bytes", value_deserializer="bytes")
    bbo = app.topic("derived.bbo", key_serializer="bytes", value_serializer="bytes")
    app.dataframe(source).apply(follow, stateful=True).to_topic(bbo)
    app.run()


if __name__ == "__main__":
    main()
