"""What a venue, an operator or a broken program may send: each gets a clear answer, and the rest goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.consumer import TailReader
from bus.producer import Producer
from collectors.venue import adapter_ids
from schemas.codec import codec
from schemas.topics import BOOK, DEAD_LETTER, market_key
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, Rooms, rooms_of, section, unified

INSTRUMENTS = 6


@pytest.fixture
async def running(kafka: str, settings, unique: str, tmp_path: Path):
    """A synthetic venue, a collector and a processor, all books LIVE: (rooms, venue name, venue)."""
    name = f"bad-{unique}"
    venue = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=300, levels=20)
    await venue.start()
    # One connection, so that what the venue sends to each client comes once.
    own = settings(
        kafka={"bootstrap_servers": kafka}, venues={name: section("binance-usdm", venue, channels=("book", "trade"))}
    )
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.processor()
        await rooms.collector(name)
        await rooms.live(name, INSTRUMENTS)
        yield rooms, name, venue
    await venue.stop()


async def all_right(rooms: Rooms, name: str, venue: SyntheticVenue) -> None:
    """Every book is LIVE and the venue's own."""
    await rooms.live(name, INSTRUMENTS)
    for native in venue.books:
        assert await rooms.equals_truth(name, unified(native), native, venue), native


async def rises(rooms: Rooms, counter: str, above: int) -> None:
    """Wait until a collector's counter is above this."""

    async def risen() -> bool:
        return await rooms.count(counter) > above

    await rooms.stack.until(counter, risen, DEADLINE_S)


async def letters(rooms: Rooms, reader: TailReader, source: str, count: int) -> list[dict]:
    """Dead letters of this source, at least so many."""
    found: list[dict] = []

    def enough() -> bool:
        for message in reader.poll(1000, 0.1):
            letter = codec("DeadLetter").decode(message.value())
            if letter["source_topic"] == source:
                found.append(letter)
        return len(found) >= count

    await rooms.stack.until("dead letters", enough, DEADLINE_S)
    return found


@pytest.mark.broker
async def test_garbage_frames_and_wrong_typed_fields_become_dead_letters_and_the_books_stay_right(running):
    rooms, name, venue = running
    reader = TailReader(rooms.settings, [DEAD_LETTER.name], start="end")
    gaps = await rooms.count("gaps")
    venue.control("garbage", n=5)
    venue.control("wrongtype", n=3)
    found = await letters(rooms, reader, name, 8)
    reader.close()
    assert len(found) == 8
    assert all(letter["error"] and letter["payload"] for letter in found)
    assert await rooms.count("gaps") == gaps
    await all_right(rooms, name, venue)


@pytest.mark.broker
async def test_a_frame_of_an_unknown_symbol_is_counted_and_changes_nothing(running):
    rooms, name, venue = running
    before = await rooms.count("unrouted")
    venue.control("unknown", n=4)
    await rises(rooms, "unrouted", before + 3)
    await all_right(rooms, name, venue)


@pytest.mark.broker
async def test_a_429_is_waited_out_and_the_book_comes_back(running):
    rooms, name, venue = running
    venue.control("ratelimit", n=2, retry_after=1)
    venue.control("drop", n=1)
    await rises(rooms, "rest_throttled", 0)
    await rises(rooms, "resyncs", 0)
    await all_right(rooms, name, venue)


@pytest.mark.broker
async def test_a_snapshot_older_than_the_stream_is_refused_and_asked_for_again(running):
    rooms, name, venue = running
    venue.control("stale_snapshot", n=2, behind=40)
    venue.control("drop", n=1)
    await rises(rooms, "old_snapshots", 0)
    await rises(rooms, "resyncs", 0)
    await all_right(rooms, name, venue)


@pytest.mark.broker
async def test_lost_doubled_and_swapped_frames_never_leave_a_wrong_book(running):
    rooms, name, venue = running
    for verb in ("duplicate", "reorder", "drop", "reorder", "duplicate"):
        venue.control(verb, n=5)
        await asyncio.sleep(0.3)
    await rises(rooms, "gaps", 5)
    await all_right(rooms, name, venue)
    assert await rooms.count("duplicates") > 0


