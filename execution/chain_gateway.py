"""A chain account's gateway: one nonce for an order, for ever; what may be in a mempool is never signed a second time.

placing   PREPARED durable → simulated → SIGNED durable, with the signed bytes → still valid → BROADCAST → PENDING
waiting   the same bytes again where the node forgot them; replaced, same nonce and same call, where it takes too long;
          past its validity replaced by nothing (a transfer of 0 to ourselves), because its nonce must be used up
mined     booked to the wei from the receipt's logs; FINAL, REVERTED or DROPPED only where no reorganisation reaches
orphaned  what was booked is booked back, the order is REORGED and waits again
restart   an order without signed bytes never left; all others are looked for by hash and nonce before anything new

However often it is sent, replaced or restarted, at most one of an order's transactions can be in the chain: they share
the nonce.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import Any

from execution.account import FillReport
from execution.chain_account import ChainAccount, ChainHead, SignedTransaction
from execution.chain_nonce import bumped
from execution.chain_rpc import NonceUsed, Underpriced
from execution.errors import Fenced, Refused, Throttled, VenueError
from execution.gateway import Gateway
from execution.orders import ORPHANED, Order
from execution.resolution import SECOND_NS, Resolver

log = logging.getLogger(__name__)

Record = dict[str, Any]


@dataclass
class ChainGateway(Gateway):
    """See the head of this file. ``account`` is a ChainAccount."""

    amends = False
    signed: dict[str, list[SignedTransaction]] = field(default_factory=dict[str, list[SignedTransaction]])
    """order id → its transactions, oldest first; all of one nonce."""
    booked: dict[str, list[FillReport]] = field(default_factory=dict[str, list[FillReport]])
    """order id → what was booked, takings-back included."""
    sent_at: dict[str, int] = field(default_factory=dict[str, int])
    """order id → block after which its newest transaction was sent."""
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.resolver = ChainResolver(self)

    @property
    def chain(self) -> ChainAccount:
        assert isinstance(self.account, ChainAccount)
        return self.account

    async def start(self) -> None:
        for record in await self.journal.open():
            self._replay(record)
        self.started_ns = self.clock.now_ns()
        for order in self.unfinished():
            if order.order_id not in self.signed and order.may("EXPIRED"):
                await self.to(order, "EXPIRED", "nothing was signed before the restart")
        while not await self.resolver.watch():
            await self.clock.sleep(1.0)
        self.ready = True

    def _replay(self, r: Record) -> None:
        super()._replay(r)
        if r["raw"]:
            self.signed.setdefault(r["order_id"], []).append(self.chain.read_signed(r["raw"]))
        if r["step"] == "FILL" and r["order_id"] in self.orders:
            told = {n: r[n] for n in ("price", "price_exp", "size", "size_exp", "fee", "fee_exp", "fee_asset", "maker", "value")}
            told |= {"side": self.orders[r["order_id"]].side_of(r["trade_id"]), "ts_venue_us": r["ts_venue_us"]}
            fill = FillReport(r["trade_id"], r["order_id"], r["venue_order_id"], r["cause"], **told)
            self.booked.setdefault(r["order_id"], []).append(fill)

    # Placing.

    async def send(self, order: Order) -> None:
        async with self._one:  # nonces leave in their order
            try:
                head = await self.chain.head()
                left_ns = order.intent["valid_until_ns"] - self.clock.now_ns()
                to, data = await self.chain.planned(order.intent, head, left_ns)
                gas = await self.chain.simulated(to, data)
                fees = self.chain.fees(head.base_fee)
            except VenueError as error:
                # Nothing is signed yet, so nothing can be anywhere.
                await self.to(order, "REJECTED", str(error))
                return
            taken = {self.signed[o.order_id][0].nonce for o in self.unfinished() if o.order_id in self.signed}
            nonce = self.chain.nonces.free(head.count, taken)
            tx = self.chain.sign(to, data, gas, nonce, fees)
            self.step("before SIGNED")
            await self._sign(order, tx, head, "SIGNED")
            self.step("after SIGNED")
            if reason := self.stopped(order.intent) or ("too late to leave" if self._late(order) else ""):
                self.counts.expired += 1
                # It never left this process, and is not kept anywhere but in the journal: its nonce is free.
                await self.to(order, "EXPIRED", reason)
                return
            self.counts.sent += 1
            await self.to(order, "BROADCAST", "", durable=False)
            self.step("before the socket")
            await self._broadcast(order, tx)

    async def _sign(self, order: Order, tx: SignedTransaction, head: ChainHead, state: str = "") -> None:
        """Make a signed transaction durable; only then may it leave."""
        self.signed.setdefault(order.order_id, []).append(tx)
        self._name(order, tx.hash)
        self.sent_at[order.order_id] = head.number
        if state:
            await self.to(order, state, f"nonce {tx.nonce}", raw=tx.raw)
        else:
            await self.journal.append(self._entry(order, "STATE") | {"raw": tx.raw})

    async def _broadcast(self, order: Order, tx: SignedTransaction) -> None:
        try:
            await self.chain.node.send(tx.raw)
        except (NonceUsed, Underpriced) as error:
            # The nonce is taken: by another transaction of this order, or by somebody else with our key. The watch sees.
            log.info("%s: %s: %s", self.account.account, order.order_id, error)
            await self.unknown(order, str(error))
        except (Refused, Throttled) as error:
            self.step("after the answer")
            if len(self.signed[order.order_id]) == 1 and order.state == "BROADCAST":
                await self.to(order, "DROPPED", f"the node would not take it: {error}")
            else:
                log.warning("%s: %s: %s", self.account.account, order.order_id, error)
        except VenueError as error:
            self.step("after the answer")
            await self.unknown(order, str(error))
        else:
            self.step("after the answer")
            if order.may("PENDING"):
                await self.to(order, "PENDING", "")

    def _late(self, order: Order) -> bool:
        return self.clock.now_ns() > order.intent["valid_until_ns"]

    async def ask_cancel(self, order: Order) -> None:
        """Remembered: the next look replaces it by nothing, unless it is mined by then."""
        order.cancel_wanted = order.cancel_wanted or "asked to"

    # Looking.

    async def look(self, order: Order, head: ChainHead) -> None:
        """Where one order's transactions are now, and what follows. Raises VenueError, Fenced."""
        txs = self.signed.get(order.order_id, [])
        if not txs:
            return
        receipt: Record | None = None
        mined = txs[-1]
        for tx in reversed(txs):
            if (receipt := await self.chain.receipt(tx.hash)) is not None:
                mined = tx
                break
        if (booked := self._booked(order)) is not None and (receipt is None or _trade_of(receipt) not in booked.trade_id):
            self.step("before the taking back")
            await self.take_fill(_taken_back(booked))
            self.booked[order.order_id].append(_taken_back(booked))
            if order.state == "MINED":
                await self.to(order, "REORGED", "its block is no longer in the chain")
        if receipt is None:
            await self._waiting(order, txs, head)
        else:
            await self._mined(order, mined, receipt, head)

    async def _mined(self, order: Order, tx: SignedTransaction, receipt: Record, head: ChainHead) -> None:
        number, good = int(receipt["blockNumber"], 16), receipt["status"] == "0x1"
        depth = head.number - number + 1
        end = ("DROPPED", "replaced by nothing") if tx.cancel else ("FINAL", "") if good else ("REVERTED", "reverted")
        self._name(order, tx.hash)
        if order.state != "MINED":
            await self.to(order, "MINED", f"block {number} {receipt['blockHash']} {end[1]}".rstrip())
        if depth >= self.chain.options.confirmations and self._booked(order) is None:
            number_of = len(self.booked.get(order.order_id, ()))
            fill = await self.chain.filled(order.intent, receipt, f"{_trade_of(receipt)}:{number_of}", order.order_id)
            await self.take_fill(fill)
            self.booked.setdefault(order.order_id, []).append(fill)
        if depth > self.chain.options.final_depth and self._booked(order) is not None:
            await self.to(order, end[0], end[1])

    async def _waiting(self, order: Order, txs: list[SignedTransaction], head: ChainHead) -> None:
        """None of its transactions is in the chain."""
        tx = txs[-1]
        if order.state == "MINED":
            await self.to(order, "REORGED", "its block is no longer in the chain")
        if head.final_count > tx.nonce:
            self.alarm(f"{order.order_id}: nonce {tx.nonce} was used by a transaction that is not ours")
            await self.to(order, "DROPPED", "its nonce was used by another transaction")
            return
        if head.count > tx.nonce:
            return  # taken, and not yet for good
        over = self._late(order) or order.cancel_wanted or bool(self.killed)
        knows = await self.chain.waits(tx.hash)
        slow = head.number - self.sent_at.setdefault(order.order_id, head.number) >= self.chain.options.bump_blocks
        if (over and not tx.cancel) or slow:
            fees = bumped(tx.fees, head.base_fee, self.chain.options.max_fee_wei)
            if fees is not None:
                cancel = over or tx.cancel
                new = self.chain.cancelling(tx.nonce, fees) if cancel else self.chain.sign(tx.to, tx.data, tx.gas, tx.nonce, fees)
                self.step("before the replacement")
                await self._sign(order, new, head)
                self.step("after the replacement is signed")
                await self._broadcast(order, new)
                return
            if not over:
                self.sent_at[order.order_id] = head.number
        if not knows:
            await self._broadcast(order, tx)
        elif order.may("PENDING"):
            await self.to(order, "PENDING", "the node holds it")

    def _booked(self, order: Order) -> FillReport | None:
        """What is booked of it now; None: nothing, or taken back."""
        past = self.booked.get(order.order_id)
        return past[-1] if past and not past[-1].trade_id.endswith(ORPHANED) else None


