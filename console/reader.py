"""One thread that reads the derived topics and hands batches over; it never writes, and commits nothing.

Where several records of one book arrive together, only the newest best bid and offer is handed on: the others are
counted. A batch is handed over only when the one before has been taken, so nothing queues up here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from bus.connection import client_config
from bus.consumer import BrokerSeen, TailReader
from bus.errors import BusError
from config.settings import Settings
from console.metrics import Counts
from console.mirror import Taken
from schemas.topics import BBO, INSTRUMENT, PROOF, STATUS, TOPICS, TRADE

log = logging.getLogger(__name__)

WHOLE = (INSTRUMENT.name, STATUS.name)
"""Compacted topics: read from the beginning."""
RECENT = {BBO.name: 4_000, TRADE.name: 200, PROOF.name: 500}
"""How many records of each partition to look back at the start."""
RECENT_OTHERS = 500
MORE = ("derived.opportunity", "orders.", "chain.block")
"""Topics shown as they are, where the catalogue and the broker have them."""
BATCH = 4_000

HandOver = Callable[[list[Taken], dict[str, int], dict[str, int]], None]
"""``hand_over(batch, records by topic, best bids and offers by venue)``; blocks until it is taken."""


def topics_to_read(settings: Settings) -> tuple[list[str], set[str]]:
    """What the console reads of what the broker has, and what that lacks. Blocks; raises BusError when it needs one."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        # What this user may not see is not listed: the console needs no right but to read.
        present = AdminClient(client_config(settings)).list_topics(timeout=30).topics
    except KafkaException as error:
        raise BusError(f"cannot list the topics: {error}") from error
    missing = {name for name in TOPICS if name not in present}
    needed = [*WHOLE, *RECENT]
    if lacking := [name for name in needed if name in missing]:
        raise BusError(f"{', '.join(lacking)} not on the broker; create the topics with: venue-mirror topics apply")
    return needed + [name for name in TOPICS if name.startswith(MORE) and name not in missing], missing


class Reader:
    """Reads until ``stop``. ``failed`` says why it ended by itself."""

    def __init__(self, settings: Settings, hand_over: HandOver, counts: Counts) -> None:
        self._settings = settings
        self._hand_over = hand_over
        self._counts = counts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-reader", daemon=True)
        self.brokers: list[BrokerSeen] = []
        """Of the cluster, asked as often as the lag; empty: none has answered."""
        self.lag = 0
        """Records not yet read, asked every few seconds."""
        self.failed = ""
        self.reading = False
        self.topics: list[str] = []
        self.missing: set[str] = set()
        """Topics of the catalogue that the broker does not have."""

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End; blocks until the thread has."""
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self.topics, self.missing = topics_to_read(self._settings)
            reader = self._open()
            self._measure(reader)
            self.reading = True
        except BusError as error:
            self.failed = str(error)
            log.error("the console reads nothing: %s", error)
            return
        turns = 0
        try:
            while not self._stop.is_set():
                messages = reader.poll(BATCH, 0.1)
                if messages:
                    self._hand_over(*self._conflate(messages))
                turns += 1
                if turns % 200 == 0:
                    self._measure(reader)
        except Exception as error:  # whatever it is, the page must say that it stands still
            self.failed = f"{type(error).__name__}: {error}"
            log.exception("the console stopped reading")
        finally:
            self.reading = False
            reader.close()

    def _open(self) -> TailReader:
        probe = TailReader(self._settings, [name for name in self.topics if name not in WHOLE], start="end")
        starts = {
            (topic, partition): max(0, end - RECENT.get(topic, RECENT_OTHERS))
            for (topic, partition), end in probe.positions.items()
        }
        probe.close()
        return TailReader(self._settings, self.topics, start=starts)

    def _measure(self, reader: TailReader) -> None:
        try:
            at = reader.positions
            self.lag = sum(max(0, end - at[position]) for position, end in reader.ends().items())
            self.brokers = reader.brokers()
        except BusError:
            self.brokers = []
            log.warning("no offsets: the broker does not answer")

    def _conflate(self, messages: list[Any]) -> tuple[list[Taken], dict[str, int], dict[str, int]]:
        taken: list[Taken] = []
        newest: dict[str, bytes | None] = {}
        topics: dict[str, int] = {}
        venues: dict[str, int] = {}
        for message in messages:
            topic: str = message.topic()
            topics[topic] = topics.get(topic, 0) + 1
            key = (message.key() or b"").decode("utf-8", "replace")
            if topic == BBO.name:
                venue = key.partition("|")[0]
                venues[venue] = venues.get(venue, 0) + 1
                if key in newest:
                    self._counts.conflated += 1
                newest[key] = message.value()
            else:
                taken.append((topic, key, message.value()))
        self._counts.records += len(messages)
        taken += [(BBO.name, key, value) for key, value in newest.items()]
        return taken, topics, venues
