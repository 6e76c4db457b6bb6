"""`demo`: everything on this machine against simulated venues, with a proof. `live`: the same against a real venue."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from bus.connection import configured_bootstrap
from cli.console import start_console
from cli.demo_chain import COMMON, DemoChain, start_chain
from cli.demo_trading import DemoTrading
from cli.proof import Proof, Truth
from cli.screen import Sample, line, sample, screen
from cli.stack import Child, Stack, StackError, free_port, private_broker
from cli.views import ViewError, Views
from collectors.venue import adapter
from config.settings import Settings, VenueSettings

Say = Callable[[str], None]

DEMO_DIR = Path(".venue-mirror/demo")
SYNTHETIC = {"sim-spot": "binance-spot", "sim-usdm": "binance-usdm", "sim-coinm": "binance-coinm"}
TRADED = ("sim-spot", "sim-usdm")
"""Venues that list the same pairs. The first one's prices are the chain's, and there swaps are hedged."""
INSTRUMENTS_EACH = 20
RATE_EACH = 500
CAPTURES = {
    "binance-usdm": "binance_usdm_*.gz",
    "binance-spot": "binance_spot_*.gz",
    "binance-coinm": "binance_cm_*.gz",
}
START_S = 90
LIVE_WITHIN_S = 120
LINE_EVERY_S = 2.0


class Rooms:
    """The processes of a demo, and how to read them."""

    def __init__(self, settings: Settings, stack: Stack, views: Views) -> None:
        self.settings = settings
        self.stack = stack
        self.views = views
        self.metrics_urls: dict[str, str] = {}
        self.collectors: dict[str, Child] = {}
        self.last: dict[str, dict[str, float]] = {}
        self.console_url = ""
        self.chain: DemoChain | None = None
        self.trading: DemoTrading | None = None

    async def show_console(self, say: Say) -> None:
        """Start the page that people look at, over the collectors that run now, and say where it is."""
        urls = [*self.metrics_urls.values(), *([self.chain.metrics_url] if self.chain else [])]
        _, self.console_url = await start_console(self.stack, self.settings, tuple(urls))
        say(f"console {self.console_url}")

    async def collect(self, venue: str) -> None:
        """Start a collector of this venue."""
        port = free_port()
        collector = self.settings.collector.model_copy(update={"metrics_port": port})
        self.metrics_urls[venue] = f"http://{collector.metrics_host}:{port}/metrics"
        settings = self.settings.model_copy(update={"collector": collector})
        self.collectors[venue] = await self.stack.start(f"collector-{venue}", "collect", venue, settings=settings)

    async def look(self, proof: Proof) -> Sample:
        """Read every process once."""
        for venue, url in self.metrics_urls.items():
            with contextlib.suppress(ViewError):
                self.last[venue] = await self.views.metrics(url)
        collected = {venue: self.last.get(venue, {}) for venue in self.metrics_urls}
        books = await self.views.books()
        chain = await self.chain.look(self.views, books) if self.chain else None
        return sample(
            collected, await self.views.metrics(), books, compared=proof.compared, mismatches=proof.mismatches, chain=chain,
            trading=await self.trading.line() if self.trading else "",
        )  # fmt: skip


async def run_demo(
    settings: Settings, duration_s: float, captures: Path | None, say: Say, *, with_chain: bool = True,
    with_trading: bool = True,
) -> int:  # fmt: skip
    """Gives the exit code: 0 when every book was LIVE and equal to the venue's or the chain's own, and every ledger equal
    to what the accounts hold, and no hedge given up but for a kill; 1 otherwise."""
    shutil.rmtree(DEMO_DIR, ignore_errors=True)
    stop = stop_event()
    async with private_broker(settings, say, DEMO_DIR) as own:
        tuned = _tuned(own)
        async with Stack(tuned, DEMO_DIR / "logs") as stack:
            say(f"starting {len(SYNTHETIC)} synthetic venues, {INSTRUMENTS_EACH} instruments each")
            started = [
                _simulator(stack, name, _synthetic_arguments(number, kind))
                for number, (name, kind) in enumerate(SYNTHETIC.items(), 1)
            ]
            truths = dict(zip(SYNTHETIC, await asyncio.gather(*started), strict=True))
            if captures is not None:
                for name, pattern in CAPTURES.items():
                    files = sorted(captures.glob(pattern))
                    if files:
                        say(f"starting a venue that plays {files[0].name} at the speed of its recording")
                        truths[name] = await _simulator(stack, name, ["capture", str(files[0]), "--speed", "1"])
            sections = {
                name: VenueSettings(  # pyright: ignore[reportCallIssue]
                    adapter=SYNTHETIC.get(name, name), rest_url=truth.rest_url, ws_url=truth.ws_url,
                    rest_weight_per_minute=1_000_000,
                )
                for name, truth in truths.items()
            }  # fmt: skip
            tuned = tuned.model_copy(update={"venues": sections})
            stack.settings = tuned
            async with _processing(tuned, stack) as rooms:
                say("starting collectors: " + ", ".join(truths))
                for name in truths:
                    await rooms.collect(name)
                expected = len(SYNTHETIC) * INSTRUMENTS_EACH + len(truths) - len(SYNTHETIC)
                if with_chain:
                    venue = TRADED[0]
                    seed = list(SYNTHETIC).index(venue) + 1
                    rooms.chain = await start_chain(settings, stack, DEMO_DIR, venue, truths[venue], seed, rooms.views, say)
                if rooms.chain is not None:
                    await rooms.chain.collect(tuned, stack, rooms.views)
                    expected += rooms.chain.pools
                if with_trading and configured_bootstrap(settings):
                    say("no trading: this Kafka is not the demo's own, and whoever reads it must not be told to trade")
                elif with_trading:
                    rooms.trading = DemoTrading(tuned, stack, DEMO_DIR / "trading", rooms.chain)
                    rooms.trading.begin(TRADED, say)
                await rooms.show_console(say)
                proof = Proof(rooms.views, truths)
                await _until_live(rooms, expected, stop)
                await _show(rooms, proof, duration_s, stop, say)
                return await _conclude(rooms, proof, expected, stop, say)


async def run_live(settings: Settings, venue: str, symbols: Sequence[str], duration_s: float, say: Say) -> int:
    """Mirror a real venue until ``duration_s`` is over (0: until Ctrl-C); gives the exit code."""
    section = settings.venue(venue)
    kind = adapter(section.adapter)
    section = section.model_copy(update={"symbols": tuple(symbols)})
    settings = settings.model_copy(update={"venues": {**settings.venues, venue: section}})
    stop = stop_event()
    work = Path(".venue-mirror/live")
    shutil.rmtree(work, ignore_errors=True)
    async with private_broker(settings, say, work) as own:
        processor = own.processor.model_copy(update={"data_dir": work / "faust", "web_port": free_port()})
        tuned = own.model_copy(update={"processor": processor})
        async with Stack(tuned, work / "logs") as stack, _processing(tuned, stack) as rooms:
            say(f"connecting to {section.rest_url or kind.rest_url} and {section.ws_url or kind.ws_url}")
            await rooms.collect(venue)
            proof = Proof(rooms.views, {})
            try:
                await rooms.show_console(say)
                await _show(rooms, proof, duration_s, stop, say)
            except StackError as error:
                child = rooms.collectors[venue]
                if child.process.returncode is None:
                    raise
                reasons = [text for text in child.tail(40).splitlines() if text.startswith("error: ")]
                say(reasons[-1] if reasons else f"error: {error}")
                return child.process.returncode
            last = await rooms.look(proof)
            updates = sum(v.book_events for v in last.venues.values())
            say(f"books={len(last.books)} live={last.states['LIVE']} updates={updates} "
                f"keyframes_ok={last.keyframes_ok} mismatches={last.mismatches}")  # fmt: skip
            return 1 if last.mismatches else 0


def stop_event() -> asyncio.Event:
    """Set by SIGINT and SIGTERM, so that everything ends in order."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _tuned(settings: Settings) -> Settings:
    collector = settings.collector.model_copy(
        update={"discovery_s": 5.0, "keyframe_max_s": 10.0, "keyframe_min_s": 2.0}
    )
    processor = settings.processor.model_copy(
        update={
            "data_dir": DEMO_DIR / "faust",
            "web_port": free_port(),
            "app_id": f"venue-mirror-demo-{int(time.time())}",
            "proofs": True,
        }
    )
    return settings.model_copy(update={"collector": collector, "processor": processor})


