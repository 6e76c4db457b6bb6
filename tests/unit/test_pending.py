"""Call data of known routers read as intended swaps, and the life of a pending one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.dex import routers
from collectors.dex.errors import BadAnswer
from collectors.dex.metrics import ChainCounts
from collectors.dex.pending import DROPPED, MINED, MISSES, PENDING, PRECONFIRMED, REPLACED, PendingPool, Transaction
from collectors.dex.routers import DECODERS, SIGNATURES, IntendedSwap, intended, pool_id
from simulator.evm import encode

A, B, C, TO = ("0x" + pair * 20 for pair in ("aa", "bb", "cc", "dd"))
ROUTER = "0x" + "ee" * 20


def read(signature: str, *arguments, value: int = 0):
    return intended("0x" + encode(signature, *arguments).hex(), value)


def packed(*parts) -> bytes:
    return b"".join(bytes.fromhex(p[2:]) if isinstance(p, str) else p.to_bytes(3, "big") for p in parts)


def test_v2_calls_say_what_is_exact_and_what_is_the_limit():
    (swap,) = read("swapExactTokensForTokens(uint256,uint256,address[],address,uint256)", 7, 5, [A, B, C], TO, 99)
    assert (swap.exact_out, swap.tokens, swap.fees, swap.amount, swap.limit, swap.deadline_s) == (
        False, (A, B, C), (-1, -1), 7, 5, 99,
    )  # fmt: skip
    (swap,) = read("swapTokensForExactTokens(uint256,uint256,address[],address,uint256)", 7, 9, [A, B], TO, 99)
    assert (swap.exact_out, swap.amount, swap.limit) == (True, 7, 9)
    (swap,) = read("swapExactETHForTokens(uint256,address[],address,uint256)", 5, [A, B], TO, 99, value=7)
    assert (swap.exact_out, swap.amount, swap.limit) == (False, 7, 5)
    (swap,) = read("swapETHForExactTokens(uint256,address[],address,uint256)", 5, [A, B], TO, 99, value=7)
    assert (swap.exact_out, swap.amount, swap.limit) == (True, 5, 7)


def test_v3_calls_with_and_without_a_deadline():
    with_deadline = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))"
    (swap,) = read(with_deadline, (A, B, 500, TO, 99, 7, 5, 0))
    assert (swap.tokens, swap.fees, swap.amount, swap.limit, swap.deadline_s) == ((A, B), (500,), 7, 5, 99)
    (swap,) = read("exactOutputSingle((address,address,uint24,address,uint256,uint256,uint160))", (A, B, 500, TO, 7, 9, 0))
    assert (swap.exact_out, swap.amount, swap.limit, swap.deadline_s) == (True, 7, 9, -1)


def test_a_path_for_exact_out_is_turned_round():
    (swap,) = read("exactOutput((bytes,address,uint256,uint256,uint256))", (packed(C, 500, B, 3000, A), TO, 99, 7, 9))
    assert (swap.tokens, swap.fees) == ((A, B, C), (3000, 500))


def test_a_multicall_and_the_universal_router_give_every_swap():
    inner = encode("exactInputSingle((address,address,uint24,address,uint256,uint256,uint160))", (A, B, 500, TO, 7, 5, 0))
    other = encode("swapExactTokensForTokens(uint256,uint256,address[],address)", 3, 2, [B, C], TO)
    first, second = read("multicall(uint256,bytes[])", 99, [inner, other])
    assert (first.tokens, second.tokens, first.deadline_s, second.deadline_s) == ((A, B), (B, C), 99, 99)
    v3 = encode("x(address,uint256,uint256,bytes,bool)", TO, 7, 5, packed(A, 500, B), True)[4:]
    v2 = encode("x(address,uint256,uint256,address[],bool)", TO, 1 << 255, 2, [B, C], False)[4:]
    wrap = b"\0" * 64
    first, second = read("execute(bytes,bytes[],uint256)", bytes([0x0B, 0x80, 0x08]), [wrap, v3, v2], 99)
    assert (first.method, first.fees, first.amount) == ("V3_SWAP_EXACT_IN", (500,), 7)
    assert (second.method, second.amount) == ("V2_SWAP_EXACT_IN", 0)  # all that the router holds


ETH, HOOK = "0x" + "00" * 20, "0x" + "99" * 20
ONE_POOL = "x(((address,address,uint24,int24,address),bool,uint128,uint128,bytes))"
SEVERAL_POOLS = "x((address,(address,uint24,int24,address,bytes)[],uint128,uint128))"


def v4(*actions: tuple[int, bytes]) -> list[IntendedSwap]:
    """What the universal router is given for these actions of V4's router."""
    command = encode("x(bytes,bytes[])", bytes(action for action, _ in actions), [given for _, given in actions])[4:]
    return read("execute(bytes,bytes[],uint256)", bytes([0x10]), [command], 99)


