"""One pool in market.*: its ladder as a book like any other, its states, its instrument."""

from __future__ import annotations

import time

from collectors.dex.blocks import Header
from collectors.dex.protocol import MirroredPool
from collectors.dex.publisher import ChainPublisher
from collectors.dex.tokens import Token
from market.decimals import LONG_MAX, format_decimal
from market.pools.ladder import PRICE_DIGITS, Columns, Scale, ladder, scale_of
from market.pools.pool import NotQuotable, PoolError

Side = dict[int, int]
EMPTY: Columns = ([], [], [], [])


class PoolBook:
    """Writes a pool's ladder after each head that changed it. ``base`` and ``quote`` are indexes of its tokens."""

    __slots__ = (
        "_asks", "_bids", "_bps", "_header", "_keyframe_ns", "_publisher", "_scale", "base", "epoch", "index", "mirrored",
        "quote", "reason", "refusal", "state", "symbol", "tokens", "venue", "written_ns",
    )  # fmt: skip

    def __init__(
        self,
        mirrored: MirroredPool,
        tokens: tuple[Token, ...],
        base: int,
        quote: int,
        publisher: ChainPublisher,
        bps: tuple[int, ...],
    ) -> None:
        self.mirrored = mirrored
        self.tokens = tokens
        self.base = base
        self.quote = quote
        self.venue = mirrored.protocol.venue_of(mirrored.fixed)
        self.symbol = f"{tokens[base].asset}/{tokens[quote].asset}"
        self.state = ""
        self.reason = ""
        self.epoch = 0
        self.index = -1
        self.refusal = ""
        """Why a token of it must not be traded."""
        self._publisher = publisher
        self._bps = bps
        self._scale: Scale | None = None
        self._bids: Side = {}
        self._asks: Side = {}
        self._keyframe_ns = 0
        self._header: Header | None = None
        """The block that the last record speaks of."""
        self.written_ns = 0
        """When the last record was written."""

    def announce(self) -> None:
        """Write the instrument and say SYNCING: somebody looks after this book from now on."""
        self._begin()
        self._instrument("TRADING")
        self.set_state("SYNCING", "its first state is read")

    def update(self, header: Header, ts_ns: int) -> None:
        """Bring the book in step with the pool: a DELTA, or a SNAPSHOT in a new epoch where the scale changes."""
        if not (self.tokens[self.base].readable and self.tokens[self.quote].readable):
            self.set_state("HALTED", "a token does not say its decimals")
            return
        if self.refusal:
            self.set_state("HALTED", self.refusal)
            return
        pool = self.mirrored.pool
        columns: Columns | None = None
        try:
            if self._scale is not None:
                columns = ladder(pool, self.base, self.quote, self._scale, self._bps)
            if self._scale is None or self._unfit(columns):
                decimals = self.tokens[self.base].decimals, self.tokens[self.quote].decimals
                scale = scale_of(pool, self.base, self.quote, *decimals)
                if scale is not None and (self._scale is None or not _same(scale, self._scale)):
                    self._scale = scale
                    self._instrument("TRADING")
                    self._begin()
                    columns = ladder(pool, self.base, self.quote, scale, self._bps)
        except NotQuotable as error:
            self.set_state("HALTED", str(error))
            return
        except PoolError:
            columns = EMPTY
        self._write(columns or EMPTY, header, ts_ns)
        self.set_state("LIVE", "" if columns and (columns[0] or columns[2]) else "without liquidity")

    def keyframe(self, header: Header, now_ns: int, max_s: float) -> None:
        """Repeat the whole book when it is due."""
        if self.state == "LIVE" and self.index >= 0 and now_ns - self._keyframe_ns >= max_s * 1e9:
            self._record("KEYFRAME", self._columns(), header, now_ns)
            self._keyframe_ns = now_ns

    def beat(self) -> None:
        """Say that nothing has changed since the last record (collectors/heartbeat.py)."""
        if self._header is not None:
            self.index += 1
            self._record("DELTA", EMPTY, self._header, time.time_ns())
            self._publisher.counts.beats += 1

    def set_state(self, state: str, reason: str) -> None:
        """Change the state and say so; nothing is written when it is the same."""
        if state == self.state and reason == self.reason:
            return
        self.state, self.reason = state, reason
        self._publisher.status(self.venue, self.symbol, state, reason, self.epoch)

    def delist(self, reason: str) -> None:
        """The pool never was: the last that is said of it."""
        self._instrument("DELISTED")
        self.set_state("DELISTED", reason)

    # How it is done.

    def _begin(self) -> None:
        self.epoch = max(time.time_ns() // 1000, self.epoch + 1)
        self.index = -1
        self.state = self.reason = ""  # a state speaks of one epoch: the next one is said again
        self._bids, self._asks = {}, {}

    def _unfit(self, columns: Columns | None) -> bool:
        """Whether the exponents no longer fit: nothing could be written, or prices lost their digits."""
        if columns is None or not (columns[0] or columns[2]):
            return True
        prices = columns[0] or columns[2]
        return prices[0] < 10 ** (PRICE_DIGITS - 6) or max(prices) > LONG_MAX // 1000

    def _write(self, columns: Columns, header: Header, ts_ns: int) -> None:
        bids = dict(zip(columns[0], columns[1], strict=True))
        asks = dict(zip(columns[2], columns[3], strict=True))
        if self.index < 0:
            self._bids, self._asks = bids, asks
            self.index = 0
            self._record("SNAPSHOT", columns, header, ts_ns)
            self._keyframe_ns = ts_ns
            return
        delta = (*_difference(self._bids, bids), *_difference(self._asks, asks))
        if not delta[0] and not delta[2]:
            return
        self._bids, self._asks = bids, asks
        self.index += 1
        self._record("DELTA", delta, header, ts_ns)

    def _columns(self) -> Columns:
        return list(self._bids), list(self._bids.values()), list(self._asks), list(self._asks.values())

    def _record(self, kind: str, columns: Columns, header: Header, ts_ns: int) -> None:
        scale = self._scale
        self._header, self.written_ns = header, time.time_ns()
        self._publisher.book(
            {
                "venue": self.venue,
                "symbol": self.symbol,
                "kind": kind,
                "epoch": self.epoch,
                "index": self.index,
                "venue_seq": header.number,
                "venue_prev_seq": -1,
                "ts_venue_us": header.ts_us,
                "ts_received_ns": ts_ns,
                "price_exp": scale.price_exp if scale else -PRICE_DIGITS,
                "size_exp": scale.size_exp if scale else -self.tokens[self.base].decimals,
                "bid_prices": columns[0],
                "bid_sizes": columns[1],
                "ask_prices": columns[2],
                "ask_sizes": columns[3],
                "venue_checksum": None,
            }
        )

    def _instrument(self, state: str) -> None:
        base, quote = self.tokens[self.base], self.tokens[self.quote]
        fixed, scale = self.mirrored.fixed, self._scale
        fee: str | None = None
        if "fee_den" in fixed:
            fee = _bps(int(fixed["fee_num"]) * 1_000_000 // int(fixed["fee_den"]))
        elif "fee_e10" in self.mirrored.slots:
            fee = _bps(self.mirrored.slots["fee_e10"] // 10**4)
        elif "swap_fee" in self.mirrored.slots:
            fee = _bps(self.mirrored.slots["swap_fee"] // 10**12)
        elif "fee" in self.mirrored.slots or "fee" in fixed:
            ppm = int(fixed.get("fee", self.mirrored.slots.get("fee", 0)))
            fee = _bps(ppm * 100 if fixed["protocol"] == "solidly" else ppm)
        self._publisher.instrument(
            {
                "venue": self.venue,
                "symbol": self.symbol,
                "native_id": self.mirrored.ident if len(self.tokens) == 2 else f"{self.mirrored.ident}:{self.base}-{self.quote}",
                "base": base.asset,
                "quote": quote.asset,
                "settle": None,
                "kind": "SPOT",
                "state": state,
                "inverse": False,
                # The steps of the book: an order in smaller ones could not be written in 64 bits.
                "tick_size": format_decimal(1, scale.price_exp if scale else -PRICE_DIGITS),
                "lot_size": format_decimal(1, scale.size_exp if scale else -base.decimals),
                "min_size": None,
                "min_notional": None,
                "contract_size": None,
                "maker_fee_bps": None,
                "taker_fee_bps": fee,
                "expiry_us": None,
                "ts_ns": time.time_ns(),
            }
        )


def _difference(before: Side, after: Side) -> tuple[list[int], list[int]]:
    changed = {p: s for p, s in after.items() if before.get(p) != s}
    changed |= {p: 0 for p in before if p not in after}
    return list(changed), list(changed.values())


def _same(a: Scale, b: Scale) -> bool:
    return a.price_exp == b.price_exp and a.size_exp == b.size_exp


def _bps(ppm: int) -> str:
    """Millionths as basis points, exact text."""
    return format_decimal(ppm, -2)
