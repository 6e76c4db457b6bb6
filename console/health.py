"""One sample a second of how the whole is doing, kept for a quarter of an hour."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import asdict
from typing import Any

from console.mirror import Log, Mirror
from console.processors import Processors
from console.reader import Reader

SAMPLES = 900
SCRAPE_EVERY = 2


def _taken(figures: deque[int]) -> list[int] | None:
    """[p50, p99] of the figures, which are forgotten."""
    found = sorted(figures)
    figures.clear()
    return [found[len(found) // 2], found[len(found) * 99 // 100]] if found else None


class Health:
    """Samples of rates, lags, delays and workers."""

    def __init__(self, mirror: Mirror, processors: Processors, reader: Reader) -> None:
        self.samples = Log(SAMPLES)
        self._mirror = mirror
        self._processors = processors
        self._reader = reader
        self._before: dict[str, float] = {}
        self._at_s = time.monotonic()

    async def run(self) -> None:
        """Take a sample each second until cancelled."""
        turn = 0
        while True:
            await asyncio.sleep(1)
            if turn % SCRAPE_EVERY == 0:
                await self._processors.scrape()
            turn += 1
            self.samples.add(self.sample())

    def sample(self) -> dict[str, Any]:
        """The sample of now. ``arrival_us`` is from the venue's time to the collector's receipt, ``delay_us`` from there to
        here: [p50, p99], null when nothing came."""
        mirror, now_s = self._mirror, time.monotonic()
        elapsed_s, self._at_s = max(0.001, now_s - self._at_s), now_s
        counters: dict[str, float] = {f"t:{k}": v for k, v in mirror.records.items()}
        counters |= {f"v:{k}": v for k, v in mirror.by_venue.items()}
        rates = {k: round(max(0.0, v - self._before.get(k, v)) / elapsed_s, 1) for k, v in counters.items()}
        self._before = counters
        return {
            "t": time.time_ns() // 1_000_000,
            "topics": {k[2:]: v for k, v in rates.items() if k.startswith("t:")},
            "venues": {k[2:]: v for k, v in rates.items() if k.startswith("v:")},
            "states": mirror.states(),
            "arrival_us": _taken(mirror.arrivals_us),
            "delay_us": _taken(mirror.delays_us),
            "workers": self._workers(),
            "owners": self._owners(),
            "lag": self._reader.lag,
            "brokers": [asdict(one) for one in self._reader.brokers],
            "failed": self._reader.failed,
            "missing": sorted(self._reader.missing),
        }

    def _workers(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for url, m in self._processors.scraped.items():
            one: dict[str, Any] = {"url": url.removesuffix("/metrics"), "up": bool(m)}
            for kind in ("processor", "collector"):
                if f"{kind}_dead_letters_total" in m:
                    one["kind"] = kind
            if one.get("kind") == "processor":
                one |= {
                    "events": m.get("processor_events_total", 0), "books": m.get("processor_books", 0),
                    "lag": {k.partition("|")[2]: v for k, v in m.items() if k.startswith("processor_lag|")},
                    "ok": m.get("processor_keyframes_ok_total", 0), "bad": m.get("processor_keyframes_bad_total", 0),
                    "dead": m.get("processor_dead_letters_total", 0), "gaps": m.get("processor_gaps_total", 0),
                }  # fmt: skip
            elif one.get("kind") == "collector":
                one |= {
                    "events": m.get("collector_book_events_total", 0), "books": m.get("collector_books", 0),
                    "gaps": m.get("collector_gaps_total", 0), "resyncs": m.get("collector_resyncs_total", 0),
                    "dead": m.get("collector_dead_letters_total", 0),
                    "venue": next((k.split("|")[1] for k in m if k.startswith("collector_frames_total|")), ""),
                }  # fmt: skip
            out.append(one)
        return out

    def _owners(self) -> dict[str, dict[str, int]]:
        """Collector processes by their own word in the statuses: {owner: {state: books}}."""
        out: dict[str, dict[str, int]] = {}
        for book in self._mirror.books.values():
            if book.status is not None and book.status["state"] != "DELISTED":
                states = out.setdefault(f"{book.venue} {book.status['owner']}", {})
                state = book.state()[0]
                states[state] = states.get(state, 0) + 1
        return out
