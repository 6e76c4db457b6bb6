"""Curve's pools: what their creation says and their answers make of them, and what nobody can make sense of."""

from __future__ import annotations

from typing import Any

import pytest
from web3 import Web3

from collectors.dex import curve, curve_crypto
from collectors.dex.blocks import Log
from collectors.dex.curve import CurveStable
from collectors.dex.curve_crypto import CurveCrypto
from collectors.dex.errors import BadAnswer
from collectors.dex.mirror import Mirror
from collectors.dex.protocol import MirroredPool, Protocol, Slots
from market.pools.curve_stable import CurveStablePool
from market.pools.pool import InsufficientLiquidity, NotQuotable
from tests.unit.test_balancer_collector import header

_abi = Web3().codec
FACTORY, POOL, A, B, C = ("0x" + n * 40 for n in "fdabc")


def word(value: int | str) -> str:
    return f"0x{int(value, 16) if isinstance(value, str) else value:064x}"


def answer(*values: int) -> str:
    return "0x" + "".join(f"{v:064x}" for v in values)


def log(topics: list[str], types: list[str], values: list[Any]) -> Log:
    data = "0x" + _abi.encode(types, values).hex()
    return Log(FACTORY, topics, data, None, None, "0x0")


def stable(*coins: str, first: str = curve.PLAIN_NG, told: list[str] | None = None) -> Log:
    types = ["address[]" if first == curve.PLAIN_NG else "address[4]", "uint256", "uint256", "address"]
    told = told if told is not None else list(coins)
    named = told if first == curve.PLAIN_NG else told + ["0x" + "0" * 40] * (4 - len(told))
    return log([first, word(POOL), word(7), *map(word, coins)], types, [named, 100, 4_000_000, A])


def read(pool: MirroredPool, said: dict[str, str]) -> Slots:
    """The slots from these answers by selector; what is not said is a revert."""
    reading = pool.protocol.read(pool)
    calls = next(reading)
    with pytest.raises(StopIteration) as done:
        reading.send([said.get(data[:10], "0x") for _, data in calls])
    return done.value.value


def ng_answers(types: tuple[int, ...] = (0, 0), **more: str) -> dict[str, str]:
    names = dict(zip(("fee", "offpeg", "precise", "a", "future", "rates"), curve.POOL_CALLS, strict=True))
    said = {
        "fee": answer(4_000_000), "offpeg": answer(2 * 10**10), "precise": answer(20_000), "a": answer(200),
        "future": answer(20_000), "rates": answer(32, 2, 10**18, 10**30),
    } | more  # fmt: skip
    return {names[n]: v for n, v in said.items() if v} | {
        curve.ASSET_TYPES: answer(32, len(types), *types), curve.BALANCES: answer(5 * 10**18), curve.DECIMALS: answer(18),
    }  # fmt: skip


def test_a_pool_is_what_its_events_and_its_list_say_together():
    pool = CurveStable(FACTORY, "curve-x").created(stable(A, B, C))
    assert (pool.ident, pool.token_names, pool.fixed["serial"]) == (POOL, [A, B, C], "7")
    assert pool.protocol.venue_of(pool.fixed) == "curve-x-dddddddd"
    assert CurveStable(FACTORY, "x").created(stable(A, B, first=curve.PLAIN_OLD)).token_names == [A, B]
    with pytest.raises(NotQuotable, match="not read yet"):
        pool.pool.amount_out(0, 1, 5)


