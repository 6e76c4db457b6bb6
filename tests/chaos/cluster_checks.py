"""What has to hold in a cluster drill, all along and at the end: books, logs, orders, history."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from bus.consumer import TailReader
from bus.errors import BusError
from bus.log_reader import read_all
from bus.producer import Producer
from cli.trade_views import records
from cli.views import ViewError, Views
from config.settings import Settings
from processors.openapi import STATES
from schemas.codec import codec
from schemas.topics import BOOK, FILL, JOURNAL, POSITION, STATUS, TOPICS, TRADE
from simulator.truth import TruthBook, TruthError
from tests.chaos.trading_floor import OURS, TradingFloor
from tests.fuzz.engine import changed

STALE_S = 15.0
"""A book may be LIVE for so long while the log has something newer of it. Silence of Kafka is noticed after three seconds,
a lag after two, a leader that lost its followers after nine; the rest is a slow machine's."""
LONGEST_LIST = 50


@dataclass
class Findings:
    """What was looked at, and what was wrong. ``problems`` is empty when all promises held."""

    looked: Counter[str] = field(default_factory=Counter[str])
    problems: list[str] = field(default_factory=list[str])

    def wrong(self, text: str) -> None:
        """Note a promise that did not hold."""
        if len(self.problems) < LONGEST_LIST:
            self.problems.append(text)


@dataclass(frozen=True)
class Mirrored:
    """A venue whose truth is known here: ``books`` by native symbol, ``natives`` by unified one."""

    name: str
    books: Callable[[], Mapping[str, TruthBook]]
    natives: Callable[[], Mapping[str, str]]
    by_time: bool = False


