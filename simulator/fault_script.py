"""A seeded series of faults: the same seed gives the same faults at the same moments of a run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simulator.faults import ControlError

if TYPE_CHECKING:
    from simulator.synthetic import SyntheticVenue

CLOSE_CODES = (*range(1000, 1016), 3000, 4000, 4999)


@dataclass
class Fault:
    """One command of a script; ``what`` names it in the script's count."""

    at_s: float
    what: str
    verb: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    hits_symbol: bool = False
    """The symbol is chosen when its time comes, among those that are listed then."""


Make = Callable[[random.Random], tuple[str, dict[str, Any], bool]]
"""Gives (verb, values, whether it hits one symbol)."""

KINDS: dict[str, tuple[int, Make]] = {
    "drop": (10, lambda r: ("drop", {"n": r.randint(1, 3)}, False)),
    "duplicate": (5, lambda r: ("duplicate", {"n": r.randint(1, 3)}, False)),
    "reorder": (5, lambda r: ("reorder", {"n": r.randint(1, 2)}, False)),
    "delay": (5, lambda r: ("delay", {"n": r.randint(1, 2), "seconds": r.choice((0.05, 0.5, 3))}, False)),
    "checksum": (5, lambda r: ("checksum", {"n": r.randint(1, 2)}, False)),
    "garbage": (2, lambda r: ("garbage", {"n": r.randint(1, 3)}, False)),
    "wrongtype": (1, lambda _: ("wrongtype", {"n": 1}, False)),
    "unknown": (1, lambda _: ("unknown", {"n": 1}, False)),
    "freeze symbol": (4, lambda r: ("freeze", {"seconds": r.randint(2, 20)}, True)),
    "freeze connection": (2, lambda r: ("freeze", {"seconds": r.randint(2, 10), "connection": "any"}, False)),
    "freeze all": (1, lambda r: ("freeze", {"seconds": r.randint(1, 8)}, False)),
    "silence": (2, lambda r: ("silence", {"seconds": r.randint(2, 20)}, True)),
    "close": (4, lambda r: ("close", {"code": r.choice(CLOSE_CODES), "connection": "any"}, False)),
    "slow frames": (2, lambda r: ("slow_frames", {"n": r.randint(1, 3), "seconds": r.randint(1, 3)}, False)),
    "slow rest": (2, lambda r: ("slow_rest", {"n": 1, "seconds": r.randint(1, 4)}, False)),
    "429": (2, lambda r: ("ratelimit", {"n": r.randint(1, 2), "retry_after": 1}, False)),
    "418": (1, lambda _: ("ratelimit", {"n": 1, "retry_after": 2, "status": 418}, False)),
    "half open": (1, lambda _: ("half_open", {}, False)),
    "skew": (2, lambda r: ("skew", {"seconds": r.choice((-3600, -5, 0, 5, 3600))}, False)),
    "restart": (2, lambda _: ("restart", {}, True)),
    "maintenance": (1, lambda r: ("maintenance", {"seconds": r.randint(2, 6)}, False)),
    "list": (2, lambda _: ("storm", {"n": 1}, False)),
    "delist": (2, lambda _: ("delist", {}, True)),
}
"""name → (weight, how to make one). A storm of listings is commanded by name: it changes what a run weighs."""


class FaultScript:
    """``seconds`` long, a fault each ``every_s`` seconds on average, and each kind at least once where there is room."""

    def __init__(self, seed: int, seconds: float, every_s: float, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
        rnd = random.Random(seed)  # noqa: S311 - which faults, not a secret
        count = max(1, int(seconds / max(0.01, every_s)))
        chosen = list(kinds) if count >= len(kinds) else rnd.sample(kinds, count)
        chosen += rnd.choices(kinds, [KINDS[kind][0] for kind in kinds], k=count - len(chosen))
        rnd.shuffle(chosen)
        self.faults: list[Fault] = []
        for at_s, what in zip(sorted(rnd.uniform(0, seconds) for _ in chosen), chosen, strict=True):
            verb, values, hits_symbol = KINDS[what][1](rnd)
            self.faults.append(Fault(at_s, what, verb, values, hits_symbol))
        self.seconds = seconds
        self.done: list[Fault] = []
        self.refused: list[tuple[Fault, str]] = []
        """With why: no checksums in this protocol, no connection at the moment."""
        self._random = random.Random(seed + 1)  # noqa: S311

    async def run(self, venue: SyntheticVenue) -> None:
        """Command one after another; returns when the script is over."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for fault in self.faults:
            await asyncio.sleep(max(0.0, started + fault.at_s - loop.time()))
            try:
                if fault.hits_symbol:
                    fault.values["symbol"] = self._random.choice(venue.symbols)
                venue.control(fault.verb, **fault.values)
                self.done.append(fault)
            except ControlError as error:
                self.refused.append((fault, str(error)))
        await asyncio.sleep(max(0.0, started + self.seconds - loop.time()))
