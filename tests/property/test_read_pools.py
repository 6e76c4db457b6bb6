"""Pools that are read by calls: whatever a contract answers, one named error comes of it or a pool that answers in kind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.dex.errors import ChainError
from collectors.dex.protocol import MirroredPool, Protocol, Reading
from market.pools.ladder import ladder, scale_of
from market.pools.pool import PoolError
from tests.unit import test_curve_collector as curve_logs
from tests.unit import test_slipstream as slipstream_logs

A, B, C, FACTORY = curve_logs.A, curve_logs.B, curve_logs.C, curve_logs.FACTORY
CREATED: list[MirroredPool] = [
    curve_logs.CurveStable(FACTORY, "x", every_head=1).created(curve_logs.stable(A, B)),
    curve_logs.CurveStable(FACTORY, "x").created(curve_logs.stable(A, B, C)),
    curve_logs.CurveCrypto(FACTORY, "x").created(curve_logs.crypto(curve_logs.curve_crypto.FIRST, A, B)),
    curve_logs.CurveCrypto(FACTORY, "x").created(curve_logs.crypto(curve_logs.curve_crypto.THREE, A, B, C)),
    slipstream_logs.pool_of(),
]
WORDS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 18, 32, 100, 20_000, 10**6, 10**10, 2 * 10**10, 10**18, 10**30, (1 << 256) - 1]),
    st.integers(0, (1 << 256) - 1),
    st.integers(0, 10**24),
)
ANSWERS = st.one_of(
    st.just("0x"),
    st.builds(lambda word: f"0x{word:064x}", WORDS),
    st.builds(lambda words: "0x" + "".join(f"{w:064x}" for w in words), st.lists(WORDS, max_size=6)),
    st.builds(lambda words: "0x" + "".join(f"{w:064x}" for w in (32, len(words), *words)), st.lists(WORDS, max_size=4)),
    st.sampled_from(["0x1", "0xzz", "0x" + "00" * 31]),
)


SOUND = curve_logs.ng_answers() | curve_logs.crypto_answers(2) | {curve_logs.curve_crypto.SCALE_OF: curve_logs.answer(10**18)}
"""Answers of pools as they should be, by selector: most of a reading, so that what is wrong gets far."""


def read(reading: Reading, data: st.DataObject) -> dict[str, int] | None:
    """The slots, or None where the reading said what is wrong with the answers."""
    try:
        calls = next(reading)
        while True:
            answers = [SOUND.get(call[:10], "0x") for _, call in calls]
            for n in data.draw(st.sets(st.integers(0, min(len(calls), 40) - 1), max_size=4)):
                answers[n] = data.draw(ANSWERS)
            calls = reading.send(answers)
    except StopIteration as done:
        return done.value
    except (ChainError, ValueError, IndexError):
        return None


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(CREATED), st.integers(1, 10**30))
def test_any_answer_is_an_error_or_a_pool(data: st.DataObject, created: MirroredPool, amount: int):
    protocol: Protocol = created.protocol
    pool = protocol.new_pool(created.ident, dict(created.fixed), dict(created.slots))
    slots = read(protocol.read(pool), data)
    if slots is None:
        return
    assert all(isinstance(v, int) for v in slots.values())
    assert set(created.slots) <= set(slots)
    pool.slots |= slots
    protocol.set_slots(pool.pool, slots)
    protocol.moves(pool)
    protocol.quote_call(pool, 0, amount)
    for ask in (pool.pool.amount_out, pool.pool.amount_in):
        try:
            assert ask(0, 1, amount) >= 0
        except PoolError:
            continue
    try:
        scale = scale_of(pool.pool, 0, 1, 18, 18)
        if scale is not None:
            ladder(pool.pool, 0, 1, scale, (5, 100))
    except PoolError:
        pass
    moved = read(protocol.read_moving(pool), data)
    assert moved is None or set(moved) <= set(slots)
