"""The pictures of the console in the documents: ``python -m tests.e2e.screenshots`` writes docs/images/*.png.

Simulated venues of five protocols, mirrored by the real rooms over a real Kafka, some of them in trouble on purpose.
About three minutes; needs Chromium (deploy/install-test-tools.sh).
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bus.broker import EmbeddedBroker
from config.settings import BrokerSettings, load_settings
from simulator.synthetic import SyntheticVenue
from tests.conftest import free_port
from tests.e2e.browser import Tab, browser_tab, start_console
from tests.e2e.rooms import Rooms, rooms_of, section
from tests.e2e.test_console_trading import Writer

FOLDER = Path(__file__).parent.parent.parent / "docs" / "images"
VENUES = {"binance-spot": 60, "binance-usdm": 48, "bybit-linear": 30, "kraken": 36, "okx": 40}
ALL = sum(VENUES.values())
GATHER_S = 75
LIVE = f"document.querySelector('.vitals').textContent.includes('{{}} / {ALL} LIVE')"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def main() -> None:
    """Build the scene, take the pictures, take it down."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        broker = EmbeddedBroker(BrokerSettings(data_dir=work / "kafka", port=free_port(), start_timeout_s=120), log=say)
        address = await asyncio.to_thread(broker.start)
        venues = {
            name: SyntheticVenue(name, instruments=count, rate=90, levels=60, seed=number)
            for number, (name, count) in enumerate(VENUES.items(), 1)
        }
        try:
            for venue in venues.values():
                await venue.start()
            settings = load_settings(
                None,
                kafka={"bootstrap_servers": address},
                processor={"app_id": "pictures", "web_port": free_port(), "data_dir": work / "faust", "proofs": True},
                collector={"discovery_s": 3, "keyframe_min_s": 1, "keyframe_max_s": 4},
                venues={name: section(name, venue) for name, venue in venues.items()},
            )
            async with rooms_of(settings, work / "logs") as rooms:
                await scene(rooms, venues)
        finally:
            for venue in venues.values():
                await venue.stop()
            await asyncio.to_thread(broker.stop)


async def scene(rooms: Rooms, venues: dict[str, SyntheticVenue]) -> None:
    """Everything LIVE first, then some trouble, then the pictures."""
    await rooms.processor()
    for name in venues:
        await rooms.collector(name, name)
    for name, count in VENUES.items():
        await rooms.live(name, count, 120)
        say(f"{name}: {count} books LIVE")
    url = await start_console(rooms, metrics_urls=tuple(u + "/metrics" for u in rooms.metrics_urls.values()))
    orders(Writer(rooms.settings))
    async with browser_tab(url) as tab:
        symbol = next(iter(await rooms.books("okx")))
        other = symbol if symbol in await rooms.books("binance-spot") else "BTC/USDT"
        await tab.open(f"#/book?a=okx%7C{symbol.replace('/', '%2F')}&b=binance-spot%7C{other.replace('/', '%2F')}")
        await asyncio.sleep(GATHER_S)  # some depth over time
        await tab.until(LIVE.format(ALL))
        await picture(tab, "console-book", full_page=True)
        for name in ("kraken", "okx"):
            for native in venues[name].symbols[:5]:
                venues[name].control("halt", symbol=native)
        venues["binance-usdm"].control("cut")
        venues["binance-spot"].control("drop", n=40)
        await tab.open("#/cross?of=BTC%2FUSDT")
        await asyncio.sleep(4)
        await tab.page.uncheck("input[type=checkbox]")  # simulated venues name no fees
        await picture(tab, "console-cross")
        await venues["bybit-linear"].stop()
        await tab.open("#/map")
        await asyncio.sleep(5)
        venues["binance-spot"].control("drop", n=60)
        await asyncio.sleep(1.2)
        await tab.until("document.querySelector('.cell.SYNCING')")
        await asyncio.sleep(0.4)  # the colour fades
        await picture(tab, "console-map")
        await tab.open("#/health")
        await asyncio.sleep(3)
        await tab.until(LIVE.format(ALL - VENUES["bybit-linear"] - 10))
        await picture(tab, "console-health", full_page=True)
        await tab.open("#/trading")
        await asyncio.sleep(1)
        await tab.page.locator('[data-topic="orders.event"] tbody tr').first.click()
        await picture(tab, "console-trading")
    async with browser_tab(url, light=True) as tab:
        await tab.open("#/map")
        await asyncio.sleep(2)
        await picture(tab, "console-map-light")
    async with browser_tab(url, phone=True) as tab:
        await tab.open("#/book?a=binance-spot%7CBTC%2FUSDT")
        await asyncio.sleep(3)
        await picture(tab, "console-phone")


def orders(write: Writer) -> None:
    """Some opportunities and what became of them, as strategies and a gateway write them."""
    now = time.time_ns() - 60 * 10**9
    for n in range(12):
        at = now + n * 5 * 10**9
        saw = {"input_keys": ["kraken|BTC/USD", "okx|BTC/USDT"], "input_states": ["LIVE", "LIVE"], "input_epochs": [7, 9],
               "input_indexes": [101 + n, 55 + n]}  # fmt: skip
        write.send("derived.opportunity", "BTC/USDT", id=f"opp-{n}", strategy="cross-venue", group="BTC/USDT",
                   edge=41234 + n * 977, edge_exp=-4, edge_asset="USDT", size=5, size_exp=-1, ts_ns=at, **saw)  # fmt: skip
        write.send("orders.intent", "paper", id=f"intent-{n}", opportunity_id=f"opp-{n}", strategy="cross-venue", account="paper",
                   venue="okx", symbol="BTC/USDT", price=9931 + n, price_exp=-2, size=5, size_exp=-1, created_ns=at + 10**6,
                   **saw)  # fmt: skip
        if n % 4 == 3:
            write.send("orders.risk", "paper", intent_id=f"intent-{n}", verdict="REFUSE", rule="max_position", measured="2.5",
                       bound="2", ts_ns=at + 2 * 10**6)  # fmt: skip
            continue
        write.send("orders.risk", "paper", intent_id=f"intent-{n}", verdict="ACCEPT", ts_ns=at + 2 * 10**6)
        order: dict[str, Any] = {"order_id": f"order-{n}", "intent_id": f"intent-{n}", "account": "paper", "venue": "okx",
                                 "symbol": "BTC/USDT", "price": 9931 + n, "price_exp": -2, "size": 5, "size_exp": -1}  # fmt: skip
        write.send("orders.event", "paper", **order, filled=5, cause="fill", state="FILLED", previous="OPEN",
                   ts_ns=at + 9 * 10**6)  # fmt: skip
        write.send("orders.fill", "paper", **order, trade_id=f"t-{n}", fee=13, fee_exp=-3, fee_asset="USDT", ts_ns=at + 8 * 10**6)
        write.send("orders.position", "paper|BTC/USDT", account="paper", symbol="BTC/USDT", size=5 * (n % 3), size_exp=-1,
                   realized=(n * n + 3 * n) * 1000, realized_exp=-4, quote="USDT", fills=n + 1, ts_ns=at + 10**7)  # fmt: skip
    write.done()


async def picture(tab: Tab, name: str, **options: Any) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    await tab.page.screenshot(path=FOLDER / f"{name}.png", **options)
    say(f"docs/images/{name}.png{'  ' + str(tab.errors) if tab.errors else ''}")


async def until_stopped() -> None:
    """The same, taken down in order by SIGTERM too."""
    task = asyncio.ensure_future(main())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


if __name__ == "__main__":
    asyncio.run(until_stopped())
