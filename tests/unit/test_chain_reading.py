"""Reading pools at a block whose node is making the next one: what it says of that is not believed, nor held against us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collectors.dex import reading
from collectors.dex.blocks import Header
from collectors.dex.errors import BadAnswer
from collectors.dex.metrics import ChainCounts
from collectors.dex.protocol import MirroredPool
from collectors.dex.reading import Proof, read_at
from collectors.dex.uniswap_v2 import UniswapV2

PAIR, MINE, NEXT = "0x" + "01" * 20, (1000, 2000), (1111, 1800)


def header(number: int) -> Header:
    return Header(hex(number), f"0x{number:064x}", f"0x{number - 1:064x}", "0x0")


class Node:
    """One node at block 7; ``says(n)`` gives the reserves of its n-th answer, and the block that is its newest then."""

    def __init__(self, says: Callable[[int], tuple[tuple[int, int], int]], canonical: int = 7) -> None:
        self.nodes = self
        self.asked = 0
        self._says = says
        self._canonical = canonical

    async def header(self, _: str) -> Header:
        return header(self._says(self.asked)[1])

    async def stands(self, one: Header) -> bool:
        return one.hash == header(self._canonical).hash

    async def calls(self, calls: Any, block_hash: str, *, reverts: bool = False) -> list[str]:
        self.asked += 1
        reserves, _ = self._says(self.asked)
        return ["0x" + "".join(f"{word:064x}" for word in (*reserves, 0)) for _ in calls]


@pytest.fixture
def pair() -> MirroredPool:
    protocol = UniswapV2("0x" + "fa" * 20, "v2")
    fixed = {"token0": PAIR, "token1": PAIR, "fee_num": "3", "fee_den": "1000"}
    return protocol.new_pool(PAIR, fixed, dict(zip(("reserve0", "reserve1"), MINE, strict=True)))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CONFIRM_S", (0.0, 0.0, 0.0))


async def read(node: Any, pool: MirroredPool) -> tuple[int, ...]:
    states = await read_at(node, [pool], header(7))
    return tuple(states[PAIR].values())


async def test_what_was_read_while_the_next_block_came_is_read_once_more(pair: MirroredPool):
    node = Node(lambda n: (NEXT if n == 1 else MINE, 7 if n == 0 else 8))
    assert (await read(node, pair), node.asked) == (MINE, 2)


@pytest.mark.parametrize("newest", [7, 9])
async def test_where_no_block_comes_meanwhile_one_reading_is_enough(pair: MirroredPool, newest: int):
    node = Node(lambda n: (MINE, newest))
    assert (await read(node, pair), node.asked) == (MINE, 1)


async def test_a_block_that_was_replaced_is_not_read(pair: MirroredPool):
    with pytest.raises(BadAnswer, match="replaced"):
        await read(Node(lambda n: (MINE, 7), canonical=8), pair)


async def confirmed(node: Any, pool: MirroredPool) -> dict[str, str]:
    return await Proof(node, ChainCounts(), 100).confirmed([pool], header(7).hash, lambda: node.stands(header(7)))


@pytest.mark.parametrize("passing", [1, 2, 3])
async def test_an_answer_that_passes_is_no_difference(pair: MirroredPool, passing: int):
    assert await confirmed(Node(lambda n: (NEXT if n <= passing else MINE, 7)), pair) == {}


async def test_what_differs_each_time_is_one(pair: MirroredPool):
    assert "reserve0: mirror 1000, chain 1111" in (await confirmed(Node(lambda n: (NEXT, 7)), pair))[PAIR]


async def test_nothing_is_held_against_the_mirror_at_a_block_that_was_replaced(pair: MirroredPool):
    assert await confirmed(Node(lambda n: (NEXT, 7), canonical=8), pair) == {}


async def test_the_same_is_asked_again(pair: MirroredPool):
    """A tick that is wrong is found by a sample only: another sample would let it pass."""
    asked: list[int] = []

    def check(pool: MirroredPool, rng: Any):
        asked.append(rng.random())
        return UniswapV2.read(pool.protocol, pool)  # pyright: ignore

    pair.protocol.check = check  # pyright: ignore
    assert await confirmed(Node(lambda n: (NEXT, 7)), pair)
    assert len(asked) == 4 and len(set(asked)) == 1
