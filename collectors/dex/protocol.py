"""What a protocol's file has to say: which events create pools and change them, and how a pool is read by calls.

State is a set of named slots, each a 256-bit integer. A change sets slots to absolute values, computed from the event
and, where the contract's event is relative (V3's Mint), from the slots before; so it can be undone by setting the
values from before, and a reader of chain.pool needs no knowledge of the protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from collectors.dex.blocks import Log
from market.pools.pool import Pool

Slots = dict[str, int]
Call = tuple[str, str]
"""(to, call data as 0x text)"""
Reading = Generator[list[Call], list[str], Slots]
"""Yields batches of calls at one block, is sent their answers as 0x texts, returns the pool's slots."""
Locating = Generator[list[Call], list[str], list[list[str]]]
"""Yields batches of calls at one block, is sent their answers, returns for each creation event the topics it lacks."""
Change = tuple[str, Slots]
"""(name of the event, slots that it sets)"""
Handler = Callable[["MirroredPool", Log], Change]


@dataclass(slots=True)
class MirroredPool:
    """One pool as the mirror keeps it."""

    ident: str
    """Address, or id inside a shared contract; lower case."""
    protocol: Protocol
    fixed: dict[str, str]
    """What never changes; ``token0`` and ``token1`` are always there."""
    slots: Slots
    pool: Pool
    handlers: dict[str, Handler]
    epoch: int = 0
    index: int = -1
    created: tuple[int, int] = (-1, -1)
    """(block number, log index) of its creation; (-1, -1): before the mirror began."""
    snapshot_block: int = -1
    """Where the state was last read by calls; events at or below it cannot be undone one by one."""
    tags: dict[str, Any] = field(default_factory=dict)

    @property
    def token_names(self) -> list[str]:
        """Addresses of all its tokens, in the contract's order."""
        if "tokens" in self.fixed:
            return self.fixed["tokens"].split(",")
        return [self.fixed["token0"], self.fixed["token1"]]


class Protocol(ABC):
    """One factory (or shared contract) and the pools that come from it."""

    name: ClassVar[str]
    """As in the settings: uniswap-v2."""
    shared: ClassVar[bool] = False
    """True: all pools' events come from the factory's own address, with the pool's id as their second topic."""

    read_when_created: ClassVar[bool] = False
    """True: the creation event does not say all, so that a new pool is read by calls at its first head."""
    rereads: ClassVar[frozenset[str]] = frozenset()
    """First topics of events that do not say what they change: the pool is read by calls at that head."""

    def __init__(self, address: str, venue: str, *, quoter: str = "", **options: int) -> None:
        self.address = address.lower()
        self.venue = venue
        self.quoter = quoter.lower()
        self.options = options
        self.handlers: dict[str, Handler] = self.events()

    locates: ClassVar[bool] = False
    """True: creation events do not name their pool; ``locate`` finds it, and ``created`` gets the event completed."""

    @property
    @abstractmethod
    def creation_topic(self) -> str:
        """First topic of the event that creates a pool."""

    @property
    def creation_topics(self) -> tuple[str, ...]:
        """First topics of all events that create pools, where there are several kinds."""
        return (self.creation_topic,)

    @abstractmethod
    def created(self, log: Log) -> MirroredPool:
        """The pool that this creation event speaks of, empty. Raises BadAnswer."""

    @abstractmethod
    def events(self) -> dict[str, Handler]:
        """First topic → what it changes. An event that is not here changes nothing that is mirrored."""

    @abstractmethod
    def build(self, fixed: dict[str, str]) -> Pool:
        """An empty pool of market.pools."""

    @abstractmethod
    def set_slots(self, pool: Any, slots: Slots) -> None:
        """Bring the pool in step with these slots."""

    @abstractmethod
    def read(self, pool: MirroredPool) -> Reading:
        """Read the whole state by calls at one block."""

    def check(self, pool: MirroredPool, rng: Random) -> Reading:
        """Read a part of the state for comparing, as ``read`` does; a whole reading where that is cheap."""
        del rng
        return self.read(pool)

    def alias(self, ident: str) -> str:
        """Another address whose events speak of this pool; empty: none."""
        del ident
        return ""

    def moves(self, pool: MirroredPool) -> bool:
        """Whether its state changes by itself, without events: it is read at each head."""
        del pool
        return False

    def read_moving(self, pool: MirroredPool) -> Reading:
        """Read, at each head, what changes by itself: the whole state, or some slots of it where that is cheaper."""
        return self.read(pool)

    def locate(self, logs: list[Log], later: int) -> Locating:
        """What these creation events (in order, all there are between two blocks) lack, by calls at a block.

        ``later`` more were emitted after them up to that block. Raises BadAnswer.
        """
        raise NotImplementedError(f"{self.name} names its pools in {len(logs)} + {later} events")

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        """A call whose answer's first word is what ``amount`` of token i buys; None: the chain has none to ask."""
        del pool, i, amount
        return None

    def venue_of(self, fixed: dict[str, str]) -> str:
        """The venue id under which the pool appears in market.*; pools of one pair and other terms differ here."""
        del fixed
        return self.venue

    def new_pool(self, ident: str, fixed: dict[str, str], slots: Slots | None = None) -> MirroredPool:
        """A pool with these slots."""
        fixed = {"protocol": self.name, "factory": self.address, **fixed}
        mirrored = MirroredPool(ident, self, fixed, dict(slots or {}), self.build(fixed), self.handlers)
        if slots:
            self.set_slots(mirrored.pool, slots)
        return mirrored


def call(selector: str, *arguments: int) -> str:
    """Call data: selector and words; negative numbers become two's complement."""
    return selector + "".join(f"{a & ((1 << 256) - 1):064x}" for a in arguments)


def fixed_lines(fixed: dict[str, str]) -> list[str]:
    """The form of chain.pool's ``fixed``."""
    return [f"{name}={value}" for name, value in fixed.items()]


def fixed_of(lines: Iterable[str]) -> dict[str, str]:
    """Back from ``fixed_lines``."""
    return dict(line.split("=", 1) for line in lines)
