"""The console over records that the test writes: the chain of causes of an order, many books, hostile names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.producer import Producer
from schemas.codec import codec, schema_text
from schemas.topics import TOPICS
from tests.e2e.browser import Tab, browser_tab, chromium, screenshot_path, start_console
from tests.e2e.rooms import rooms_of

pytestmark = pytest.mark.broker

MANY = 5_000
TURNS = 3


def record(name: str, **own: Any) -> dict[str, Any]:
    """A record of this schema: what is not given is empty or zero."""
    blank = {"string": "", "long": 0, "int": 0, "boolean": False, "bytes": b""}

    def value(kind: Any) -> Any:
        if isinstance(kind, list):
            return None if "null" in kind else value(kind[0])
        if isinstance(kind, dict):
            return [] if kind["type"] == "array" else kind["symbols"][0] if kind["type"] == "enum" else value(kind["type"])
        return blank[kind]

    fields = {field["name"]: value(field["type"]) for field in json.loads(schema_text(name))["fields"]}
    assert set(own) <= set(fields), f"{name} has no {set(own) - set(fields)}"
    return fields | own


class Writer:
    """Writes records as the rooms do."""

    def __init__(self, settings: Any) -> None:
        self.producer = Producer(settings, linger_ms=5)

    def send(self, topic: str, key: str, **fields: Any) -> None:
        name = TOPICS[topic].record
        self.producer.send(topic, key, codec(name).encode(record(name, **fields)))

    def done(self) -> None:
        assert self.producer.flush(60) == 0
        self.producer.raise_failures()


@contextlib.asynccontextmanager
async def console_of(kafka: str, settings, tmp_path: Path) -> AsyncIterator[tuple[Writer, str]]:
    chromium()
    own = settings(kafka={"bootstrap_servers": kafka})
    async with rooms_of(own, tmp_path) as rooms:
        yield Writer(own), await start_console(rooms)


async def row(tab: Tab, topic: str, text: str) -> Any:
    """The table row of a topic's panel that holds this text."""
    rows = f"[...document.querySelectorAll('[data-topic=\"{topic}\"] tbody tr')]"
    await tab.until(f"{rows}.some(r => r.textContent.includes({json.dumps(text)}))")
    return tab.page.locator(f'[data-topic="{topic}"] tbody tr', has_text=text).first


async def test_an_order_shows_why_it_went_out(kafka: str, settings, unique: str, tmp_path: Path):
    async with console_of(kafka, settings, tmp_path) as (write, url):
        now, taken, refused = time.time_ns(), f"opp-a-{unique}", f"opp-b-{unique}"
        saw = {
            "input_keys": ["kraken|BTC/USDT", "okx|BTC/USDT"], "input_states": ["LIVE", "LIVE"], "input_epochs": [7, 9],
            "input_indexes": [101, 55],
        }  # fmt: skip
        for number, name in enumerate((taken, refused)):
            write.send("derived.opportunity", "BTC/USDT", id=name, strategy=f"cross-{unique}", group="BTC/USDT", edge=123456,
                       edge_exp=-4, edge_asset="USDT", size=5, size_exp=-1, ts_ns=now + number, **saw)  # fmt: skip
            write.send("orders.intent", "paper", id=f"intent-{name}", opportunity_id=name, strategy=f"cross-{unique}",
                       account="paper", venue="kraken", symbol="BTC/USDT", price=6500012, price_exp=-2, size=5, size_exp=-1,
                       created_ns=now + 10 + number, **saw)  # fmt: skip
        verdicts = next(f["type"] for f in json.loads(schema_text("RiskDecision"))["fields"] if f["name"] == "verdict")
        names = verdicts["symbols"] if isinstance(verdicts, dict) else ["APPROVED", "REJECTED"]
        yes, no = names[0], names[1]
        write.send("orders.risk", "paper", intent_id=f"intent-{taken}", verdict=yes, ts_ns=now + 20)
        write.send("orders.risk", "paper", intent_id=f"intent-{refused}", verdict=no, rule="max_position", ts_ns=now + 21)
        write.send("orders.event", "paper", order_id=f"order-{unique}", intent_id=f"intent-{taken}", account="paper",
                   venue="kraken", symbol="BTC/USDT", price=6500012, price_exp=-2, size=5, size_exp=-1, filled=5,
                   cause="venue said so", ts_ns=now + 30)  # fmt: skip
        write.send("orders.fill", "paper", trade_id=f"t-{unique}", order_id=f"order-{unique}", intent_id=f"intent-{taken}",
                   account="paper", venue="kraken", symbol="BTC/USDT", price=6500012, price_exp=-2, size=5, size_exp=-1,
                   fee=13, fee_exp=-1, fee_asset="USDT", ts_ns=now + 40)  # fmt: skip
        for step in range(5):
            write.send("orders.position", f"{unique}|BTC/USDT", account=unique, symbol="BTC/USDT", size=5, size_exp=-1,
                       realized=step * step * 10_001, realized_exp=-4, quote="USDT", ts_ns=now + step * 10**9)  # fmt: skip
        write.done()
        async with browser_tab(url) as tab:
            await tab.open("#/trading")
            await tab.page.locator("input[type=search]").fill(unique)
            opportunity = await row(tab, "derived.opportunity", "no: max_position")
            assert "12.3456" in await opportunity.inner_text()
            await row(tab, "derived.opportunity", "yes")
            order = await row(tab, "orders.event", "65000.12")
            await tab.until("document.querySelector('[data-plot=pnl] canvas')")
            await order.click()
            steps = await tab.page.locator(".causes summary").all_inner_texts()
            kinds = ["Opportunity", "Intent", "Verdict", "Order", "Fill"]
            assert [next(k for k in kinds if k in step) for step in steps] == kinds, steps
            assert "kraken BTC/USDT LIVE at 7/101" in steps[0]
            if path := screenshot_path("console-trading"):
                await tab.page.screenshot(path=path)
            assert tab.errors == []


