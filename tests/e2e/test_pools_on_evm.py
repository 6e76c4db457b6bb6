"""Pools' maths against the real contracts on a real EVM: every answer to the wei, both ways."""

from __future__ import annotations

import random
from math import isqrt

import pytest

from market.pools.families import pool_of
from market.pools.pool import InsufficientLiquidity, NotQuotable
from market.pools.uniswap_v3 import UniswapV3Pool
from market.pools.uniswap_v4 import UniswapV4Pool
from simulator.evm import Evm, EvmError
from simulator.evm_dex import V3_SPACING, Dex, Token, encode, ordered
from tests.evm_state import require_npm, v2_state, v3_state, v4_state

Q96 = 1 << 96


@pytest.fixture
def evm():
    require_npm()
    with Evm() as running:
        yield running


def pair_of(dex: Dex) -> tuple[Token, Token]:
    """Two tokens, in the order of their addresses."""
    a, b = dex.token("AAA"), dex.token("BBB", 6)
    return (a, b) if ordered(a, b)[0] == a.address else (b, a)


def amounts(rng: random.Random, count: int, low: int = 0, high: int = 24):
    """Sizes of every magnitude."""
    return [rng.randrange(1, 10 ** rng.randint(max(1, low), high)) for _ in range(count)]


def test_every_v2_answer_is_the_routers(evm: Evm):
    dex, rng = Dex(evm), random.Random(1)
    a, b = pair_of(dex)
    pair = dex.v2_create(a, b)
    compared = 0
    for _ in range(12):
        evm.transact(*dex.v2_add(a, b, rng.randrange(10**6, 10**24), rng.randrange(10**6, 10**24)))
        evm.transact(*dex.v2_swap(*(rng.choice([(a, b), (b, a)])), rng.randrange(10**3, 10**20)))
        state = v2_state(evm, pair)
        pool = pool_of(state)
        assert pool.to_state() == state
        for amount in amounts(rng, 30):
            for x, _ in ((a, b), (b, a)):
                reserves = [state["reserve0"], state["reserve1"]]
                if x is b:
                    reserves.reverse()
                for name, ask in (("getAmountOut", pool.quote_exact_in), ("getAmountIn", pool.quote_exact_out)):
                    try:
                        theirs = evm.read(
                            dex.v2_router, f"{name}(uint256,uint256,uint256)", ["uint256"], amount, *reserves
                        )
                    except EvmError:
                        with pytest.raises(InsufficientLiquidity):
                            ask(x.address, amount)
                        continue
                    assert ask(x.address, amount) == theirs
                    compared += 1
    assert compared > 1000


