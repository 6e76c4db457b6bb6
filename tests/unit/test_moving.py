"""What changes by itself, and what is created without a name: read at a head, undone with it, found in a list."""

from __future__ import annotations

import pytest

from collectors.dex.blocks import Header, Log
from collectors.dex.errors import BadAnswer
from collectors.dex.late_pool import LatePool
from collectors.dex.locating import from_pool_list
from collectors.dex.mirror import Mirror, MirrorBlock
from collectors.dex.moving import Moving
from collectors.dex.protocol import MirroredPool, Protocol, Reading, Slots
from market.pools.pool import InsufficientLiquidity, Pool

A, B, C = ("0x" + n * 40 for n in "abc")


class Odometer(LatePool):
    family = "odometer"

    def made(self) -> Pool:
        raise ZeroDivisionError


class Moved(Protocol):
    name = "moved"
    creation_topic = "0x01"

    def created(self, log: Log) -> MirroredPool:
        raise BadAnswer("none")

    def events(self):
        return {}

    def build(self, fixed: dict[str, str]) -> Pool:
        return Odometer((A, B))

    def set_slots(self, pool: Odometer, slots: Slots) -> None:
        pool.take(slots)

    def moves(self, pool: MirroredPool) -> bool:
        return bool(pool.slots["moves"])

    def read(self, pool: MirroredPool) -> Reading:
        (answer,) = yield [(pool.ident, "0x")]
        return {"moves": int(answer, 16)}


class Still(Moved):
    name = "still"
    moves = Protocol.moves


def block(number: int) -> MirrorBlock:
    return MirrorBlock(number, f"0x{number:064x}", "", 0)


def header(number: int) -> Header:
    return Header(hex(number), f"0x{number:064x}", "", "0x0")


def mirror_of(*protocols: Protocol) -> tuple[Mirror, list]:
    emitted: list = []
    mirror = Mirror(protocols, emitted.append)
    for n, protocol in enumerate(protocols):
        mirror.blocks.append(block(1))
        pool = protocol.new_pool(f"0x{n:040x}", {"token0": A, "token1": B}, {"moves": 1, "kept": 5})
        mirror.snapshot(pool, {"moves": 1, "kept": 5}, mirror.blocks[-1])
    emitted.clear()
    return mirror, emitted


async def test_what_moved_is_told_and_what_did_not_is_not():
    mirror, emitted = mirror_of(Moved(A, "x"))
    (pool,) = mirror.pools.values()
    moving = Moving(mirror)
    moving.note(pool)
    said: Slots = {"moves": 1}

    async def read(pools: list[MirroredPool], tip: Header, moves: bool) -> dict[str, Slots]:
        assert moves
        return {p.ident: said for p in pools}

    assert await moving.step(read, header(1)) == (1, []) and not emitted
    said = {"moves": 0}
    assert await moving.step(read, header(1)) == (1, [pool])
    assert pool.slots == {"moves": 0, "kept": 5} and [e.kind for e in emitted] == ["SNAPSHOT"]
    assert await moving.step(read, header(1)) == (0, [])


async def test_a_pool_that_did_not_answer_is_read_wholly_and_a_suspect_one_is_left_for_that():
    mirror, emitted = mirror_of(Moved(A, "x"))
    (pool,) = mirror.pools.values()
    moving = Moving(mirror)
    moving.note(pool)

    async def nothing(pools: list[MirroredPool], tip: Header, moves: bool) -> dict[str, Slots]:
        return {}

    assert await moving.step(nothing, header(1)) == (1, [])
    assert mirror.suspect == {pool.ident} and not emitted
    assert await moving.step(nothing, header(1)) == (0, [])


def test_a_reading_of_a_block_that_is_gone_is_made_again_where_pools_may_move():
    mirror, _ = mirror_of(Moved(A, "x"), Still(B, "y"))
    mirror.blocks.append(block(2))
    mirror.undo()
    assert not mirror.suspect  # both were read below
    mirror.undo()
    assert mirror.suspect == {f"0x{0:040x}"}


def test_a_division_by_zero_is_what_the_contract_would_refuse():
    with pytest.raises(InsufficientLiquidity, match="revert"):
        Odometer((A, B)).amount_out(0, 1, 5)


def located(count: int, logs: int, later: int) -> list[list[str]]:
    steps = from_pool_list(A, [Log(A, ["0x01"], "0x", None, None, None)] * logs, later, 3)
    assert len(next(steps)) == 1
    listed = steps.send([f"0x{count:064x}"])
    assert len(listed) == logs
    coins = steps.send([f"0x{n + 1:064x}" for n in range(logs)])
    assert len(coins) == 3 * logs
    with pytest.raises(StopIteration) as done:
        steps.send([answer for _ in range(logs) for answer in (f"0x{11:064x}", f"0x{12:064x}", "0x")])
    return done.value.value


def test_pools_are_the_last_of_the_list_but_those_that_came_later():
    found = located(10, 2, 3)
    assert [[int(w, 16) for w in pool] for pool in found] == [[1, 5, 11, 12], [2, 6, 11, 12]]
    with pytest.raises(BadAnswer, match="lists 4 pools"):
        located(4, 2, 3)
