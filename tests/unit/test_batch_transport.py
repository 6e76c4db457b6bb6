"""The batch transport rests on Faust's internals: these tests fail when they change, and say what to look at."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from faust.tables import recovery
from faust.transport import consumer as base
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from processors.batch_transport import FETCH_WAIT_MS, BatchConsumer, BatchTransport, newest

PINNED = {
    "Consumer._wait_next_records": (base.Consumer._wait_next_records, "6218e1969a636b3f"),
    "Consumer.getmany": (base.Consumer.getmany, "4b168d84882a70d6"),
    "Consumer.seek": (base.Consumer.seek, "b86a9fe05f956b30"),
    "Consumer._commit_offsets": (base.Consumer._commit_offsets, "1a69799041188441"),
    "Recovery.need_recovery": (recovery.Recovery.need_recovery, "fd1dc345b5d5e121"),
    "Recovery.on_recovery_completed": (recovery.Recovery.on_recovery_completed, "6ef567acf072e46d"),
    "Recovery._restart_recovery": (recovery.Recovery._restart_recovery.fun, "6bd8a8558a2dffe4"),
    "aiokafka Consumer._new_consumer_thread": (driver.Consumer._new_consumer_thread, "0870ec53dea75083"),
    "aiokafka's thread's _create_worker_consumer": (
        driver.AIOKafkaConsumerThread._create_worker_consumer, "c2701bfc3e6f6cad",
    ),
    "aiokafka's AIOKafkaConsumer.start": (AIOKafkaConsumer.start, "2f1ba70443327538"),
    "aiokafka's Fetcher._get_actions_per_node": (Fetcher._get_actions_per_node, "1dab2cf937d165d0"),
    "aiokafka's Fetcher.fetched_records": (Fetcher.fetched_records, "be4348896b9b66af"),
    "aiokafka's PartitionRecords._unpack_records": (PartitionRecords._unpack_records, "b803e6d46480732c"),
    "aiokafka's PartitionRecords._consumer_record": (PartitionRecords._consumer_record, "e668541600b047ab"),
    "aiokafka's FetchResult.getall": (FetchResult.getall, "3e717e30de5068d5"),
    "aiokafka Consumer._getmany": (driver.Consumer._getmany, "f9d47aa9010b5ff2"),
}


def digest(function: Any) -> str:
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PINNED)
def test_what_is_overridden_or_called_inside_faust_is_as_it_was_when_it_was_read(name: str) -> None:
    function, expected = PINNED[name]
    assert digest(function) == expected, (
        f"faust's {name} has changed: read it against processors/batch_transport.py, checkpoints.py and app.py, run "
        f"tests/e2e/test_processor_restart.py and tests/chaos, then pin {digest(function)}"
    )


def test_the_transport_overrides_these_methods_and_nothing_else() -> None:
    own = {name for name in vars(BatchConsumer) if not name.startswith("__") and callable(getattr(BatchConsumer, name))}
    assert own & set(dir(driver.Consumer)) == {
        "_new_consumer_thread", "_wait_next_records", "_getmany", "on_stop", "verify_event_path",
    }  # fmt: skip
    assert BatchTransport.Consumer is BatchConsumer


async def test_a_broker_answers_a_fetch_of_quiet_partitions_soon_for_the_busy_ones_wait_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = AIOKafkaConsumer(fetch_max_wait_ms=1500)
    assert made._fetch_max_wait_ms == 1500  # where AIOKafkaConsumer.start takes it from
    thread: Any = SimpleNamespace(_create_worker_consumer=lambda transport: made)
    monkeypatch.setattr(driver.Consumer, "_new_consumer_thread", lambda self: thread)
    consumer: Any = BatchConsumer.__new__(BatchConsumer)
    assert consumer._new_consumer_thread()._create_worker_consumer("transport") is made
    assert made._fetch_max_wait_ms == FETCH_WAIT_MS < 100
    await made.stop()


def parsed(topic: str) -> PartitionRecords:
    """Three records as the driver's parser holds them."""
    builder: Any = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    for offset in range(3):
        builder.append(offset, 1_700_000_000_000 + offset, b"key", b"value %d" % offset if offset else None, [("h", b"1")])
    return PartitionRecords(
        TP(topic, 0), MemoryRecords(bytes(builder.build())), [], 0, None, None, check_crcs=True, isolation_level=READ_UNCOMMITTED
    )