@pytest.mark.broker
async def test_a_cut_connection_is_opened_again_and_its_books_say_so_meanwhile(running):
    rooms, name, venue = running
    venue.control("cut")
    await rises(rooms, "reconnects", 0)
    await all_right(rooms, name, venue)


@pytest.mark.broker
async def test_a_corrupt_record_on_market_book_becomes_a_dead_letter_and_the_rest_goes_on(running):
    rooms, name, venue = running
    reader = TailReader(rooms.settings, [DEAD_LETTER.name], start="end")
    key = market_key(name, unified(next(iter(venue.books))))
    producer = Producer(rooms.settings)
    good = codec("BookEvent").encode(
        {
            "venue": name, "symbol": "A/B", "kind": "DELTA", "epoch": 1, "index": 1, "venue_seq": 1,
            "venue_prev_seq": 0, "ts_venue_us": 0, "ts_received_ns": 0, "price_exp": 0, "size_exp": 0,
            "bid_prices": [1, 2], "bid_sizes": [1], "ask_prices": [], "ask_sizes": [], "venue_checksum": None,
        }
    )  # fmt: skip
    for value in (b"", b"\x00\x01", b"not avro at all", good[:-4], good):
        producer.send(BOOK.name, key, value)
    assert producer.flush() == 0
    found = await letters(rooms, reader, BOOK.name, 5)
    reader.close()
    assert len(found) == 5
    assert all(letter["source_offset"] >= 0 and letter["error"] for letter in found)
    await all_right(rooms, name, venue)


async def test_an_unreachable_broker_at_the_start_is_a_clear_message_and_exit_code_2(run_cli):
    async def tried(*command: str) -> None:
        result = await asyncio.to_thread(run_cli, *command, env={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"})
        assert result.returncode == 2, command
        assert "no Kafka broker answers at 127.0.0.1:9" in result.stderr, result.stderr
        assert "Traceback" not in result.stderr

    await asyncio.gather(tried("collect", "binance-spot"), tried("process"), tried("topics", "check"))


@pytest.mark.broker
def test_a_venue_that_does_not_answer_is_given_up_after_bounded_tries(run_cli, kafka: str, unique: str):
    venues = f'{{"gone-{unique}": {{"adapter": "binance-spot", "rest_url": "http://127.0.0.1:9", "ws_url": "ws://127.0.0.1:9"}}}}'
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "VENUE_MIRROR_VENUES": venues}
    run_cli("topics", "apply", env=environment)
    result = run_cli("collect", f"gone-{unique}", env=environment, timeout_s=180)
    assert result.returncode == 3, result.stderr
    assert "could not be read after 5 tries" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_venue_names_those_that_exist(run_cli):
    result = run_cli("collect", "nowhere", env={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"})
    assert result.returncode == 64
    assert all(name in result.stderr for name in adapter_ids())


@pytest.mark.broker
def test_symbols_that_the_venue_does_not_list_are_an_error_with_similar_names(run_cli, kafka: str, unique: str):
    async def run() -> object:
        venue = SyntheticVenue("binance-usdm", instruments=3, rate=10)
        await venue.start()
        name = f"few-{unique}"
        venues = f'{{"{name}": {{"adapter": "binance-usdm", "rest_url": "{venue.rest_url}", "ws_url": "{venue.ws_url}"}}}}'
        environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "VENUE_MIRROR_VENUES": venues}
        await asyncio.to_thread(run_cli, "topics", "apply", env=environment)
        result = await asyncio.to_thread(
            run_cli, "collect", name, "--symbols", "BTC/USDC", env=environment, timeout_s=60
        )
        await venue.stop()
        return result

    result = asyncio.run(run())
    assert result.returncode == 3, result.stderr
    assert "no instrument BTC/USDC; similar: BTC/USDT:USDT" in result.stderr
