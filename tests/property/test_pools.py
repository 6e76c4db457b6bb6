"""Laws of pools: answers against references of high precision, duality of the two ways, ladders that can be executed."""

from __future__ import annotations

import json
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from market.pools.balancer import BalancerStablePool, BalancerWeightedPool
from market.pools.curve_crypto import A_MULTIPLIER, CurveCryptoPool, newton_y
from market.pools.curve_stable import CurveStablePool
from market.pools.families import FAMILIES, pool_of
from market.pools.ladder import ladder, scale_of
from market.pools.log_exp import ONE, power
from market.pools.pool import InsufficientLiquidity, Pool, PoolError, StateError, least_input
from market.pools.solidly import SolidlyPool
from market.pools.tick_math import MAX_TICK, MIN_TICK, sqrt_ratio_at_tick, tick_at_sqrt_ratio
from market.pools.uniswap_v2 import UniswapV2Pool
from market.pools.uniswap_v3 import UniswapV3Pool

E18 = 10**18
AMOUNTS = st.integers(1, 10**24)


@st.composite
def v2_pools(draw) -> UniswapV2Pool:
    fee = draw(st.sampled_from([(3, 1000), (25, 10_000), (0, 1000), (1, 100)]))
    return UniswapV2Pool("a", "b", draw(st.integers(1, 10**30)), draw(st.integers(1, 10**30)), *fee)


@st.composite
def v3_pools(draw) -> UniswapV3Pool:
    spacing = draw(st.sampled_from([1, 10, 60, 200]))
    tick = draw(st.integers(-20_000, 20_000))
    pool = UniswapV3Pool("a", "b", draw(st.sampled_from([100, 500, 3000, 10_000])), spacing)
    edges: dict[int, tuple[int, int]] = {}
    for _ in range(draw(st.integers(1, 6))):
        lower = draw(st.integers(-400, 399))
        upper = draw(st.integers(lower + 1, 400))
        amount = draw(st.integers(1, 10**24))
        for edge, sign in ((lower, 1), (upper, -1)):
            gross, net = edges.get(edge * spacing, (0, 0))
            edges[edge * spacing] = (gross + amount, net + sign * amount)
    for edge, (gross, net) in edges.items():
        pool.set_tick(edge, gross, net)
    pool.sqrt_price_x96, pool.tick = sqrt_ratio_at_tick(tick), tick
    pool.liquidity = sum(net for edge, (_, net) in edges.items() if edge <= tick)
    return pool


@st.composite
def solidly_pools(draw) -> SolidlyPool:
    d0, d1 = draw(st.sampled_from([(18, 18), (6, 18), (6, 6), (8, 18)]))
    whole = draw(st.integers(10, 10**9))
    other = whole * draw(st.integers(1, 30)) // 10 + 1
    return SolidlyPool("a", "b", whole * 10**d0, other * 10**d1, 10**d0, 10**d1, draw(st.booleans()), draw(st.integers(0, 300)))