@pytest.mark.parametrize(
    "entry",
    [
        log([curve.PLAIN_NG], ["address[]", "uint256", "uint256", "address"], [[A, B], 1, 2, C]),  # not found in the list
        stable(A, B, told=[A, C]),
        stable(A, B, C, told=[A, B]),
        stable(A, first=curve.PLAIN_OLD),
        log([curve.META, word(POOL), word(1), word(A), word(B)], ["address"] * 2, [C, B]),
    ],
)
def test_a_creation_that_is_not_in_the_list_as_it_was_told_is_refused(entry: Log):
    with pytest.raises(BadAnswer):
        CurveStable(FACTORY, "x").created(entry)
    unreadable: list[str] = []
    mirror = Mirror([CurveStable(FACTORY, "x")], lambda emission: None, unreadable=lambda log, text: unreadable.append(text))
    mirror.apply(header(1), [entry])
    assert len(unreadable) == 1 and not mirror.pools


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, curve.NG),
        ({"types": (0, 1)}, curve.RATES),
        ({"types": (3, 0)}, curve.RATES),
        ({"types": (1, 2)}, curve.REBASING),
        ({"types": (0,)}, curve.OTHER),
        ({"offpeg": "", "rates": ""}, curve.PLAIN),
        ({"offpeg": "", "rates": answer(10**18, 10**30)}, curve.PLAIN),
        ({"fee": ""}, curve.OTHER),
        ({"fee": answer(10**10)}, curve.OTHER),
        ({"precise": answer(0)}, curve.OTHER),
        ({"rates": answer(32, 2, 0, 1)}, curve.OTHER),
    ],
)
def test_a_pools_answers_say_its_kind(more: dict[str, Any], kind: int):
    pool = CurveStable(FACTORY, "x").created(stable(A, B))
    slots = read(pool, ng_answers(**more))
    assert slots["kind"] == kind
    pool.protocol.set_slots(pool.pool, slots)
    if kind in (curve.NG, curve.PLAIN):
        assert pool.pool.amount_out(0, 1, 10**6) > 0
    else:
        assert slots["rate:0"] == 0
        with pytest.raises(NotQuotable, match="ask the chain"):
            pool.pool.amount_out(0, 1, 10**6)


def test_what_moves_is_followed_where_it_is_wanted():
    def moves(slots: Slots, **options: int) -> bool:
        pool = CurveStable(FACTORY, "x", **options).created(stable(A, B))
        pool.slots |= slots
        return pool.protocol.moves(pool)

    assert not moves({"kind": curve.NG, "amp_moves": 0}) and moves({"kind": curve.NG, "amp_moves": 1})
    assert moves({"kind": curve.PLAIN}) and not moves({"kind": curve.RATES}) and not moves({"kind": curve.OTHER})
    assert moves({"kind": curve.RATES}, every_head=1) and moves({"kind": curve.METAPOOL}, every_head=1)
    pool = CurveStable(FACTORY, "x").created(stable(A, B))
    assert read(pool, ng_answers(future=answer(50_000)))["amp_moves"] == 1
    # 3pool and its age: A without a fraction.
    old = read(pool, ng_answers(offpeg="", rates="", precise="", future=answer(200)))
    assert (old["a_precision"], old["amp"], old["amp_moves"], old["kind"]) == (1, 200, 0, curve.PLAIN)


def test_metapools_of_old_are_not_understood():
    types = ["address", "address", "uint256", "uint256", "address"]
    entry = log([curve.META, word(POOL), word(1), word(A), word(B)], types, [A, C, 1, 2, A])
    pool = CurveStable(FACTORY, "x", every_head=1).created(entry)
    assert pool.fixed["base_pool"] == C
    assert read(pool, ng_answers())["kind"] == curve.METAPOOL
    assert read(pool, ng_answers(offpeg="", rates=""))["kind"] == curve.OTHER


def crypto(first: str, *coins: str, address: str = POOL) -> Log:
    topics = [first, word(POOL), word(0), *map(word, coins)]
    if first == curve_crypto.FIRST:
        return log(topics, ["address", "address[2]", *["uint256"] * 10, "address"], [A, coins, *range(10), C])
    name, rest = ["string", "string"], ["address", "bytes32"]
    if first == curve_crypto.TWO:
        types = ["address", *name, "address[2]", *rest, "uint256[2]", *["uint256"] * 4, "address"]
        return log(topics, types, [address, "n", "s", coins, C, b"\0" * 32, [1, 1], 1, 2, 3, 4, C])
    types = ["address", *name, "address", "address[3]", *rest, *["uint256"] * 5, "address"]
    return log(topics, types, [address, "n", "s", C, coins, C, b"\0" * 32, 1, 1, 2, 3, 4, C])


