"""Pools that their creation events do not name, found in their factory's list. Does no I/O."""

from __future__ import annotations

from collectors.dex.blocks import Log, address_of, selector, words
from collectors.dex.errors import BadAnswer
from collectors.dex.protocol import Call, Locating, call

POOL_COUNT, POOL_LIST = selector("pool_count()"), selector("pool_list(uint256)")
COINS = selector("coins(uint256)")


def from_pool_list(factory: str, logs: list[Log], later: int, coins_max: int) -> Locating:
    """Of factories that keep a list of their pools, which only grows: each pool's address, serial and coins.

    Raises BadAnswer.
    """
    (count,) = yield [(factory, call(POOL_COUNT))]
    first = words(count)[0] - later - len(logs)
    if first < 0:
        raise BadAnswer(f"factory {factory} lists {words(count)[0]} pools, and tells of {later + len(logs)} and more")
    answers = yield [(factory, call(POOL_LIST, first + n)) for n in range(len(logs))]
    pools = [address_of(words(a)[0]) for a in answers]
    asked: list[Call] = [(p, call(COINS, k)) for p in pools for k in range(coins_max)]
    answers = yield asked
    out: list[list[str]] = []
    for n, pool in enumerate(pools):
        coins = [words(a)[0] for a in answers[n * coins_max : (n + 1) * coins_max] if len(a) == 66]
        # Old pools answer with zero where newer ones revert.
        out.append([f"0x{w:064x}" for w in (int(pool, 16), first + n, *(c for c in coins if c))])
    return out
