"""The pending view's connection: transactions from the nodes' pools in, chain.pending out.

A subscription with bodies where the node has one, else hashes and their bodies by batches. At each head the watched
transactions are asked for, at most ``pending_calls`` of them: that tells mined, dropped and replaced apart.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec

from collectors.dex.blocks import from_json
from collectors.dex.errors import BadAnswer, ChainError
from collectors.dex.follower import Follower
from collectors.dex.metrics import ChainCounts
from collectors.dex.nodes import Nodes
from collectors.dex.pending import PendingPool, PendingSwap, Short, Transaction
from collectors.dex.publisher import ChainPublisher
from collectors.dex.routers import POOLS_OWN_FEE, IntendedSwap
from config.chains import ChainSettings

log = logging.getLogger(__name__)

WAITING_MAX = 4096
BODIES = 100
RECONNECT_S = 1.0
BODIES_EVERY_S = 0.05
LONG_MAX = (1 << 63) - 1


class _Block(msgspec.Struct):
    number: Short = "0x0"
    transactions: list[Transaction] = msgspec.field(default_factory=list[Transaction])


class PendingFeed:
    """Runs beside the follower; a failure here never stops the mirror. ``tasks`` starts it, ``at_head`` after each head."""

    def __init__(
        self, settings: ChainSettings, nodes: Nodes, follower: Follower, publisher: ChainPublisher, counts: ChainCounts
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        self.follower = follower
        self.publisher = publisher
        self.counts = counts
        self.factories = {r.address.lower(): {f.lower() for f in r.factories} for r in settings.routers}
        self.pool = PendingPool(self.factories, self._emit, counts, limit=settings.pending_max)
        self.open = 0
        """Subscriptions that a node has confirmed."""
        self._hashes: deque[str] = deque()
        self._pools: dict[tuple[str, str, int], list[tuple[str, str]]] = {}
        self._indexed = -1

    def tasks(self) -> list[asyncio.Task[None]]:
        """Start them."""
        out = [asyncio.create_task(self._listen(url), name="pending") for url in self.settings.ws_urls]
        out.append(asyncio.create_task(self._bodies(), name="bodies of pending transactions"))
        if self.settings.preconfirmed_ms:
            out.append(asyncio.create_task(self._preconfirmed(), name="the block in the making"))
        return out

    async def at_head(self) -> None:
        """The follower stands at a new head."""
        ring, tip = self.follower.chain.ring, self.follower.chain.tip
        if tip is None:
            return

        def stands(number: int, block_hash: str) -> bool:
            header = ring.get(number)
            return header is not None and header.hash == block_hash

        self.pool.at_head(stands, self.follower.chain.final)
        due = self.pool.due(self.settings.pending_calls)
        if not due:
            return
        try:
            found: list[Transaction | None] = await self.nodes.batch(
                [("eth_getTransactionByHash", [h]) for h in due], kind=Transaction | None
            )
        except ChainError as error:
            log.info("pending: %s", error)
            return
        for tx_hash, tx in zip(due, found, strict=True):
            # A block that is not followed yet (or any more) counts when it is.
            if tx is not None and tx.block_hash and not stands(int(tx.block_number or "0x0", 16), tx.block_hash):
                continue
            self.pool.answered(tx_hash, tx, tip.number)

    # In.

    async def _listen(self, url: str) -> None:
        bodies = True
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.ws_connect(url, max_msg_size=1 << 24) as ws:
                        params: list[Any] = ["newPendingTransactions", *([True] if bodies else [])]
                        await ws.send_json({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": params})
                        bodies = await self._frames(ws) and bodies
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    log.info("pending of %s: %s", url, error)
                await asyncio.sleep(RECONNECT_S)

    async def _frames(self, ws: aiohttp.ClientWebSocketResponse) -> bool:
        """Read until it closes; False: the subscription was refused, as by nodes that give hashes only."""
        confirmed = False
        try:
            async for message in ws:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    return True
                frame: Any = msgspec.json.decode(message.data)
                if not isinstance(frame, dict):
                    continue
                if "error" in frame:
                    return False
                if not confirmed and "id" in frame:
                    confirmed = True
                    self.open += 1
                params: Any = frame.get("params")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
                self._hear(params.get("result") if isinstance(params, dict) else None)
            return True
        finally:
            self.open -= confirmed

    def _hear(self, result: Any) -> None:
        if isinstance(result, dict):
            self._take(result)
        elif isinstance(result, str) and len(result) == 66:
            if len(self._hashes) < WAITING_MAX:
                self._hashes.append(result)
            else:
                self.counts.pending_unasked += 1

    def _take(self, body: Any) -> None:
        try:
            self.pool.take(from_json(body, Transaction))
        except BadAnswer:
            self.counts.pending_unreadable += 1

    async def _bodies(self) -> None:
        while True:
            await asyncio.sleep(BODIES_EVERY_S)
            part = [self._hashes.popleft() for _ in range(min(BODIES, len(self._hashes)))]
            if not part:
                continue
            try:
                found: list[Transaction | None] = await self.nodes.batch(
                    [("eth_getTransactionByHash", [h]) for h in part], kind=Transaction | None
                )
            except ChainError as error:
                log.info("pending: %s", error)
                self.counts.pending_unasked += len(part)
                continue
            for tx in found:
                if tx is not None:
                    self.pool.take(tx)

    async def _preconfirmed(self) -> None:
        while True:
            await asyncio.sleep(self.settings.preconfirmed_ms / 1000)
            try:
                block: _Block | None = await self.nodes.call("eth_getBlockByNumber", "pending", True, kind=_Block | None)
            except ChainError as error:
                log.info("the block in the making: %s", error)
                continue
            if block is not None:
                for tx in block.transactions:
                    self.pool.take(tx)
                self.pool.preconfirmed(int(block.number, 16), (tx.hash for tx in block.transactions))

    # Out.

    def _emit(self, pending: PendingSwap) -> None:
        tx = pending.transaction
        price = tx.max_fee_per_gas or tx.gas_price
        for leg, swap in enumerate(pending.swaps):
            self.publisher.pending({
                "state": pending.state,
                "reason": pending.reason,
                "tx_hash": bytes.fromhex(tx.hash[2:]),
                "sender": tx.sender.lower(),
                "nonce": int(tx.nonce, 16),
                "router": (tx.to or "").lower(),
                "leg": leg,
                "legs": len(pending.swaps),
                "method": swap.method,
                "exact_out": swap.exact_out,
                "tokens": list(swap.tokens),
                "fees": list(swap.fees),
                "pools": self._route(swap, self.factories.get((tx.to or "").lower(), set())),
                "amount": swap.amount.to_bytes(32, "big"),
                "limit": swap.limit.to_bytes(32, "big"),
                "value_wei": int(tx.value, 16).to_bytes(32, "big"),
                "max_fee_wei": min(LONG_MAX, int(price, 16)) if price else LONG_MAX,
                "priority_fee_wei": -1 if tx.max_priority_fee_per_gas is None
                else min(LONG_MAX, int(tx.max_priority_fee_per_gas, 16)),
                "deadline_us": -1 if swap.deadline_s < 0 else min(LONG_MAX, swap.deadline_s * 1_000_000),
                "block_number": pending.block_number,
                "block_hash": bytes.fromhex(pending.block_hash[2:]),
                "replaced_by": bytes.fromhex(pending.replaced_by[2:]),
                "ts_seen_ns": pending.seen_ns,
                "ts_received_ns": time.time_ns(),
            })  # fmt: skip

    def _route(self, swap: IntendedSwap, factories: set[str]) -> list[str]:
        pools = self.follower.mirror.pools
        if swap.pool_ids:
            named = (pools.get(ident) for ident in swap.pool_ids)
            return ["" if p is None or (factories and p.protocol.address not in factories) else p.ident for p in named]
        if self._indexed != len(pools):
            self._indexed = len(pools)
            self._pools.clear()
            for p in pools.values():
                fee = POOLS_OWN_FEE if p.protocol.name == "uniswap-v2" else int(p.fixed.get("fee", 0))
                if p.protocol.name in ("uniswap-v2", "uniswap-v3"):
                    pair = (p.fixed["token0"], p.fixed["token1"], fee)
                    self._pools.setdefault(pair, []).append((p.protocol.address, p.ident))
        out: list[str] = []
        for hop, fee in zip(pairwise(swap.tokens), swap.fees, strict=True):
            low, high = sorted(hop)
            found = self._pools.get((low, high, fee), [])
            out.append(next((ident for factory, ident in found if not factories or factory in factories), ""))
        return out
