"""What every pool is: exact integer quotes both ways, price impact, gas, and depth as segments.

A pool is built from a documented dictionary of integers (``from_state``) and gives it back (``to_state``). Amounts are
the tokens' smallest units (wei). Every quote is what the contract itself would pay or take, to the wei, fee inside;
each family's file names the contract that it follows. Nothing here does I/O.

PoolError
├── StateError             the dictionary does not describe a pool; every problem is listed
├── UnknownToken           the pool does not hold this token, or a third token has to be named
├── InsufficientLiquidity  the pool cannot fill this amount
└── NotQuotable            code outside of the pool (a hook) decides the price: ask the chain
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

State = Mapping[str, Any]
"""A pool's dictionary. Integers may be given as decimal or 0x texts, because JSON readers cut long numbers off."""

Segment = tuple[int, int]
"""(base amount, quote amount) of one slice of depth, fee inside."""

PPM = 1_000_000
DEFAULT_BPS: tuple[int, ...] = (5, 10, 25, 50, 100, 200, 400, 800)
"""Where a ladder's levels end: this far from the present price, in basis points."""

UINT256_MAX = (1 << 256) - 1


class PoolError(ValueError):
    """Root of this room's errors."""


class StateError(PoolError):
    """The dictionary does not describe a pool; the text lists every problem."""


class UnknownToken(PoolError):
    """The pool does not hold this token; the text lists those that it holds."""


class InsufficientLiquidity(PoolError):
    """The pool cannot fill this amount; the text says how far it would reach where that is known."""


class NotQuotable(PoolError):
    """The price is decided outside of what the state holds; the text says by what."""


@dataclass(frozen=True, slots=True)
class Quote:
    """One answered quote. ``price_impact_ppm``: how much worse than an infinitesimal trade, in millionths."""

    token_in: str
    token_out: str
    amount_in: int
    amount_out: int
    price_impact_ppm: int
    gas: int