def test_v4_actions_name_the_pools_by_their_keys():
    single = encode(ONE_POOL, ((ETH, A, 500, 10, ETH), False, 7, 5, b"for the hook"))[4:]
    settle, take = (encode("x(address,uint256)", token, 1)[4:] for token in (A, ETH))
    (swap,) = v4((0x06, single), (0x0C, settle), (0x0F, take))
    assert (swap.method, swap.exact_out, swap.tokens, swap.fees) == ("V4_SWAP_EXACT_IN_SINGLE", False, (A, ETH), (500,))
    assert (swap.amount, swap.limit, swap.deadline_s) == (7, 5, 99)
    assert swap.pool_ids == (pool_id(ETH, A, 500, 10, ETH),) == (pool_id(A, ETH, 500, 10, ETH),)
    assert len({*swap.pool_ids, pool_id(ETH, A, 500, 60, ETH), pool_id(ETH, A, 500, 10, HOOK)}) == 3


def test_v4_paths_are_told_in_the_direction_of_the_swap():
    there = encode(SEVERAL_POOLS, (A, [(B, 500, 10, ETH, b""), (C, 0x800000, 60, HOOK, b"")], 7, 5))[4:]
    back = encode(SEVERAL_POOLS, (C, [(A, 500, 10, ETH, b""), (B, 0x800000, 60, HOOK, b"")], 7, 9))[4:]
    into, out = v4((0x07, there), (0x09, back))
    for swap, method, exact_out, limit in ((into, "V4_SWAP_EXACT_IN", False, 5), (out, "V4_SWAP_EXACT_OUT", True, 9)):
        assert (swap.method, swap.exact_out, swap.tokens, swap.amount, swap.limit) == (method, exact_out, (A, B, C), 7, limit)
        assert swap.fees == (500, -1)  # the second pool's hook decides
        assert swap.pool_ids == (pool_id(A, B, 500, 10, ETH), pool_id(B, C, 0x800000, 60, HOOK))
    with pytest.raises(BadAnswer, match="no pools"):
        v4((0x07, encode(SEVERAL_POOLS, (A, [], 7, 5))[4:]))


def test_calls_that_say_the_same_a_thousand_times_are_cut_short(monkeypatch: pytest.MonkeyPatch):
    """Whoever writes to the pool of transactions for nothing must not hold up the mirror."""
    asked: list[str] = []
    monkeypatch.setattr(routers, "pool_id", lambda *key: asked.append(key[0]) or "0x")
    single = encode(ONE_POOL, ((ETH, A, 500, 10, ETH), True, 7, 5, b""))[4:]
    command = encode("x(bytes,bytes[])", bytes([6] * 40), [single] * 40)[4:]
    call = encode("execute(bytes,bytes[])", bytes([0x10] * 40), [command] * 40)
    assert len(read("execute(bytes,bytes[])", bytes([0x10] * 40), [command] * 40)) == len(asked) == 16
    asked.clear()
    assert len(read("multicall(bytes[])", [call] * 40)) == len(asked) == 16
    long = encode(SEVERAL_POOLS, (A, [(B, 500, 10, ETH, b"")] * 100, 7, 5))[4:]
    with pytest.raises(BadAnswer, match="more than any swap needs"):
        v4((0x07, long))


def test_no_two_calls_share_their_first_four_bytes():
    assert len(DECODERS) == len(SIGNATURES)


