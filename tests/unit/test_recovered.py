"""What a worker does when Faust says that its tables are read: nothing while they are not, and everything anew when they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.types import TP

from processors.app import Processor
from processors.books import Books
from processors.metrics import Counts
from processors.mirror_book import MirrorBook
from schemas.topics import BOOK, STATUS


class Worker:
    """Stands where a Processor would; its books and the method under test are the real ones."""

    def __init__(self, settings: Any, table: dict[str, int]) -> None:
        self.table, self.bar_table, self.needs = table, None, True
        nothing = SimpleNamespace(drop=lambda _: None, get=None, bbo=lambda *_: None, forget=lambda _: None)
        self.books = Books(settings().processor, nothing, Counts(), self._restored)  # type: ignore[arg-type]
        self.books.suspended = True
        self.features = self.bars = self.crosses = nothing
        self.ready, self._idle_since = False, {}

        async def highwaters(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 50)

        held = {TP(BOOK.name, 3), TP(STATUS.name, 3)}
        recovery = SimpleNamespace(need_recovery=lambda: self.needs)
        self.app = SimpleNamespace(
            tables=SimpleNamespace(recovery=recovery),
            consumer=SimpleNamespace(assignment=lambda: held, highwaters=highwaters),
        )
        self.handlers = {BOOK.name: None, STATUS.name: None}

    _drop = Processor._drop
    on_recovered = Processor._on_recovered

    def _restored(self, key: str) -> Any:
        book = MirrorBook(*key.split("|"))
        book.index = self.table[key]
        return book.checkpoint()

    def partition_of(self, key: str) -> int:
        return 3

    def _partitions_changed(self) -> bool:
        return False


async def test_a_table_that_is_not_read_yet_gives_no_book_and_a_later_one_gives_the_newest(settings) -> None:
    worker = Worker(settings, {"v|A/B": 7})
    await worker.on_recovered()  # Faust speaks of the rebalance before this one
    assert (worker.ready, worker.books.by_partition, worker.books.catch_up) == (False, {}, {})
    worker.needs = False
    await worker.on_recovered()
    assert worker.ready and not worker.books.suspended
    assert worker.books.catch_up == {(BOOK.name, 3): 50, (STATUS.name, 3): 50}
    assert worker.books.by_partition[3]["v|A/B"].index == 7
    worker.table["v|A/B"] = 9  # another worker held it meanwhile, and nobody told this one that it had lost it
    worker.books.positions[(BOOK.name, 3)] = 40
    await worker.on_recovered()
    assert worker.books.by_partition[3]["v|A/B"].index == 9
    assert worker.books.positions == {}