class Pool(ABC):
    """A pool of two or more tokens. Families implement ``amount_out``, ``marginal``, ``from_state``, ``to_state``."""

    family: ClassVar[str]
    base_gas: ClassVar[int] = 100_000
    """Gas of one swap through the family's own entry point without the transaction's base fee; an estimate."""

    tokens: tuple[str, ...]
    """Addresses (or any names) in the contract's order, lower case."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: State) -> Self:
        """Build the pool; raises StateError with every problem."""

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """The dictionary that builds an equal pool."""

    @abstractmethod
    def amount_out(self, i: int, j: int, amount_in: int) -> int:
        """What the contract pays in token j for exactly ``amount_in`` of token i. Raises PoolError."""

    @abstractmethod
    def marginal(self, i: int, j: int) -> tuple[int, int]:
        """(numerator, denominator) of j paid for each i by an infinitesimal trade, fee inside."""

    def amount_in(self, i: int, j: int, amount_out: int) -> int:
        """The least amount of token i for which the contract pays at least ``amount_out`` of token j."""
        return least_input(lambda amount: self.amount_out(i, j, amount), amount_out, self._guess(i, j, amount_out))

    # The public face, by token names.

    def quote_exact_in(self, token_in: str, amount: int, token_out: str | None = None) -> int:
        """Amount out for exactly ``amount`` in. ``token_out`` may be left out of a pool of two. Raises PoolError."""
        i, j = self._pair(token_in, token_out)
        if amount <= 0:
            raise PoolError(f"an amount is positive, not {amount}")
        return self.amount_out(i, j, amount)

    def quote_exact_out(self, token_in: str, amount_out: int, token_out: str | None = None) -> int:
        """Amount in that buys exactly ``amount_out`` (families without such a call: at least). Raises PoolError."""
        i, j = self._pair(token_in, token_out)
        if amount_out <= 0:
            raise PoolError(f"an amount is positive, not {amount_out}")
        return self.amount_in(i, j, amount_out)

    def quote(self, token_in: str, amount: int, token_out: str | None = None, *, exact_out: bool = False) -> Quote:
        """The quote with price impact and gas. ``amount`` is what goes in, with ``exact_out`` what comes out."""
        i, j = self._pair(token_in, token_out)
        if exact_out:
            paid, got = self.quote_exact_out(token_in, amount, token_out), amount
        else:
            paid, got = amount, self.quote_exact_in(token_in, amount, token_out)
        return Quote(
            self.tokens[i], self.tokens[j], paid, got, self._impact_ppm(i, j, paid, got), self.gas(i, j, paid)
        )

    def price_impact_ppm(self, token_in: str, amount: int, token_out: str | None = None) -> int:
        """How much worse the average price is than that of an infinitesimal trade, in millionths, rounded down."""
        i, j = self._pair(token_in, token_out)
        return self._impact_ppm(i, j, amount, self.quote_exact_in(token_in, amount, token_out))

    def gas(self, i: int, j: int, amount_in: int) -> int:
        """Gas of a swap of this size: an estimate for ranking, never a limit to send."""
        del i, j, amount_in
        return self.base_gas

    def segments(self, base: int, quote: int, *, buy: bool, bps: Sequence[int] = DEFAULT_BPS) -> list[Segment]:
        """Depth as slices, nearest first: buying base for quote (asks) or selling it (bids).

        Slices end where the marginal price has moved by about ``bps``; their amounts are the contract's own answers
        at those ends. Shorter than ``bps`` where the pool ends before. Empty without liquidity.
        """
        reserve = self._depth_of(base)
        out: list[Segment] = []
        paid = got = 0
        for step in bps:
            # Half of the price's distance is the share of a reserve in a constant product; a start for any curve.
            total = reserve * step // (20_000 + step)
            if total <= paid:
                continue
            try:
                value = self.amount_in(quote, base, total) if buy else self.amount_out(base, quote, total)
            except PoolError:
                break
            if value <= got:
                continue
            out.append((total - paid, value - got))
            paid, got = total, value
        return out

    # How it is done.

    def _depth_of(self, index: int) -> int:
        """The amount of a token that a segment's size is a share of."""
        raise NotImplementedError(f"{self.family} has segments of its own: {index}")

    def _guess(self, i: int, j: int, amount_out: int) -> int:
        numerator, denominator = self.marginal(i, j)
        return amount_out * denominator // numerator + 1 if numerator else 1

    def _impact_ppm(self, i: int, j: int, paid: int, got: int) -> int:
        numerator, denominator = self.marginal(i, j)
        if not numerator or not paid:
            return 0
        return max(0, PPM - -(-got * denominator * PPM // (paid * numerator)))

    def _index(self, token: str) -> int:
        try:
            return self.tokens.index(token.lower())
        except ValueError:
            raise UnknownToken(f"the pool holds {', '.join(self.tokens)}, not {token}") from None

    def _pair(self, token_in: str, token_out: str | None) -> tuple[int, int]:
        i = self._index(token_in)
        if token_out is None:
            if len(self.tokens) != 2:
                raise UnknownToken(f"name the token to buy: the pool holds {', '.join(self.tokens)}")
            return i, 1 - i
        j = self._index(token_out)
        if i == j:
            raise UnknownToken(f"{token_in} cannot be swapped for itself")
        return i, j


def least_input(amount_out: Callable[[int], int], wanted: int, guess: int) -> int:
    """The least x with amount_out(x) ≥ ``wanted``, for an amount_out that never falls; raises InsufficientLiquidity.

    ``guess`` is where to look first. Takes about 2·log2 of the guess's relative error calls.
    """

    def enough(x: int) -> bool:
        try:
            return amount_out(x) >= wanted
        except InsufficientLiquidity:
            return False

    high = max(1, guess)
    step = max(1, high >> 20)
    while not enough(high):
        high += step
        step *= 4
        if high > UINT256_MAX:
            raise InsufficientLiquidity(f"no amount buys {wanted}")
    low, step = high - 1, max(1, high >> 40)
    while low > 0 and enough(low):
        high, low = low, max(0, low - step)
        step *= 4
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


class Fields:
    """Reads a state dictionary, gathering every problem before it is said."""

    def __init__(self, state: State, family: str) -> None:
        self._state = state
        self._family = family
        self._problems: list[str] = []

    def integer(self, name: str, default: int | None = None, *, low: int = 0, high: int = UINT256_MAX) -> int:
        """An integer, or its decimal or 0x text, inside ``low`` … ``high``."""
        if name not in self._state:
            if default is None:
                self._problems.append(f"{name} is missing")
            return default or 0
        return self._one(name, self._state[name], low, high)

    def integers(self, name: str, count: int | None = None, *, low: int = 0, high: int = UINT256_MAX) -> list[int]:
        """A list of integers, of this length if one is given."""
        value = self._state.get(name)
        if not isinstance(value, list):
            self._problems.append(f"{name} is {'missing' if value is None else 'not a list'}")
            return [0] * (count or 0)
        items = cast("Sequence[Any]", value)
        if count is not None and len(items) != count:
            self._problems.append(f"{name} has {len(items)} entries, not {count}")
            return [0] * count
        return [self._one(f"{name}[{n}]", item, low, high) for n, item in enumerate(items)]

    def text(self, name: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """A text, one of ``choices`` if they are given."""
        value = self._state.get(name, default)
        if not isinstance(value, str) or not value:
            self._problems.append(f"{name} is {'missing' if value is None else 'not a text'}")
            return ""
        if choices and value not in choices:
            self._problems.append(f"{name} is {value!r}, not one of {', '.join(choices)}")
        return value

    def pair(self) -> tuple[str, str]:
        """``token0`` and ``token1``."""
        return self.text("token0").lower(), self.text("token1").lower()

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._state.get(name)
        items = cast("Sequence[Any]", value if isinstance(value, list) else [])
        if not items or not all(isinstance(v, str) and v for v in items):
            self._problems.append(f"{name} is {'missing' if value is None else 'not a list of texts'}")
            return ()
        return tuple(str(v).lower() for v in items)

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A dictionary; missing is empty."""
        value = self._state.get(name, {})
        if not isinstance(value, Mapping):
            self._problems.append(f"{name} is not a dictionary")
            return {}
        return cast("Mapping[str, Any]", value)

    def require(self, holds: bool, problem: str) -> None:
        """Note a problem unless the condition holds."""
        if not holds:
            self._problems.append(problem)

    def done(self) -> None:
        """Raise StateError when anything was wrong."""
        if self._problems:
            raise StateError(f"not a state of {self._family}: " + "; ".join(self._problems))

    def _one(self, name: str, value: Any, low: int, high: int) -> int:
        number: int
        if isinstance(value, str):
            try:
                number = int(value, 16) if value.lower().startswith(("0x", "-0x")) else int(value)
            except ValueError:
                self._problems.append(f"{name} is not an integer: {value[:40]!r}")
                return low
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            self._problems.append(f"{name} is not an integer: {str(value)[:40]!r}")
            return low
        if not low <= number <= high:
            self._problems.append(f"{name} is {number}, outside of {low} … {high}")
            return low
        return number
