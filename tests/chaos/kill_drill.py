"""The kill switch, measured: from the command to the venue's own 'no open orders', while things go wrong.

``python -m tests.chaos.kill_drill`` prints a line for each venue and story. The venue is a simulated one on localhost,
spoken to through ccxt; orders rest on it when the kill comes, and a new intent is handed over right after it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from execution.ccxt_account import CcxtAccount, CcxtOptions
from execution.egress import Egress, EgressCaps
from execution.gateway import Gateway
from execution.orders import order_id_of
from schemas.codec import codec
from simulator.trading_binance import TradingBinance
from simulator.trading_core import Listing, TradingError
from simulator.trading_okx import TradingOkx
from simulator.trading_server import TradingVenue, now_ms
from tests.chaos.execution_drill import Drill, MemoryJournal, News

VENUES: dict[str, tuple[type[TradingBinance] | type[TradingOkx], str]] = {
    "binance": (TradingBinance, "BTCUSDT"), "okx": (TradingOkx, "BTC-USDT"),
}  # fmt: skip
STORIES = ("quiet", "fills racing", "slow broker", "gateway restarts", "calls fail", "throttled")


class WallClock:
    """Time as it is."""

    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SlowJournal(MemoryJournal):
    """Each record takes its time to be durable."""

    delay_s = 0.0

    async def append(self, record: dict[str, Any]) -> None:
        await asyncio.sleep(self.delay_s)
        await super().append(record)


def intent(number: int, account: str, price: int) -> tuple[bytes, dict[str, Any]]:
    """A resting buy order."""
    _, record = Drill(number)._intent(number)
    now = time.time_ns()
    record |= {
        "price": price, "size": 1000, "side": "BUY", "time_in_force": "GTC", "account": account, "created_ns": now,
        "valid_until_ns": now + 60_000_000_000,
    }  # fmt: skip
    return codec("OrderIntent").encode(record), record


async def one(exchange: str, story: str, orders: int) -> tuple[float, bool, str]:
    """(milliseconds from the kill to 'no open orders', whether all held, what was seen)."""
    kind, native = VENUES[exchange]
    venue: TradingVenue = kind([Listing(native, "BTC", "USDT")], {"key": "secret"})
    await venue.start()
    venue.core.deposit("key", "USDT", "1000000")
    venue.core.deposit("other", "BTC", "1000")
    journal_log: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text("key\nsecret\nword\n" if exchange == "okx" else "key\nsecret\n")
        keys.chmod(0o600)
        name = f"{exchange}-spot:main"

        async def gateway() -> tuple[CcxtAccount, Gateway, asyncio.Task[None]]:
            account = CcxtAccount(
                CcxtOptions(exchange, f"{exchange}-spot", name, keys, rest_url=venue.rest_url, ws_url=venue.ws_url)
            )
            account._exchange.enableRateLimit = False  # the venue on localhost has no such limits
            await account.start()
            made = Gateway(
                account, SlowJournal(journal_log, None), News(), WallClock(), Egress(EgressCaps(10_000, 10_000_000)),
                notional=lambda i: 1,
            )  # fmt: skip
            await made.start()

            async def listen() -> None:
                async for event in account.events():
                    await made.heard(event)

            return account, made, asyncio.create_task(listen())

        account, own, listening = await gateway()
        for number in range(orders):
            await own.submit(*intent(number, name, 4_000_000 + 100 * number))
        if story == "slow broker":
            SlowJournal.delay_s = 0.05
        if story == "calls fail":
            venue.faults.fail_cancel = 10
        if story == "throttled":
            venue.faults.throttle = 3
        if story == "gateway restarts":
            listening.cancel()
            await account.close()
        racing = asyncio.create_task(_race(venue, native)) if story == "fills racing" else None
        began = time.monotonic()
        if story == "gateway restarts":
            account, own, listening = await gateway()
        sure = await own.resolver.kill("drill")
        took = (time.monotonic() - began) * 1000
        placed = dict(venue.core.placed)
        late = intent(100_000, name, 4_000_000)
        await own.submit(*late)
        left = venue.core.open_orders("key")
        silent = venue.core.placed == placed and ("key", order_id_of(late[1]["id"])) not in venue.core.placed
        SlowJournal.delay_s = 0.0
        if racing is not None:
            racing.cancel()
        for _ in range(50):
            await own.resolver.sweep()
            if all(o.over and not o.fills_missing for o in own.orders.values()):
                break
            await asyncio.sleep(0.05)
        filled = sum((o.filled for o in venue.core.orders.values() if o.owner == "key"), Decimal(0))
        ours = sum((Decimal(o.filled).scaleb(-5) for o in own.orders.values()), Decimal(0))
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        await account.close()
    await venue.stop()
    held = sure and not left and silent and filled == ours
    return took, held, f"{filled} BTC filled meanwhile, {ours} booked; {len(left)} open, nothing sent after: {silent}"


async def _race(venue: TradingVenue, native: str) -> None:
    """Somebody sells into our bids all the time."""
    for number in range(10_000):
        with contextlib.suppress(TradingError):
            venue.core.place("other", native, "SELL", Decimal(39_990), Decimal("0.003"), "IOC", f"r{number}", now_ms())
        await asyncio.sleep(0.003)


def main(argv: list[str]) -> int:
    """Every venue and story; exit code 1 when anything did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=40)
    options = parser.parse_args(argv)
    logging.disable(logging.ERROR)
    bad = 0
    print(f"{options.orders} orders rest; milliseconds from the kill to the venue's own 'no open orders'")
    for exchange in VENUES:
        for story in STORIES:
            took, held, seen = asyncio.run(one(exchange, story, options.orders))
            bad += not held
            print(f"  {'held' if held else 'FAILED':7} {exchange:8} {story:18} {took:9.0f} ms  {seen}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