async def test_five_thousand_books_are_drawn_and_followed(kafka: str, settings, unique: str, tmp_path: Path):
    async with console_of(kafka, settings, tmp_path) as (write, url):
        venue = f"many-{unique}"

        def state(number: int, name: str, since: int) -> None:
            symbol = f"C{number}/USDT"
            write.send("market.status", f"{venue}|{symbol}", venue=venue, symbol=symbol, state=name, reason="", epoch=1,
                       since_ns=time.time_ns() + since, owner="test")  # fmt: skip

        def best(number: int, index: int) -> None:
            symbol = f"C{number}/USDT"
            write.send("derived.bbo", f"{venue}|{symbol}", venue=venue, symbol=symbol, state="LIVE", epoch=1, index=index,
                       bid_price=100, bid_size=1, ask_price=101, ask_size=1, ts_received_ns=time.time_ns())  # fmt: skip

        for number in range(MANY):
            state(number, "LIVE", 0)
            best(number, 0)
        await asyncio.to_thread(write.done)
        async with browser_tab(url) as tab:
            await tab.open("#/map")
            cells = f"document.querySelectorAll('[data-venue=\"{venue}\"] .cell"
            await tab.until(f"{cells}.LIVE').length === {MANY}", 120)
            frames = await tab.page.evaluate("venueMirror.store.frames")
            for turn in range(TURNS):
                for number in range(MANY):
                    best(number, turn + 1)
                await asyncio.to_thread(write.done)
            state(17, "GAP", 1)
            await asyncio.to_thread(write.done)
            await tab.until(f"{cells}.GAP').length === 1", 120)
            newest = f"[...venueMirror.store.rows.values()].filter(r => r.v === '{venue}' && r.index === {TURNS}).length"
            await tab.until(f"{newest} === {MANY}", 120)
            frames = await tab.page.evaluate("venueMirror.store.frames") - frames
            assert 0 < frames < TURNS * MANY / 10, "not a frame for each record; how many, and how fast: benchmarks/console.py"
            assert tab.errors == []


async def test_names_from_a_hostile_venue_are_text_and_nothing_else(kafka: str, settings, unique: str, tmp_path: Path):
    async with console_of(kafka, settings, tmp_path) as (write, url):
        venue, symbol = f"evil-{unique}", "<img src=x onerror=globalThis.owned=1>/\"'><script>owned=1</script>"
        write.send("market.status", f"{venue}|{symbol}", venue=venue, symbol=symbol, state="GAP", epoch=1, owner="<b>x</b>",
                   since_ns=time.time_ns(), reason="<svg onload=globalThis.owned=1>")  # fmt: skip
        write.producer.send("market.status", f"{venue}|broken", b"\x00\x01\x02")
        write.producer.send("derived.bbo", "\x00no-bar", b"")
        write.done()
        async with browser_tab(url) as tab:
            await tab.open("#/map")
            await tab.until(f"document.querySelector('[data-venue=\"{venue}\"] .cell.GAP')")
            await tab.page.locator(f'[data-venue="{venue}"] .cell').first.click()
            await tab.until("location.hash.startsWith('#/book')")
            for page in ("book", "cross", "health"):
                await tab.page.keyboard.press({"book": "2", "cross": "3", "health": "5"}[page])
                await asyncio.sleep(0.7)
            assert await tab.page.evaluate("globalThis.owned") is None
            assert await tab.page.evaluate("document.querySelectorAll('main img, main script, main svg').length") == 0
            assert tab.errors == []
