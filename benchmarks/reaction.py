"""How fast a book event becomes an intent, and an intent a socket write: ``python benchmarks/reaction.py``.

First: a book event's arrival in Kafka to its intent's arrival in Kafka, through the real runner, at given rates.
Second: an intent in hand to the socket write, PREPARED durable in Kafka between them.
Named alternative in the same run: the bare broker's own round trip (produce, acks=all, read back), which nothing that
goes through Kafka can beat; and the cost of one update of a cyclic search over 500 instruments.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Aim, Results, json_option
from bus.broker import EmbeddedBroker
from bus.connection import configured_bootstrap
from bus.log_reader import LogReader, start_positions
from bus.producer import Producer
from bus.topics import apply
from config.settings import Settings, load_settings
from execution.account import OrderRequest
from execution.egress import Egress, EgressCaps
from execution.gateway import Gateway
from execution.journal import KafkaJournal
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from schemas.topics import BOOK, INSTRUMENT, INTENT, STATUS, TOPICS
from strategies.cyclic import Cyclic, CyclicParameters
from strategies.registry import config_of
from strategies.runner import Runner
from strategies.strategy import View
from tests.chaos.execution_drill import Drill, News
from tests.chaos.faulty_account import FaultyAccount
from tests.trading_world import instrument

TOLD = Results("reaction")


def quantiles(name: str, samples: list[float], p50: float | None = None, p99: float | None = None) -> None:
    """Print and note p50, p99, p99.9 in ms, with what is aimed at."""
    samples.sort()
    at = lambda q: samples[min(len(samples) - 1, int(len(samples) * q))]  # noqa: E731
    for share, aim in ((0.5, p50), (0.99, p99), (0.999, None)):
        TOLD.add(f"{name}, p{share * 100:g}", at(share), "ms", aim=None if aim is None else Aim("≤", aim))
    print(f"{name:58} n={len(samples):6}  p50 {at(0.5):8.3f}  p99 {at(0.99):8.3f}  p99.9 {at(0.999):8.3f} ms")


class Books:
    """Book events of two venues; every one opens an arbitrage."""

    def __init__(self, settings: Settings) -> None:
        self.tag = uuid.uuid4().hex[:6]
        self.venues = (f"x{self.tag}", f"y{self.tag}")
        self.producer = Producer(settings, linger_ms=0)
        self.index = dict.fromkeys(self.venues, -1)
        for venue in self.venues:
            self.put(INSTRUMENT.name, venue, instrument(venue, "BTC/USDT", ts_ns=time.time_ns()))
            self.put(STATUS.name, venue, {
                "venue": venue, "symbol": "BTC/USDT", "state": "LIVE", "reason": "", "epoch": 1,
                "since_ns": time.time_ns(), "owner": "",
            })  # fmt: skip
        self.producer.flush()

    def put(self, topic: str, venue: str, value: dict[str, Any]) -> None:
        self.producer.send(topic, f"{venue}|BTC/USDT", codec(TOPICS[topic].record).encode(value))
        self.producer.poll(0)

    def event(self, number: int) -> None:
        venue = self.venues[number % 2]
        self.index[venue] += 1
        index, mid = self.index[venue], 5_000_000 + (number % 2) * 100_000
        self.put(BOOK.name, venue, {
            "venue": venue, "symbol": "BTC/USDT", "kind": "DELTA" if index else "SNAPSHOT", "epoch": 1, "index": index,
            "venue_seq": index, "venue_prev_seq": -1, "ts_venue_us": 0, "ts_received_ns": time.time_ns(), "price_exp": -2,
            "size_exp": -3, "bid_prices": [mid - 100], "bid_sizes": [100 + number % 7], "ask_prices": [mid + 100],
            "ask_sizes": [100 + number % 5], "venue_checksum": None,
        })  # fmt: skip


def book_to_intent(settings: Settings, rate: int, seconds: float) -> None:
    """The runner in a thread of its own; the time is from the triggering event's receipt to the intent read back."""
    books = Books(settings)
    amounts = {v: {"USDT": "100000000", "BTC": "10000"} for v in books.venues}
    parameters = {"venues": list(books.venues), "cooldown_ms": 0, "max_notional": "3000", "haircut_bps": "0", "valid_ms": 1}
    # The group is busy while its orders are open; without a gateway they count as lost ten seconds after 1 ms.
    name = f"bench-{books.tag}"
    config = config_of({"kind": "cross_venue", "name": name, "inventory": amounts, "parameters": parameters})
    runner = Runner(settings, config, "PAPER")
    runner.start()
    runner.loop.strategy._busy = lambda group: False  # type: ignore[attr-defined]  # nobody answers orders here
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    reader = LogReader(settings, start_positions(settings, {INTENT.name: "end"}))
    decode, samples, stop = codec("OrderIntent").decode, list[float](), threading.Event()

    def read() -> None:
        while not stop.is_set():
            for record in reader.batch(500, 0.05):
                now = time.time_ns()
                intent = decode(record.value or b"")
                if intent["strategy"] == name and intent["leg"] == 0:
                    samples.append((now - intent["created_ns"]) / 1e6)

    receiver = threading.Thread(target=read, daemon=True)
    receiver.start()
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        while sent < passed * rate:
            books.event(sent)
            sent += 1
        time.sleep(0.0005)
    time.sleep(1)
    runner.stop = True
    thread.join(5)
    stop.set()
    receiver.join(2)
    runner.loop.view.open.clear()
    runner.close()
    reader.close()
    quantiles(f"book event → intent in Kafka, {sent / seconds:.0f} events/s", samples[len(samples) // 10 :] or [0.0], 2, 8)


def round_trip(settings: Settings, count: int) -> None:
    """The alternative: produce one record and read it back, nothing between."""
    books = Books(settings)
    reader = LogReader(settings, start_positions(settings, {BOOK.name: "end"}))
    reader.batch(1, 0.5)
    samples: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        books.event(number)
        while not reader.batch(10, 0.5):
            continue
        samples.append((time.perf_counter() - began) * 1000)
    reader.close()
    quantiles("named alternative: one bare round trip through Kafka", samples)


class SocketAccount(FaultyAccount):
    """Notes when an order would be written to the socket."""

    written = 0.0

    async def place(self, order: OrderRequest) -> Any:
        self.written = time.perf_counter()
        return await super().place(order)


async def intent_to_socket(settings: Settings, count: int) -> None:
    """The gateway with its journal in Kafka; the time is from submit to the write."""
    drill = Drill(1, rate=0)
    line = SocketAccount(drill.core, "us", "BTCUSDT", "BTC/USDT", drill.clock, random.Random(1), 0.0)
    drill.core.deposit("us", "USDT", "1000000000")
    journal = KafkaJournal(settings, f"bench:{uuid.uuid4().hex[:6]}")
    gateway = Gateway(line, journal, News(), drill.clock, Egress(EgressCaps(10**9, 10**12)), notional=lambda i: 1)
    gateway.budget.limit = 10**9
    await gateway.start()
    samples: list[float] = []
    for number in range(count):
        _, record = drill._intent(number)
        record |= {"side": "BUY", "price": 100_000, "size": 6000 + number, "time_in_force": "GTC",
                   "valid_until_ns": drill.clock.ns + 10**12}  # fmt: skip
        began = time.perf_counter()
        await gateway.submit(codec("OrderIntent").encode(record), record)
        samples.append((line.written - began) * 1000)
    await journal.close()
    quantiles("intent → socket write, PREPARED durable between", samples[10:], 2)


def cyclic_update(updates: int) -> None:
    """One book update of a search for cycles over 500 instruments in one venue."""
    rnd = random.Random(1)
    hubs = ["USDT", "BTC", "ETH", "BNB", "EUR"]
    names = [f"{a}/{b}" for i, a in enumerate(hubs[1:], 1) for b in hubs[:i]] + [f"C{n}/{hub}" for n in range(98) for hub in hubs]
    view = View(now_ns=1)
    strategy = Cyclic(CyclicParameters(), view)
    worth = {"USDT": 1.0, "BTC": 50_000.0, "ETH": 3_000.0, "BNB": 600.0, "EUR": 1.1}
    for symbol in names[:500]:
        terms = terms_of(instrument("v", symbol, tick_size="0.00000001", min_notional=None))
        view.terms[terms.key] = terms
        live = view.books[terms.key] = LiveBook("v", symbol)
        base, quote = symbol.split("/")
        price = int(worth.setdefault(base, rnd.uniform(0.5, 100)) / worth[quote] * 10**8) or 1000
        live.book.apply([price - price // 2000 - 1], [10**6], [price + price // 2000 + 1], [10**6], -8, -3, replace=True)
        live.synced, live.status_state, live.epoch, live.status_epoch, live.ts_received_ns = True, "LIVE", 1, 1, 1
        strategy.on_terms(terms)
    keys = list(view.books)
    for key in keys:
        strategy.on_book(key)
    samples: list[float] = []
    for _ in range(updates):
        key = rnd.choice(keys)
        began = time.perf_counter()
        strategy.on_book(key)
        samples.append((time.perf_counter() - began) * 1000)
    quantiles(f"cyclic search, an update, {len(keys)} instruments, {strategy._cycles} cycles", samples, 1)


def main() -> None:
    """Run all of it; starts an embedded broker where none is configured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rates", type=int, nargs="*", default=[1000, 5000])
    json_option(parser)
    options = parser.parse_args()
    settings = load_settings(None)
    broker = None if configured_bootstrap(settings) else EmbeddedBroker(settings.broker)
    if broker is not None:
        broker.start()
    try:
        apply(settings)
        cyclic_update(5000)
        round_trip(settings, 500)
        asyncio.run(intent_to_socket(settings, 500))
        for rate in options.rates:
            book_to_intent(settings, rate, options.seconds)
        TOLD.write(options.json)
    finally:
        if broker is not None:
            broker.stop()


if __name__ == "__main__":
    main()
