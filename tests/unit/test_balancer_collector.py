"""Balancer V2's events applied and undone: balances added up, the pool's own address, what has to be read again."""

from __future__ import annotations

import pytest

from collectors.dex import balancer
from collectors.dex.balancer import BalancerV2, VaultPool
from collectors.dex.blocks import Header, Log
from collectors.dex.mirror import Mirror
from market.pools.pool import NotQuotable
from simulator.evm import _abi

VAULT = "0x" + "ba" * 20
POOL = "0x" + "11" * 20
IDENT = POOL + "00" * 12
A, B, C = ("0x" + pair * 20 for pair in ("aa", "bb", "cc"))


def word(address: str) -> str:
    return "0x" + address[2:].rjust(64, "0")


def log(index: int, topics: list[str], types: list[str], values: list, address: str = VAULT, block: str = "0x1") -> Log:
    return Log(address, topics, "0x" + _abi.encode(types, values).hex(), block, "0x" + "77" * 32, hex(index))


def header(number: int) -> Header:
    return Header(hex(number), hex(number), hex(number - 1), "0x1")


@pytest.fixture
def emitted() -> list:
    return []


@pytest.fixture
def mirror(emitted) -> Mirror:
    found = Mirror([BalancerV2(VAULT, "balancer-v2-x")], emitted.append)
    entry = log(0, [balancer.TOKENS_REGISTERED, IDENT], ["address[]", "address[]"], [[A, B, C], [A, B, C]])
    found.apply(header(1), [entry])
    return found


def read(mirror: Mirror, **more: int) -> None:
    """What a reading by calls would have found."""
    slots = {"kind": 1, "swap_fee": 10**15, "first_version": 1} | more
    for n in range(3):
        slots |= {f"balance:{n}": 1000 * 10**18, f"scaling:{n}": 10**18, f"weight:{n}": 10**18 * (2 + n) // 9}
    slots["weight:2"] += 10**18 - sum(slots[f"weight:{n}"] for n in range(3))
    mirror.snapshot(mirror.pools[IDENT], mirror.pools[IDENT].slots | slots, mirror.blocks[-1])


def test_a_new_pool_is_not_quoted_until_it_was_read(mirror: Mirror):
    pool = mirror.pools[IDENT]
    assert pool.token_names == [A, B, C]
    assert isinstance(pool.pool, VaultPool)
    with pytest.raises(NotQuotable, match="not read yet"):
        pool.pool.amount_out(0, 1, 10)
    read(mirror)
    assert 0 < pool.pool.amount_out(0, 1, 10**18) < 10**19


def test_balances_follow_swaps_and_joins_and_come_back(mirror: Mirror):
    read(mirror)
    pool, before = mirror.pools[IDENT], dict(mirror.pools[IDENT].slots)
    swap = log(0, [balancer.SWAP, IDENT, word(A), word(C)], ["uint256", "uint256"], [700, 300])
    changed = log(
        1, [balancer.CHANGED, IDENT, word(A)], ["address[]", "int256[]", "uint256[]"], [[A, B, C], [50, -20, 0], [1, 2, 0]]
    )
    managed = log(2, [balancer.MANAGED, IDENT, word(A), word(B)], ["int256", "int256"], [-500, 400])
    mirror.apply(header(2), [swap, changed, managed])
    moved = [pool.slots[f"balance:{n}"] - before[f"balance:{n}"] for n in range(3)]
    assert moved == [700 + 50 - 1, -20 - 2 - 100, -300]
    assert pool.pool.inner.to_state()["balances"] == [pool.slots[f"balance:{n}"] for n in range(3)]
    mirror.undo()
    assert pool.slots == before and not mirror.suspect


def test_the_pools_own_address_says_fee_pause_and_ramp(mirror: Mirror):
    read(mirror)
    pool = mirror.pools[IDENT]
    mirror.apply(header(2), [
        log(0, [balancer.FEE_CHANGED], ["uint256"], [3 * 10**15], POOL), log(1, [balancer.PAUSED], ["bool"], [True], POOL),
    ])  # fmt: skip
    assert (pool.slots["swap_fee"], pool.slots["paused"]) == (3 * 10**15, 1)
    with pytest.raises(NotQuotable, match="paused"):
        pool.pool.amount_out(0, 1, 10)
    outcome = mirror.apply(header(3), [log(0, [balancer.AMP_STARTED], ["uint256"] * 4, [1, 2, 3, 4], POOL)])
    assert mirror.suspect == {IDENT} and outcome.reread == 1


def test_an_event_undone_below_a_reading_asks_for_another(mirror: Mirror):
    read(mirror)
    mirror.apply(header(2), [log(0, [balancer.SWAP, IDENT, word(A), word(B)], ["uint256", "uint256"], [7, 3])])
    read(mirror)
    mirror.undo()
    assert mirror.suspect == {IDENT}


def test_a_token_that_is_not_the_pools_makes_it_suspect_and_changes_nothing(mirror: Mirror):
    read(mirror)
    before = dict(mirror.pools[IDENT].slots)
    mirror.apply(header(2), [log(0, [balancer.SWAP, IDENT, word(A), word(VAULT)], ["uint256", "uint256"], [7, 3])])
    assert mirror.pools[IDENT].slots == before and mirror.suspect == {IDENT}


def test_a_pool_of_rates_is_told_apart(mirror: Mirror):
    pool = mirror.pools[IDENT]
    reading = pool.protocol.read(pool)
    calls = next(reading)

    def answer(types: list[str], *values) -> str:
        return "0x" + _abi.encode(types, values).hex()

    holds = answer(["address[]", "uint256[]", "uint256"], [A, B, C], [5, 6, 7], 1)
    fee, nothing, decimals = answer(["uint256"], 10**15), "0x", answer(["uint8"], 6)
    paused = answer(["bool", "uint256", "uint256"], False, 1, 2)
    amp = answer(["uint256", "bool", "uint256"], 5000, True, 1000)
    weights = answer(["uint256[]"], [1, 2, 3])
    rates = answer(["address[]"], [A, "0x" + "0" * 40, "0x" + "0" * 40])

    def found(*parts: str) -> dict[str, int]:
        own = pool.protocol.read(pool)
        next(own)
        with pytest.raises(StopIteration) as done:
            own.send([holds, *parts, decimals, decimals, decimals])
        return done.value.value

    assert len(calls) == 1 + 7 + 3
    first = found(fee, paused, weights, nothing, nothing, nothing, nothing)
    assert (first["kind"], first["first_version"], first["weight:2"], first["scaling:0"]) == (1, 1, 3, 10**30)
    plain = found(fee, paused, nothing, amp, nothing, nothing, nothing)
    assert (plain["kind"], plain["amp"], plain["amp_moves"], plain["balance:1"]) == (2, 5000, 1, 6)
    assert found(fee, paused, nothing, amp, nothing, rates, nothing)["kind"] == 3
    assert found(fee, paused, weights, nothing, nothing, nothing, answer(["uint256"] * 2, 1, 2))["kind"] == 3
