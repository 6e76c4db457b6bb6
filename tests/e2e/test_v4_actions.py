"""What is read out of V4's actions, against Uniswap's own V4Router on a real EVM: it makes these swaps, in these pools."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.dex.routers import IntendedSwap, intended
from simulator.evm import Evm, encode
from simulator.evm_dex import Dex, Token
from simulator.evm_traffic import pool_id_of
from tests.evm_state import require_npm

MAX = (1 << 128) - 1
SINGLE = "x(((address,address,uint24,int24,address),bool,uint128,uint128,bytes))"
PATH = "x((address,(address,uint24,int24,address,bytes)[],uint128,uint128))"


class Floor:
    """Three tokens, two pools of V4, and the router of its package (with the test's own way to pay)."""

    def __init__(self, evm: Evm) -> None:
        self.evm, self.dex = evm, Dex(evm)
        name = "@uniswap/v4-periphery/foundry-out/MockV4Router.sol/MockV4Router.json"
        self.router = evm.deploy(self.dex.artifact(name), ["address"], [self.dex.v4_manager])
        self.a, self.b, self.c = (self.dex.token(symbol) for symbol in "ABC")
        self.keys = (self.dex.v4_key(self.a, self.b, 500, 10), self.dex.v4_key(self.b, self.c, 3000, 60))
        for key in self.keys:
            self.dex.v4_create(key, 1 << 96)
            evm.transact(*self.dex.v4_modify(key, -6000, 6000, 10**21))
        for token in (self.a, self.b, self.c):
            evm.transact(token.address, encode("approve(address,uint256)", self.router, (1 << 256) - 1))

    def balance(self, token: Token) -> int:
        return self.evm.read(token.address, "balanceOf(address)", ["uint256"], self.dex.owner)

    def quote(self, key: tuple[Any, ...], paid: Token, amount: int) -> int:
        return self.dex.v4_quote(key, key[0] == paid.address, amount, exact_out=False)

    def swap(self, action: int, given: bytes, paid: Token, bought: Token) -> tuple[IntendedSwap, int, int]:
        """Let the router do it; gives (what was read, paid, bought)."""
        settle = encode("x(address,uint256)", paid.address, MAX)[4:]
        take = encode("x(address,uint256)", bought.address, 0)[4:]
        command = encode("x(bytes,bytes[])", bytes([action, 0x0C, 0x0F]), [given, settle, take])[4:]
        before = self.balance(paid), self.balance(bought)
        self.evm.transact(self.router, encode("executeActions(bytes)", command))
        (read,) = intended("0x" + encode("execute(bytes,bytes[])", bytes([0x10]), [command]).hex(), 0)
        return read, before[0] - self.balance(paid), self.balance(bought) - before[1]


@pytest.fixture(scope="module")
def floor():
    require_npm()
    with Evm() as evm:
        yield Floor(evm)


@pytest.mark.parametrize("forth", [True, False])
def test_one_pool(floor: Floor, forth: bool) -> None:
    paid, bought = (floor.a, floor.b) if forth else (floor.b, floor.a)
    key = floor.keys[0]
    expected = floor.quote(key, paid, 10**15)
    zero_for_one = key[0] == paid.address
    read, spent, got = floor.swap(0x06, encode(SINGLE, (key, zero_for_one, 10**15, 1, b""))[4:], paid, bought)
    assert (read.tokens, read.amount, read.limit, read.exact_out) == ((paid.address, bought.address), spent, 1, False)
    assert (read.fees, read.pool_ids, got) == ((500,), (pool_id_of(key),), expected)
    read, spent, got = floor.swap(0x08, encode(SINGLE, (key, zero_for_one, 10**14, MAX, b""))[4:], paid, bought)
    assert (read.tokens, read.amount, read.exact_out) == ((paid.address, bought.address), got, True)
    assert spent > 0


def test_two_pools_in_a_row(floor: Floor) -> None:
    (one, two), ids = floor.keys, tuple(pool_id_of(key) for key in floor.keys)
    expected = floor.quote(two, floor.b, floor.quote(one, floor.a, 10**15))
    there = [(floor.b.address, *one[2:], b""), (floor.c.address, *two[2:], b"")]
    read, spent, got = floor.swap(0x07, encode(PATH, (floor.a.address, there, 10**15, 1))[4:], floor.a, floor.c)
    assert (read.tokens, read.amount) == ((floor.a.address, floor.b.address, floor.c.address), spent)
    assert (read.fees, read.pool_ids, got) == ((500, 3000), ids, expected)
    back = [(floor.a.address, *one[2:], b""), (floor.b.address, *two[2:], b"")]
    read, spent, got = floor.swap(0x09, encode(PATH, (floor.c.address, back, 10**14, MAX))[4:], floor.a, floor.c)
    assert (read.tokens, read.amount) == ((floor.a.address, floor.b.address, floor.c.address), got)
    assert (read.fees, read.pool_ids, read.exact_out) == ((500, 3000), ids, True)
    assert spent > 0
