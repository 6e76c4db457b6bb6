"""What the console asks the processors: books that somebody looks at, and their metrics. Never more than that.

A book is asked for once however many browsers look at it, a few times a second, and only while one does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from console.metrics import Counts

log = logging.getLogger(__name__)

DEPTH = 25
ASK_EVERY_S = 0.25
SAMPLE_EVERY_S = 1.0
SAMPLES = 240
"""Samples kept of a book that is looked at: four minutes of its depth."""
FORGET_AFTER_S = 60.0
WATCHED_MAX = 64
TIMEOUT = aiohttp.ClientTimeout(total=3)


class Watched:
    """One book that a browser looks at."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.wanted_at_s = time.monotonic()
        self.view: dict[str, Any] = {}
        self.version = 0
        self.samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)
        self._sampled_at_s = 0.0

    def take(self, view: dict[str, Any]) -> None:
        """A new answer; one a second becomes a sample of the depth over time."""
        if view == self.view:
            return
        self.view = view
        self.version += 1
        now_s = time.monotonic()
        if "bids" in view and now_s - self._sampled_at_s >= SAMPLE_EVERY_S:
            self._sampled_at_s = now_s
            self.samples.append({
                "t": time.time_ns() // 1_000_000, "live": view["state"] == "LIVE",
                "bids": view["bids"], "asks": view["asks"],
            })  # fmt: skip


class Processors:
    """Asks the processors' web views. ``urls`` are tried in turn: any worker answers for any book."""

    def __init__(self, urls: Iterable[str], metrics_urls: Iterable[str], counts: Counts, token: str = "") -> None:
        self.urls = [url.rstrip("/") for url in urls]
        self._views = [f"{url}/metrics" for url in self.urls]
        self.metrics_urls = [*self._views, *metrics_urls]
        self.watched: dict[str, Watched] = {}
        self.scraped: dict[str, dict[str, float]] = {}
        """The last metrics of each address; empty when it does not answer."""
        self._counts = counts
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        """For the processors alone: collectors have no use for their token."""
        self._session: aiohttp.ClientSession | None = None
        self._next = 0

    async def start(self) -> None:
        """Open the session."""
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)

    async def stop(self) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()

    def want(self, key: str) -> Watched | None:
        """Somebody looks at this book; None when too many are looked at."""
        found = self.watched.get(key)
        if found is None:
            if len(self.watched) >= WATCHED_MAX:
                return None
            found = self.watched[key] = Watched(key)
        found.wanted_at_s = time.monotonic()
        return found

    async def ask(self, known: Callable[[str], bool]) -> None:
        """Ask for every watched book until cancelled; a key that nobody knows is not asked for."""
        while True:
            started_s = time.monotonic()
            for key in [k for k, w in self.watched.items() if started_s - w.wanted_at_s > FORGET_AFTER_S]:
                del self.watched[key]
            wanted = [w for w in self.watched.values() if started_s - w.wanted_at_s < 2 and known(w.key)]
            await asyncio.gather(*(self._ask(one) for one in wanted))
            await asyncio.sleep(max(0.05, ASK_EVERY_S - (time.monotonic() - started_s)))

    async def _ask(self, one: Watched) -> None:
        assert self._session is not None
        venue, _, symbol = one.key.partition("|")
        path = f"/books/{quote(venue, safe='')}/{quote(symbol, safe='/:')}?depth={DEPTH}"
        problem = "no processor is named: set console.views_urls"
        for _ in range(len(self.urls)):
            url = self.urls[self._next % len(self.urls)]
            try:
                async with self._session.get(url + path, headers=self._headers) as response:
                    view = await response.json(content_type=None)
                    if response.status == 200:
                        one.take(view)
                        return
                    problem = str(view.get("error", response.status))[:300]
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = f"the processor at {url} does not answer ({type(error).__name__})"
            self._next += 1
            self._counts.view_errors += 1
        # Levels of which nobody says that they are current are not shown.
        one.take({"state": "UNKNOWN", "reason": problem})

    async def scrape(self) -> None:
        """Read the metrics of every address once."""
        for url, answer in zip(self.metrics_urls, await asyncio.gather(*map(self._scrape, self.metrics_urls)), strict=True):
            self.scraped[url] = answer

    async def _scrape(self, url: str) -> dict[str, float]:
        assert self._session is not None
        try:
            async with self._session.get(url, headers=self._headers if url in self._views else {}) as response:
                return parse(await response.text()) if response.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return {}


def parse(text: str) -> dict[str, float]:
    """A Prometheus page: {name: sum over its labels}, and {name|label value} for metrics with labels."""
    out: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out[sample.name] = out.get(sample.name, 0.0) + sample.value
            if sample.labels:
                out[f"{sample.name}|{'|'.join(v for _, v in sorted(sample.labels.items()))}"] = sample.value
    return out
