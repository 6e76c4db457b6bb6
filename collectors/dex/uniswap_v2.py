"""Uniswap V2 and its forks: one pair a contract, and Sync says the reserves after every change.

Reserves are taken from Sync absolutely. Adding up the deltas of Swap, Mint and Burn would drift with fee-on-transfer
tokens, donations and skim.

Slots: reserve0, reserve1.
"""

from __future__ import annotations

from typing import Any

from collectors.dex.blocks import Log, address_of, selector, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Change, Handler, MirroredPool, Protocol, Reading, Slots, call
from market.pools.pool import Pool
from market.pools.uniswap_v2 import UniswapV2Pool

PAIR_CREATED = topic("PairCreated(address,address,address,uint256)")
SYNC = topic("Sync(uint112,uint112)")
GET_RESERVES = selector("getReserves()")


class UniswapV2(Protocol):
    """Options: ``fee_num`` and ``fee_den`` (3 / 1000)."""

    name = "uniswap-v2"

    @property
    def creation_topic(self) -> str:
        return PAIR_CREATED

    def created(self, log: Log) -> MirroredPool:
        pair, serial = words(log.data)
        if len(log.topics) != 3:
            raise BadAnswer(f"PairCreated of {log.address} has {len(log.topics)} topics, not 3")
        fixed = {
            "token0": address_of(log.topics[1]),
            "token1": address_of(log.topics[2]),
            "fee_num": str(self.options.get("fee_num", 3)),
            "fee_den": str(self.options.get("fee_den", 1000)),
            # The factory counts its pairs from 1 without a hole: a missing number is a missed pair.
            "serial": str(serial),
        }
        return self.new_pool(address_of(pair), fixed, {"reserve0": 0, "reserve1": 0})

    def events(self) -> dict[str, Handler]:
        return {SYNC: _sync}

    def build(self, fixed: dict[str, str]) -> Pool:
        return UniswapV2Pool(fixed["token0"], fixed["token1"], 0, 0, int(fixed["fee_num"]), int(fixed["fee_den"]))

    def set_slots(self, pool: Any, slots: Slots) -> None:
        pool.reserve0 = slots.get("reserve0", pool.reserve0)
        pool.reserve1 = slots.get("reserve1", pool.reserve1)

    def read(self, pool: MirroredPool) -> Reading:
        (answer,) = yield [(pool.ident, call(GET_RESERVES))]
        reserve0, reserve1, _ = words(answer)
        return {"reserve0": reserve0, "reserve1": reserve1}


def _sync(_: MirroredPool, log: Log) -> Change:
    data = log.data
    if len(data) != 130:
        raise BadAnswer(f"Sync of {log.address} has {len(data) // 2 - 1} bytes, not 64")
    return "Sync", {"reserve0": int(data[2:66], 16), "reserve1": int(data[66:], 16)}