async def test_handlers_get_records_as_they_were_parsed_and_the_rest_gets_the_drivers_own(monkeypatch) -> None:
    books, other = TP("books", 0), TP("other", 0)
    records = Records(monkeypatch, {})
    fetcher: Any = records.consumer._thread._ensure_consumer()._fetcher
    fetcher._records = {tp: SimpleNamespace(_partition_records=parsed(tp.topic)) for tp in (books, other)}
    fetcher._records[TP("books", 1)] = SimpleNamespace()  # a fetch that failed
    records.fetched = {books: batch(0)}
    await records.consumer._fetch_ahead(frozenset({books, other}), 1.0)
    plain, copied = (list(fetcher._records[tp]._partition_records) for tp in (books, other))
    assert not any(isinstance(r, ConsumerRecord) for r in plain)
    assert all(isinstance(r, ConsumerRecord) for r in copied)
    for one, same in zip(plain, copied, strict=True):
        for field in ("offset", "timestamp", "key", "value"):
            assert getattr(one, field) == getattr(same, field)
        assert [*one.headers] == [*same.headers] == [("h", b"1")]


class Records:
    """Stands where Faust's own fetch would give its records; everything else is the transport's code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batches: dict[TP, list[Any]], during: Any = None) -> None:
        self.handled: list[tuple[TP, list[Any]]] = []
        self.sought: list[tuple[TP, int]] = []
        self.happened: list[str] = []
        """In order: asked, handled, sought."""
        self.batches = batches
        consumer: Any = BatchConsumer.__new__(BatchConsumer)
        consumer.transport = SimpleNamespace(
            handlers={"books": self._handle},
            changelogs=frozenset({"table"}),
        )
        recovery = SimpleNamespace(in_recovery=False)
        consumer.app = SimpleNamespace(
            consumer_generation_id=7, should_stop=False, tables=SimpleNamespace(recovery=recovery)
        )
        consumer.flow_active = True
        consumer._read_offset = {}
        consumer._committed_offset = {TP("books", 0): 3}
        consumer._active_partitions = set(batches)

        async def fetched(_: Any, timeout: float) -> tuple[Any, Any]:
            if during is not None:
                during(consumer)
            return batches, set(batches)

        async def seek(tp: TP, offset: int) -> None:
            self.sought.append((tp, offset))
            self.happened.append("sought")

        async def getmany(_: Any, *, active_partitions: set[TP], timeout: float) -> Any:
            self.happened.append("asked")
            return dict(self.batches)

        # The driver's thread and its fetcher, as far as a fetch ahead asks them; the answer waits until ``let_come``.
        loop = asyncio.get_running_loop()
        self.assignment: Any = SimpleNamespace(active=True, unassign_future=loop.create_future())
        self.waiters: list[Any] = []
        state = SimpleNamespace(
            subscription=SimpleNamespace(assignment=self.assignment), reassignment_in_progress=False,
            fetch_context=contextlib.nullcontext,
        )  # fmt: skip
        self.fetched: dict[TP, list[Any]] = {}

        async def fetched_records(active: Any, *, timeout: float, max_records: int) -> Any:
            assert timeout == 0
            taken, self.fetched = self.fetched, {}
            return taken

        def waiter() -> Any:
            self.waiters.append(loop.create_future())
            return self.waiters[-1]

        async def call_thread(function: Any, *arguments: Any) -> Any:
            self.happened.append("asked ahead")
            return await function(*arguments)

        fetcher = SimpleNamespace(
            _subscriptions=state, _closed=False, _records={}, fetched_records=fetched_records, _create_fetch_waiter=waiter
        )
        inner = SimpleNamespace(_fetcher=fetcher, _max_poll_records=100)
        consumer._thread = SimpleNamespace(call_thread=call_thread, _ensure_consumer=lambda: inner)
        monkeypatch.setattr(driver.Consumer, "_getmany", getmany)
        monkeypatch.setattr(driver.Consumer, "_wait_next_records", fetched)
        consumer.seek = seek
        self.consumer = consumer

    def let_come(self, batches: dict[TP, list[Any]]) -> None:
        """The broker answers."""
        self.fetched = batches
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _handle(self, tp: TP, batch: list[Any]) -> None:
        self.handled.append((tp, batch))
        self.happened.append("handled")


def batch(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


async def test_topics_with_a_handler_get_whole_batches_and_the_rest_goes_fausts_way(monkeypatch) -> None:
    books, other = TP("books", 0), TP("other", 0)
    records = Records(monkeypatch, {books: batch(3, 4), other: batch(1)})
    rest, _ = await records.consumer._wait_next_records(1.0)
    assert [(tp, [r.offset for r in b]) for tp, b in records.handled] == [(books, [3, 4])]
    assert list(rest) == [other]
    assert records.consumer._read_offset == {books: 4}


async def test_of_a_changelog_what_a_compaction_would_leave_is_handed_on(monkeypatch) -> None:
    records = [SimpleNamespace(offset=n, key=key) for n, key in enumerate("abacbbd")]
    rest, _ = await Records(monkeypatch, {TP("table", 0): records, TP("other", 0): records}).consumer._wait_next_records(1.0)
    assert [record.offset for record in rest[TP("table", 0)]] == [2, 3, 5, 6]
    assert rest[TP("other", 0)] == records


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), min_size=1))
def test_a_table_becomes_the_same_by_the_newest_of_a_batch(changes: list[tuple[str, int]]) -> None:
    records = [SimpleNamespace(offset=n, key=key, value=value) for n, (key, value) in enumerate(changes)]
    fewer = newest(records)
    assert {r.key: r.value for r in fewer} == {r.key: r.value for r in records}
    assert fewer[-1] is records[-1]
    assert [r.offset for r in fewer] == sorted({r.offset for r in fewer})


async def test_nothing_is_handled_while_the_flow_is_suspended(monkeypatch) -> None:
    def suspend(consumer: Any) -> None:
        consumer.flow_active = False

    records = Records(monkeypatch, {TP("books", 0): batch(5)}, during=suspend)
    await records.consumer._wait_next_records(1.0)
    assert records.handled == []


async def test_the_next_batch_is_fetched_while_this_one_is_handled(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(3)})
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    assert records.happened == ["handled", "asked ahead"]  # the task is there before the handler runs, and begins behind it
    records.let_come({books: batch(4)})
    assert [r.offset for r in (await records.consumer._getmany({books}, 1.0))[books]] == [4]
    assert records.happened == ["handled", "asked ahead"]
    await records.consumer._getmany({books}, 1.0)  # nothing was asked for ahead of this one
    assert records.happened[2:] == ["asked"]


async def test_a_place_is_sought_before_the_next_batch_is_asked_for(monkeypatch) -> None:
    """What a fetch under way would bring lies behind the hole, and would be taken for all that the log has."""
    records = Records(monkeypatch, {TP("books", 0): batch(8), TP("books", 1): batch(0)})
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    assert records.happened == ["sought", "handled", "asked ahead"]


async def test_what_was_fetched_ahead_for_an_assignment_that_is_over_is_dropped(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(3)})
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    records.let_come({books: batch(4)})
    await asyncio.sleep(0.01)
    assert records.fetched == {}  # taken while the assignment held
    records.assignment.active = False
    assert await records.consumer._getmany({books}, 1.0) == {}
    assert records.sought == []


async def test_once_the_assignment_is_over_nothing_is_taken_that_the_next_one_would_miss(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(3)})
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    records.assignment.active = False
    records.let_come({TP("table", 0): batch(0, 1)})  # of the next assignment
    assert await records.consumer._getmany({books}, 1.0) == {}
    assert len(records.fetched[TP("table", 0)]) == 2


async def test_what_was_fetched_ahead_for_other_partitions_is_read_again(monkeypatch) -> None:
    books, more = TP("books", 0), TP("books", 1)
    records = Records(monkeypatch, {books: batch(3)})
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    records.let_come({books: batch(4, 5)})
    assert await records.consumer._getmany({books, more}, 1.0) == {}
    assert records.sought == [(books, 4)]


async def test_where_nothing_comes_a_fetch_ahead_ends_in_time(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(3)})
    await records.consumer._wait_next_records(0.01)
    assert await records.consumer._getmany({books}, 0.01) == {}


@pytest.mark.parametrize("what", ["in_recovery", "should_stop"])
async def test_nothing_is_fetched_ahead_while_places_may_be_sought(monkeypatch, what: str) -> None:
    def change(consumer: Any) -> None:
        setattr(consumer.app.tables.recovery if what == "in_recovery" else consumer.app, what, True)

    records = Records(monkeypatch, {TP("books", 0): batch(3)}, during=change)
    await records.consumer._wait_next_records(1.0)
    await asyncio.sleep(0)
    assert "asked ahead" not in records.happened


async def test_records_fetched_across_a_rebalance_are_read_again_from_what_is_committed(monkeypatch) -> None:
    def rebalance(consumer: Any) -> None:
        consumer.app.consumer_generation_id += 1

    records = Records(monkeypatch, {TP("books", 0): batch(5, 6), TP("books", 1): batch(9)}, during=rebalance)
    rest, _ = await records.consumer._wait_next_records(1.0)
    assert records.handled == []
    assert rest == {}
    assert records.sought == [(TP("books", 0), 3), (TP("books", 1), 9)]


async def test_nothing_is_taken_by_a_worker_that_was_told_to_stop(monkeypatch) -> None:
    """A rebalance may have handed it partitions that nothing is prepared for: Faust's conductor crashed on them."""

    def stop(consumer: Any) -> None:
        consumer.app.should_stop = True

    records = Records(monkeypatch, {TP("books", 0): batch(3), TP("table", 2): batch(1)}, during=stop)
    rest, _ = await records.consumer._wait_next_records(1.0)
    assert (rest, records.handled, records.sought) == ({}, [], [])


