"""The console in a real browser, over a real Kafka: what it shows is what the venues do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from simulator.synthetic import SyntheticVenue
from tests.e2e.browser import Tab, browser_tab, chromium, screenshot_path, start_console
from tests.e2e.rooms import Rooms, rooms_of, section

pytestmark = pytest.mark.broker

INSTRUMENTS = 12
STATES_OF = "[...document.querySelectorAll('[data-venue=\"{venue}\"] .cell')].map(c => c.dataset.state)"


@contextlib.asynccontextmanager
async def two_venues(kafka: str, settings, unique: str, tmp_path: Path) -> AsyncIterator[tuple]:
    """Two simulated venues mirrored, every book LIVE, and a console."""
    chromium()
    spot = SyntheticVenue("binance-spot", instruments=INSTRUMENTS, rate=300, levels=40, seed=1)
    perps = SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=300, levels=40, seed=2)
    await spot.start()
    await perps.start()
    names = f"spot-{unique}", f"perps-{unique}"
    own = settings(
        kafka={"bootstrap_servers": kafka},
        venues={names[0]: section("binance-spot", spot), names[1]: section("binance-usdm", perps)},
        collector={"discovery_s": 3, "keyframe_min_s": 1, "keyframe_max_s": 3},
        processor={"proofs": True},
    )
    try:
        async with rooms_of(own, tmp_path) as rooms:
            await rooms.processor()
            await rooms.collector(names[0], "spot")
            await rooms.collector(names[1], "perps")
            for name in names:
                await rooms.live(name, INSTRUMENTS)
            url = await start_console(rooms, metrics_urls=tuple(u + "/metrics" for u in rooms.metrics_urls.values()))
            yield rooms, names, (spot, perps), url
    finally:
        await spot.stop()
        await perps.stop()


async def picture(tab: Tab, name: str, **options) -> None:
    if (path := screenshot_path(name)) is not None:
        await tab.page.screenshot(path=path, **options)


async def all_live(tab: Tab, venue: str) -> None:
    states = STATES_OF.format(venue=venue)
    await tab.until(f"(s => s.length === {INSTRUMENTS} && s.every(x => x === 'LIVE'))({states})")


async def test_the_pages_show_what_the_mirror_holds(kafka: str, settings, unique: str, tmp_path: Path):
    async with two_venues(kafka, settings, unique, tmp_path) as (rooms, names, _, url):
        async with browser_tab(url) as tab:
            await tab.open("#/map")
            for name in names:
                await all_live(tab, name)
            band = tab.page.locator(f'[data-venue="{names[0]}"] .facts')
            await tab.until(f"""document.querySelector('[data-venue="{names[0]}"] .facts').textContent.includes('exact 100 %')""")
            assert f"{INSTRUMENTS} of {INSTRUMENTS} LIVE" in await band.inner_text()
            await picture(tab, "console-map")

            # A cell opens its book, and the book is the processor's own.
            await tab.page.locator(f'[data-key="{names[0]}|BTC/USDT"]').click()
            await tab.until("document.querySelectorAll('.rung.b').length >= 10")
            await book_is_the_processors(rooms, tab, names[0], "BTC/USDT")
            await tab.open(f"#/book?a={names[0]}%7CBTC%2FUSDT&b={names[1]}%7CBTC%2FUSDT%3AUSDT")
            await tab.until("[...document.querySelectorAll('.book .badge')].filter(b => b.textContent === 'LIVE').length === 2")
            await tab.until("document.querySelectorAll('.trades div').length > 5")
            if screenshot_path(""):
                await asyncio.sleep(45)  # some depth over time
            await picture(tab, "console-book")

            # The same instrument over both venues, with a matrix of what each pair would give.
            await tab.page.keyboard.press("b")
            await tab.until("document.querySelectorAll('[data-table=matrix] tbody tr').length === 2")
            text = await tab.page.locator("main").inner_text()
            assert names[0] in text and names[1] in text
            await tab.page.uncheck("input[type=checkbox]")
            await tab.until("/\\d\\.\\d\\d/.test(document.querySelector('[data-table=matrix] tbody').textContent)")
            await picture(tab, "console-cross")

            await tab.page.keyboard.press("4")
            await tab.until("location.hash === '#/trading' && document.querySelector('main').textContent.length > 10")
            await tab.page.keyboard.press("5")
            await tab.until("document.querySelectorAll('[data-plot] canvas').length === 4")
            await tab.until("document.querySelector('main').textContent.includes('processor')")
            await tab.until(f"document.querySelector('[data-table=brokers] tbody').textContent.includes('{kafka.split(',')[0]}')")
            await asyncio.sleep(3)
            await picture(tab, "console-health", full_page=True)
            assert tab.errors == []
            assert tab.foreign == [], "nothing is fetched from elsewhere"

        async with browser_tab(url, light=True) as tab:
            await tab.open("#/map")
            await all_live(tab, names[0])
            assert await tab.page.evaluate("document.documentElement.dataset.theme") == "light"
            await picture(tab, "console-map-light")
            assert tab.errors == []

        async with browser_tab(url, phone=True) as tab:
            for page in ("map", "book", "cross", "trading", "health"):
                await tab.open(f"#/{page}")
                await tab.until("venueMirror.store.rows.size > 0 && document.querySelector('main').children.length > 0")
                await asyncio.sleep(0.5)
                wide = await tab.page.evaluate("document.documentElement.scrollWidth")
                assert wide <= 390, f"{page} is {wide} pixels wide on a phone"
                if page == "book":
                    await picture(tab, "console-phone")
            assert tab.errors == []


async def book_is_the_processors(rooms: Rooms, tab: Tab, venue: str, symbol: str) -> None:
    """The rungs on the page are levels of a book that the processor's own view gave at some moment of the wait."""
    seen: list[tuple] = []
    for _ in range(600):
        book = await rooms.views.book(venue, symbol, 15)
        seen.append((book["bids"], book["asks"]))
        shown = await tab.page.evaluate(
            """() => [...document.querySelectorAll('.rung.b')].map(r => [r.children[1].textContent, r.children[2].textContent])"""
        )
        numbers = [[Decimal(text) for text in level] for level in shown]
        if any(numbers == [[Decimal(text) for text in level] for level in bids] for bids, _ in seen):
            assert len(shown) == 15
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"the page shows a book that the processor never had: {shown[:3]}")


