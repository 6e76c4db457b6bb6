"""Uniswap V4: V3's curve inside the one PoolManager, with protocol fees a direction and hooks.

Follows Pool.swap and ProtocolFeeLibrary. A hook that may act on swaps can change any answer, so that such pools are
marked and quoted on the chain, never here.

State: as uniswap_v3, with

    family        "uniswap_v4"
    fee           the pool's present LP fee in millionths (slot0's lpFee)
    protocol_fee  slot0's 24 bits: low 12 for token0 → token1, high 12 for the other way; default 0
    hooks         the hooks' address; its low 14 bits say what the hook may do; default zero
    pool_id       the pool's key hash; default empty
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from market.pools.pool import PPM, Fields, NotQuotable, State
from market.pools.uniswap_v3 import Swap, UniswapV3Pool

NO_HOOKS = "0x" + "0" * 40
SWAP_FLAGS = {7: "beforeSwap", 6: "afterSwap", 3: "beforeSwapReturnDelta", 2: "afterSwapReturnDelta"}
"""Bits of a hook's address that let it act on swaps (Hooks.sol)."""
DYNAMIC_FEE = 0x800000
"""A pool key's fee that says: the hook sets it."""


def swap_hooks(hooks: str) -> list[str]:
    """The names of what the hook at this address may do to a swap; empty: nothing."""
    bits = int(hooks, 16) & 0x3FFF
    return [name for bit, name in SWAP_FLAGS.items() if bits >> bit & 1]


class UniswapV4Pool(UniswapV3Pool):
    """A V4 pool. ``locally_quotable`` is False where a hook may act on swaps; quotes then raise NotQuotable."""

    family = "uniswap_v4"
    base_gas = 130_000
    __slots__ = ("hooks", "pool_id", "protocol_fee")

    def __init__(
        self,
        token0: str,
        token1: str,
        fee: int,
        tick_spacing: int,
        sqrt_price_x96: int = 0,
        tick: int = 0,
        liquidity: int = 0,
        ticks: Iterable[tuple[int, int, int]] = (),
        *,
        protocol_fee: int = 0,
        hooks: str = NO_HOOKS,
        pool_id: str = "",
    ) -> None:
        super().__init__(token0, token1, fee, tick_spacing, sqrt_price_x96, tick, liquidity, ticks)
        self.protocol_fee = protocol_fee
        self.hooks = hooks.lower()
        self.pool_id = pool_id

    @classmethod
    def from_state(cls, state: State) -> Self:
        f = Fields(state, cls.family)
        hooks = f.text("hooks", NO_HOOKS)
        try:
            int(hooks, 16)
        except ValueError:
            f.require(False, f"hooks is not an address: {hooks[:50]!r}")
        pool = cls(
            *f.pair(), *cls._static(f), *cls._moving(f), cls._ticks(f),
            protocol_fee=f.integer("protocol_fee", 0, high=(1 << 24) - 1),
            hooks=hooks, pool_id=f.text("pool_id", "-"),
        )  # fmt: skip
        f.done()
        return pool

    def to_state(self) -> dict[str, Any]:
        state = super().to_state()
        return state | {"protocol_fee": self.protocol_fee, "hooks": self.hooks, "pool_id": self.pool_id or "-"}

    @property
    def locally_quotable(self) -> bool:
        """False: a hook may change a swap."""
        return not swap_hooks(self.hooks)

    def swap_fee(self, zero_for_one: bool) -> int:
        protocol = self.protocol_fee & 0xFFF if zero_for_one else self.protocol_fee >> 12
        return protocol + self.fee - protocol * self.fee // PPM

    def swap(self, zero_for_one: bool, amount: int, *, exact_in: bool, limit: int = 0) -> Swap:
        if acts := swap_hooks(self.hooks):
            raise NotQuotable(f"the hook {self.hooks} may change a swap ({', '.join(acts)}): quote on the chain")
        if not exact_in and self.swap_fee(zero_for_one) >= PPM:
            raise NotQuotable("a fee of 100 % cannot buy an exact amount")
        return super().swap(zero_for_one, amount, exact_in=exact_in, limit=limit)
