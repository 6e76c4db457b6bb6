"""Uniswap V3 and its forks: concentrated liquidity, a contract for each pool.

Swap says price, tick and liquidity after it, absolutely. Mint and Burn are relative: the ticks' gross and net
liquidity is kept for each, because a net of zero does not say that a tick is uninitialised.

Slots: sqrt_price_x96, tick, liquidity, and tick:N for each initialised tick: the contract's own first storage word,
gross liquidity in the low 128 bits and net (two's complement) in the high ones; 0 when it is cleared.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from collectors.dex.blocks import Log, address_of, selector, signed, topic, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Call, Change, Handler, MirroredPool, Protocol, Reading, Slots, call
from market.pools.pool import Pool
from market.pools.tick_math import MAX_TICK
from market.pools.uniswap_v3 import UniswapV3Pool

POOL_CREATED = topic("PoolCreated(address,address,uint24,int24,address)")
INITIALIZE = topic("Initialize(uint160,int24)")
MINT = topic("Mint(address,address,int24,int24,uint128,uint256,uint256)")
BURN = topic("Burn(address,int24,int24,uint128,uint256,uint256)")
SWAP = topic("Swap(address,address,int256,int256,uint160,uint128,int24)")
SWAP_PANCAKE = topic("Swap(address,address,int256,int256,uint160,uint128,int24,uint128,uint128)")
"""PancakeSwap V3 says the protocol's part of the fee too."""

SLOT0, LIQUIDITY = selector("slot0()"), selector("liquidity()")
TICK_BITMAP, TICKS = selector("tickBitmap(int16)"), selector("ticks(int24)")
QUOTE = selector("quoteExactInputSingle((address,address,uint256,uint24,uint160))")
UINT128 = (1 << 128) - 1
SAMPLE = 3
"""Ticks of one spot check."""


class UniswapV3(Protocol):
    """No options: a pool's fee and spacing are in its creation event."""

    name = "uniswap-v3"

    @property
    def creation_topic(self) -> str:
        return POOL_CREATED

    def created(self, log: Log) -> MirroredPool:
        if len(log.topics) != 4:
            raise BadAnswer(f"PoolCreated of {log.address} has {len(log.topics)} topics, not 4")
        spacing, pool = words(log.data)
        fixed = {
            "token0": address_of(log.topics[1]),
            "token1": address_of(log.topics[2]),
            "fee": str(int(log.topics[3], 16)),
            "tick_spacing": str(signed(spacing)),
        }
        return self.new_pool(address_of(pool), fixed, {"sqrt_price_x96": 0, "tick": 0, "liquidity": 0})

    def events(self) -> dict[str, Handler]:
        return {INITIALIZE: _initialize, MINT: _mint, BURN: _burn, SWAP: _swap, SWAP_PANCAKE: _swap}

    def build(self, fixed: dict[str, str]) -> Pool:
        return UniswapV3Pool(fixed["token0"], fixed["token1"], int(fixed["fee"]), int(fixed["tick_spacing"]))

    def set_slots(self, pool: Any, slots: Slots) -> None:
        for name, value in slots.items():
            if name.startswith("tick:"):
                net = value >> 128
                pool.set_tick(int(name[5:]), value & UINT128, net - (1 << 128) if net >> 127 else net)
            else:
                setattr(pool, name, value)

    def venue_of(self, fixed: dict[str, str]) -> str:
        return f"{self.venue}-{fixed['fee']}"

    def read(self, pool: MirroredPool) -> Reading:
        at = pool.ident
        slot0, liquidity = yield [(at, call(SLOT0)), (at, call(LIQUIDITY))]
        price, tick = words(slot0)[:2]
        slots = {"sqrt_price_x96": price, "tick": signed(tick), "liquidity": words(liquidity)[0]}
        spacing = int(pool.fixed["tick_spacing"])
        positions = word_positions(spacing)
        bitmaps = yield [(at, call(TICK_BITMAP, w)) for w in positions]
        found = initialised(positions, [words(b)[0] for b in bitmaps], spacing)
        if found:
            answers = yield [(at, call(TICKS, t)) for t in found]
            for index, answer in zip(found, answers, strict=True):
                gross, net = words(answer)[:2]
                slots[f"tick:{index}"] = packed(gross, signed(net))
        return slots

    def check(self, pool: MirroredPool, rng: Random) -> Reading:
        at, spacing = pool.ident, int(pool.fixed["tick_spacing"])
        ticks, positions = sample(pool, rng)
        answers = yield [
            (at, call(SLOT0)),
            (at, call(LIQUIDITY)),
            *((at, call(TICKS, t)) for t in ticks),
            *((at, call(TICK_BITMAP, w)) for w in positions),
        ]
        price, tick = words(answers[0])[:2]
        slots = {"sqrt_price_x96": price, "tick": signed(tick), "liquidity": words(answers[1])[0]}
        for index, answer in zip(ticks, answers[2:], strict=False):
            gross, net = words(answer)[:2]
            slots[f"tick:{index}"] = packed(gross, signed(net))
        bitmaps = [words(a)[0] for a in answers[2 + len(ticks) :]]
        return slots | unknown_ticks(pool, positions, bitmaps, spacing)

    def quote_call(self, pool: MirroredPool, i: int, amount: int) -> Call | None:
        if not self.quoter:
            return None
        tokens = [int(pool.fixed[f"token{n}"], 16) for n in (i, 1 - i)]
        return self.quoter, call(QUOTE, *tokens, amount, int(pool.fixed["fee"]), 0)