class Prober:
    """Asks any processor for any book, all the time, and holds LIVE answers against the venue's own book."""

    def __init__(
        self, ports: list[int], venues: list[Mirrored], findings: Findings, seed: int,
        late_s: Callable[[str, tuple[int, int]], float] | None = None, away: Set[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._ports, self._venues, self._findings = ports, venues, findings
        self._late_s, self._away = late_s, away
        self._chance = random.Random(seed)
        self.not_live: Counter[str] = Counter()
        """Answers other than LIVE, by state; what does not answer is ``silent``."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            venue = self._chance.choice(self._venues)
            await self.ask(venue, self._chance.choice(list(venue.natives())))
            await asyncio.sleep(0.03)

    async def ask(self, venue: Mirrored, symbol: str, port: int = 0, patience_s: float = 10) -> str:
        """Ask once; gives the state that was told, ``equal`` for a LIVE book that is the venue's, ``silent`` for none."""
        async with Views(f"http://127.0.0.1:{port or self._chance.choice(self._ports)}") as views:
            self._findings.looked["probes"] += 1
            try:
                book = await asyncio.wait_for(views.book(venue.name, symbol), patience_s)
            except (ViewError, TimeoutError):
                self.not_live["silent"] += 1
                return "silent"
        if book["state"] != "LIVE":
            self.not_live[book["state"]] += 1
            return book["state"]
        self._findings.looked["LIVE answers"] += 1
        return self._judge(venue, symbol, book)

    def _judge(self, venue: Mirrored, symbol: str, book: dict[str, Any]) -> str:
        truth = venue.books()[venue.natives()[symbol]]
        where = f"{venue.name} {symbol} {book['epoch']}/{book['index']}"
        try:
            seq = truth.seq_at_time(book["ts_venue_us"]) if venue.by_time else book["venue_seq"]
            _, bids, asks = truth.at(seq)
        except TruthError as error:
            self._findings.looked["not comparable"] += 1
            return str(error)
        if (book["bids"], book["asks"]) != (bids, asks):
            self._findings.wrong(f"{where}: LIVE, and not the venue's book at {seq}")
            return "wrong"
        if self._late_s is not None:
            late_s = self._late_s(f"{venue.name}|{symbol}", (book["epoch"], book["index"]))
            if late_s > STALE_S:
                self._findings.wrong(f"{where}: LIVE, {late_s:.1f} s after something newer was in the log")
                return "wrong"
        self._findings.looked["LIVE and equal"] += 1
        return "equal"

    async def is_told(self, name: str, findings: Findings) -> Counter[str]:
        """Ask every processor for every book of a venue that has been away for long: none may be LIVE. Gives the states."""
        states: Counter[str] = Counter()
        for venue in (venue for venue in self._venues if venue.name == name):
            for port in self._ports:
                for symbol in venue.natives():
                    told = await self.ask(venue, symbol, port, 5)
                    states[told] += 1
                    if told != "silent" and told not in STATES:
                        findings.wrong(f"{name} {symbol}: LIVE, and its venue has been away for long")
        return states

    async def until_all_equal(self, patience_s: float, only: str = "") -> float:
        """Wait until every processor gives every book (of ``only`` this venue) LIVE and equal; gives the seconds.

        Venues that are away are not waited for. Raises AssertionError.
        """
        started = time.monotonic()
        here = [venue for venue in self._venues if venue.name not in self._away and only in ("", venue.name)]
        left = {(port, venue.name, symbol) for port in self._ports for venue in here for symbol in venue.natives()}
        by_name = {venue.name: venue for venue in here}
        told: dict[Any, str] = {}
        while left:
            for port, name, symbol in sorted(left):
                if symbol not in by_name[name].natives() or name in self._away:  # no longer listed, or there
                    left.discard((port, name, symbol))
                    continue
                told[port, name, symbol] = await self.ask(by_name[name], symbol, port, 5)
                if told[port, name, symbol] in ("equal", "wrong"):
                    left.discard((port, name, symbol))
                elif told[port, name, symbol] == "silent":
                    break
            if time.monotonic() - started > patience_s:
                some = [f"{key}: {told.get(key)}" for key in sorted(left)[:5]]
                raise AssertionError(f"{len(left)} books were not LIVE and equal within {patience_s:g} s: {some}")
            await asyncio.sleep(0.1)
        return time.monotonic() - started


class Stranger:
    """Sends the processors' web servers requests that make no sense: whatever is asked, it is answered, and never by a 500."""

    PATHS = (
        b"/books", b"/books?venue=okx", b"/books/okx/BTC/USDT?depth=5", b"/bbo?symbol=BTC/USDT", b"/cross/BTC/USDT",
        b"/bars/okx/BTC/USDT?interval=1m&limit=10", b"/status?state=LIVE", b"/instruments?state=TRADING&base=BTC", b"/healthz",
        b"/books/okx/BTC%2FUSDT", b"/books/%ED%A0%80/%00", b"/bbo?symbol=%FF%FE", b"/openapi.json", b"/books/a%7Cb/c?depth=0",
    )  # fmt: skip

    def __init__(self, ports: list[int], findings: Findings, seed: int) -> None:
        self._ports, self._findings, self._chance = ports, findings, random.Random(seed)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            path = self._chance.choice(self.PATHS)
            if self._chance.random() < 0.7:
                path = changed(self._chance, path, list(self.PATHS))
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._ask(bytes(c for c in path if c not in b" \r\n")), 10)
            await asyncio.sleep(0.1)

    async def _ask(self, path: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._chance.choice(self._ports))
        try:
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            status = (await reader.readline()).split(b" ")[1:2]
            self._findings.looked["strange requests answered"] += bool(status)
            if status and status[0].startswith(b"5") and status[0] != b"503":
                self._findings.wrong(f"GET {path[:200]!r} was answered by {status[0].decode()}")
        finally:
            writer.close()


class Witness:
    """Writes numbered records and reads every topic along, to prove at the end that nothing acknowledged or seen is lost.

    Its own records go to a topic of its own by the same producer that the rooms use.
    """

    TOPIC = "drill.witness"
    PARTITIONS = 3

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = [t for t, topic in TOPICS.items() if topic.cleanup == "delete"] + [self.TOPIC]
        self._stop = threading.Event()
        self.acknowledged: list[int] = []
        self.refused: dict[int, str] = {}
        self.sent = 0
        self.seen: dict[tuple[str, int, int], int] = {}
        """(topic, partition, offset) → CRC of what was read there."""
        self.changed: list[str] = []
        self.statuses: list[dict[str, Any]] = []
        self._events: dict[str, deque[tuple[float, tuple[int, int]]]] = {}
        """By key, the newest events of market.book: (when it was read, (epoch, index))."""
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Create the topic and begin. Blocks."""
        from confluent_kafka.admin import AdminClient, NewTopic  # pyright: ignore[reportPrivateImportUsage]

        from bus.connection import client_config

        admin = AdminClient(client_config(self._settings))
        for future in admin.create_topics([NewTopic(self.TOPIC, self.PARTITIONS, 3)]).values():
            future.result(timeout=60)
        self._producer = Producer(self._settings)
        self._grown = threading.Event()
        self._reader = TailReader(self._settings, [*self._topics, STATUS.name])
        for work in (self._write, self._read):
            self._threads.append(threading.Thread(target=work, daemon=True))
            self._threads[-1].start()

    def _write(self) -> None:
        while not self._stop.is_set():
            number = self.sent
            self.sent += 1

            def told(error: Any, _: Any, number: int = number) -> None:
                self.refused[number] = str(error)  # the rooms' producer tells of failures only

            self._producer.send(self.TOPIC, str(number), str(number).encode(), told)
            self._producer.poll(0)
            self._stop.wait(0.02)
        if not self._producer.flush(150):
            self.acknowledged = [number for number in range(self.sent) if number not in self.refused]

    def _read(self) -> None:
        decode, self._decode_event = codec("BookStatus").decode, codec("BookEvent").decode
        while not self._stop.is_set():
            if self._grown.is_set():
                self._grown.clear()
                read = self._reader.positions
                self._reader.close()
                try:
                    self._reader = TailReader(self._settings, [*self._topics, STATUS.name], start=read)
                except BusError as error:
                    self.changed.append(f"the witness could not read on: {error}")
                    return
            for message in self._reader.poll(2000, 0.2):
                if message.topic() == STATUS.name:
                    if message.value():
                        self.statuses.append(decode(message.value()))
                    continue
                if message.topic() == BOOK.name:
                    event = self._decode_event(message.value())
                    seen = self._events.setdefault(f"{event['venue']}|{event['symbol']}", deque(maxlen=5000))
                    seen.append((time.monotonic(), (event["epoch"], event["index"])))
                self._note(message.topic(), message.partition(), message.offset(), message.value())

    def look_for_partitions(self) -> None:
        """Topics have more of them now: read those too."""
        self._grown.set()

    def late_s(self, key: str, place: tuple[int, int]) -> float:
        """For how long something newer than this event has been in the log; 0: nothing is."""
        newer = [at for at, other in list(self._events.get(key, ())) if other > place]
        return time.monotonic() - newer[0] if newer else 0.0

    def _note(self, topic: str, partition: int, offset: int, value: bytes | None) -> None:
        crc = zlib.crc32(value or b"")
        if self.seen.setdefault((topic, partition, offset), crc) != crc:
            self.changed.append(f"{topic}[{partition}] {offset} was read twice, and was another record")

    def stop(self) -> None:
        """Write and read no more; blocks until what was sent is told of."""
        self._stop.set()
        for thread in self._threads:
            thread.join(200)
        self._reader.close()

    def judge(self, findings: Findings) -> None:
        """Read everything again; blocks."""
        counted: Counter[int] = Counter()
        for topic in self._topics:
            there = {(r.partition, r.offset): r for r in read_all(self._settings, topic, timeout_s=300)}
            before = {(p, o): crc for (t, p, o), crc in self.seen.items() if t == topic}
            gone = [key for key in before if key not in there]
            changed = [key for key, crc in before.items() if key in there and zlib.crc32(there[key].value or b"") != crc]
            findings.looked["records read twice"] += len(before)
            if gone:
                findings.wrong(f"{topic}: {len(gone)} records that could be read are not there any more: {gone[:3]}")
            if changed:
                findings.wrong(f"{topic}: {len(changed)} records have become others: {changed[:3]}")
            if topic == self.TOPIC:
                counted.update(int(r.value or b"-1") for r in there.values())
        for text in self.changed[:5]:
            findings.wrong(text)
        lost = [n for n in self.acknowledged if not counted[n]]
        doubled = [n for n, times in counted.items() if times > 1]
        findings.looked["records acknowledged to the witness"] += len(self.acknowledged)
        findings.looked["records refused to the witness"] += len(self.refused)
        if lost:
            findings.wrong(f"{len(lost)} acknowledged records are lost, e.g. {lost[:5]}")
        if doubled:
            findings.wrong(f"{len(doubled)} records are there twice, e.g. {doubled[:5]}")


def judge_events(settings: Settings, venues: Iterable[str], findings: Findings) -> None:
    """market.book by key: epochs only grow, and in each every index from 0 on comes exactly once. Blocks.

    Where partitions were added a key stands in several: each epoch is in one of them, and later ones were written later.
    """
    names = set(venues)
    place: dict[tuple[bytes, int], tuple[int, int]] = {}
    epochs: dict[bytes, dict[int, tuple[int, int]]] = {}
    """By key and epoch: (when it began, the partition)."""
    decode = codec("BookEvent").decode
    for record in read_all(settings, BOOK.name, timeout_s=300):
        key = record.key or b""
        if key.partition(b"|")[0].decode() not in names:
            continue
        event = decode(record.value or b"")
        where = key, record.partition
        now, before = (event["epoch"], event["index"]), place.get(where, (0, -1))
        if epochs.setdefault(key, {}).setdefault(now[0], (record.ts_ns, record.partition))[1] != record.partition:
            findings.wrong(f"{key.decode()}: epoch {now[0]} stands in two partitions")
        findings.looked["book events in order"] += 1
        if now[0] < before[0]:
            findings.looked["events of an owner that was fenced off"] += 1
            continue
        right = {
            "SNAPSHOT": now[0] > before[0] and now[1] == 0, "KEYFRAME": now == before,
            "DELTA": now == (before[0], before[1] + 1),
        }[event["kind"]]  # fmt: skip
        if not right:
            findings.wrong(f"{key.decode()}: {event['kind']} {now} behind {before} at {record.partition}/{record.offset}")
        place[where] = now
    for key, begun in epochs.items():
        moves = [(a, b) for a, b in pairwise(begun[epoch] for epoch in sorted(begun)) if a[1] != b[1]]
        findings.looked["books that moved to another partition"] += bool(moves)
        if any(later < earlier for (earlier, _), (later, _) in moves):
            findings.wrong(f"{key.decode()}: an older epoch was written later, in another partition")
    seen: set[tuple[str, str, str]] = set()
    for trade in records(settings, TRADE.name):
        if trade["venue"] in names:
            name = trade["venue"], trade["symbol"], trade["trade_id"]
            findings.looked["trades"] += 1
            if name in seen:
                findings.wrong(f"the trade {name} is there twice")
            seen.add(name)


def judge_orders(settings: Settings, floor: TradingFloor, account: str, findings: Findings) -> None:
    """Journal, fills and positions against what the venue itself has. Blocks."""
    core = floor.venue.core
    journal = [r for r in records(settings, JOURNAL.name) if r["account"] == account]
    prepared = Counter(r["order_id"] for r in journal if r["step"] == "PREPARED")
    steps = Counter((r["writer"], r["seq"]) for r in journal)
    findings.looked["orders prepared"] += len(prepared)
    findings.looked["steps in the journal"] += len(journal)
    for what, counted in (("PREPARED", prepared), ("step", steps)):
        if twice := [name for name, times in counted.items() if times > 1]:
            findings.wrong(f"orders.journal: {what} is there twice: {twice[:3]}")
    ours = {client: times for (owner, client), times in core.placed.items() if owner == OURS}
    findings.looked["orders at the venue"] += len(ours)
    if twice := [client for client, times in ours.items() if times > 1]:
        findings.wrong(f"the venue got {len(twice)} orders twice: {twice[:3]}")
    if unknown := [client for client in ours if client not in prepared]:
        findings.wrong(f"{len(unknown)} orders at the venue have no PREPARED record: {unknown[:3]}")
    executed = {(e.native, str(e.trade_id), e.side): e for e in core.executions if e.owner == OURS}
    natives = floor.symbols
    mine = [f for f in records(settings, FILL.name) if f["account"] == account]
    fills = Counter((natives[f["symbol"]], f["trade_id"], f["side"]) for f in mine)
    findings.looked["fills"] += len(fills)
    findings.looked["fills told again after a restart"] += sum(times - 1 for times in fills.values())
    if missing := [name for name in executed if name not in fills]:
        findings.wrong(f"{len(missing)} of {len(executed)} executions are not in orders.fill: {missing[:3]}")
    if invented := [name for name in fills if name not in executed]:
        findings.wrong(f"{len(invented)} fills never happened: {invented[:3]}")
    moved: dict[str, Decimal] = {}
    for (native, _, side), e in executed.items():
        moved[native] = moved.get(native, Decimal(0)) + (e.size if side == "BUY" else -e.size)
    told = {natives[p["symbol"]]: p for p in records(settings, POSITION.name) if p["account"] == account}
    for native, size in moved.items():
        findings.looked["positions"] += 1
        have = Decimal(told[native]["size"]).scaleb(told[native]["size_exp"]) if native in told else Decimal(0)
        if have != size:
            findings.wrong(f"the position in {native} is {have}, the venue's executions make it {size}")


def unsettled(settings: Settings, floor: TradingFloor, account: str) -> str:
    """What still differs between fills and positions told and the venue's own; empty: nothing does. Blocks."""
    findings = Findings()
    judge_orders(settings, floor, account, findings)
    return "; ".join(findings.problems)


def judge_history(settings: Settings, topics: Iterable[str], findings: Findings, lag: bool = False) -> int:
    """Every record of the topics is in the archive once, with its own bytes' offset; gives how many are missing. Blocks."""
    import duckdb

    missing = 0
    for topic in topics:
        logged = [(r.partition, r.offset) for r in read_all(settings, topic, timeout_s=300)]
        found: list[tuple[int, int]] = []
        if list(Path(settings.history.root).glob(f"topic={topic}/**/*.parquet")):
            pattern = f"{settings.history.root}/topic={topic}/**/*.parquet"
            query = "select _partition, _offset from read_parquet(?, hive_partitioning=true) order by 1, 2"
            with contextlib.suppress(duckdb.IOException):  # the archiver has just replaced a file
                found = duckdb.execute(query, [pattern]).fetchall()
        missing += len(set(logged) - set(found))
        if lag:
            continue
        findings.looked["records in the archive"] += len(found)
        if TOPICS[topic].cleanup == "delete" and sorted(logged) != found:
            doubled = len(found) - len(set(found))
            findings.wrong(
                f"{topic}: {len(logged)} records, {len(found)} in the archive; missing {sorted(set(logged) - set(found))[:3]}, "
                f"twice {doubled}, invented {sorted(set(found) - set(logged))[:3]}"
            )
    return missing


async def scrape(urls: Iterable[str]) -> dict[str, dict[str, float]]:
    """The metrics of every process that answers, by its page."""
    out: dict[str, dict[str, float]] = {}
    async with Views("http://127.0.0.1") as views:
        for url in urls:
            with contextlib.suppress(ViewError, TimeoutError, ValueError):
                out[url] = await asyncio.wait_for(views.metrics(url), 3)
    return out
