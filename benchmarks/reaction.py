"""How fast a book event becomes an intent, and an intent a socket write: ``python benchmarks/reaction.py``.

First: from the moment that a book event is handed to Kafka to its intent in a reader's hand, through the real runner, at
given rates. Sender, runner and reader are processes of their own, as in production. The alternative in the same run is a
bare echo: a process that reads the same topic and writes the bytes on, which nothing that reacts over Kafka can beat.
Second: an intent in hand to the socket write, PREPARED durable in Kafka between them, beside one bare round trip, and beside
the plain way to know that nobody took the account over: to read each record back before its order leaves.
Last: the cost of one update of a cyclic search over 500 instruments.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import random
import sys
import time
import uuid
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Aim, Results, json_option
from bus.broker import EmbeddedBroker
from bus.connection import bootstrap, client_config, configured_bootstrap
from bus.log_reader import LogReader, start_positions
from bus.producer import Producer
from bus.topics import apply
from config.settings import Settings, load_settings
from execution.account import OrderRequest
from execution.egress import Egress, EgressCaps
from execution.gateway import Gateway
from execution.journal import KafkaJournal, Record
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from schemas.topics import BOOK, INSTRUMENT, INTENT, RISK, STATUS, TOPICS
from strategies.cyclic import Cyclic, CyclicParameters
from strategies.registry import Config, config_of
from strategies.runner import Runner
from strategies.strategy import View
from tests.chaos.execution_drill import Drill, News
from tests.chaos.faulty_account import FaultyAccount
from tests.trading_world import instrument

TOLD = Results("reaction")


def quantiles(
    name: str, samples: list[float], p50: float | None = None, p99: float | None = None, *,
    theirs: list[float] | None = None, alternative: str = "",
) -> None:  # fmt: skip
    """Print and note p50, p99, p99.9 in ms, with what is aimed at and how far the alternative is."""
    ours, known = sorted(samples), sorted(theirs or ())
    at = lambda values, q: values[min(len(values) - 1, int(len(values) * q))]  # noqa: E731
    for share, aim in ((0.5, p50), (0.99, p99), (0.999, None)):
        TOLD.add(
            f"{name}, p{share * 100:g}", at(ours, share), "ms", theirs=at(known, share) if known else None,
            alternative=alternative, aim=None if aim is None else Aim("≤", aim),
        )  # fmt: skip
    ratio = f"  {at(ours, 0.5) / at(known, 0.5):.1f} × the bare one's p50" if known else ""
    print(
        f"{name:58} n={len(ours):6}  p50 {at(ours, 0.5):8.3f}  p99 {at(ours, 0.99):8.3f}  p99.9 {at(ours, 0.999):8.3f} ms{ratio}"
    )  # fmt: skip


def settle() -> None:
    """What was made so far is never looked at again by the collector of cycles, as in every long-running process here."""
    gc.collect()
    gc.freeze()


class Books:
    """Book events of two venues; every one opens an arbitrage."""

    def __init__(self, settings: Settings, tag: str) -> None:
        self.venues = (f"x{tag}", f"y{tag}")
        self.producer = Producer(settings, linger_ms=0)
        self.index = dict.fromkeys(self.venues, -1)

    def announce(self) -> list[str]:
        """Write instruments and statuses; gives the venues."""
        for venue in self.venues:
            self.put(INSTRUMENT.name, venue, instrument(venue, "BTC/USDT", ts_ns=time.time_ns()))
            self.put(STATUS.name, venue, {
                "venue": venue, "symbol": "BTC/USDT", "state": "LIVE", "reason": "", "epoch": 1,
                "since_ns": time.time_ns(), "owner": "",
            })  # fmt: skip
        self.producer.flush()
        return list(self.venues)

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


def reached(address: str) -> Settings:
    """The settings of a process that is told where Kafka is."""
    return load_settings(None, kafka={"bootstrap_servers": address})


def send_books(address: str, tag: str, rate: int, seconds: float) -> None:
    """A process of its own, as a collector is: paced events, alternating between the venues."""
    books = Books(reached(address), tag)
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        while sent < passed * rate:
            books.event(sent)
            sent += 1
        time.sleep(0.0005)
    books.producer.flush()


def run_strategy(address: str, config: Config, ready: Event, stop: Event) -> None:
    """The runner as ``venue-mirror trade`` runs it, in a process of its own."""
    runner = Runner(reached(address), config, "PAPER")
    runner.start()
    settle()
    ready.set()

    def look(running: Runner) -> None:
        running.stop = stop.is_set()

    runner.run(look)
    runner.close()


def run_echo(address: str, tag: str, ready: Event, stop: Event) -> None:
    """The alternative: reads the same topic and writes the last book event of each batch, as it is; nothing between."""
    settings = reached(address)
    reader = LogReader(settings, start_positions(settings, {BOOK.name: "end"}))
    producer = Producer(settings, linger_ms=0)
    reader.batch(1, 0.5)
    ready.set()
    while not stop.is_set():
        if batch := reader.batch(500, 0.05):
            producer.send(f"bench-{tag}", tag, batch[-1].value)
        producer.poll(0)
    reader.close()


def reaction(settings: Settings, rate: int, seconds: float) -> list[float]:
    """Milliseconds from the triggering book event to its intent in this process's hand.

    Each intent is refused on orders.risk as the risk gate would, so that the strategy is free for the next.
    """
    tag = uuid.uuid4().hex[:6]
    venues = Books(settings, tag).announce()
    amounts = {v: {"USDT": "100000000", "BTC": "10000"} for v in venues}
    parameters = {"venues": venues, "cooldown_ms": 0, "max_notional": "3000", "haircut_bps": "0", "valid_ms": 1000}
    name = f"bench-{tag}"
    config = config_of({"kind": "cross_venue", "name": name, "inventory": amounts, "parameters": parameters})
    decode, refuse = codec("OrderIntent").decode, codec("RiskDecision").encode
    producer, samples = Producer(settings, linger_ms=0), list[float]()

    def take(value: bytes, now_ns: int) -> None:
        intent = decode(value)
        if intent["strategy"] != name:
            return
        places = zip(intent["input_partitions"], intent["input_offsets"], strict=True)
        trigger = list(places).index((intent["trigger_partition"], intent["trigger_offset"]))
        if intent["leg"] == 0:
            samples.append((now_ns - intent["created_ns"] + intent["input_ages_ns"][trigger]) / 1e6)
        producer.send(RISK.name, intent["account"], refuse({
            "intent_id": intent["id"], "account": intent["account"], "strategy": name, "verdict": "REFUSE", "rule": "bench",
            "measured": "", "bound": "", "limits_version": 0, "control_version": 0, "rules_passed": [], "ts_ns": now_ns,
        }))  # fmt: skip
        producer.poll(0)

    follow(settings, INTENT.name, take, run_strategy, config, tag, rate, seconds)
    producer.flush()
    return samples


def echo(settings: Settings, rate: int, seconds: float) -> list[float]:
    """The same of the alternative, over a topic of its own that is deleted afterwards."""
    tag = uuid.uuid4().hex[:6]
    Books(settings, tag).announce()
    admin, topic = AdminClient(client_config(settings)), f"bench-{tag}"
    admin.create_topics([NewTopic(topic, 1, settings.kafka.replication_factor)])[topic].result()
    decode, samples = codec("BookEvent").decode, list[float]()

    def take(value: bytes, now_ns: int) -> None:
        event = decode(value)
        if event["venue"].endswith(tag):
            samples.append((now_ns - event["ts_received_ns"]) / 1e6)

    try:
        follow(settings, topic, take, run_echo, tag, tag, rate, seconds)
    finally:
        admin.delete_topics([topic])[topic].result()
    return samples


def follow(
    settings: Settings, topic: str, take: Callable[[bytes, int], None], target: Callable[..., None], argument: Any,
    tag: str, rate: int, seconds: float,
) -> None:  # fmt: skip
    """Run ``target(address, argument, …)`` and a sender as processes; ``take(value, now_ns)`` gets the topic's records."""
    context = multiprocessing.get_context("spawn")
    address, ready, stop = bootstrap(settings), context.Event(), context.Event()
    reader = LogReader(settings, start_positions(settings, {topic: "end"}))
    worker = context.Process(target=target, args=(address, argument, ready, stop), daemon=True)
    sender = context.Process(target=send_books, args=(address, tag, rate, seconds), daemon=True)
    worker.start()
    if not ready.wait(120):
        raise SystemExit("the process that reacts did not start")
    sender.start()
    settle()
    while sender.is_alive():
        for record in reader.batch(500, 0.05):
            take(record.value or b"", time.time_ns())
    stop.set()
    worker.join(30)
    reader.close()