def _synthetic_arguments(seed: int, kind: str) -> list[str]:
    return ["synthetic", "--adapter", kind, "--instruments", str(INSTRUMENTS_EACH), "--rate", str(RATE_EACH),
            "--seed", str(seed), "--common", str(COMMON)]  # fmt: skip


async def _simulator(stack: Stack, name: str, arguments: list[str]) -> Truth:
    child = await stack.start(f"venue-{name}", "simulate", *arguments)

    def listening() -> str:
        found = [text for text in child.tail(100).splitlines() if text.startswith("listening ")]
        return found[-1] if found else ""

    words = dict(part.split("=", 1) for part in (await stack.until(name, listening, START_S)).split()[1:])
    return Truth(words["rest"], words["ws"])


@contextlib.asynccontextmanager
async def _processing(settings: Settings, stack: Stack) -> AsyncIterator[Rooms]:
    async with Views.of(settings) as views:
        await stack.start("processor", "process", settings=settings)
        await stack.until("the processor", views.ready, 60)
        rooms = Rooms(settings, stack, views)
        try:
            yield rooms
        finally:
            if rooms.trading is not None:
                await rooms.trading.close()


async def _until_live(rooms: Rooms, expected: int, stop: asyncio.Event) -> None:
    async def ready() -> bool:
        if stop.is_set():
            return True
        return sum(b["state"] == "LIVE" for b in await rooms.views.books()) >= expected

    await rooms.stack.until(f"{expected} LIVE books", ready, LIVE_WITHIN_S, 0.25)


