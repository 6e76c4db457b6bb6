"""A pool beside the books of a small world: its slots in chain.pool, its ladder in market.book, its blocks in chain.block."""

from __future__ import annotations

import random
from typing import Any

from market.pools.families import pool_of
from market.pools.ladder import ladder, scale_of
from market.pools.uniswap_v2 import UniswapV2Pool
from schemas.topics import CHAIN_BLOCK, CHAIN_POOL
from tests.trading_world import World

BASE, QUOTE = "0x" + "b" * 40, "0x" + "c" * 40
ADDRESS = "0x" + "a" * 40
CHAIN = "testchain"


class PoolWorld:
    """A constant-product pool ETH/USDT of 18 and 6 decimals at ``venue``, told to a world's log."""

    def __init__(self, world: World, rnd: random.Random, venue: str = "uni", ether: int = 2000, price: int = 3000) -> None:
        self.world, self.rnd, self.venue = world, rnd, venue
        self.pool = UniswapV2Pool(BASE, QUOTE, ether * 10**18, ether * price * 10**6)
        scale = scale_of(self.pool, 0, 1, 18, 6)
        assert scale is not None
        self.scale = scale
        self.number, self.index = 100, -1
        self.before: dict[str, int] = {}
        self.shown: tuple[dict[int, int], dict[int, int]] = ({}, {})
        steps = {"tick_size": f"1e{self.scale.price_exp}", "lot_size": f"1e{self.scale.size_exp}", "min_size": None}
        world.list(venue, "ETH/USDT", min_notional=None, taker_fee_bps="30", native_id=ADDRESS, **steps)
        self.tell("SNAPSHOT")
        self.block("COMPLETE")

    def parameters(self, cex: str, **more: Any) -> dict[str, Any]:
        """The entry of ``[[parameters.pools]]``."""
        return {
            "chain": CHAIN, "address": ADDRESS, "pool": f"{self.venue}|ETH/USDT", "cex": cex, "base_token": BASE,
            "base_decimals": 18, "quote_decimals": 6, **more,
        }  # fmt: skip

    @property
    def slots(self) -> dict[str, int]:
        return {"reserve0": self.pool.reserve0, "reserve1": self.pool.reserve1}

    def tell(self, kind: str, slots: dict[str, int] | None = None, event: str = "Sync", number: int = 0) -> None:
        """A record of chain.pool."""
        self.index += 1
        values = self.slots if slots is None else slots
        fixed = {"protocol": "uniswap-v2", "factory": "0x1", "token0": BASE, "token1": QUOTE, "fee_num": "3", "fee_den": "1000"}
        self.world.record(CHAIN_POOL.name, {
            "chain": CHAIN, "pool": ADDRESS, "kind": kind, "epoch": 1, "index": self.index, "event": event,
            "block_number": number or self.number, "block_hash": bytes(32), "tx_hash": b"", "log_index": 0,
            "slots": list(values), "values": [v.to_bytes(32, "big") for v in values.values()],
            "fixed": [f"{k}={v}" for k, v in fixed.items()] if kind == "SNAPSHOT" else [],
            "ts_received_ns": self.world.now_ns,
        })  # fmt: skip

    def block(self, kind: str, number: int = 0) -> None:
        """A record of chain.block; a COMPLETE one comes with the pool's ladder."""
        if kind == "COMPLETE":
            self.show()
        self.world.record(CHAIN_BLOCK.name, {
            "chain": CHAIN, "kind": kind, "number": number or self.number, "hash": bytes(32), "parent_hash": bytes(32),
            "ts_block_us": self.world.now_ns // 1000, "base_fee_wei": 10**9, "events": 1, "logs": 1,
            "ts_received_ns": self.world.now_ns,
        })  # fmt: skip

    def show(self) -> None:
        """The ladder as it is now, as a change of the book."""
        bp, bs, ap, az = ladder(self.pool, 0, 1, self.scale)
        now = dict(zip(bp, bs, strict=True)), dict(zip(ap, az, strict=True))
        delta = [[*((p, 0) for p in was if p not in new), *new.items()] for was, new in zip(self.shown, now, strict=True)]
        self.shown = now
        self.world.book(
            self.venue, "ETH/USDT", delta[0], delta[1], price_exp=self.scale.price_exp, size_exp=self.scale.size_exp
        )

    def swap(self, base: int, *, buy: bool) -> None:
        """Somebody trades this much base with the pool, in a block of its own."""
        self.number += 1
        self.before = self.slots
        i, j = (1, 0) if buy else (0, 1)
        paid, got = (self.pool.amount_in(1, 0, base), base) if buy else (base, self.pool.amount_out(0, 1, base))
        for n, change in ((i, paid), (j, -got)):
            setattr(self.pool, f"reserve{n}", getattr(self.pool, f"reserve{n}") + change)
        self.tell("DELTA")
        self.block("COMPLETE")

    def retract(self) -> None:
        """The last swap's block is orphaned; nothing stands in its place yet."""
        if not self.before:
            return
        for name, value in self.before.items():
            setattr(self.pool, name, value)
        self.before = {}
        self.tell("RETRACT")
        self.block("RETRACTED")

    def step(self) -> None:
        """Something happens on the chain."""
        roll = self.rnd.random()
        if roll < 0.05:
            self.retract()
        elif roll < 0.7:
            self.swap(self.rnd.randint(10**15, 8 * 10**18), buy=self.rnd.random() < 0.5)
        else:
            self.number += 1
            self.block("COMPLETE")


def fresh(pool: UniswapV2Pool) -> UniswapV2Pool:
    """A copy that may be traded on."""
    made = pool_of(pool.to_state())
    assert isinstance(made, UniswapV2Pool)
    return made