def book_to_intent(settings: Settings, rate: int, seconds: float) -> None:
    """The runner beside the bare echo, at one rate."""
    bare = after_start(echo(settings, rate, seconds))
    own = after_start(reaction(settings, rate, seconds))
    quantiles(f"named alternative: a bare echo, {rate} events/s", bare)
    quantiles(f"book event → intent in hand, {rate} events/s", own, 2, 8, theirs=bare, alternative="a bare echo through Kafka")


def after_start(samples: list[float]) -> list[float]:
    """Without the first fifth, in which connections are made and the broker's code is compiled."""
    if len(samples) < 50:
        raise SystemExit(f"only {len(samples)} were measured")
    return samples[len(samples) // 5 :]


def round_trip(settings: Settings, count: int) -> list[float]:
    """The alternative for one order at a time: produce a record durably and read it back, nothing between."""
    books = Books(settings, uuid.uuid4().hex[:6])
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
    bare = after_start(samples)
    quantiles("named alternative: one bare round trip through Kafka", bare)
    return bare


class SocketAccount(FaultyAccount):
    """Notes when an order would be written to the socket."""

    written = 0.0

    async def place(self, order: OrderRequest) -> Any:
        self.written = time.perf_counter()
        return await super().place(order)


class ReadBack(KafkaJournal):
    """The plain way: each record is met in the log and decoded, where ours tells by its offset that nothing lies between."""

    async def append(self, record: Record) -> None:
        await super().append(record)
        await asyncio.to_thread(self._wait_for, self._last)


async def intent_to_socket(settings: Settings, count: int, journal: KafkaJournal) -> list[float]:
    """The gateway with this journal in Kafka: milliseconds from submit to the write."""
    drill = Drill(1, rate=0)
    line = SocketAccount(drill.core, "us", "BTCUSDT", "BTC/USDT", drill.clock, random.Random(1), 0.0)
    drill.core.deposit("us", "USDT", "1000000000")
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
    return after_start(samples)


async def order_path(settings: Settings, count: int) -> None:
    """Ours beside both alternatives, in turns: a broker becomes faster while it runs."""
    bare, name = round_trip(settings, count), "intent → socket write, PREPARED durable between"
    own, plain = list[float](), list[float]()
    for _ in range(2):
        for kind, samples in ((ReadBack, plain), (KafkaJournal, own)):
            samples += await intent_to_socket(settings, count // 2, kind(settings, f"bench:{uuid.uuid4().hex[:6]}"))
    quantiles(name, own, 2, theirs=bare, alternative="one bare round trip through Kafka")
    plainly = "each record read back before its order leaves"
    quantiles("intent → socket write, beside reading back", own, theirs=plain, alternative=plainly)


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
        asyncio.run(order_path(settings, 500))
        for rate in options.rates:
            book_to_intent(settings, rate, options.seconds)
        TOLD.write(options.json)
    finally:
        if broker is not None:
            broker.stop()


if __name__ == "__main__":
    main()