def crypto_answers(count: int) -> dict[str, str]:
    said = dict(zip(curve_crypto.NUMBER_CALLS, map(answer, (400_000, 145 * 10**12, 26 * 10**6, 45 * 10**6, 10**14)), strict=True))
    future = 400_000 << 128 | 145 * 10**12
    said |= dict(zip(curve_crypto.RAMP_CALLS, (answer(future), answer(0)), strict=True))
    scale = curve_crypto.SCALE if count == 2 else curve_crypto.SCALE_OF
    return said | {
        curve_crypto.D: answer(count * 10**21), scale: answer(10**18), curve_crypto.BALANCES: answer(10**21),
        curve_crypto.DECIMALS: answer(18),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (crypto(curve_crypto.FIRST, A, B), curve_crypto.FIRST_GENERATION),
        (crypto(curve_crypto.TWO, A, B), curve_crypto.NG),
        (crypto(curve_crypto.THREE, A, B, C), curve_crypto.NG),
    ],
)
def test_crypto_pools_of_each_factory(entry: Log, kind: int):
    pool = CurveCrypto(FACTORY, "x").created(entry)
    slots = read(pool, crypto_answers(len(pool.token_names)))
    assert (slots["kind"], slots["ramps"], slots["d_anew"]) == (kind, 0, 0)
    pool.protocol.set_slots(pool.pool, slots)
    if kind == curve_crypto.NG:
        with pytest.raises(NotQuotable, match="NG generation"):
            pool.pool.amount_out(0, 1, 10**6)
    else:
        assert 0 < pool.pool.amount_out(0, 1, 10**18) < 10**18
    missing = read(pool, crypto_answers(len(pool.token_names)) | {curve_crypto.D: "0x"})
    assert (missing["kind"], missing["d"]) == (curve_crypto.OTHER, 0)


@pytest.mark.parametrize(
    "entry",
    [
        log([curve_crypto.FIRST], ["address"], [A]),
        crypto(curve_crypto.TWO, A, B, address=C),
        Log(FACTORY, [curve_crypto.FIRST, word(POOL), word(0), word(A), word(B)], "0x", None, None, "0x0"),
    ],
)
def test_a_crypto_pool_that_the_list_does_not_know_as_it_was_told_is_refused(entry: Log):
    with pytest.raises(BadAnswer):
        CurveCrypto(FACTORY, "x").created(entry)


def test_a_gift_is_seen_without_reading_all_of_a_pool():
    protocol: Protocol = CurveCrypto(FACTORY, "x")
    pool = protocol.created(crypto(curve_crypto.FIRST, A, B))
    pool.slots |= read(pool, crypto_answers(2))
    reading = protocol.read_moving(pool)
    assert len(next(reading)) == 3
    with pytest.raises(StopIteration) as done:
        reading.send([answer(7), answer(8), answer(9)])
    assert done.value.value == {"d": 7, "balance:0": 8, "balance:1": 9}
    pool.slots["ramps"] = 1
    assert len(next(protocol.read_moving(pool))) > 3


def test_a_fee_that_is_more_than_all_of_it_is_refused_as_the_contract_refuses():
    pool = CurveStablePool(
        (A, B), [10**18, 10**24], [10**18] * 2, 4_000_000, variant="ng", offpeg_fee_multiplier=25 * 10**13,
        initial_a=20_000, future_a=20_000,
    )  # fmt: skip
    with pytest.raises(InsufficientLiquidity, match="off its peg"):
        pool.amount_out(0, 1, 10**15)
    assert pool.marginal(0, 1)[0] == 0
