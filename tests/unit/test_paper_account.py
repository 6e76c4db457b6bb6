"""An account on paper holds what the ledger of its fills says, whatever it trades, over restarts too."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from execution.account import FillReport, OrderRequest
from execution.accounting import EXP, Accounts
from execution.egress import Egress, EgressCaps
from execution.gateway import Gateway
from execution.paper import PaperAccount
from market.live_book import LiveBook
from market.terms import terms_of
from schemas.codec import codec
from tests.chaos.execution_drill import MemoryJournal
from tests.trading_world import World, instrument


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT"])
def test_what_fills_realise_is_held(symbol: str) -> None:
    rnd, world, name = random.Random(5), World(), "x:paper"
    terms = {f"x|{symbol}": terms_of(instrument("x", symbol))}
    book = LiveBook("x", symbol)
    books = {f"x|{symbol}": book}
    held = {"USDT": 10**6 * 10**-EXP, "BTC": 10**4 * 10**-EXP}
    ledger = Accounts(name, terms)
    ledger.balances = dict(held)
    counted: set[str] = set()

    async def play() -> int:
        paper = PaperAccount("x", name, books, terms, held, latency_ms=0, run="r")
        old: tuple[list[int], list[int]] = ([], [])
        filled = 0
        for number in range(300):
            mid = rnd.randint(9000, 11000)
            prices = ([mid - 1 - n for n in range(5)], [mid + 1 + n for n in range(5)])
            sides = [
                [(p, 0) for p in was if p not in now] + [(p, rnd.randint(1, 3000)) for p in now]
                for was, now in zip(old, prices, strict=True)
            ]
            old = prices
            event = world.book("x", symbol, sides[0], sides[1])
            book.take(codec("BookEvent").decode(event.value or b""), 0, event.offset)
            if not number:
                book.take_status(codec("BookStatus").decode(world.status("x", symbol, "LIVE").value or b""))
            paper.on_book(book.key)
            side = rnd.choice(("BUY", "SELL"))
            price = mid + (5 if side == "BUY" else -5)
            await paper.place(OrderRequest(f"o{number}", symbol, side, price, -2, rnd.randint(1, 4000), -3, "IOC", False, 0))
            for report in await paper.fills(symbol, 0):
                if report.trade_id not in counted:
                    counted.add(report.trade_id)
                    filled += 1
                    fill: dict[str, Any] = {n: getattr(report, n) for n in (
                        "trade_id", "symbol", "side", "price", "price_exp", "size", "size_exp", "fee", "fee_exp", "fee_asset",
                    )}  # fmt: skip
                    ledger.take_fill(fill | {"venue": "x", "strategy": "s", "ts_ns": 0, "value": ""})
            assert {a: ledger.balances[a] for a in paper.held} == paper.held, number
            if number % 50 == 49:  # the process ends, and begins again
                paper = PaperAccount("x", name, books, terms, dict(ledger.balances), latency_ms=0, run=f"r{number}")
                paper.derivatives = ledger.derivatives()
        return filled

    assert asyncio.run(play()) > 200
    assert (ledger.holdings[symbol].realized != 0) and held["USDT"] != ledger.balances["USDT"]


class Published:
    """Stands where the executor's outbox stands."""

    def __init__(self) -> None:
        self.trades: list[str] = []

    def order(self, *_: Any) -> None: ...

    def fill(self, fill: dict[str, Any]) -> None:
        self.trades.append(fill["trade_id"])

    def alarm(self, *_: Any) -> None: ...


class SlowJournal(MemoryJournal):
    async def append(self, record: dict[str, Any]) -> None:
        await super().append(record)
        # The first to come would be the last to be done, were nobody to wait.
        await asyncio.sleep(0.02 * (6 - self.seq))


class Clock:
    def now_ns(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None: ...


def slow_gateway() -> tuple[Gateway, Published]:
    """A gateway whose journal takes its time, and what it publishes."""
    out = Published()
    published: Any = out
    paper = PaperAccount("x", "x:paper", {}, {}, {})
    return Gateway(paper, SlowJournal([], None), published, Clock(), Egress(EgressCaps(9, 9)), lambda i: 1), out


def fill_of(number: int) -> FillReport:
    return FillReport(str(number), "o", "v", "BTC/USDT", "BUY", 1, 0, 1, 0, 0, 0, "USDT", False, number, "PAPER")


def test_fills_are_published_as_they_happened_though_a_sweep_and_the_stream_tell_of_them_at_once() -> None:
    async def play() -> list[str]:
        gateway, out = slow_gateway()

        async def tell() -> None:
            for number in range(5):
                await gateway.take_fill(fill_of(number))

        await asyncio.gather(tell(), tell())
        return out.trades

    assert asyncio.run(play()) == ["0", "1", "2", "3", "4"]


def test_who_is_told_of_a_fill_again_goes_on_only_when_it_is_counted() -> None:
    # A sweep that went on before would find the order open with nothing missing, and leave it reserved for ever.
    async def play() -> tuple[list[str], int]:
        gateway, out = slow_gateway()
        first = asyncio.create_task(gateway.take_fill(fill_of(0)))
        await asyncio.sleep(0)
        await gateway.take_fill(fill_of(0))
        seen = list(out.trades), gateway.counts.fills_again
        await first
        return seen

    assert asyncio.run(play()) == (["0"], 1)