async def test_records_of_a_partition_that_was_taken_away_are_left_to_its_new_owner(monkeypatch) -> None:
    def lose(consumer: Any) -> None:
        consumer._active_partitions = set()

    records = Records(monkeypatch, {TP("books", 0): batch(5)}, during=lose)
    await records.consumer._wait_next_records(1.0)
    assert records.handled == []
    assert records.consumer._read_offset == {}


async def test_what_was_fetched_and_never_handed_on_is_read_again(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(3, 4)})
    await records.consumer._wait_next_records(1.0)
    records.batches[books] = batch(8, 9)  # 5 to 7 were lost between fetch and handler
    await records.consumer._wait_next_records(1.0)
    assert [[r.offset for r in b] for _, b in records.handled] == [[3, 4]]
    assert records.sought == [(books, 5)]
    records.batches[books] = batch(5, 6, 7, 8)
    await records.consumer._wait_next_records(1.0)
    assert [r.offset for r in records.handled[-1][1]] == [5, 6, 7, 8]


async def test_a_hole_that_the_log_itself_has_is_looked_at_once(monkeypatch) -> None:
    books = TP("books", 0)
    records = Records(monkeypatch, {books: batch(6, 7)})  # committed: 3; retention took what was before 6
    for _ in range(2):
        await records.consumer._wait_next_records(1.0)
    assert records.sought == [(books, 3)]
    assert [[r.offset for r in b] for _, b in records.handled] == [[6, 7]]


