"""The best size through pools, against brute force and the published values."""

from __future__ import annotations

import random
from decimal import Decimal, localcontext

from hypothesis import given
from hypothesis import strategies as st

from strategies.closed_form import Pool, best_against_price, best_cycle, best_input, compose, output

UNIT = 10**15
reserves = st.integers(min_value=10**3, max_value=10**12)
pools = st.builds(Pool, reserves, reserves, st.integers(900, 1000))


def test_the_published_two_pool_cycle() -> None:
    cycle = [Pool(10**6 * UNIT, 1000 * UNIT), Pool(1000 * UNIT, 1_020_000 * UNIT)]
    assert round(Decimal(best_input(cycle)) / UNIT, 9) == Decimal("3475.947298430")
    amount, profit = best_cycle(cycle)
    assert round(Decimal(profit) / UNIT, 9) == Decimal("24.055788096")
    assert abs(amount - best_input(cycle)) <= 2


def test_the_published_pool_against_a_price() -> None:
    amount, got = best_against_price(Pool(2_000_000 * UNIT, 1000 * UNIT), 2050 * 999, 1000)
    assert round(Decimal(amount) / UNIT, 6) == Decimal("20857.539953")
    assert round(Decimal(got) / UNIT, 9) == Decimal("10.290488481")


def test_thousands_of_random_cycles_against_brute_force() -> None:
    """No input near or far from the closed form's does better than a unit for each hop's floor."""
    rnd = random.Random(7)
    paying = 0
    for _ in range(3000):
        hops = rnd.randint(2, 6)
        cycle = [Pool(rnd.randint(10**4, 10**7), rnd.randint(10**4, 10**7), rnd.randint(990, 1000)) for _ in range(hops)]
        amount, profit = best_cycle(cycle)
        paying += profit > 0
        top = max(4 * amount, 1000)
        tried = {rnd.randint(1, top) for _ in range(60)} | {max(1, amount + d) for d in range(-30, 31)}
        best = max(output(cycle, x) - x for x in tried)
        # Each floor loses less than one unit, carried on at the marginal rate, which at the best input is one overall.
        slack = _slack(cycle, max(1, amount))
        assert best <= profit + slack, (cycle, amount, profit, best)
    assert paying > 1000


def _slack(cycle: list[Pool], amount: int) -> int:
    """What the floors of all hops can cost at most, in units of the end."""
    flow, rates = Decimal(amount), []
    for pool in cycle:
        a, b, g = Decimal(pool.reserve_in), Decimal(pool.reserve_out), Decimal(pool.gn) / pool.gd
        rates.append(g * a * b / (a + g * flow) ** 2)
        flow = g * b * flow / (a + g * flow)
    loss, carried = Decimal(0), Decimal(1)
    for rate in reversed(rates):
        loss += carried
        carried *= rate
    return int(loss) + 2


@given(st.lists(pools, min_size=1, max_size=6), st.integers(1, 10**9))
def test_the_composed_hop_is_the_hops_one_after_another(cycle: list[Pool], amount: int) -> None:
    e, d, c = compose(cycle)
    with localcontext() as context:
        context.prec = 120
        exact = Decimal(amount)
        for pool in cycle:
            paid = exact * pool.gn
            exact = paid * pool.reserve_out / (pool.reserve_in * pool.gd + paid)
        composed = Decimal(e) * amount / (Decimal(d) + Decimal(c) * amount)
        assert abs(exact - composed) <= abs(exact) * Decimal("1e-80")
    assert output(cycle, amount) <= composed


@given(st.lists(pools, min_size=2, max_size=5))
def test_nothing_is_put_in_where_nothing_is_gained(cycle: list[Pool]) -> None:
    e, d, _ = compose(cycle)
    amount, profit = best_cycle(cycle)
    assert (profit > 0) == (amount > 0)
    if e <= d:
        assert (amount, profit) == (0, 0)
