"""A venue's accounts, orders and executions, in the venue's own words, with its own exact books. No I/O, no clock.

Rules as on Binance spot: money is locked while an order rests; the fee is taken from what one receives, truncated at
eight decimals; client order ids must be unique among open orders only; executions are numbered for each symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Literal

from simulator.matching import MatchingEngine, Resting, Side

UNIT = Decimal("0.00000001")
ZERO = Decimal(0)


class TradingError(Exception):
    """The venue's refusal, with its own code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Listing:
    """One instrument of the trading venue."""

    native: str
    base: str
    quote: str
    tick: Decimal = Decimal("0.01")
    lot: Decimal = Decimal("0.00001")
    min_notional: Decimal = Decimal(5)
    maker_fee: Decimal = Decimal("0.001")
    taker_fee: Decimal = Decimal("0.001")


@dataclass(slots=True)
class VenueOrder:
    """One order as the venue keeps it."""

    order_id: int
    client_id: str
    owner: str
    native: str
    side: Side
    price: Decimal
    size: Decimal
    tif: str
    status: str
    time_ms: int
    filled: Decimal = ZERO
    quote_filled: Decimal = ZERO
    update_ms: int = 0

    @property
    def left(self) -> Decimal:
        return self.size - self.filled


@dataclass(frozen=True, slots=True)
class Execution:
    """One side of one trade."""

    trade_id: int
    order_id: int
    client_id: str
    owner: str
    native: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    fee_asset: str
    maker: bool
    time_ms: int


Event = tuple[Literal["order", "trade", "balance"], VenueOrder, Execution | None]