async def test_where_nothing_more_comes_what_was_never_handed_on_is_read_again_once(monkeypatch) -> None:
    books, other = TP("books", 0), TP("books", 1)
    records = Records(monkeypatch, {books: batch(3, 4)})
    look = records.consumer.look_behind
    assert await look(other, 9)  # nothing committed, nothing handled, and the driver has read nine
    assert not await look(other, 9)
    await records.consumer._wait_next_records(1.0)
    assert not await look(books, 5)  # all that was read was handled
    assert await look(books, 8)
    assert not await look(books, 8)
    assert records.sought == [(other, 0), (books, 5)]
    records.batches[books] = batch(6, 7)  # fetched before the seek: it shows the hole, and is not taken for the log's own
    await records.consumer._wait_next_records(1.0)
    assert records.sought[2:] == [(books, 5)]
    assert [[r.offset for r in b] for _, b in records.handled] == [[3, 4]]
    records.consumer.app.consumer_generation_id += 1
    assert await look(other, 9)


async def test_where_nothing_is_committed_yet_reading_begins_at_the_beginning(monkeypatch) -> None:
    # aiokafka seeks to what is committed, and to nothing where that is nothing: a batch fetched before would be lost.
    books = TP("books", 1)
    for committed in ({}, {books: None}, {books: 0}):
        records = Records(monkeypatch, {books: batch(40, 41)})
        records.consumer._committed_offset = committed
        await records.consumer._wait_next_records(1.0)
        assert (records.handled, records.sought) == ([], [(books, 0)])
        records.batches[books] = batch(0, 1)
        await records.consumer._wait_next_records(1.0)
        assert [[r.offset for r in b] for _, b in records.handled] == [[0, 1]]
