"""The rooms of one test as real processes: collectors and processors of its own, on the run's broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bus.topics import apply
from cli.stack import Child, Stack, free_port
from cli.views import ViewError, Views
from config.settings import Settings, VenueSettings
from simulator.venue_server import SimulatedVenue

DEADLINE_S = 300.0
"""Of each wait. A loaded machine takes a minute for what takes a second; nobody waits for what has come."""


class Rooms:
    """Starts, asks and stops processes."""

    def __init__(self, settings: Settings, stack: Stack, views: Views) -> None:
        self.settings = settings
        self.stack = stack
        self.views = views
        self.metrics_urls: dict[str, str] = {}

    async def processor(self, name: str = "processor", web_port: int | None = None) -> Child:
        """Start a processor and wait until it is ready."""
        port = web_port or self.settings.processor.web_port
        processor = self.settings.processor.model_copy(update={"web_port": port})
        child = await self.stack.start(
            name, "process", settings=self.settings.model_copy(update={"processor": processor})
        )
        async with Views.of(self.settings, f"http://127.0.0.1:{port}") as views:
            await self.stack.until(name, views.ready, DEADLINE_S)
        return child

    async def collector(
        self, venue: str, name: str = "collector", args: tuple[str, ...] = (), **collector: Any
    ) -> Child:
        """Start a collector of this venue."""
        port = free_port()
        own = self.settings.collector.model_copy(update={"metrics_port": port, **collector})
        self.metrics_urls[name] = f"http://127.0.0.1:{port}"
        return await self.stack.start(
            name, "collect", venue, *args, settings=self.settings.model_copy(update={"collector": own})
        )

    async def count(self, name: str, collector: str = "collector") -> int:
        """A collector's counter; 0 while it starts."""
        with contextlib.suppress(ViewError):
            m = await self.views.metrics(self.metrics_urls[collector] + "/metrics")
            return int(m.get(f"collector_{name}_total", 0))
        return 0

    async def books(self, venue: str) -> dict[str, dict[str, Any]]:
        """The venue's books by symbol, from the view's list."""
        return {b["symbol"]: b for b in await self.views.books() if b["venue"] == venue}

    async def live(self, venue: str, count: int, timeout_s: float = DEADLINE_S) -> None:
        """Wait until so many books are LIVE."""

        async def reached() -> bool:
            with contextlib.suppress(ViewError):
                return sum(b["state"] == "LIVE" for b in (await self.books(venue)).values()) >= count
            return False

        await self.stack.until(f"{count} LIVE books of {venue}", reached, timeout_s)

    async def equals_truth(self, venue: str, symbol: str, native: str, simulated: SimulatedVenue) -> bool:
        """Whether the mirror's book is LIVE and the venue's own at the same sequence number; asks until it can tell."""
        from simulator.truth import TruthError

        said = ""
        for _ in range(int(DEADLINE_S / 0.05)):
            try:
                mirrored = await self.views.book(venue, symbol)
            except ViewError as error:  # the partitions are being handed out
                said = str(error)
            else:
                said = f"{mirrored['state']} {mirrored['reason']}"
                if mirrored["state"] == "LIVE":
                    with contextlib.suppress(TruthError):
                        _, bids, asks = simulated.books[native].at(mirrored["venue_seq"])
                        return mirrored["bids"] == bids and mirrored["asks"] == asks
            await asyncio.sleep(0.05)
        raise AssertionError(f"{symbol} was not LIVE within {DEADLINE_S:g} seconds: {said}")


@contextlib.asynccontextmanager
async def rooms_of(settings: Settings, logs: Path) -> AsyncIterator[Rooms]:
    """Topics applied, nothing started yet; stops everything at the end."""
    await asyncio.to_thread(apply, settings)
    async with Stack(settings, logs) as stack, Views.of(settings) as views:
        yield Rooms(settings, stack, views)


def section(adapter: str, venue: SimulatedVenue, **more: Any) -> VenueSettings:
    """Settings of a simulated venue."""
    return VenueSettings(
        adapter=adapter, rest_url=venue.rest_url, ws_url=venue.ws_url, rest_weight_per_minute=1_000_000, **more
    )


def unified(native: str) -> str:
    """The unified symbol of a synthetic venue's instrument."""
    if native.endswith("_PERP"):
        base = native.removesuffix("USD_PERP")
        return f"{base}/USD:{base}"
    return f"{native.removesuffix('USDT')}/USDT:USDT"