def random_v3(evm: Evm, dex: Dex, rng: random.Random, a: Token, b: Token, fee: int) -> str:
    """A pool with positions of many widths and some swaps behind it."""
    spacing = V3_SPACING[fee]
    pool = dex.v3_create(a, b, fee, isqrt(Q96 * Q96 * rng.randrange(1, 2000) // rng.randrange(1, 2000)))
    tick = evm.read(pool, "slot0()", ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"])[1]
    for _ in range(rng.randint(3, 14)):
        centre = (tick + rng.randint(-4000, 4000)) // spacing
        width = rng.choice([1, 2, 7, 30, 300])
        lower, upper = (centre - width) * spacing, (centre + width) * spacing
        evm.send(*dex.v3_mint(a, b, fee, lower, upper, rng.randrange(10**9, 10 ** rng.randint(10, 22))))
    evm.mine()
    for _ in range(4):
        evm.send(*dex.v3_swap(*rng.choice([(a, b), (b, a)]), fee, rng.randrange(1, 10 ** rng.randint(3, 21))))
    evm.mine()
    return pool


def compare_v3(evm: Evm, dex: Dex, pool: UniswapV3Pool, a: Token, b: Token, fee: int, sizes: list[int]) -> int:
    """Every answer equal to QuoterV2's; where it reverts or leaves a part unfilled, ours says so."""
    compared = 0
    for amount in sizes:
        for x, y in ((a, b), (b, a)):
            for exact_out in (False, True):
                ask = pool.quote_exact_out if exact_out else pool.quote_exact_in
                try:
                    ours = ask(x.address, amount)
                except InsufficientLiquidity:
                    ours = None
                try:
                    theirs = dex.v3_quote(x, y, fee, amount, exact_out=exact_out)
                except EvmError:
                    assert ours is None, (amount, exact_out)
                    continue
                if ours is None and not exact_out:  # the quoter answers with what a partial fill pays
                    ours = pool.swap(x.address == pool.tokens[0], amount, exact_in=True).amount_out
                assert ours == theirs, (amount, exact_out)
                compared += 1
    return compared


@pytest.mark.parametrize("seed", range(4))
def test_every_v3_answer_is_the_quoters(evm: Evm, seed: int):
    dex, rng = Dex(evm), random.Random(seed)
    a, b = pair_of(dex)
    fee = rng.choice(list(V3_SPACING))
    address = random_v3(evm, dex, rng, a, b, fee)
    state = v3_state(evm, address)
    pool = pool_of(state)
    assert isinstance(pool, UniswapV3Pool) and pool.to_state() == state
    assert compare_v3(evm, dex, pool, a, b, fee, amounts(rng, 60)) > 80


def test_a_simulated_swap_leaves_the_pool_where_the_chain_leaves_it(evm: Evm):
    dex, rng = Dex(evm), random.Random(9)
    a, b = pair_of(dex)
    address = random_v3(evm, dex, rng, a, b, 500)
    pool = pool_of(v3_state(evm, address))
    assert isinstance(pool, UniswapV3Pool)
    for _ in range(25):
        x, y = rng.choice([(a, b), (b, a)])
        amount = rng.randrange(1, 10 ** rng.randint(3, 20))
        swap = pool.swap(x.address == pool.tokens[0], amount, exact_in=True)
        evm.send(*dex.v3_swap(x, y, 500, amount))
        evm.mine()
        pool.after(swap)
        price, tick, *_ = evm.read(
            address, "slot0()", ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"]
        )
        assert (pool.sqrt_price_x96, pool.tick) == (price, tick)
        assert pool.liquidity == evm.read(address, "liquidity()", ["uint128"])


def test_every_v4_answer_is_the_quoters_also_with_a_protocol_fee(evm: Evm):
    dex, rng = Dex(evm), random.Random(4)
    a, b = pair_of(dex)
    evm.transact(dex.v4_manager, encode("setProtocolFeeController(address)", dex.owner))
    compared = 0
    for fee, spacing, protocol in ((3000, 60, 0), (100, 1, 500 | 300 << 12), (10_000, 200, 1000)):
        key = dex.v4_key(a, b, fee, spacing)
        dex.v4_create(key, isqrt(Q96 * Q96 * rng.randrange(500, 2000) // 1000))
        if protocol:
            signature = "setProtocolFee((address,address,uint24,int24,address),uint24)"
            evm.transact(dex.v4_manager, encode(signature, key, protocol))
        for _ in range(8):
            centre, width = rng.randint(-40, 40), rng.choice([1, 5, 40])
            evm.send(
                *dex.v4_modify(key, (centre - width) * spacing, (centre + width) * spacing, rng.randrange(10**9, 10**22))
            )
        evm.mine()
        for _ in range(4):
            evm.send(*dex.v4_swap(key, rng.random() < 0.5, rng.randrange(1, 10**19)))
        evm.mine()
        state = v4_state(evm, dex, key)
        pool = pool_of(state)
        assert isinstance(pool, UniswapV4Pool) and pool.to_state() == state and pool.locally_quotable
        assert pool.protocol_fee == protocol
        for amount in amounts(rng, 40):
            for zero_for_one in (True, False):
                for exact_out in (False, True):
                    token = pool.tokens[0 if zero_for_one else 1]
                    ask = pool.quote_exact_out if exact_out else pool.quote_exact_in
                    try:
                        theirs = dex.v4_quote(key, zero_for_one, amount, exact_out=exact_out)
                    except EvmError:
                        with pytest.raises(InsufficientLiquidity):
                            ask(token, amount)
                        continue
                    assert ask(token, amount) == theirs
                    compared += 1
    assert compared > 200


def test_a_pool_whose_hook_may_change_swaps_is_not_quoted_here():
    hook = "0x" + "0" * 36 + "0080"
    pool = UniswapV4Pool("0xa", "0xb", 3000, 60, Q96, 0, 10**18, hooks=hook)
    assert not pool.locally_quotable
    with pytest.raises(NotQuotable, match="beforeSwap"):
        pool.quote_exact_in("0xa", 1000)

