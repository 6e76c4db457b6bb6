"""Slipstream (Aerodrome, Velodrome): Uniswap V3's pools and ticks, with a fee that is state.

The factory names a pool by its tick spacing and sets its price in the same transaction, before it tells of it: a new
pool is read by calls. The fee is what the factory's fee module says at that moment (pool.fee()), by its manager's word
or by the price's own course, without an event of the pool: it is asked for at each head. A tick's first two words are
V3's; staked liquidity is a part of the liquidity, which concerns who earns and no price.

Slots: those of uniswap-v3, and fee (millionths).
Source: the contracts' interfaces ICLFactory, ICLPoolState and ICLPoolEvents.
"""

from __future__ import annotations

from random import Random
from typing import ClassVar

from collectors.dex.blocks import Log, address_of, selector, signed, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Call, MirroredPool, Reading, call
from collectors.dex.uniswap_v3 import UniswapV3
from market.pools.pool import Pool
from market.pools.uniswap_v3 import UniswapV3Pool

POOL_CREATED = topic("PoolCreated(address,address,int24,address)")
FEE = selector("fee()")
QUOTE = selector("quoteExactInputSingle((address,address,uint256,int24,uint160))")
FEE_MAX = 1_000_000


class Slipstream(UniswapV3):
    """Options: ``fee_each_head`` 0 asks for fees only when a pool is read: for a factory without a fee module (1)."""

    name = "slipstream"
    read_when_created: ClassVar[bool] = True

    @property
    def creation_topic(self) -> str:
        return POOL_CREATED

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) != 4:
            raise BadAnswer(f"PoolCreated of {log.address} has {len(log.topics)} topics, not 4")
        (pool,) = words(log.data)
        spacing = signed(int(log.topics[3], 16))
        if not 0 < spacing < 1 << 15:
            raise BadAnswer(f"PoolCreated of {log.address} has the tick spacing {spacing}")
        fixed = {
            "token0": address_of(log.topics[1]), "token1": address_of(log.topics[2]), "tick_spacing": str(spacing)
        }  # fmt: skip
        return self.new_pool(address_of(pool), fixed, {"sqrt_price_x96": 0, "tick": 0, "liquidity": 0, "fee": 0})

    def build(self, fixed: dict[str, str]) -> Pool:
        return UniswapV3Pool(fixed["token0"], fixed["token1"], 0, int(fixed["tick_spacing"]))

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{fixed['tick_spacing']}"

    def moves(self, pool: MirroredPool) -> bool:
        return bool(self.options.get("fee_each_head", 1))

    def read(self, pool: MirroredPool) -> Reading:
        slots = yield from super().read(pool)
        return slots | (yield from self.read_moving(pool))

    def check(self, pool: MirroredPool, rng: Random) -> Reading:
        slots = yield from super().check(pool, rng)
        return slots | (yield from self.read_moving(pool))

    def read_moving(self, pool: MirroredPool) -> Reading:
        (answer,) = yield [(pool.ident, call(FEE))]
        (fee,) = words(answer)
        if fee >= FEE_MAX:
            raise BadAnswer(f"pool {pool.ident} says a fee of {fee} millionths")
        return {"fee": fee}

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        if not self.quoter:
            return None
        tokens = [int(pool.fixed[f"token{n}"], 16) for n in (i, 1 - i)]
        return self.quoter, call(QUOTE, *tokens, amount, int(pool.fixed["tick_spacing"]), 0)