def sample(pool: MirroredPool, rng: Random) -> tuple[list[int], list[int]]:
    """A few of the pool's ticks and the bitmap words around its price, for a spot check."""
    state: Any = pool.pool
    ticks = rng.sample(sorted(state.ticks), min(SAMPLE, len(state.ticks)))
    word = state.tick // state.tick_spacing >> 8
    return ticks, [word, word + rng.choice((-1, 1))]


def unknown_ticks(pool: MirroredPool, positions: Iterable[int], bitmaps: Iterable[int], spacing: int) -> Slots:
    """Slots that the mirror and the chain's bitmap do not agree on: -1 stands for what the mirror has not."""
    state: Any = pool.pool
    out: Slots = {}
    for position, bitmap in zip(positions, bitmaps, strict=True):
        differs = bitmap ^ state.words.get(position, 0)
        if differs:
            out |= {f"tick:{t}": -1 for t in initialised(range(position, position + 1), [differs], spacing)}
    return out


def word_positions(spacing: int) -> range:
    """The bitmap's words for this spacing."""
    reach = MAX_TICK // spacing
    return range(-reach >> 8, (reach >> 8) + 1)


def initialised(positions: range, bitmaps: list[int], spacing: int) -> list[int]:
    """The ticks whose bits are set."""
    return [
        ((position << 8) + bit) * spacing
        for position, bitmap in zip(positions, bitmaps, strict=True)
        if bitmap
        for bit in range(256)
        if bitmap >> bit & 1
    ]


def packed(gross: int, net: int) -> int:
    """A tick's first storage word."""
    return gross | (net & UINT128) << 128


def liquidity_change(pool: MirroredPool, lower: int, upper: int, delta: int) -> Slots:
    """The slots after ``delta`` liquidity was added between two ticks (negative: taken)."""
    if not delta:
        return {}
    state: Any = pool.pool
    out: Slots = {}
    for tick, net_delta in ((lower, delta), (upper, -delta)):
        gross, net = state.ticks.get(tick, (0, 0))
        gross += delta
        if gross < 0:
            raise BadAnswer(f"pool {pool.ident}: tick {tick} would hold {gross}")
        # The contract clears a tick whose gross liquidity reaches zero, whatever its net says.
        out[f"tick:{tick}"] = packed(gross, net + net_delta) if gross else 0
    if lower <= state.tick < upper:
        liquidity = state.liquidity + delta
        if liquidity < 0:
            raise BadAnswer(f"pool {pool.ident}: its liquidity would be {liquidity}")
        out["liquidity"] = liquidity
    return out


def _initialize(_: MirroredPool, log: Log) -> Change:
    price, tick = words(log.data)
    return "Initialize", {"sqrt_price_x96": price, "tick": signed(tick)}


def _mint(pool: MirroredPool, log: Log) -> Change:
    amount = words(log.data)[1]
    return "Mint", liquidity_change(pool, tick_of(log.topics[2]), tick_of(log.topics[3]), amount)


def _burn(pool: MirroredPool, log: Log) -> Change:
    amount = words(log.data)[0]
    return "Burn", liquidity_change(pool, tick_of(log.topics[2]), tick_of(log.topics[3]), -amount)


def _swap(_: MirroredPool, log: Log) -> Change:
    data = log.data
    if len(data) not in (322, 450):
        raise BadAnswer(f"Swap of {log.address} has {len(data) // 2 - 1} bytes, not 160 or 224")
    tick = int(data[258:322], 16)
    return "Swap", {
        "sqrt_price_x96": int(data[130:194], 16),
        "liquidity": int(data[194:258], 16),
        "tick": tick - (1 << 256) if tick >> 255 else tick,
    }


def tick_of(text: str) -> int:
    """A signed tick in a topic."""
    return signed(int(text, 16))
