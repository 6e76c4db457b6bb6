"""The whole way from a venue to the derived topics, for a benchmark: venue, collector and processors as processes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cli.stack import Child, Stack, free_port
from cli.views import ViewError, Views
from config.settings import Settings, VenueSettings

TICKS = os.sysconf("SC_CLK_TCK")
VENUE = "bench"


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Mirror:
    """What runs."""

    settings: Settings
    stack: Stack
    venue: Child
    collector: Child
    processor: Child
    collector_url: str
    views: Views

    async def collector_metrics(self) -> dict[str, float]:
        """The collector's counters."""
        return await self.views.metrics(self.collector_url + "/metrics")


@contextlib.asynccontextmanager
async def mirror(
    settings: Settings, work: Path, *, instruments: int, rate: float, busy: bool = False
) -> AsyncIterator[Mirror]:
    """A simulated venue, one collector, one processor on a broker that runs; all books LIVE. ``busy``: with frames as large
    and as many between two book events as the real venue's busy instruments have, and all three kinds collected."""
    port, metrics_port, web_port = free_port(), free_port(), free_port()
    processor = settings.processor.model_copy(
        update={"app_id": f"bench-{web_port}", "web_port": web_port, "data_dir": work / "faust"}
    )
    address = f"127.0.0.1:{port}"
    own = settings.model_copy(
        update={
            "processor": processor,
            "collector": settings.collector.model_copy(update={"metrics_port": metrics_port}),
            "venues": {VENUE: VenueSettings(  # pyright: ignore[reportCallIssue]
                adapter="binance-usdm", rest_url=f"http://{address}", ws_url=f"ws://{address}",
                rest_weight_per_minute=10_000_000, **({"channels": ("book", "trade", "ticker")} if busy else {}))},
        }
    )  # fmt: skip
    async with Stack(own, work) as stack, Views(f"http://127.0.0.1:{web_port}") as views:
        venue = await stack.start(
            "venue", "simulate", "load", "--levels", "68" if busy else "3", "--instruments", str(instruments),
            "--rate", str(rate), "--port", str(port),
        )  # fmt: skip
        child = await stack.start("processor", "process")
        await stack.until("the processor", views.ready, 120)
        collector = await stack.start("collector", "collect", VENUE)

        async def live() -> bool:
            with contextlib.suppress(ViewError):
                return (await views.get("/status"))["states"].get("LIVE", 0) >= instruments
            return False

        await stack.until(f"{instruments} LIVE books", live, 300, pause_s=0.5)
        yield Mirror(own, stack, venue, collector, child, f"http://127.0.0.1:{metrics_port}", views)


def log_to(text: str) -> None:
    """Progress, beside the result on stdout."""
    print(text, file=sys.stderr, flush=True)


def broker_pid(settings: Settings) -> int | None:
    """The embedded broker's process, when it is ours."""
    from bus.broker import EmbeddedBroker

    status = EmbeddedBroker(settings.broker).status()
    return None if status is None else status.pid


def percentile(values: list[int], share: float) -> int:
    """The value below which this share of the sorted values lies."""
    return values[min(len(values) - 1, int(len(values) * share))]

