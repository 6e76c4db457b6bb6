"""What one processor derives and shows of two venues of the same instruments, checked against the log itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus.consumer import TailReader
from cli.stack import free_port
from cli.views import ViewError, Views
from processors.openapi import describe
from schemas.codec import codec
from schemas.topics import BAR, BBO, BOOK, CROSS, DEPTH, MICROSTRUCTURE, TOPICS, TRADE
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, Rooms, rooms_of, section, unified

INSTRUMENTS = 5
MANY = 24
"""Of two workers neither is left without a book."""
SYMBOL = "BTC/USDT:USDT"


@pytest.fixture
async def running(kafka: str, settings, unique: str, tmp_path: Path):
    """Two synthetic venues with the same instruments, their collectors, one processor; all books LIVE."""
    names = [f"one-{unique}", f"two-{unique}"]
    venues = [SyntheticVenue("binance-usdm", instruments=INSTRUMENTS, rate=200, levels=40, seed=s) for s in (1, 2)]
    for venue in venues:
        await venue.start()
    own = settings(
        kafka={"bootstrap_servers": kafka},
        venues={name: section("binance-usdm", venue) for name, venue in zip(names, venues, strict=True)},
    )
    async with rooms_of(own, tmp_path) as rooms:
        await rooms.processor()
        for name in names:
            await rooms.collector(name, name)
        for name in names:
            await rooms.live(name, INSTRUMENTS)
        yield rooms, names, venues
    for venue in venues:
        await venue.stop()


def read(rooms: Rooms, topic: str, record: str, names: list[str]) -> list[tuple[Any, dict[str, Any]]]:
    """Every record of the topic about these venues, with its message."""
    reader = TailReader(rooms.settings, [topic])
    found = [(m, codec(record).decode(m.value())) for m in reader.read_to_end()]
    reader.close()
    if record == "Cross":
        return [(m, r) for m, r in found if {r["bid_venue"], r["ask_venue"]} & set(names)]
    return [(m, r) for m, r in found if r["venue"] in names]


def books_of(events: list[tuple[Any, dict[str, Any]]]) -> dict[tuple[str, str, int, int], tuple[dict, dict, int]]:
    """Every state that every book went through, from the log alone: (bids, asks, offset) with decimals."""
    out: dict[tuple[str, str, int, int], tuple[dict, dict, int]] = {}
    now: dict[tuple[str, str], tuple[dict, dict]] = {}
    for message, event in sorted(events, key=lambda e: (e[0].partition(), e[0].offset())):
        key = event["venue"], event["symbol"]
        if event["kind"] != "DELTA":
            now[key] = ({}, {})
        if key not in now:
            continue
        for side, name in zip(now[key], ("bid", "ask"), strict=True):
            for price, size in zip(event[f"{name}_prices"], event[f"{name}_sizes"], strict=True):
                exact = Decimal(price).scaleb(event["price_exp"])
                side[exact] = Decimal(size).scaleb(event["size_exp"])
                if not size:
                    side.pop(exact)
        out[(*key, event["epoch"], event["index"])] = (dict(now[key][0]), dict(now[key][1]), message.offset())
    return out


@pytest.mark.broker
async def test_every_derived_record_is_what_its_source_in_the_log_gives(running) -> None:
    rooms, names, _ = running
    await asyncio.sleep(6)
    derived: dict[str, list[tuple[Any, dict[str, Any]]]] = {}

    async def enough() -> bool:
        for topic in (BBO, DEPTH, MICROSTRUCTURE, CROSS, BAR):
            derived[topic.name] = await asyncio.to_thread(read, rooms, topic.name, topic.record, names)
        return all(len(records) > 40 for records in derived.values())

    await rooms.stack.until("records of every kind", enough, DEADLINE_S, pause_s=1.0)
    books = books_of(await asyncio.to_thread(read, rooms, BOOK.name, "BookEvent", names))

    for _, r in derived[BBO.name] + derived[MICROSTRUCTURE.name]:
        if r["epoch"] < 0 or r["state"] != "LIVE":
            continue
        bids, asks, _ = books[(r["venue"], r["symbol"], r["epoch"], r["index"])]
        if "bid_price" in r:
            assert Decimal(r["bid_price"]).scaleb(r["price_exp"]) == max(bids)
            assert Decimal(r["ask_size"]).scaleb(r["size_exp"]) == asks[min(asks)]
        else:
            assert Decimal(r["mid"]).scaleb(r["price_exp"] - 1) == (max(bids) + min(asks)) / 2
    times: dict[Any, list[int]] = {}
    for message, r in derived[DEPTH.name]:
        if r["epoch"] < 0:
            continue
        bids, asks, _ = books[(r["venue"], r["symbol"], r["epoch"], r["index"])]
        shown = [Decimal(p).scaleb(r["price_exp"]) for p in r["bid_prices"]]
        assert shown == sorted(bids, reverse=True)[:25]
        sizes = [Decimal(s).scaleb(r["size_exp"]) for s in r["ask_sizes"]]
        assert sizes == [asks[p] for p in sorted(asks)[:25]]
        times.setdefault((r["venue"], r["symbol"]), []).append(message.timestamp()[1])
    assert min(b - a for t in times.values() for a, b in pairwise(sorted(t))) >= 49
    crossed = 0
    for _, r in derived[CROSS.name]:
        for side in ("bid", "ask"):
            if r[f"{side}_venue"]:
                key = (r[f"{side}_venue"], r["symbol"], r[f"{side}_epoch"], r[f"{side}_index"])
                bids, asks, _ = books[key]
                best = max(bids) if side == "bid" else min(asks)
                assert Decimal(r[f"{side}_price"]).scaleb(r[f"{side}_price_exp"]) == best
        crossed += r["venues"] == 2
    assert crossed > 20

    trades = await asyncio.to_thread(read, rooms, TRADE.name, "Trade", names)
    grouped: dict[Any, list[Any]] = {}
    for message, t in trades:
        start = t["ts_venue_us"] // 1_000_000 * 1_000_000
        grouped.setdefault((t["venue"], t["symbol"], start), []).append((t["ts_venue_us"], message.offset(), t))
    last = {(r["venue"], r["symbol"], r["start_us"]): r for _, r in derived[BAR.name] if r["interval_s"] == 1}
    assert len(last) > 10
    for key, bar in last.items():
        group = [t for _, offset, t in sorted(grouped[key], key=lambda g: g[:2]) if offset <= bar["offset"]]
        prices = [Decimal(t["price"]).scaleb(t["price_exp"]) for t in group]
        shown = [Decimal(bar[n]).scaleb(bar["price_exp"]) for n in ("open", "high", "low", "close")]
        assert shown == [prices[0], max(prices), min(prices), prices[-1]]
        assert bar["trades"] == len(group)
        assert Decimal(bar["volume"]) == sum(Decimal(t["size"]).scaleb(t["size_exp"]) for t in group)


@pytest.mark.broker
async def test_the_views_answer_and_refuse_with_reasons(running) -> None:
    rooms, names, _ = running
    views: Views = rooms.views
    one = names[0]

    async with aiohttp.ClientSession() as session:

        async def ask(path: str) -> tuple[int, Any]:
            async with session.get(views.url + path) as response:
                return response.status, await response.json()

        bbo: dict[str, Any] = {}

        async def both_quote() -> bool:  # the broker is shared: this worker reads the quotes of other tests first
            status, found = await ask(f"/bbo?symbol={SYMBOL}")
            bbo.update(found if status == 200 else {})
            return {v["venue"] for v in bbo.get("venues", ()) if v["state"] == "LIVE"} >= set(names)

        await rooms.stack.until("both venues' quotes", both_quote, DEADLINE_S)
        mine = {v["venue"]: v for v in bbo["venues"] if v["venue"] in names}
        assert set(mine) == set(names)
        assert all(v["state"] == "LIVE" and Decimal(v["bid"][0]) < Decimal(v["ask"][0]) for v in mine.values())
        _, cross = await ask(f"/cross/{SYMBOL}")
        assert {cross["bid"]["venue"], cross["ask"]["venue"]} <= {v["venue"] for v in bbo["venues"]}

        async def traded() -> bool:
            return (await ask(f"/bars/{one}/{SYMBOL}?interval=1s&limit=5"))[0] == 200

        await rooms.stack.until("a trade", traded, DEADLINE_S)
        status, bars = await ask(f"/bars/{one}/{SYMBOL}?interval=1s&limit=3")
        assert status == 200 and 1 <= len(bars["bars"]) <= 3
        assert [b["start_us"] for b in bars["bars"]] == sorted(b["start_us"] for b in bars["bars"])

        async def listed() -> bool:
            status, found = await ask(f"/instruments?venue={one}")
            return status == 200 and found["count"] == INSTRUMENTS

        states: dict[str, Any] = {}

        async def all_live() -> bool:
            status, found = await ask("/status?state=LIVE")
            states.update(found)
            return status == 200 and found["states"].get("LIVE", 0) >= 2 * INSTRUMENTS

        # A thread of its own reads the instruments; and a busy moment makes books LAGGING.
        await rooms.stack.until("the venue's instruments", listed, DEADLINE_S)
        await rooms.stack.until("every book", all_live, DEADLINE_S)
        assert {b["symbol"] for b in states["books"] if b["venue"] == one} == set(map(unified, running[2][0].books))
        status, described = await ask("/openapi.json")
        assert status == 200 and described == json.loads(json.dumps(describe()))

        for path, code, reason in (
            (f"/books/{one}/NOBODY/USDT", 404, "no book of"),
            (f"/books/{one}/{SYMBOL}?depth=0", 400, "depth is a whole number"),
            (f"/books/{one}/{SYMBOL}?depth=-1", 400, "depth is a whole number"),
            ("/bbo", 400, "name a symbol"),
            ("/bbo?symbol=NO/BODY", 404, "no venue has a book"),
            ("/cross/NO/BODY", 404, "no venue has a book"),
            (f"/bars/{one}/{SYMBOL}?interval=2s", 400, "interval is one of 1s, 1m, 1h"),
            (f"/bars/{one}/{SYMBOL}?limit=9999", 400, "limit is a whole number from 1 to 240"),
            (f"/bars/{one}/NO/BODY", 404, "no trade"),
            ("/status?state=WRONG", 400, "state is one of"),
            (f"/stream/books/{one}/NO/BODY", 404, "no book of"),
        ):
            status, answer = await ask(path)
            assert (status, reason in answer["error"]) == (code, True), (path, status, answer)


@pytest.mark.broker
async def test_a_stream_gives_the_book_at_its_changes_and_the_newest_to_a_slow_reader(running) -> None:
    rooms, names, _ = running
    url = f"{rooms.views.url}/stream/books/{names[0]}/{SYMBOL}?depth=2"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session:
        async with session.get(url) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            events = []
            async for line in response.content:
                if line.startswith(b"data: "):
                    events.append(json.loads(line[6:]))
                if len(events) == 8:
                    break
        indexes = [e["index"] for e in events]
        assert indexes == sorted(set(indexes))
        assert all(e["state"] == "LIVE" and len(e["bids"]) == 2 for e in events)
        # 40 events a second of this book, at most 10 a second to a client: most were passed over.
        assert indexes[-1] - indexes[0] > 8
        async with session.get(f"{rooms.views.url}/stream/cross?symbol={SYMBOL}") as response:
            line = await response.content.readline()
            assert json.loads(line[6:])["symbol"] == SYMBOL
    metrics = await rooms.views.metrics()
    assert metrics["processor_dropped_total"] == 0


@pytest.mark.broker
async def test_the_description_holds_for_every_answer(running) -> None:
    rooms, names, _ = running
    jsonschema = pytest.importorskip("jsonschema")
    paths = {
        "/books": "/books", "/books/{venue}/{symbol}": f"/books/{names[0]}/{SYMBOL}", "/bbo": f"/bbo?symbol={SYMBOL}",
        "/cross/{base}/{quote}": f"/cross/{SYMBOL}", "/bars/{venue}/{symbol}": f"/bars/{names[0]}/{SYMBOL}",
        "/instruments": "/instruments", "/status": "/status?state=LIVE", "/readyz": "/readyz", "/healthz": "/healthz",
    }  # fmt: skip
    for path, asked in paths.items():

        async def answered(asked: str = asked) -> Any:
            with contextlib.suppress(ViewError):  # the first trade, or quote, is not there yet
                return await rooms.views.get(asked)

        answer = await rooms.stack.until(asked, answered, DEADLINE_S)
        schema = describe()["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, schema)


@pytest.mark.broker
async def test_two_workers_answer_for_each_other_with_the_token_which_shows_nowhere(
    kafka: str, settings, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, name = "canary-" + "0123456789abcdef" * 2, f"guarded-{unique}"
    (tmp_path / "token").write_text(token)
    monkeypatch.setenv("VENUE_MIRROR_LOG", "DEBUG")  # the most that any log can say
    venue = SyntheticVenue("binance-usdm", instruments=MANY, rate=50, levels=10)
    await venue.start()
    own = settings(
        kafka={"bootstrap_servers": kafka}, venues={name: section("binance-usdm", venue)},
        processor={"web_token_file": tmp_path / "token", "web_rate_per_s": 20},
    )  # fmt: skip
    bearer, found = {"Authorization": f"Bearer {token}"}, dict[str, str]()
    async with rooms_of(own, tmp_path / "logs") as rooms, aiohttp.ClientSession() as http:
        port = free_port()
        await rooms.processor()
        await rooms.processor("second", port)
        await rooms.collector(name)
        urls = rooms.views.url, f"http://127.0.0.1:{port}"

        async def ask(path: str, headers: dict[str, str]) -> tuple[int, str]:
            async with http.get(path, headers=headers, allow_redirects=False) as response:
                return response.status, await response.text()

        async def told_by_both() -> bool:
            with contextlib.suppress(ViewError):
                held = []
                for url in urls:
                    async with Views.of(own, url) as views:
                        held.append({b["symbol"] for b in await views.books() if b["venue"] == name and b["state"] == "LIVE"})
                        if sorted((await views.get("/status"))["workers"]) != sorted(urls):
                            return False
                return all(held) and len(held[0] | held[1]) == MANY
            return False

        async def is_live(views: Views, symbol: str) -> bool:
            return (await views.book(name, symbol, 2))["state"] == "LIVE"

        await rooms.stack.until("books on both workers", told_by_both, DEADLINE_S, pause_s=0.5)
        status, text = await ask(rooms.metrics_urls["collector"] + "/readyz", {})
        assert (status, json.loads(text)) == (200, {"ready": True, "reason": ""})
        for url in urls:
            async with Views.of(own, url) as views:
                for symbol in map(unified, venue.books):  # its own and the other's
                    await rooms.stack.until(f"{symbol} LIVE from {url}", partial(is_live, views, symbol), DEADLINE_S)
                found[f"{url}/books"] = str(await views.books())
            for path in ("/books", "/metrics", "/openapi.json", "/router", "/table/books", f"/stream/books/{name}/{SYMBOL}", "/"):
                status, found[url + path] = await ask(url + path, {})
                assert status in (401, 429), path
            for path in ("/healthz", "/readyz"):
                status, found[url + path] = await ask(url + path, {})
                assert status == 200
        statuses = [(await ask(urls[0] + "/openapi.json", bearer))[0] for _ in range(20)]
        while 429 not in statuses:
            statuses += [status for status, _ in await asyncio.gather(*(ask(urls[0] + "/bbo", bearer) for _ in range(60)))]
        assert set(statuses) <= {200, 400, 429}
        async with Views.of(own, urls[0]) as views:
            metrics = await views.metrics()
            assert metrics["processor_requests_limited_total"] > 0 and metrics["processor_requests_refused_total"] > 0
            found["metrics"] = str(metrics)
        for child in rooms.stack.children:
            for part in ("cmdline", "environ"):
                found[f"{child.name} {part}"] = Path(f"/proc/{child.process.pid}/{part}").read_bytes().decode("utf-8", "replace")
    await venue.stop()
    for file in (tmp_path / "logs").glob("*.log"):
        found[file.name] = file.read_text("utf-8", "replace")
    reader = TailReader(own, [t for t in TOPICS if t.startswith(("market.", "derived.", "dead."))])
    for message in await asyncio.to_thread(reader.read_to_end):
        found["topics"] = found.get("topics", "") + (message.value() or b"").decode("utf-8", "replace")
    reader.close()
    assert len(found) > 20
    for place, text in found.items():
        assert token not in text, place
