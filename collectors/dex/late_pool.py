"""A pool whose kind is known only once it was read: it holds slots, and makes the maths of them when it is asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from market.pools.pool import DEFAULT_BPS, InsufficientLiquidity, Pool, Segment, State

T = TypeVar("T")


class LatePool(Pool):
    """The maths of whatever kind the pool turns out to be. Raises NotQuotable for what only the chain can quote."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self.tokens = tokens
        self.slots: dict[str, int] = {}
        self._inner: Pool | None = None

    @abstractmethod
    def made(self) -> Pool:
        """The pool of market.pools with these slots. Raises NotQuotable."""

    def take(self, slots: dict[str, int]) -> None:
        """Set slots."""
        self.slots.update(slots)
        self._inner = None

    @property
    def inner(self) -> Pool:
        """The pool of market.pools with these slots."""
        if self._inner is None:
            self._inner = self.made()
        return self._inner

    @classmethod
    def from_state(cls, state: State) -> Any:
        """Not from a file: there the pool's own kind is named."""
        raise NotImplementedError

    def to_state(self) -> dict[str, Any]:
        return self.inner.to_state()

    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        return _asked(lambda: self.inner.amount_out(i, j, amount_in))

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        return _asked(lambda: self.inner.amount_in(i, j, amount_out))

    def marginal(self, i: int, j: int) -> tuple[int, int]:
        return _asked(lambda: self.inner.marginal(i, j))

    def gas(self, i: int, j: int, amount_in: int) -> int:
        return self.inner.gas(i, j, amount_in)

    def segments(self, base: int, quote: int, *, buy: bool, bps: Sequence[int] = DEFAULT_BPS) -> list[Segment]:
        return _asked(lambda: self.inner.segments(base, quote, buy=buy, bps=bps))


def _asked(ask: Callable[[], T]) -> T:
    """Numbers read from a contract may be any: where a division by zero would revert there, it is a refusal here."""
    try:
        return ask()
    except ZeroDivisionError:
        raise InsufficientLiquidity("a division by zero: the contract would revert") from None
