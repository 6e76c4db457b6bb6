"""Past books against what the venue itself had at those moments, noted while it ran.

    python -m tests.chaos.asof_drill --moments 200 --seconds 120

A venue, its collector and an archiver run; at random moments the venue's own book is noted, with the time. Afterwards
`asof` is asked for each of those moments by both clocks. By the venue's clock the answer has to be the noted book. By
the receive clock the record may still have been on its way: the answer has to be the venue's book at its own number,
not newer than the noted one, and the log's next event has to have come after the moment.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.log_reader import read_all
from cli.stack import Stack, private_broker
from config.settings import Settings, load_settings
from history.asof import book_at
from history.errors import NotRecorded
from history.store import Store
from schemas.codec import codec
from schemas.topics import BOOK, STATUS
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import section, unified

QUIET_S = 0.004
"""The venue writes milliseconds: a moment counts when nothing happened to the book around it."""


@dataclass
class Moment:
    """One book of the venue, as it was."""

    native: str
    at_ns: int
    seq: int
    bids: list[list[str]]
    asks: list[list[str]]


async def note_moments(venue: SyntheticVenue, seconds: float, count: int, chance: random.Random) -> list[Moment]:
    """Note so many moments, spread over the time at random."""
    natives, out = sorted(venue.books), list[Moment]()
    for _ in range(count):
        await asyncio.sleep(seconds / count * 2 * chance.random())
        while True:
            native = chance.choice(natives)
            truth = venue.books[native]
            started_ns, (seq, bids, asks) = time.time_ns(), truth.at()
            await asyncio.sleep(QUIET_S)
            ended_ns = time.time_ns()
            if truth.seq == seq:
                out.append(Moment(native, (started_ns + ended_ns) // 2, seq, bids, asks))
                break
    return out


async def live(settings: Settings, instruments: int) -> bool:
    """Whether the log says so of so many books."""
    found: dict[bytes | None, str] = {}
    for record in await asyncio.to_thread(read_all, settings, STATUS.name):
        found[record.key] = codec("BookStatus").decode(record.value or b"")["state"]
    return sum(state == "LIVE" for state in found.values()) == instruments


def judge(settings: Settings, name: str, venue: SyntheticVenue, moments: list[Moment]) -> list[str]:
    """What is wrong with the answers; blocks."""
    received: dict[str, dict[int, tuple[int, int]]] = {}
    for record in read_all(settings, BOOK.name):
        if (record.key or b"").startswith(name.encode()):
            event = codec("BookEvent").decode(record.value or b"")
            received.setdefault(event["symbol"], {})[record.offset] = event["ts_received_ns"], event["index"]
    wrong: list[str] = []
    for moment in moments:
        symbol = unified(moment.native)
        try:
            book = book_at(settings, name, symbol, moment.at_ns, "venue")
            if (book.venue_seq, *book.levels()) != (moment.seq, moment.bids, moment.asks):
                wrong.append(f"{symbol} at {moment.at_ns}, venue's clock: {book.venue_seq}, the venue was at {moment.seq}")
            book = book_at(settings, name, symbol, moment.at_ns)
        except NotRecorded as error:
            wrong.append(f"{symbol} at {moment.at_ns}: {error}")
            continue
        _, bids, asks = venue.books[moment.native].at(book.venue_seq)
        later = [at for offset, (at, _) in received[symbol].items() if offset > book.offset]
        exact = book.levels() == (bids, asks) and book.venue_seq <= moment.seq
        if not exact or book.ts_received_ns > moment.at_ns or (later and later[0] <= moment.at_ns):
            wrong.append(f"{symbol} at {moment.at_ns}, receive clock: {book.venue_seq}, the venue was at {moment.seq}")
    return wrong


async def main() -> int:
    """The long drill, on a broker of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--instruments", type=int, default=20)
    parser.add_argument("--rate", type=float, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, name = random.Random(options.seed), "asof"

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    venue = SyntheticVenue("binance-usdm", instruments=options.instruments, rate=options.rate, levels=50, seed=options.seed)
    await venue.start()
    with tempfile.TemporaryDirectory(prefix="venue-mirror-asof-") as temporary:
        async with private_broker(load_settings(), say) as settings:
            more: dict[str, Any] = {
                "venues": {name: section("binance-usdm", venue)},
                "history": settings.history.model_copy(update={"root": f"{temporary}/archive", "flush_s": 5.0}),
            }
            own = settings.model_copy(update=more)
            async with Stack(own, Path(temporary)) as stack:
                await stack.start("collector", "collect", name)
                archiver = await stack.start("archiver", "archive")
                await stack.until(f"{options.instruments} LIVE books", lambda: live(own, options.instruments), 120)
                await asyncio.sleep(1)  # the past has a beginning
                say(f"noting {options.moments} moments in {options.seconds:g} s")
                moments = await note_moments(venue, options.seconds, options.moments, chance)
                await stack.stop(archiver)
                venue.control("rate", rate=0)
                await asyncio.sleep(3)  # part of the past is in files, the rest in Kafka only
            wrong = await asyncio.to_thread(judge, own, name, venue, moments)
            files = len(Store(own.history.root).files(BOOK.name, name, 0, 2**42))
    await venue.stop()
    print(f"{len(moments)} moments by both clocks, from {files} files and the log: {len(wrong)} wrong {wrong[:3]}")
    return 1 if wrong or not moments else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