async def _show(rooms: Rooms, proof: Proof, duration_s: float, stop: asyncio.Event, say: Say) -> None:
    """Draw until the time is over or a signal comes; compares books with the truth all along."""
    started = time.monotonic()
    links = {"console": rooms.console_url, "views": rooms.views.url + "/books"}
    terminal = sys.stdout.isatty()
    before: Sample | None = None
    display = Live(console=Console(), refresh_per_second=4, transient=False) if terminal else None
    with display or contextlib.nullcontext():
        while not stop.is_set() and not (duration_s and time.monotonic() - started >= duration_s):
            rooms.stack.check()
            await proof.step(LINE_EVERY_S / 4)
            if rooms.chain is not None:
                await rooms.chain.proof.step()
            now = await rooms.look(proof)
            elapsed_s = time.monotonic() - started
            if display is not None:
                display.update(screen(now, before, elapsed_s, links))
            else:
                say(line(now, before, elapsed_s))
            before = now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5 if terminal else LINE_EVERY_S):
                    await stop.wait()


async def _conclude(rooms: Rooms, proof: Proof, expected: int, stop: asyncio.Event, say: Say) -> int:
    right = rooms.trading is None or await rooms.trading.conclude(rooms.views, stop, say)
    right = (rooms.chain is None or await rooms.chain.conclude(rooms.views, say)) and right
    say("comparing every book with the venue's own at the same sequence number")
    books = await rooms.views.books()
    seen = await proof.all_books(books)
    if rooms.chain is not None:
        seen += rooms.chain.proof.books_compared
    last = await rooms.look(proof)
    for text in proof.problems[:20]:
        say(text)
    mismatches = proof.mismatches + int((await rooms.views.metrics()).get("processor_keyframes_bad_total", 0))
    updates = last.updates
    print(
        f"books={len(books)} updates={updates} compared={proof.compared} keyframes_ok={last.keyframes_ok} "
        f"not_compared={len(books) - seen} mismatches={mismatches}",
        flush=True,
    )
    Path(DEMO_DIR / "proof.json").write_text(
        json.dumps({"books": len(books), "compared": proof.compared, "mismatches": mismatches}), "utf-8"
    )
    complete = len(books) >= expected and seen == len(books)
    if not complete:
        say(f"error: {expected} books expected, {len(books)} mirrored, {seen} compared at the end")
    return 0 if not mismatches and complete and right else 1
