"""Real workers on a capture's frames: adapter, rule and worker as the collector wires them, only without sockets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from collectors.events import BookDelta, BookSnapshot, Event
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, Venue, adapter
from collectors.worker import BookWorker
from config.settings import CollectorSettings, load_settings
from schemas.codec import codec

Levels = dict[Decimal, Decimal]


class Replay:
    """All instruments of a venue, each with a worker; what they would write to Kafka is kept in ``records``."""

    def __init__(self, name: str, natives: Iterable[str], channels: Sequence[str] = ALL_CHANNELS) -> None:
        self.venue: Venue = adapter(name)(channels=channels)
        self.counts = Counts()
        self.records: list[tuple[str, str, bytes]] = []
        self.wanted: list[BookWorker] = []
        self.broken: list[str] = []
        self.replies: list[Any] = []
        self.answers: list[bytes] = []
        publisher = Publisher(name, lambda *record: self.records.append(record), self.counts)
        self.pipeline = Pipeline(publisher, self.counts)
        settings = _settings()
        for native in natives:
            self.pipeline.workers[native] = BookWorker(
                f"{native}/X", native, self.venue.rule(native), publisher, self.counts, settings,
                lambda worker, _: self.wanted.append(worker),
            )  # fmt: skip
        self.receive = self.pipeline.receiver(
            self.venue.connection(), self.replies.append, self.broken.append, self.answers.append
        )

    def worker(self, native: str) -> BookWorker:
        """The instrument's worker."""
        return self.pipeline.workers[native]

    def subscribed(self) -> None:
        """The venue has confirmed everything."""
        for worker in self.pipeline.workers.values():
            worker.on_subscribed()

    def book(self, native: str) -> tuple[Levels, Levels]:
        """The mirror's bids and asks as exact decimals."""
        bids, asks = self.worker(native).local.book.level_texts()
        return {Decimal(p): Decimal(s) for p, s in bids}, {Decimal(p): Decimal(s) for p, s in asks}

    def kinds(self) -> Counter[str]:
        """Records by topic."""
        return Counter(topic for topic, _, _ in self.records)

    def rebuilt(self) -> Mapping[str, tuple[Levels, Levels]]:
        """Each instrument's book put together again from nothing but the records that were written."""
        books: dict[str, tuple[Levels, Levels]] = defaultdict(lambda: ({}, {}))
        decode: Callable[[bytes], dict[str, Any]] = codec("BookEvent").decode
        for topic, _, value in self.records:
            if topic != "market.book":
                continue
            event = decode(value)
            native = event["symbol"].removesuffix("/X")
            if event["kind"] == "SNAPSHOT":
                books[native] = ({}, {})
            pe, se = event["price_exp"], event["size_exp"]
            for side, name in zip(books[native], ("bid", "ask"), strict=True):
                for price, size in zip(event[f"{name}_prices"], event[f"{name}_sizes"], strict=True):
                    if size:
                        side[Decimal(price).scaleb(pe)] = Decimal(size).scaleb(se)
                    else:
                        side.pop(Decimal(price).scaleb(pe), None)
        return books


@cache
def _settings() -> CollectorSettings:
    return load_settings(None).collector


def book_natives(name: str, frames: Iterable[bytes]) -> set[str]:
    """The instruments whose books these frames speak of."""
    parse = adapter(name)().connection()
    return {
        event.native for frame in frames for event in parse(frame) if isinstance(event, BookSnapshot | BookDelta)
    }


def events_of(name: str, frames: Iterable[bytes]) -> list[Event]:
    """Every event of these frames, all channels asked for."""
    parse = adapter(name)(channels=ALL_CHANNELS).connection()
    return [event for frame in frames for event in parse(frame)]
