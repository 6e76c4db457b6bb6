"""A venue to trade on for drills: the simulated Binance with a crowd that quotes and takes, and its books at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from decimal import Decimal
from pathlib import Path

from simulator.matching import Side
from simulator.trading_binance import TradingBinance
from simulator.trading_core import Listing, TradingError, VenueOrder
from simulator.truth import TruthBook

OURS, CROWD = "drill-key", "crowd"
SECRET = "drill-secret"
RESTING = 24
"""Orders of the crowd that rest in a book."""
LIMITS = {
    "max_intent_age_ms": "30000", "max_book_age_ms": "60000", "price_collar_bps": "500", "median_collar_bps": "500",
    "max_order_notional": "200000", "max_position_notional": "400000", "max_asset_notional": "800000",
    "max_total_notional": "2000000", "max_open_orders": "50", "max_orders_per_minute": "2000",
    "max_cancels_per_minute": "2000", "max_drawdown": "100000", "max_group_notional": "400000", "duplicate_window_ms": "10",
}  # fmt: skip


class TradingFloor:
    """``venue`` is the exchange, ``books`` its truth by native symbol."""

    def __init__(self, seed: int, pause_s: float = 0.05) -> None:
        self.venue = TradingBinance([Listing("BTCUSDT", "BTC", "USDT"), Listing("ETHUSDT", "ETH", "USDT")], {OURS: SECRET})
        self.books = {native: TruthBook() for native in self.venue.core.listings}
        self.symbols = {"BTC/USDT": "BTCUSDT", "ETH/USDT": "ETHUSDT"}
        self._told, self.venue.core.on_book = self.venue.core.on_book, self._changed
        self._chance = random.Random(seed)
        self._pause_s = pause_s
        self._mids = {"BTCUSDT": Decimal(50_000), "ETHUSDT": Decimal(3_000)}
        self._resting: dict[str, deque[VenueOrder]] = {native: deque() for native in self._mids}
        self._made = 0
        self._task: asyncio.Task[None] | None = None
        self._host, self._port = "127.0.0.1", 0

    async def start(self) -> None:
        """Listen, and let the crowd in."""
        await self.venue.start(self._host)
        self._port = int(self.venue.rest_url.rpartition(":")[2])
        core = self.venue.core
        for owner, asset, amount in ((OURS, "USDT", "500000"), (OURS, "BTC", "10"), (OURS, "ETH", "100")):
            core.deposit(owner, asset, amount)
        for asset in ("USDT", "BTC", "ETH"):
            core.deposit(CROWD, asset, "1000000000")
        for native in self._mids:
            for _ in range(RESTING):
                self._quote(native)
        self._task = asyncio.create_task(self._crowd())

    async def down(self, seconds: float) -> None:
        """Nobody answers for a while; what happened before is not forgotten."""
        await self.venue.stop()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.venue.start(self._host, self._port)

    async def stop(self) -> None:
        """End it."""
        await self.quiet()
        await self.venue.stop()

    async def quiet(self) -> None:
        """The crowd goes home; orders rest."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def files(self, work: Path, name: str, strategy: str) -> tuple[Path, Path]:
        """(strategy file, accounts file) of a market maker in BTC/USDT."""
        keys, trade, accounts = work / "keys", work / "mm.toml", work / "accounts.toml"
        keys.write_text(f"{OURS}\n{SECRET}\n")
        keys.chmod(0o600)
        fees = f'[fees.{name}]\nmaker_bps = "10"\ntaker_bps = "10"\n'
        trade.write_text(
            f'kind = "market_making"\nname = "{strategy}"\n{fees}[parameters]\nvenues = ["{name}"]\nsymbols = ["BTC/USDT"]\n'
            'size = "0.01"\nmax_inventory = "0.05"\na = "1"\nk = "0.3"\nsigma = "1"\nmin_requote_ms = 300\n'
            "requote_ticks = 100\n"
        )
        accounts.write_text(
            f'[accounts."{name}:main"]\nadapter = "ccxt"\nexchange = "binance"\nkey_file = "{keys}"\n'
            f'rest_url = "{self.venue.rest_url}"\nws_url = "{self.venue.ws_url}"\nnotional_per_minute = 50000000\n'
            f"orders_per_minute = 3000\nrequests_per_minute = 6000\n{fees}"
        )
        return trade, accounts

    def _changed(self, native: str, side: Side, price: Decimal) -> None:
        """Keep the truth beside what the venue tells."""
        self._told(native, side, price)
        x = self.venue.core.listings[native]
        size = self.venue.core.engine(native).level(side, int(price / x.tick)) * x.lot
        level = [(str(price), str(size))]
        bids, asks = (level, []) if side == "BUY" else ([], level)
        self.books[native].apply(self.venue._seq[native], bids, asks)  # pyright: ignore[reportPrivateUsage]

    async def _crowd(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            native = self._chance.choice(list(self._mids))
            self._mids[native] *= 1 + Decimal(self._chance.randint(-2, 2)) / 20_000
            if self._chance.random() < 0.25:
                self._take(native)
            else:
                self._quote(native)

    def _quote(self, native: str) -> None:
        """One order more, and one less."""
        mid, resting = self._mids[native], self._resting[native]
        side: Side = self._chance.choice(("BUY", "SELL"))
        away = mid * Decimal(self._chance.randint(1, 40)) / 20_000
        price = (mid - away if side == "BUY" else mid + away).quantize(Decimal("0.01"))
        self._place(native, side, price, Decimal(self._chance.randint(10, 500)) / 1000, "GTC")
        while len(resting) > RESTING:
            with contextlib.suppress(TradingError):  # it was filled meanwhile
                self.venue.core.cancel(CROWD, native, resting.popleft(), _now_ms())

    def _take(self, native: str) -> None:
        side: Side = self._chance.choice(("BUY", "SELL"))
        best = self.venue.core.engine(native).best("SELL" if side == "BUY" else "BUY")
        if best is not None:
            self._place(native, side, best * self.venue.core.listings[native].tick, Decimal("0.02"), "IOC")

    def _place(self, native: str, side: Side, price: Decimal, size: Decimal, tif: str) -> None:
        self._made += 1
        with contextlib.suppress(TradingError):
            order, _ = self.venue.core.place(CROWD, native, side, price, size, tif, f"c{self._made}", _now_ms())
            if order.status in ("NEW", "PARTIALLY_FILLED"):
                self._resting[native].append(order)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