@st.composite
def stable_pools(draw, variant: str = "") -> CurveStablePool:
    decimals = draw(st.lists(st.sampled_from([6, 8, 18]), min_size=2, max_size=4))
    whole = draw(st.integers(1, 10**10))
    balances = [whole * draw(st.integers(1, 100)) * 10**d // 10 for d in decimals]
    future = draw(st.integers(1, 10_000))
    kind = variant or draw(st.sampled_from(["plain", "ng"]))
    precision = 100 if kind == "ng" else draw(st.sampled_from([1, 100]))
    state = {
        "tokens": [f"t{n}" for n in range(len(decimals))],
        "variant": kind,
        "balances": balances,
        "rates": [10 ** (36 - d) for d in decimals],
        "fee": draw(st.integers(0, 10**8)),
        "offpeg_fee_multiplier": draw(st.sampled_from([10**10, 5 * 10**10])),
        "a_precision": precision,
        "initial_a": draw(st.integers(1, 10_000)) * precision,
        "future_a": future * precision,
        "initial_a_time": 1000,
        "future_a_time": 2000,
        "timestamp": draw(st.integers(1000, 3000)),
    }
    return CurveStablePool.from_state(state)


@st.composite
def crypto_pools(draw) -> CurveCryptoPool:
    n = draw(st.sampled_from([2, 3]))
    whole = draw(st.integers(10**3, 10**9))
    scale = [draw(st.integers(10**15, 10**22)) for _ in range(n - 1)]
    xp = [whole * E18 * draw(st.integers(50, 200)) // 100 for _ in range(n)]
    balances = [xp[0]] + [x * E18 // s for x, s in zip(xp[1:], scale, strict=True)]
    a, gamma = 4 * 10**5 if n == 2 else 1_707_629, draw(st.sampled_from([145 * 10**12, 11_809_167_828_997]))
    pool = CurveCryptoPool(
        tuple(f"t{k}" for k in range(n)), balances, [1] * n, scale, 1, a, gamma, 26 * 10**6, 45 * 10**6, 23 * 10**13
    )
    pool.d = int(reference_crypto_d(a, gamma, [Decimal(v) / E18 for v in pool._scaled(balances)]) * E18)
    return pool


@st.composite
def balancer_pools(draw) -> Pool:
    decimals = draw(st.lists(st.sampled_from([6, 8, 18]), min_size=2, max_size=3))
    tokens = tuple(f"t{n}" for n in range(len(decimals)))
    whole = draw(st.integers(10**2, 10**9))
    balances = [whole * 10**d * draw(st.integers(5, 20)) // 10 for d in decimals]
    factors = [10 ** (18 - d) * E18 for d in decimals]
    fee = draw(st.integers(10**12, 10**17))
    if draw(st.booleans()):
        return BalancerStablePool(tokens, balances, factors, fee, draw(st.integers(1, 5000)) * 1000, draw(st.booleans()))
    first = draw(st.integers(2, 80)) * E18 // 100
    rest = [(E18 - first) // (len(tokens) - 1)] * (len(tokens) - 1)
    weights = [E18 - sum(rest), *rest]
    return BalancerWeightedPool(tokens, balances, factors, fee, weights, draw(st.booleans()))


POOLS = st.one_of(v2_pools(), v3_pools(), solidly_pools(), stable_pools(), crypto_pools(), balancer_pools())


# References of high precision, which share nothing with the maths.


def reference_stable_y(pool: CurveStablePool, i: int, j: int, x: Decimal) -> tuple[Decimal, Decimal]:
    """(D, the balance of j) from the invariant A·nⁿ·Σx + D = A·D·nⁿ + D^(n+1)/(nⁿ·∏x), by bisection on decimals."""
    xs = [Decimal(b * r) / E18 / E18 for b, r in zip(pool.balances, pool.rates, strict=True)]
    n = len(xs)
    ann = Decimal(pool.amplification()) / pool.a_precision * n

    def gap(values: list[Decimal], d: Decimal) -> Decimal:
        product = d
        for v in values:
            product = product * d / (v * n)
        return ann * sum(values) + d - ann * d - product

    d = bisect(lambda d: gap(xs, d) > 0, Decimal(0), sum(xs) * 2)
    xs[i] = x
    y = bisect(lambda y: gap([*xs[:j], y, *xs[j + 1 :]], d) < 0, Decimal(10) ** -40, d * 10**6)
    return d, y


def reference_crypto_d(a: int, gamma: int, xs: list[Decimal]) -> Decimal:
    with localcontext() as context:
        context.prec = 90
        return bisect(lambda d: crypto_gap(a, gamma, xs, d) > 0, max(xs) / 100, sum(xs) * Decimal("1.0000001"))


def crypto_gap(a: int, gamma: int, xs: list[Decimal], d: Decimal) -> Decimal:
    """The invariant of the CryptoSwap paper, zero at D."""
    n = len(xs)
    product = Decimal(1)
    for x in xs:
        product *= x
    g = Decimal(gamma) / E18
    k0 = product * n**n / d**n
    k = Decimal(a) / A_MULTIPLIER / n**n * k0 * g * g / (g + 1 - k0) ** 2
    return k * d ** (n - 1) * sum(xs) + product - k * d**n - (d / n) ** n


def bisect(below, low: Decimal, high: Decimal) -> Decimal:
    for _ in range(260):
        middle = (low + high) / 2
        if below(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


@given(v2_pools(), AMOUNTS, st.booleans())
def test_v2_is_the_exact_fraction_rounded_against_the_taker(pool: UniswapV2Pool, amount: int, first: bool):
    x, y = (pool.reserve0, pool.reserve1) if first else (pool.reserve1, pool.reserve0)
    assume(amount < y)
    kept = Fraction(pool.fee_den - pool.fee_num, pool.fee_den)
    token = "a" if first else "b"
    exact = y * (kept * amount) / (x + kept * amount)
    assert pool.quote_exact_in(token, amount) == exact // 1
    exact_in = Fraction(x * amount, y - amount) / kept
    try:
        assert pool.quote_exact_out(token, amount) == exact_in // 1 + 1
    except InsufficientLiquidity:
        assert x + exact_in > 1 << 111


@given(stable_pools(), st.integers(1, 10**9), st.integers(1, 30))
def test_curve_stable_is_the_invariants_root_within_a_few_units(pool: CurveStablePool, part: int, tenths: int):
    amount = max(1, pool.balances[0] * tenths // 10 * part // 10**9)
    with localcontext() as context:
        context.prec = 80
        x = Decimal(pool.scaled()[0] + amount * pool.rates[0] // E18) / E18
        d, y = reference_stable_y(pool, 0, 1, x)
        assert abs(Decimal(pool.invariant()) / E18 - d) * E18 <= 3 + d * E18 / 10**17
        y_units = int(y * E18)
    xp = pool.scaled()
    ours = pool._get_y(0, 1, xp[0] + amount * pool.rates[0] // E18, xp, pool.amplification(), pool.invariant())
    # D is found to one unit; where the curve is steep a unit of D is several of y.
    slope = 2 + pool.amplification() * len(xp) * 2 // pool.a_precision
    assert abs(ours - y_units) <= 4 * slope + y_units // 10**15
    try:
        got = pool.amount_out(0, 1, amount)
    except InsufficientLiquidity:
        assert ours >= xp[1]
        return
    gross = (xp[1] - ours - 1) * E18 // pool.rates[1]
    assert 0 <= gross - got <= gross * 6 // 100 + 2


@given(stable_pools())
def test_an_amplification_ramp_is_linear_and_ends(pool: CurveStablePool):
    a = pool.amplification()
    low, high = sorted((pool.initial_a, pool.future_a))
    assert low <= a <= high
    pool.timestamp = pool.future_a_time
    assert pool.amplification() == pool.future_a
    pool.timestamp = 1500
    assert abs(pool.amplification() * 2 - pool.initial_a - pool.future_a) <= 2


@given(crypto_pools(), st.integers(1, 10**6))
def test_curve_crypto_is_the_invariants_root(pool: CurveCryptoPool, part: int):
    balances = list(pool.balances)
    balances[0] += max(1, balances[0] * part // 10**7)
    xp = pool._scaled(balances)
    try:
        ours = newton_y(pool.a, pool.gamma, xp, pool.d, 1)
    except InsufficientLiquidity:
        return
    with localcontext() as context:
        context.prec = 90
        others = [Decimal(v) / E18 for v in xp]
        d = Decimal(pool.d) / E18
        # The root next to the present balance: the invariant has others far away from it.
        exact = bisect(
            lambda y: crypto_gap(pool.a, pool.gamma, [others[0], y, *others[2:]], d) < 0, others[1] / 2, others[1] * 2
        )
        assert abs(Decimal(ours) / E18 - exact) <= d / 10**13 + exact / 10**13


@given(st.integers(10**15, 10**21), st.integers(10**15, 20 * 10**18))
def test_a_power_is_right_to_its_stated_error(x: int, y: int):
    with localcontext() as context:
        context.prec = 70
        exact = (Decimal(x) / E18) ** (Decimal(y) / E18) * E18
    assume(10**3 < exact < 10**50)
    assert abs(power(x, y) - exact) <= exact * 10_000 / ONE + 1


@given(POOLS, st.integers(1, 10**9), st.data())
def test_what_buys_an_amount_buys_at_least_it(pool: Pool, part: int, data):
    i, j = data.draw(st.permutations(range(len(pool.tokens))).map(lambda p: p[:2]))
    try:
        most = pool.amount_out(i, j, max(1, 10**18 * part))
        wanted = max(1, most * part // 10**9)
        paid = pool.amount_in(i, j, wanted)
        # Balancer's powers are right to 10^-14 of a balance, which is more than a tiny trade.
        slack = 2 + pool.balances[j] // 10**12 if isinstance(pool, BalancerWeightedPool | BalancerStablePool) else 0
        if paid:
            assert pool.amount_out(i, j, paid) >= wanted - slack
    except PoolError:
        return


@given(POOLS, AMOUNTS, AMOUNTS, st.data())
def test_more_in_is_never_less_out_and_no_round_trip_gains(pool: Pool, one: int, two: int, data):
    i, j = data.draw(st.permutations(range(len(pool.tokens))).map(lambda p: p[:2]))
    low, high = sorted((one, two))
    try:
        less, more = pool.amount_out(i, j, low), pool.amount_out(i, j, high)
    except PoolError:
        return
    slack = more // 10**12 + 2 if pool.family.startswith(("curve_crypto", "balancer")) else 2
    assert less <= more + slack
    assert pool.price_impact_ppm(pool.tokens[i], high, pool.tokens[j]) >= 0


@given(POOLS)
def test_a_state_survives_its_dictionary_and_json(pool: Pool):
    text = json.dumps(pool.to_state())
    again = pool_of(json.loads(text))
    assert again.to_state() == pool.to_state() and type(again) is type(pool)
    as_texts = json.loads(text, parse_int=str)
    assert pool_of(as_texts).to_state() == pool.to_state()


ALMOST_EMPTY = pool_of({
    "family": "uniswap_v3", "token0": "a", "token1": "b", "fee": 100, "tick_spacing": 1, "tick": 602, "liquidity": 0,
    "sqrt_price_x96": 81649060916038791926313372757,
    "ticks": {"0": {"gross": 285, "net": 285}, "257": {"gross": 285, "net": -285}},
})  # fmt: skip
"""Its nearest slices take two units and give none."""


@example(ALMOST_EMPTY)
@given(st.one_of(v2_pools(), v3_pools(), solidly_pools(), balancer_pools(), stable_pools()))
def test_a_ladder_is_never_crossed_and_promises_no_more_than_the_pool_pays(pool: Pool):
    scale = scale_of(pool, 0, 1, 18, 6)
    if scale is None:
        return
    bid_prices, bid_sizes, ask_prices, ask_sizes = ladder(pool, 0, 1, scale)
    assert bid_prices == sorted(bid_prices, reverse=True) and ask_prices == sorted(ask_prices)
    assert all(size > 0 for size in bid_sizes + ask_sizes)
    if bid_prices and ask_prices:
        assert bid_prices[0] < ask_prices[0]
    unit = Fraction(10) ** (6 + scale.price_exp + scale.size_exp)
    """Smallest units of quote for one mantissa of price times one of size."""
    size = promised = 0
    for price, level in zip(bid_prices, bid_sizes, strict=True):
        size, promised = size + level, promised + price * level
        try:
            paid = pool.amount_out(0, 1, size * scale.lot)
        except InsufficientLiquidity:  # a pool that runs out takes a unit less at once than in slices
            assert isinstance(pool, UniswapV3Pool)
            paid = pool.swap(True, size * scale.lot, exact_in=True).amount_out
        assert paid >= (promised * unit) // 1 - len(bid_prices) - paid // 10**9
    size = cost = 0
    for price, level in zip(ask_prices, ask_sizes, strict=True):
        size, cost = size + level, cost + price * level
        taken = pool.amount_in(1, 0, size * scale.lot)
        assert taken <= (cost * unit) // 1 + len(ask_prices) + taken // 10**9


@given(st.integers(MIN_TICK, MAX_TICK - 1))
def test_a_ticks_ratio_is_its_power_and_finds_its_tick(tick: int):
    ratio = sqrt_ratio_at_tick(tick)
    with localcontext() as context:
        context.prec = 60
        exact = Decimal("1.0001") ** (Decimal(tick) / 2) * 2**96
    assert abs(ratio - exact) <= exact / 2**60 + 1
    assert tick_at_sqrt_ratio(ratio) == tick
    assert ratio < sqrt_ratio_at_tick(tick + 1)


@given(v3_pools(), AMOUNTS, st.booleans())
def test_a_v3_swap_in_two_parts_is_never_better(pool: UniswapV3Pool, amount: int, zero_for_one: bool):
    assume(amount > 1)
    whole = pool.swap(zero_for_one, amount, exact_in=True)
    assume(whole.amount_in == amount)
    first = pool.swap(zero_for_one, amount // 2, exact_in=True)
    later = pool.fork()
    later.after(first)
    second = later.swap(zero_for_one, amount - amount // 2, exact_in=True)
    # Each part rounds its fee and amounts by itself: a few units at most, always against the taker.
    assert first.amount_out + second.amount_out <= whole.amount_out + 2 * (whole.crossed + 4)


@given(st.integers(1, 10**40), st.integers(1, 10**6), st.integers(1, 10**42))
def test_the_least_input_is_the_least(wanted: int, divisor: int, guess: int):
    found = least_input(lambda x: x // divisor, wanted, guess)
    assert found // divisor >= wanted > (found - 1) // divisor


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_says_all_that_is_wrong_at_once(family: str):
    with pytest.raises(StateError) as raised:
        pool_of({"family": family, "tokens": ["a", "b"], "reserve0": 1.5})
    assert str(raised.value).count(";") >= 1
    with pytest.raises(StateError, match="family is"):
        pool_of({"family": "unknown"})


def test_edges_of_empty_and_huge_pools_are_said_and_not_crashes():
    with pytest.raises(InsufficientLiquidity):
        UniswapV2Pool("a", "b", 0, 0).quote_exact_in("a", 1)
    with pytest.raises(InsufficientLiquidity):
        UniswapV3Pool("a", "b", 3000, 60).quote_exact_in("a", 1)
    with pytest.raises(InsufficientLiquidity):
        UniswapV2Pool("a", "b", 1 << 111, 1 << 111).quote_exact_in("a", 1 << 112)
    for kind in (1, 10**35):
        pool = CurveStablePool(("a", "b"), [kind, kind], [E18, E18], 0, future_a=100, initial_a=100)
        try:
            assert pool.amount_out(0, 1, kind) <= kind
        except InsufficientLiquidity:
            assert kind == 1
    assert UniswapV2Pool("a", "b", 10, 10).segments(0, 1, buy=True) is not None
    with pytest.raises(PoolError, match="holds a, b"):
        UniswapV2Pool("a", "b", 10, 10).quote_exact_in("c", 1)