class ChainResolver(Resolver):
    """A chain gateway's questions; ``watch`` is all of them."""

    def __init__(self, gateway: ChainGateway) -> None:
        super().__init__(gateway)
        self._chain = gateway

    async def watch(self) -> bool:
        """Look at every order that is not over; False when the node could not be asked."""
        g = self._chain
        async with g._one:  # pyright: ignore[reportPrivateUsage]
            waiting = [o for o in g.unfinished() if o.state not in ("NEW", "PREPARED")]
            if not waiting:
                return True
            try:
                head = await g.chain.head()
                for order in waiting:
                    await g.look(order, head)
            except Fenced:
                raise
            except VenueError as error:
                log.info("%s: %s", g.account.account, error)
                return False
            return True

    async def ask(self, order: Order) -> None:
        await self.watch()

    async def sweep(self) -> None:
        await self.watch()

    async def fetch_fills(self, symbol: str | None = None) -> None:
        await self.watch()

    async def kill(self, reason: str, timeout_s: float = 60) -> bool:
        """Nothing new; what waits is replaced by nothing; True when no transaction of ours waits any more."""
        g = self._chain
        g.killed = reason or "killed"
        deadline = g.clock.now_ns() + int(timeout_s * SECOND_NS)
        while True:
            asked = await self.watch()
            left = [o for o in g.unfinished() if o.state != "MINED"]
            if asked and not left:
                return True
            if g.clock.now_ns() > deadline:
                g.alarm(f"{g.account.account}: {len(left)} transactions wait after the kill")
                return False
            await g.clock.sleep(0.2)


def _trade_of(receipt: Record) -> str:
    return f"{receipt['transactionHash']}:{receipt['blockHash'][2:18]}"


def _taken_back(fill: FillReport) -> FillReport:
    return replace(fill, trade_id=fill.trade_id + ORPHANED, side="SELL" if fill.side == "BUY" else "BUY", fee=-fill.fee)
