"""Solidly's successors (Aerodrome, Velodrome V2): volatile and stable pairs of one factory.

Sync says the reserves absolutely, as V2's. The fee is the factory's and may change at any block without an event of
the pool, so that it is read again whenever the pool is read, and its change is caught by the continuous proof.

Slots: reserve0, reserve1, fee.
"""

from __future__ import annotations

from typing import Any

from collectors.dex.blocks import Log, address_of, selector, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Call, Change, Handler, MirroredPool, Protocol, Reading, Slots, call
from market.pools.pool import Pool
from market.pools.solidly import SolidlyPool

POOL_CREATED = topic("PoolCreated(address,address,bool,address,uint256)")
SYNC = topic("Sync(uint256,uint256)")
GET_RESERVES, GET_FEE = selector("getReserves()"), selector("getFee(address,bool)")
GET_AMOUNT_OUT = selector("getAmountOut(uint256,address)")


class Solidly(Protocol):
    """Options: ``volatile_fee`` and ``stable_fee`` in ten-thousandths, as the factory starts (30 and 5)."""

    name = "solidly"
    read_when_created = True

    @property
    def creation_topic(self) -> str:
        return POOL_CREATED

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) != 4:
            raise BadAnswer(f"PoolCreated of {log.address} has {len(log.topics)} topics, not 4")
        pool, serial = words(log.data)
        stable = int(log.topics[3], 16)
        fixed = {
            "token0": address_of(log.topics[1]),
            "token1": address_of(log.topics[2]),
            "stable": str(stable),
            "serial": str(serial),
        }
        fee = self.options.get("stable_fee", 5) if stable else self.options.get("volatile_fee", 30)
        return self.new_pool(address_of(pool), fixed, {"reserve0": 0, "reserve1": 0, "fee": fee})

    def events(self) -> dict[str, Handler]:
        return {SYNC: _sync}

    def build(self, fixed: dict[str, str]) -> Pool:
        # The tokens' decimals are in ``fixed`` once they have been read.
        scale0, scale1 = (10 ** int(fixed.get(name, "18")) for name in ("decimals0", "decimals1"))
        return SolidlyPool(fixed["token0"], fixed["token1"], 0, 0, scale0, scale1, fixed["stable"] == "1", 0)

    def set_slots(self, pool: Any, slots: Slots) -> None:
        for name, value in slots.items():
            setattr(pool, name, value)

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{'stable' if fixed['stable'] == '1' else 'volatile'}"

    def read(self, pool: MirroredPool) -> Reading:
        reserves, fee = yield [
            (pool.ident, call(GET_RESERVES)),
            (self.address, call(GET_FEE, int(pool.ident, 16), int(pool.fixed["stable"]))),
        ]
        reserve0, reserve1, _ = words(reserves)
        return {"reserve0": reserve0, "reserve1": reserve1, "fee": words(fee)[0]}

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        return pool.ident, call(GET_AMOUNT_OUT, amount, int(pool.fixed[f"token{i}"], 16))


def _sync(_: MirroredPool, log: Log) -> Change:
    reserve0, reserve1 = words(log.data)
    return "Sync", {"reserve0": reserve0, "reserve1": reserve1}