@dataclass
class TradingCore:
    """All that happens on the venue. ``listen`` is told of each owner's order changes and executions, in order."""

    listings: dict[str, Listing]
    balances: dict[str, dict[str, list[Decimal]]] = field(default_factory=dict)
    """owner → asset → [free, locked]."""
    orders: dict[int, VenueOrder] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    listen: Callable[[VenueOrder, Execution | None], None] = lambda order, execution: None
    on_book: Callable[[str, Side, Decimal], None] = lambda native, side, price: None
    post_only_ends: bool = False
    """A post-only order that would take is taken and cancelled at once (OKX), not refused (Binance)."""
    placed: dict[tuple[str, str], int] = field(default_factory=dict)
    """(owner, client id) → how many orders the venue ever took of that id: the drill's truth."""
    _engines: dict[str, MatchingEngine] = field(default_factory=dict)
    _open_ids: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _next_order: int = 1000
    _next_trade: int = 5000

    def deposit(self, owner: str, asset: str, amount: str | Decimal) -> None:
        """Money from nowhere."""
        self._of(owner, asset)[0] += Decimal(amount)

    def engine(self, native: str) -> MatchingEngine:
        """The book of an instrument; raises TradingError for one that is not listed."""
        if native not in self.listings:
            raise TradingError(-1121, "Invalid symbol.")
        return self._engines.setdefault(native, MatchingEngine())

    def place(
        self, owner: str, native: str, side: Side, price: Decimal, size: Decimal, tif: str, client_id: str, now_ms: int
    ) -> tuple[VenueOrder, list[Execution]]:
        """Take an order: GTC, IOC, FOK or POST_ONLY (LIMIT_MAKER). Raises TradingError and then nothing has changed."""
        listing, engine = self.listings.get(native), self.engine(native)
        assert listing is not None
        self._check(listing, price, size)
        if (owner, native, client_id) in self._open_ids:
            raise TradingError(-2010, "Duplicate order sent.")
        p, s = int(price / listing.tick), int(size / listing.lot)
        crossing = engine.crossing(side, p)
        if tif == "POST_ONLY" and crossing and not self.post_only_ends:
            raise TradingError(-2010, "Order would immediately match and take.")
        asset, amount = (listing.quote, price * size) if side == "BUY" else (listing.base, size)
        if self._of(owner, asset)[0] < amount:
            raise TradingError(-2010, "Account has insufficient balance for requested action.")
        self._next_order += 1
        order = VenueOrder(self._next_order, client_id, owner, native, side, price, size, tif, "NEW", now_ms, update_ms=now_ms)
        self.orders[order.order_id] = order
        self.placed[(owner, client_id)] = self.placed.get((owner, client_id), 0) + 1
        self._lock(owner, asset, amount)
        self.listen(order, None)
        if tif == "FOK" and crossing < s:
            self._end(order, "EXPIRED", now_ms)
            return order, []
        if tif == "POST_ONLY" and crossing:
            self._end(order, "CANCELED", now_ms)
            return order, []
        matches, left = engine.match(owner, side, p, s)
        done: list[Execution] = []
        for match in matches:
            done.append(self._trade(order, match.maker, match.price * listing.tick, match.size * listing.lot, now_ms))
            self.on_book(native, match.maker.side, match.price * listing.tick)
        if left and tif in ("IOC", "FOK"):
            self._end(order, "EXPIRED", now_ms)
        elif left:
            self._open_ids[(owner, native, client_id)] = order.order_id
            engine.rest(Resting(order.order_id, owner, side, p, left))
            self.on_book(native, side, price)
        return order, done

    def cancel(self, owner: str, native: str, order: VenueOrder | None, now_ms: int) -> VenueOrder:
        """Take a resting order out. Raises TradingError when it does not rest."""
        if order is None or order.owner != owner or not self.engine(native).cancel(order.order_id):
            raise TradingError(-2011, "Unknown order sent.")
        self._end(order, "CANCELED", now_ms)
        self.on_book(native, order.side, order.price)
        return order

    def hit(self, order: VenueOrder, taker: str, now_ms: int) -> None:
        """Somebody takes a resting order whole, past everybody else in the book, with money from nowhere."""
        listing, engine = self.listings[order.native], self.engine(order.native)
        resting, size = engine.resting[order.order_id], order.left
        engine.cancel(order.order_id)
        resting.left = 0
        side: Side = "SELL" if order.side == "BUY" else "BUY"
        self.deposit(taker, *((listing.base, size) if side == "SELL" else (listing.quote, order.price * size)))
        self._next_order += 1
        other = VenueOrder(
            self._next_order, f"hit{self._next_order}", taker, order.native, side, order.price, size, "IOC", "NEW", now_ms
        )
        self.orders[other.order_id] = other
        self._lock(taker, *((listing.base, size) if side == "SELL" else (listing.quote, order.price * size)))
        self._trade(other, resting, order.price, size, now_ms)
        self.on_book(order.native, order.side, order.price)

    def amend(self, owner: str, order: VenueOrder, price: Decimal, size: Decimal, now_ms: int) -> VenueOrder:
        """Change a resting order's price and size; it loses its place unless it only gets smaller at its price.

        Raises TradingError when it does not rest, when the new one is not possible, or when it would trade at once.
        """
        listing, engine = self.listings[order.native], self.engine(order.native)
        self._check(listing, price, size)
        if order.status not in ("NEW", "PARTIALLY_FILLED") or size <= order.filled:
            raise TradingError(-2011, "Unknown order sent.")
        if engine.crossing(order.side, int(price / listing.tick)):
            raise TradingError(-2010, "Order would immediately match and take.")
        asset, before = (listing.quote, order.price * order.left) if order.side == "BUY" else (listing.base, order.left)
        after = (price if order.side == "BUY" else Decimal(1)) * (size - order.filled)
        if self._of(owner, asset)[0] < after - before:
            raise TradingError(-2010, "Account has insufficient balance for requested action.")
        self._lock(owner, asset, after - before)
        old, keeps = order.price, price == order.price and size <= order.size
        order.price, order.size, order.update_ms = price, size, now_ms
        lots = int(order.left / listing.lot)
        if keeps:
            engine.resting[order.order_id].left = lots
        else:
            engine.cancel(order.order_id)
            engine.rest(Resting(order.order_id, owner, order.side, int(price / listing.tick), lots))
            self.on_book(order.native, order.side, old)
        self.on_book(order.native, order.side, price)
        self.listen(order, None)
        return order

    def find(self, owner: str, native: str, client_id: str = "", order_id: int = 0) -> VenueOrder | None:
        """The newest order of an id."""
        if order_id:
            order = self.orders.get(order_id)
            return order if order is not None and order.owner == owner and order.native == native else None
        for order in reversed(self.orders.values()):
            if order.owner == owner and order.native == native and order.client_id == client_id:
                return order
        return None

    def open_orders(self, owner: str, native: str = "") -> list[VenueOrder]:
        """What rests, oldest first."""
        return [
            o for o in self.orders.values()
            if o.owner == owner and o.status in ("NEW", "PARTIALLY_FILLED") and native in ("", o.native)
        ]  # fmt: skip

    def trades(self, owner: str, native: str, since_ms: int = 0) -> list[Execution]:
        """An account's executions, oldest first."""
        return [e for e in self.executions if e.owner == owner and e.native == native and e.time_ms >= since_ms]

    def totals(self, owner: str) -> dict[str, Decimal]:
        """Free and locked together, by asset."""
        return {asset: free + locked for asset, (free, locked) in self.balances.get(owner, {}).items()}

    def _check(self, listing: Listing, price: Decimal, size: Decimal) -> None:
        if price <= 0 or price % listing.tick:
            raise TradingError(-1013, "Filter failure: PRICE_FILTER")
        if size <= 0 or size % listing.lot:
            raise TradingError(-1013, "Filter failure: LOT_SIZE")
        if price * size < listing.min_notional:
            raise TradingError(-1013, "Filter failure: NOTIONAL")

    def _trade(self, taker: VenueOrder, resting: Resting, price: Decimal, size: Decimal, now_ms: int) -> Execution:
        maker = self.orders[resting.order_id]
        self._next_trade += 1
        # The maker hears of it first, as at a real venue, whose feed is in the engine's order.
        self._settle(maker, price, size, True, now_ms)
        if not resting.left:
            self._open_ids.pop((maker.owner, maker.native, maker.client_id), None)
        return self._settle(taker, price, size, False, now_ms)

    def _settle(self, order: VenueOrder, price: Decimal, size: Decimal, maker: bool, now_ms: int) -> Execution:
        listing = self.listings[order.native]
        rate = listing.maker_fee if maker else listing.taker_fee
        value = price * size
        if order.side == "BUY":
            got, received, spent, asset = size, listing.base, order.price * size, listing.quote
            # Locked at the limit, traded at the better price: the difference is free again.
            self._of(order.owner, asset)[1] -= spent
            self._of(order.owner, asset)[0] += spent - value
        else:
            got, received = value, listing.quote
            self._of(order.owner, listing.base)[1] -= size
        fee = (got * rate).quantize(UNIT, ROUND_DOWN)
        self._of(order.owner, received)[0] += got - fee
        order.filled += size
        order.quote_filled += value
        order.update_ms = now_ms
        order.status = "FILLED" if order.filled == order.size else "PARTIALLY_FILLED"
        done = Execution(
            self._next_trade, order.order_id, order.client_id, order.owner, order.native, order.side, price, size, fee,
            received, maker, now_ms,
        )  # fmt: skip
        self.executions.append(done)
        self.listen(order, done)
        return done

    def _end(self, order: VenueOrder, status: str, now_ms: int) -> None:
        listing = self.listings[order.native]
        asset, amount = (listing.quote, order.price * order.left) if order.side == "BUY" else (listing.base, order.left)
        self._lock(order.owner, asset, -amount)
        order.status, order.update_ms = status, now_ms
        self._open_ids.pop((order.owner, order.native, order.client_id), None)
        self.listen(order, None)

    def _lock(self, owner: str, asset: str, amount: Decimal) -> None:
        held = self._of(owner, asset)
        held[0] -= amount
        held[1] += amount

    def _of(self, owner: str, asset: str) -> list[Decimal]:
        return self.balances.setdefault(owner, {}).setdefault(asset, [ZERO, ZERO])