async def test_a_cut_venue_changes_colour_and_comes_back(kafka: str, settings, unique: str, tmp_path: Path):
    async with two_venues(kafka, settings, unique, tmp_path) as (rooms, names, (spot, _), url), browser_tab(url) as tab:
        await tab.open("#/map")
        for name in names:
            await all_live(tab, name)
        colour = "getComputedStyle(document.querySelector('[data-venue=\"{}\"] .cell')).backgroundColor"
        green = await tab.page.evaluate(colour.format(names[0]))
        await spot.stop()
        states = STATES_OF.format(venue=names[0])
        await tab.until(f"{states}.every(s => s !== 'LIVE')")
        await asyncio.sleep(0.4)  # the colour fades
        assert await tab.page.evaluate(colour.format(names[0])) != green
        # The other venue is none of its business.
        await all_live(tab, names[1])
        await picture(tab, "console-cut")

        # The keyboard: arrows move, Enter opens, Escape clears a search.
        await tab.page.keyboard.press("ArrowRight")
        await tab.page.keyboard.press("ArrowRight")
        assert await tab.page.evaluate("document.activeElement.className.startsWith('cell')")
        await tab.page.keyboard.press("/")
        await tab.page.keyboard.type(f"{names[1]} btc")
        await tab.until("document.querySelectorAll('.cell:not(.hidden)').length === 1")
        await tab.page.keyboard.press("Escape")
        await tab.until("document.querySelectorAll('.cell.hidden').length === 0")

        # The past: a moment before anything was known shows nothing as LIVE.
        await tab.page.locator("input[type=range]").fill("-900")
        assert "LIVE" not in await tab.page.evaluate(STATES_OF.format(venue=names[1]))
        await tab.page.locator("input[type=range]").fill("0")
        await all_live(tab, names[1])

        # A page that is cut off says so, and does not show books as if they were current.
        console = next(child for child in rooms.stack.children if child.name == "console")
        await rooms.stack.stop(console)
        await tab.until("!document.getElementById('alarm').hidden")
        assert "cut off" in await tab.page.locator("#alarm").inner_text()
