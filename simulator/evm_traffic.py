"""Random life on a local chain: swaps, mints, burns, new pools, and reorganisations, all from one seed."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from math import isqrt
from typing import Any

from simulator.evm import Evm, EvmError
from simulator.evm_dex import V3_SPACING, Action, Dex, Token
from simulator.evm_solidly import Solidly

Q96 = 1 << 96


@dataclass
class TrafficPool:
    """A pool that the traffic knows of; ``key`` is V4's."""

    kind: str
    ident: str
    a: Token
    b: Token
    fee: int = 0
    spacing: int = 0
    key: tuple[Any, ...] = ()
    centre: int = 0
    """The tick around which its positions lie."""
    stable: bool = False
    """Solidly: which of the two curves."""


class Traffic:
    """Acts on the chain. ``reorg_share`` of the steps replace up to ``reorg_depth`` blocks."""

    def __init__(
        self, evm: Evm, dex: Dex, seed: int, *, reorg_share: float = 0.25, reorg_depth: int = 6,
        solidly: Solidly | None = None,
    ) -> None:  # fmt: skip
        self.evm = evm
        self.dex = dex
        self.solidly = solidly
        self.rng = random.Random(seed)  # noqa: S311 - a seed to repeat
        self.reorg_share = reorg_share
        self.reorg_depth = reorg_depth
        self.pools: list[TrafficPool] = []
        self.steps = self.reorgs = self.orphaned = 0

    def start(self, v2: int = 2, v3: int = 2, v4: int = 1) -> None:
        """Tokens, pools, first liquidity."""
        tokens = [self.dex.token("WETH"), self.dex.token("USDC", 6), self.dex.token("DAI")]
        pairs = [(tokens[0], tokens[1]), (tokens[0], tokens[2]), (tokens[1], tokens[2])]
        for n in range(v2):
            self._create("v2", *pairs[n % 3])
        for n in range(v3):
            self._create("v3", *pairs[n % 3], fee=list(V3_SPACING)[(n // 3 + 1) % 3])
        for n in range(v4):
            self._create("v4", *pairs[n % 3], fee=500 + n, spacing=10)
        if self.solidly is not None:
            self._create_solidly(*pairs[0], stable=False)
            self._create_solidly(*pairs[2], stable=True)

    def step(self) -> None:
        """One action: a block with some transactions, or a reorganisation with others in its new branch."""
        self.steps += 1
        if self.rng.random() < self.reorg_share:
            depth = self.rng.randint(1, self.reorg_depth)
            transactions: list[tuple[dict[str, Any], int]] = []
            for _ in range(self.rng.randint(0, 4)):
                for to, data in self.action():
                    transactions.append((self.evm.transaction(to, data), self.rng.randrange(depth)))
            transactions.sort(key=lambda t: t[1])
            with contextlib.suppress(EvmError):  # a chain that is shorter than the depth
                self.evm.reorg(depth, transactions)
                self.reorgs += 1
                self.orphaned += depth
            return
        for _ in range(self.rng.randint(1, 4)):
            for to, data in self.action():
                self.evm.send(to, data)
        self.evm.mine(self.rng.choice((1, 1, 1, 2)))

    def action(self) -> list[Action]:
        """The transactions of one random change to one random pool; the chain may refuse them."""
        pool = self.rng.choice(self.pools)
        return {"v2": self._v2, "v3": self._v3, "v4": self._v4, "solidly": self._solidly}[pool.kind](pool)

    def _size(self, low: int = 2, high: int = 20) -> int:
        return self.rng.randrange(1, 10 ** self.rng.randint(low, high))

    def _v2(self, p: TrafficPool) -> list[Action]:
        a, b = self.rng.sample((p.a, p.b), 2)
        roll = self.rng.random()
        if roll < 0.55:
            return [self.dex.v2_swap(a, b, self._size())]
        if roll < 0.7:
            return self.dex.v2_donate(p.ident, a, self._size())
        if roll < 0.9:
            return [self.dex.v2_add(a, b, self._size(6), self._size(6))]
        return self.dex.v2_remove(p.ident, a, b, self._size(6, 18))

    def _v3(self, p: TrafficPool) -> list[Action]:
        a, b = self.rng.sample((p.a, p.b), 2)
        roll = self.rng.random()
        if roll < 0.55:
            return [self.dex.v3_swap(a, b, p.fee, self._size())]
        if roll < 0.85:
            spacing = V3_SPACING[p.fee]
            centre, width = self.rng.randint(-8, 8), self.rng.choice((1, 1, 2, 4, 20))
            return [self.dex.v3_mint(a, b, p.fee, (centre - width) * spacing, (centre + width) * spacing, self._size(9))]
        position = self.rng.randint(1, 60)
        return [self.dex.v3_burn(position, self.rng.choice((0, self._size(6, 22))))]

    def _v4(self, p: TrafficPool) -> list[Action]:
        roll = self.rng.random()
        if roll < 0.6:
            return [self.dex.v4_swap(p.key, self.rng.random() < 0.5, self._size())]
        centre, width = self.rng.randint(-8, 8), self.rng.choice((1, 1, 2, 4, 20))
        lower, upper = (centre - width) * p.spacing, (centre + width) * p.spacing
        amount = self._size(9, 22)
        return [self.dex.v4_modify(p.key, lower, upper, amount if roll < 0.85 else -amount)]

    def _solidly(self, p: TrafficPool) -> list[Action]:
        own = self.solidly
        assert own is not None
        a, b = self.rng.sample((p.a, p.b), 2)
        roll = self.rng.random()
        if roll < 0.6:
            return [own.swap(a, b, self._size(), stable=p.stable)]
        if roll < 0.75:
            return own.donate(p.ident, a, self._size())
        if roll < 0.92:
            return [own.add(a, b, self._size(6), self._size(6), stable=p.stable)]
        return [own.remove(a, b, self._size(6, 18), stable=p.stable)]

    def _create_solidly(self, a: Token, b: Token, *, stable: bool) -> None:
        assert self.solidly is not None
        pool = TrafficPool("solidly", self.solidly.create(a, b, stable=stable), a, b, stable=stable)
        # A stable pool takes its first deposit only in equal parts.
        parts = [self.rng.randint(1, 4)] * 2 if stable else [self.rng.randint(1, 4), self.rng.randint(1, 4)]
        amounts = [10 ** (t.decimals + part) for t, part in zip((a, b), parts, strict=True)]
        self.evm.transact(*self.solidly.add(a, b, *amounts, stable=stable))
        self.pools.append(pool)

    def _create(self, kind: str, a: Token, b: Token, fee: int = 0, spacing: int = 0) -> None:
        price = isqrt(Q96 * Q96 * self.rng.randrange(900, 1100) // 1000)
        if kind == "v2":
            pool = TrafficPool(kind, self.dex.v2_create(a, b), a, b)
            self.evm.transact(*self.dex.v2_add(a, b, self._size(20, 22), self._size(20, 22)))
        elif kind == "v3":
            pool = TrafficPool(kind, self.dex.v3_create(a, b, fee, price), a, b, fee)
            reach = 100 * V3_SPACING[fee]
            self.evm.transact(*self.dex.v3_mint(a, b, fee, -reach, reach, 10**21))
        else:
            key = self.dex.v4_key(a, b, fee, spacing)
            self.dex.v4_create(key, price)
            self.evm.transact(*self.dex.v4_modify(key, -100 * spacing, 100 * spacing, 10**21))
            pool = TrafficPool(kind, pool_id_of(key), a, b, fee, spacing, key)
        self.pools.append(pool)


def pool_id_of(key: tuple[Any, ...]) -> str:
    """The hash of a V4 pool's key."""
    from web3 import Web3

    types = ["address", "address", "uint24", "int24", "address"]
    return "0x" + bytes(Web3.keccak(Web3().codec.encode(types, list(key)))).hex()
