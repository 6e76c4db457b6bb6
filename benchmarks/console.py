"""What the console makes of many updates, in a real browser: frames, and how long its page stands still.

    python benchmarks/console.py [--books 24] [--rate 1500] [--seconds 20]

Best bids and offers are written to Kafka at the rate, evenly over the books, while a browser shows two of the books. The
alternative that the frames are held against is a drawing for each record; the longest standstill of the page's one
thread is held against that of the same page while ten records a second come.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.producer import Producer
from cli.stack import private_broker
from config.settings import load_settings
from schemas.codec import codec
from schemas.topics import BBO, STATUS
from tests.e2e.browser import Tab, browser_tab, start_console
from tests.e2e.rooms import rooms_of

VENUE = "bench"
QUIET_RATE = 10.0
TICK_S = 0.02
WATCH = """() => {
  globalThis.worst = 0; let last = performance.now();
  setInterval(() => { const now = performance.now(); worst = Math.max(worst, now - last - 20); last = now; }, 20);
}"""


class Writer:
    """Writes the books' states and their best bids and offers."""

    def __init__(self, producer: Producer, books: int) -> None:
        self._producer = producer
        self._symbols = [f"COIN{number}/USDT" for number in range(books)]
        self._encode = codec("Bbo").encode
        self.sent = 0

    def states(self) -> None:
        """Every book is LIVE."""
        for symbol in self._symbols:
            status = {
                "venue": VENUE, "symbol": symbol, "state": "LIVE", "reason": "", "epoch": 1, "since_ns": time.time_ns(),
                "owner": "benchmark",
            }  # fmt: skip
            self._producer.send(STATUS.name, f"{VENUE}|{symbol}", codec("BookStatus").encode(status))

    async def at(self, rate: float, seconds: float) -> float:
        """Write at this rate; gives the rate that was reached."""
        began, before = time.monotonic(), self.sent
        while (spent := time.monotonic() - began) < seconds:
            while self.sent - before < spent * rate:
                symbol = self._symbols[self.sent % len(self._symbols)]
                price = 1_000_000 + self.sent % 1000
                bbo = {
                    "venue": VENUE, "symbol": symbol, "state": "LIVE", "epoch": 1, "index": self.sent, "venue_seq": self.sent,
                    "ts_venue_us": 0, "ts_received_ns": time.time_ns(), "price_exp": -2, "size_exp": -3, "bid_price": price,
                    "bid_size": 1500, "ask_price": price + 1, "ask_size": 2500, "partition": 0, "offset": self.sent,
                }  # fmt: skip
                self._producer.send(BBO.name, f"{VENUE}|{symbol}", self._encode(bbo))
                self.sent += 1
            self._producer.poll(0)
            await asyncio.sleep(TICK_S)
        return (self.sent - before) / (time.monotonic() - began)


async def look(tab: Tab, writer: Writer, rate: float, seconds: float) -> tuple[float, float, float]:
    """(records a second, frames a second by the page's clock, longest standstill in milliseconds)."""
    await tab.page.evaluate("globalThis.worst = 0")
    frames, began_ms = await tab.page.evaluate("[venueMirror.store.frames, performance.now()]")
    reached = await writer.at(rate, seconds)
    after, ended_ms = await tab.page.evaluate("[venueMirror.store.frames, performance.now()]")
    return reached, (after - frames) / (ended_ms - began_ms) * 1000, await tab.page.evaluate("worst")


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1500, help="records a second")
    parser.add_argument("--seconds", type=float, default=20)
    json_option(parser)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="venue-mirror-bench-") as temporary:
        async with (
            private_broker(load_settings(), lambda line: print(line, file=sys.stderr)) as settings,
            rooms_of(settings, Path(temporary)) as rooms,
        ):
            url = await start_console(rooms)
            writer = Writer(Producer(settings), options.books)
            writer.states()
            await writer.at(QUIET_RATE * 10, 3)
            async with browser_tab(url) as tab:
                await tab.open(f"#/book?a={VENUE}%7CCOIN0%2FUSDT&b={VENUE}%7CCOIN1%2FUSDT")
                await tab.until(f"venueMirror.store.rows.size === {options.books}")
                await tab.page.evaluate(WATCH)
                quiet = await look(tab, writer, QUIET_RATE, options.seconds / 2)
                busy = await look(tab, writer, options.rate, options.seconds)
                assert tab.errors == [], tab.errors
    print_table(
        f"the console's page, {options.books} books", ("", "records/s", "frames/s", "longest standstill"),
        [(name, f"{records:,.0f}", f"{frames:.1f}", f"{worst:.0f} ms")
         for name, (records, frames, worst) in (("quiet", quiet), ("busy", busy))],
    )  # fmt: skip
    print(f"records for each drawing: {busy[0] / busy[1]:,.0f}")
    told = Results("console")
    told.add("drawings at full rate", busy[1], "/s", theirs=busy[0], alternative="a drawing for each record")
    told.add(
        "longest standstill of the page at full rate", busy[2], "ms", theirs=quiet[2],
        alternative=f"the same page at {QUIET_RATE:g} records/s", aim=Aim("≤", 500),
    )  # fmt: skip
    told.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
