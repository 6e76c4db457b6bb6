"""Every family of pools by its name: the one place that a new protocol's maths is registered in."""

from __future__ import annotations

from market.pools.balancer import BalancerStablePool, BalancerWeightedPool
from market.pools.curve_crypto import CurveCryptoPool
from market.pools.curve_stable import CurveStablePool
from market.pools.pool import Pool, State, StateError
from market.pools.solidly import SolidlyPool
from market.pools.uniswap_v2 import UniswapV2Pool
from market.pools.uniswap_v3 import UniswapV3Pool
from market.pools.uniswap_v4 import UniswapV4Pool

FAMILIES: dict[str, type[Pool]] = {
    kind.family: kind
    for kind in (
        UniswapV2Pool,
        UniswapV3Pool,
        UniswapV4Pool,
        SolidlyPool,
        CurveStablePool,
        CurveCryptoPool,
        BalancerWeightedPool,
        BalancerStablePool,
    )
}


def pool_of(state: State) -> Pool:
    """The pool that the dictionary's ``family`` names. Raises StateError, with every problem, for anything else."""
    family = state.get("family")
    kind = FAMILIES.get(family) if isinstance(family, str) else None
    if kind is None:
        raise StateError(f"family is {family!r}; one of {', '.join(FAMILIES)}")
    return kind.from_state(state)
