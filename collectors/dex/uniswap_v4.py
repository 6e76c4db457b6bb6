"""Uniswap V4: all pools inside one PoolManager, named by the hash of their key.

Its Swap amounts have the opposite sign to V3's; they are not used here, because price, tick and liquidity are said
absolutely. The fee of a pool with a dynamic fee is what its last Swap paid, and such pools have hooks, so that they
are quoted on the chain.

Slots: as uniswap_v3, with fee (slot0's LP fee) and protocol_fee.
"""

from __future__ import annotations

from random import Random
from typing import Any

from collectors.dex.blocks import Log, address_of, keccak, selector, signed, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Call, Change, Handler, MirroredPool, Protocol, Reading, Slots, call
from collectors.dex.uniswap_v3 import (
    UniswapV3,
    initialised,
    liquidity_change,
    sample,
    unknown_ticks,
    word_positions,
)
from market.pools.pool import Pool
from market.pools.uniswap_v4 import DYNAMIC_FEE, UniswapV4Pool

INITIALIZE = topic("Initialize(bytes32,address,address,uint24,int24,address,uint160,int24)")
MODIFY = topic("ModifyLiquidity(bytes32,address,int24,int24,int256,bytes32)")
SWAP = topic("Swap(bytes32,address,int128,int128,uint160,uint128,int24,uint24)")
PROTOCOL_FEE = topic("ProtocolFeeUpdated(bytes32,uint24)")
EXTSLOAD = selector("extsload(bytes32)")
QUOTE = selector("quoteExactInputSingle(((address,address,uint24,int24,address),bool,uint128,bytes))")
POOLS_SLOT = 6
"""Where PoolManager keeps its mapping of pools (StateLibrary.POOLS_SLOT)."""


class UniswapV4(Protocol):
    """No options. State is read through PoolManager's own extsload, so that no other contract is needed."""

    name = "uniswap-v4"
    shared = True

    @property
    def creation_topic(self) -> str:
        return INITIALIZE

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) != 4:
            raise BadAnswer(f"Initialize of {log.address} has {len(log.topics)} topics, not 4")
        fee, spacing, hooks, price, tick = words(log.data)
        fixed = {
            "token0": address_of(log.topics[2]),
            "token1": address_of(log.topics[3]),
            "key_fee": str(fee),
            "tick_spacing": str(signed(spacing)),
            "hooks": address_of(hooks),
        }
        slots = {
            "sqrt_price_x96": price,
            "tick": signed(tick),
            "liquidity": 0,
            # A dynamic fee starts at zero and is the hook's to set.
            "fee": 0 if fee & DYNAMIC_FEE else fee,
            "protocol_fee": 0,
        }
        return self.new_pool(log.topics[1].lower(), fixed, slots)

    def events(self) -> dict[str, Handler]:
        return {MODIFY: _modify, SWAP: _swap, PROTOCOL_FEE: _protocol_fee}

    def build(self, fixed: dict[str, str]) -> Pool:
        return UniswapV4Pool(
            fixed["token0"], fixed["token1"], 0, int(fixed["tick_spacing"]), hooks=fixed["hooks"]
        )

    def set_slots(self, pool: Any, slots: Slots) -> None:
        UniswapV3.set_slots(self, pool, slots)  # pyright: ignore[reportArgumentType]

    def venue_of(self, fixed: dict[str, str]) -> str:
        fee = int(fixed["key_fee"])
        terms = f"{'dynamic' if fee & DYNAMIC_FEE else fee}-{fixed['tick_spacing']}"
        hooks = "" if not int(fixed["hooks"], 16) else f"-{fixed['hooks'][2:10]}"
        return f"{self.venue}-{terms}{hooks}"

    def check(self, pool: MirroredPool, rng: Random) -> Reading:
        at, spacing = self.address, int(pool.fixed["tick_spacing"])
        base = _slot(int(pool.ident, 16), POOLS_SLOT)
        ticks, positions = sample(pool, rng)
        answers = yield [
            (at, call(EXTSLOAD, base)),
            (at, call(EXTSLOAD, base + 3)),
            *((at, call(EXTSLOAD, _slot(t, base + 4))) for t in ticks),
            *((at, call(EXTSLOAD, _slot(w, base + 5))) for w in positions),
        ]
        slots = _slot0(words(answers[0])[0]) | {"liquidity": words(answers[1])[0]}
        slots |= {f"tick:{t}": words(a)[0] for t, a in zip(ticks, answers[2:], strict=False)}
        bitmaps = [words(a)[0] for a in answers[2 + len(ticks) :]]
        return slots | unknown_ticks(pool, positions, bitmaps, spacing)

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        f = pool.fixed
        if not self.quoter:
            return None
        key = (int(f["token0"], 16), int(f["token1"], 16), int(f["key_fee"]), int(f["tick_spacing"]), int(f["hooks"], 16))
        return self.quoter, call(QUOTE, 32, *key, 1 - i, amount, 256, 0)

    def read(self, pool: MirroredPool) -> Reading:
        at = self.address
        base = _slot(int(pool.ident, 16), POOLS_SLOT)
        slot0, liquidity = yield [(at, call(EXTSLOAD, base)), (at, call(EXTSLOAD, base + 3))]
        slots = _slot0(words(slot0)[0]) | {"liquidity": words(liquidity)[0]}
        spacing = int(pool.fixed["tick_spacing"])
        positions = word_positions(spacing)
        bitmaps = yield [(at, call(EXTSLOAD, _slot(w, base + 5))) for w in positions]
        found = initialised(positions, [words(b)[0] for b in bitmaps], spacing)
        if found:
            answers = yield [(at, call(EXTSLOAD, _slot(t, base + 4))) for t in found]
            for index, answer in zip(found, answers, strict=True):
                slots[f"tick:{index}"] = words(answer)[0]
        return slots


def _slot0(word: int) -> Slots:
    """The parts of a pool's first storage word."""
    tick = word >> 160 & 0xFFFFFF
    return {
        "sqrt_price_x96": word & ((1 << 160) - 1),
        "tick": tick - (1 << 24) if tick >> 23 else tick,
        "protocol_fee": word >> 184 & 0xFFFFFF,
        "fee": word >> 208 & 0xFFFFFF,
    }


def _slot(key: int, mapping: int) -> int:
    """Where Solidity keeps ``mapping[key]``."""
    encoded = (key & ((1 << 256) - 1)).to_bytes(32, "big") + (mapping & ((1 << 256) - 1)).to_bytes(32, "big")
    return int.from_bytes(keccak(encoded), "big")


def _modify(pool: MirroredPool, log: Log) -> Change:
    lower, upper, delta, _ = words(log.data)
    return "ModifyLiquidity", liquidity_change(pool, signed(lower), signed(upper), signed(delta))


def _swap(pool: MirroredPool, log: Log) -> Change:
    _, _, price, liquidity, tick, fee = words(log.data)
    slots = {"sqrt_price_x96": price, "liquidity": liquidity, "tick": signed(tick)}
    if int(pool.fixed["key_fee"]) & DYNAMIC_FEE:
        slots["fee"] = fee
    return "Swap", slots


def _protocol_fee(_: MirroredPool, log: Log) -> Change:
    return "ProtocolFeeUpdated", {"protocol_fee": words(log.data)[0]}