@given(st.binary(max_size=6), st.lists(st.binary(max_size=400), max_size=4))
def test_any_actions_of_v4_are_read_or_refused(actions: bytes, given_: list[bytes]):
    try:
        command = encode("x(bytes,bytes[])", actions, given_)[4:]
        for swap in read("execute(bytes,bytes[])", bytes([0x10]), [command]):
            assert len(swap.tokens) == len(swap.fees) + 1 == len(swap.pool_ids) + 1
    except BadAnswer:
        pass


@given(st.sampled_from(sorted(DECODERS)) | st.binary(max_size=4), st.binary(max_size=400))
def test_any_call_data_are_read_or_refused(first: bytes, rest: bytes):
    try:
        for swap in intended("0x" + (first + rest).hex(), 0):
            assert len(swap.tokens) == len(swap.fees) + 1 >= 2
    except BadAnswer:
        pass


# Lives.


def swap_data() -> str:
    return "0x" + encode("swapExactTokensForTokens(uint256,uint256,address[],address,uint256)", 7, 5, [A, B], TO, 99).hex()


def tx(name: str, nonce: int = 1, to: str = ROUTER, **more) -> Transaction:
    return Transaction(hash=name, sender=A, nonce=hex(nonce), input=swap_data(), to=to, **more)


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def pool(told) -> PendingPool:
    return PendingPool([ROUTER], lambda p: told.append((p.transaction.hash, p.state)), ChainCounts(), limit=3)


def always(number: int, block_hash: str) -> bool:
    return True


def never(number: int, block_hash: str) -> bool:
    return False


def test_from_the_pool_into_a_block_and_out_again(pool: PendingPool, told):
    pool.take(tx("t"))
    pool.preconfirmed(5, ["t"])
    pool.answered("t", tx("t", block_hash="b", block_number="0x5"), 5)
    pool.at_head(never, 0)
    pool.answered("t", tx("t", block_hash="c", block_number="0x6"), 6)
    pool.at_head(always, 6)
    assert told == [("t", PENDING), ("t", PRECONFIRMED), ("t", MINED), ("t", PENDING), ("t", MINED)]
    assert not pool.watched


def test_a_preconfirmation_that_is_not_kept_is_taken_back(pool: PendingPool, told):
    pool.take(tx("t"))
    pool.preconfirmed(5, ["t"])
    pool.answered("t", tx("t"), 4)
    pool.answered("t", tx("t"), 5)
    assert told[-2:] == [("t", PRECONFIRMED), ("t", PENDING)]


def test_the_same_nonce_again_replaces_whatever_is_called(pool: PendingPool, told):
    pool.take(tx("t"))
    pool.take(tx("u", to=B))
    assert told == [("t", PENDING), ("t", REPLACED)]
    assert pool.watched["t"].replaced_by == "u"


def test_the_replaced_one_may_be_mined_after_all(pool: PendingPool, told):
    pool.take(tx("t"))
    pool.take(tx("u"))
    pool.take(tx("t"))
    pool.answered("t", tx("t", block_hash="b", block_number="0x5"), 5)
    assert told[-2:] == [("t", PENDING), ("t", MINED)]


def test_dropped_only_when_no_node_knows_it_at_several_heads(pool: PendingPool, told):
    pool.take(tx("t"))
    for _ in range(MISSES - 1):
        pool.answered("t", None, 5)
    assert told == [("t", PENDING)]
    pool.answered("t", None, 6)
    assert told[-1] == ("t", DROPPED)


def test_more_than_can_be_watched_are_dropped_aloud(pool: PendingPool, told):
    for n in range(5):
        pool.take(tx(f"t{n}", nonce=n))
    assert [t for t in told if t[1] == DROPPED] == [("t0", DROPPED), ("t1", DROPPED)]
    assert pool._counts.pending_forgotten == 2 and len(pool.watched) == 3


def test_calls_that_cannot_be_read_are_counted_and_change_nothing(pool: PendingPool, told):
    bad = tx("t")
    bad.input = bad.input[:80]
    pool.take(bad)
    assert not told and pool._counts.pending_unreadable == 1
