"""Slipstream's pools: named by their spacing, with a fee that is read and not told."""

from __future__ import annotations

from random import Random

import pytest

from collectors.dex import slipstream, uniswap_v3
from collectors.dex.blocks import Log
from collectors.dex.errors import BadAnswer
from collectors.dex.mirror import Mirror
from collectors.dex.protocol import MirroredPool
from collectors.dex.slipstream import Slipstream
from tests.unit.test_balancer_collector import header

FACTORY, POOL, A, B = ("0x" + n * 40 for n in "fdab")


def word(value: int | str) -> str:
    return f"0x{(int(value, 16) if isinstance(value, str) else value) % (1 << 256):064x}"


def creation(spacing: int, topics: int = 4, data: str = "") -> Log:
    named = [slipstream.POOL_CREATED, word(A), word(B), word(spacing)][:topics]
    return Log(FACTORY, named, data or word(POOL), None, None, "0x0")


def pool_of(**options: int) -> MirroredPool:
    return Slipstream(FACTORY, "aero", quoter=B, **options).created(creation(100))


def test_a_pool_is_named_by_its_spacing_and_its_fee_is_state():
    pool = pool_of()
    assert (pool.ident, pool.fixed["tick_spacing"], "fee" in pool.fixed) == (POOL, "100", False)
    assert pool.protocol.venue_of(pool.fixed) == "aero-100"
    still = pool_of(fee_each_head=0)
    assert pool.protocol.moves(pool) and not still.protocol.moves(still)
    pool.protocol.set_slots(pool.pool, {"fee": 2700})
    assert pool.pool.to_state()["fee"] == 2700
    asked = pool.protocol.quote_call(pool, 1, 5)
    assert asked is not None and asked[1][10:] == "".join(word(w)[2:] for w in (B, A, 5, 100, 0))


@pytest.mark.parametrize("entry", [creation(100, topics=3), creation(0), creation(-5), creation(1 << 15)])
def test_a_creation_that_cannot_be_is_refused(entry: Log):
    with pytest.raises(BadAnswer):
        Slipstream(FACTORY, "x").created(entry)


def test_a_creation_with_other_data_is_a_dead_letter_and_stops_nothing():
    unreadable: list[str] = []
    mirror = Mirror([Slipstream(FACTORY, "x")], lambda e: None, unreadable=lambda log, text: unreadable.append(text))
    mirror.apply(header(1), [creation(100, data=word(1) + word(2)[2:]), creation(100)])
    assert len(unreadable) == 1 and set(mirror.pools) == {POOL}


def test_the_fee_is_read_with_the_rest_and_alone():
    pool = pool_of()
    reading = pool.protocol.read(pool)
    assert [c[1] for c in next(reading)] == [uniswap_v3.SLOT0, uniswap_v3.LIQUIDITY]
    bitmaps = reading.send([word(1 << 96) + word(-7)[2:] + word(1)[2:] * 4, word(9)])
    assert [c[1] for c in reading.send([word(0)] * len(bitmaps))] == [slipstream.FEE]
    with pytest.raises(StopIteration) as done:
        reading.send([word(450)])
    assert done.value.value == {"sqrt_price_x96": 1 << 96, "tick": -7, "liquidity": 9, "fee": 450}
    alone = pool.protocol.read_moving(pool)
    next(alone)
    with pytest.raises(BadAnswer, match="millionths"):
        alone.send([word(1_000_000)])
    check = pool.protocol.check(pool, Random(1))
    first = next(check)
    assert check.send([word(1 << 96) + word(-7)[2:], *[word(0)] * (len(first) - 1)]) == [(POOL, slipstream.FEE)]
