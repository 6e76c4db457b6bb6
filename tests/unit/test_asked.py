"""What a view's query may hold, and what a worker makes of records whose key lives elsewhere."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from multidict import MultiDict

from config.settings import load_settings
from processors.asked import Refused, choice, listed, only, whole, word
from processors.books import Books
from processors.changelogs import moved_bars
from processors.metrics import Counts
from schemas.codec import codec
from schemas.topics import BOOK, STATUS


def asked(*pairs: tuple[str, str]) -> Any:
    return SimpleNamespace(query=MultiDict(pairs), query_string="&".join("=".join(p) for p in pairs))


def test_a_query_may_hold_what_is_named_once() -> None:
    only(asked(), ())
    only(asked(("depth", "3")), ("depth",))
    with pytest.raises(Refused, match="no parameter is called 'dept'; there is depth"):
        only(asked(("dept", "3")), ("depth",))
    with pytest.raises(Refused, match="there are none here"):
        only(asked(("depth", "3")), ())
    with pytest.raises(Refused, match="depth is given more than once"):
        only(asked(("depth", "3"), ("depth", "4")), ("depth",))


@pytest.mark.parametrize("text", ["", "0", "-1", "1.0", "1e3", "+5", " 5", "٣", "10000000", "x", "99"])
def test_a_whole_number_is_written_as_one(text: str) -> None:
    with pytest.raises(Refused, match="depth is a whole number from 1 to 98"):
        whole(asked(("depth", text)), "depth", None, 98)
    assert whole(asked(("depth", "98")), "depth", None, 98) == 98


def test_words_are_not_empty_and_choices_are_known() -> None:
    assert word(asked(), "venue") is None
    with pytest.raises(Refused, match="venue is empty"):
        word(asked(("venue", "")), "venue")
    with pytest.raises(Refused, match="state is one of LIVE, GAP, not 'live'"):
        choice(asked(("state", "live")), "state", ("LIVE", "GAP"))


async def test_a_long_list_lets_others_run_in_between() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(item: int) -> int:
        return sum(range(3000)) * 0 + item

    task = asyncio.create_task(other())
    assert await listed(range(500), slow) == list(range(500))
    task.cancel()
    assert turns > 2


class Nothing:
    """A Derived that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def bbo(self, book: Any, *_: Any, **__: Any) -> None:
        self.said.append(book.key)

    def dead_letter(self, *arguments: Any) -> None:
        raise AssertionError(arguments)


def test_a_record_that_stands_where_its_key_no_longer_lives_begins_no_book() -> None:
    derived, counts = Nothing(), Counts()
    books = Books(load_settings().processor, derived, counts, lambda _: None)  # pyright: ignore[reportArgumentType]
    books.partition_of = {"v|MOVED": 5, "v|HERE": 2}.__getitem__
    event = {
        "venue": "v", "kind": "SNAPSHOT", "epoch": 1, "index": 0, "venue_seq": 1, "venue_prev_seq": 0, "ts_venue_us": 1,
        "ts_received_ns": 1, "price_exp": 0, "size_exp": 0, "bid_prices": [1], "bid_sizes": [1], "ask_prices": [2],
        "ask_sizes": [1], "venue_checksum": None,
    }  # fmt: skip
    status = {"venue": "v", "state": "LIVE", "reason": "", "epoch": 1, "since_ns": 1, "owner": "", "beat_ms": 0}

    def records(kind: str, value: dict[str, Any]) -> list[Any]:
        encode = codec(kind).encode
        return [
            SimpleNamespace(key=f"v|{symbol}".encode(), value=encode({**value, "symbol": symbol}), offset=at, timestamp=0)
            for at, symbol in enumerate(("MOVED", "HERE"))
        ]

    books.on_book_batch(TP(BOOK.name, 2), records("BookEvent", event))
    books.on_status_batch(TP(STATUS.name, 2), records("BookStatus", status))
    assert list(books.by_partition[2]) == ["v|HERE"]
    assert counts.moved == 2
    assert set(derived.said) == {"v|HERE"}
    assert books.positions == {(BOOK.name, 2): 2, (STATUS.name, 2): 2}


def test_an_open_bar_that_moves_takes_every_trade_of_its_new_partition() -> None:
    bar = dict.fromkeys(("interval_s", "start_us", "open", "high", "low", "close", "trades", "late_trades"), 1)
    bar |= {"volume": str(2**70), "buy_volume": "1", "notional": "1", "revision": -1, "first_offset": 7, "offset": 9}
    bar |= {"open_ts_us": 1, "close_ts_us": 2}
    own = codec("BarCheckpoint")
    record = {"venue": "v", "symbol": "A/B", "offset": 9, "newest_us": 3, "too_late": 0, "price_exp": 0, "size_exp": 0}
    moved = own.decode(moved_bars(own.encode({**record, "bars": [bar]})))
    assert moved == {**record, "offset": -1, "bars": [{**bar, "first_offset": -1, "offset": -1}]}
