"""An account on paper: orders meet the live mirror's own books, with latency, queue position and used-up liquidity.

What the mirror's books and trades allow is what is filled (market/fill_model.py). A paper account lives as long as its
process: after a restart nothing rests, and what is asked for is told to be cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from execution.account import Amounts, Capabilities, FillReport, OrderReport, OrderRequest, VenueAccount
from execution.accounting import Holding
from execution.errors import NotFound, Refused
from market.decimals import rescale
from market.fees import FEE_EXP
from market.fill_model import FillModel, ModelFill
from market.live_book import LiveBook
from market.terms import Terms

EVENTS_MAX = 100_000
EXP = -18
PAID_EXP = -8
"""Fees are charged in hundred-millionths, as venues do; rounded against us."""


class PaperAccount(VenueAccount):
    """One account at one mirrored venue. The executor tells it of books and trades: ``on_book``, ``on_trade``."""

    capabilities = Capabilities(request_expiry_ms=0, not_found_grace_s=0)

    def __init__(
        self,
        venue: str,
        account: str,
        books: Mapping[str, LiveBook],
        terms: Mapping[str, Terms],
        held: Mapping[str, int],
        *,
        latency_ms: int = 5,
        run: str = "",
    ) -> None:
        self.venue, self.account = venue, account
        self.held = dict(held)
        """asset → amount at EXP."""
        self.derivatives: dict[str, Holding] = {}
        """symbol of a derivative → its position; what a fill realises of it is paid at once."""
        self._books, self._terms = books, terms
        self._latency_s = latency_ms / 1000
        self._models: dict[str, FillModel] = {}
        self._reports: dict[str, OrderReport] = {}
        self._fills: list[FillReport] = []
        self._events: asyncio.Queue[OrderReport | FillReport | None] = asyncio.Queue(EVENTS_MAX)
        self._run = run
        """Makes trade ids unique over restarts."""
        self._number = 0

    async def place(self, order: OrderRequest) -> OrderReport:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        key = f"{self.venue}|{order.symbol}"
        live, terms = self._books.get(key), self._terms.get(key)
        if live is None or terms is None or not live.live:
            raise Refused(f"{key} is not live: nothing can be traded on paper")
        if terms.taker_fee is None or terms.maker_fee is None:
            raise Refused(f"the fees of {key} are not known")
        live.book.refine(order.price_exp, order.size_exp)
        model = self._models.get(order.symbol)
        if model is None or model.book is not live.book:
            model = self._models[order.symbol] = FillModel(live.book)
        price = rescale(order.price, order.price_exp, live.book.price_exp)
        size = rescale(order.size, order.size_exp, live.book.size_exp)
        fills, rests, reason = model.place(order.order_id, order.side, price, size, order.time_in_force)
        self._number += 1
        if not fills and not rests:
            raise Refused(reason) if order.time_in_force == "POST_ONLY" else Refused(reason or "nothing to take")
        self._reports[order.order_id] = OrderReport(
            order.order_id, f"{self._run}-{self._number}", order.symbol, "OPEN", 0, live.book.size_exp
        )
        for fill in fills:
            self._filled(order.symbol, terms, live, fill)
        return self._settle(order.order_id, "" if rests else ("FILLED" if not reason else "EXPIRED"), rests)

    def _settle(self, order_id: str, over: str, rests: int) -> OrderReport:
        was = self._reports[order_id]
        state = over or ("PARTIAL" if was.filled else "OPEN")
        self._reports[order_id] = OrderReport(order_id, was.venue_order_id, was.symbol, state, was.filled, was.size_exp)
        return self._reports[order_id]

    def on_book(self, key: str) -> None:
        """A book of this venue changed."""
        symbol = key.partition("|")[2]
        model, live = self._models.get(symbol), self._books.get(key)
        if model is not None and live is not None and live.live and model.resting:
            self._resting_filled(symbol, live, model, model.on_book())
        elif model is not None and live is not None and live.live:
            model.on_book()

    def on_trade(self, key: str, trade: Mapping[str, Any]) -> None:
        """A public trade of this venue."""
        symbol = key.partition("|")[2]
        model, live = self._models.get(symbol), self._books.get(key)
        if model is None or live is None or not live.live or not model.resting:
            return
        live.book.refine(trade["price_exp"], trade["size_exp"])
        price = rescale(trade["price"], trade["price_exp"], live.book.price_exp)
        size = rescale(trade["size"], trade["size_exp"], live.book.size_exp)
        self._resting_filled(symbol, live, model, model.on_trade(price, size, trade["taker_side"]))

    def _resting_filled(self, symbol: str, live: LiveBook, model: FillModel, fills: list[ModelFill]) -> None:
        for fill in fills:
            self._filled(symbol, self._terms[live.key], live, fill)
            over = "" if fill.order_id in model.resting else "FILLED"
            self._put(self._settle(fill.order_id, over, 0))

    def _filled(self, symbol: str, terms: Terms, live: LiveBook, fill: ModelFill) -> None:
        self._number += 1
        rate = (terms.maker_fee if fill.maker else terms.taker_fee) or 0
        exact = fill.price * fill.size * terms.contract
        exponent = live.book.price_exp + live.book.size_exp + terms.contract_exp
        fee, fee_exp = exact * rate, exponent + FEE_EXP
        if fee_exp < PAID_EXP:
            fee, fee_exp = -(-fee // 10 ** (PAID_EXP - fee_exp)), PAID_EXP
        while fee and fee % 10 == 0 and fee_exp < 0:
            fee, fee_exp = fee // 10, fee_exp + 1
        money = terms.settle or terms.quote
        report = FillReport(
            f"{self._run}-{self._number}", fill.order_id, self._reports[fill.order_id].venue_order_id, symbol, fill.side,
            fill.price, live.book.price_exp, fill.size, live.book.size_exp, fee, fee_exp, money, fill.maker,
            live.ts_received_ns // 1000, "PAPER",
        )  # fmt: skip
        self._fills.append(report)
        del self._fills[:-10_000]
        sign = 1 if fill.side == "BUY" else -1
        if terms.kind == "SPOT":
            self._move(terms.base, sign * fill.size * 10 ** (live.book.size_exp - EXP))
            self._move(terms.quote, -sign * exact * 10 ** (exponent - EXP))
        else:
            holding = self.derivatives.setdefault(symbol, Holding(EXP))
            size = rescale(fill.size, live.book.size_exp, holding.size_exp)
            self._move(money, holding.take(fill.side, size, exact * 10 ** (exponent - EXP)))
        self._move(money, -fee * 10 ** (fee_exp - EXP))
        was = self._reports[fill.order_id]
        filled = rescale(was.filled, was.size_exp, live.book.size_exp) + fill.size
        self._reports[fill.order_id] = OrderReport(
            fill.order_id, was.venue_order_id, symbol, was.state, filled, live.book.size_exp
        )
        self._put(report)

    def _move(self, asset: str, amount: int) -> None:
        self.held[asset] = self.held.get(asset, 0) + amount

    def _put(self, event: OrderReport | FillReport) -> None:
        if self._events.full():
            # The sweep finds all of it again.
            self._events.get_nowait()
        self._events.put_nowait(event)

    async def cancel(self, order_id: str, venue_order_id: str, symbol: str) -> OrderReport | None:
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        report, model = self._reports.get(order_id), self._models.get(symbol)
        if report is None or model is None or not model.cancel(order_id):
            raise NotFound(f"{order_id} does not rest")
        return self._settle(order_id, "CANCELED", 0)

    async def query(self, order_id: str, symbol: str) -> OrderReport:
        report = self._reports.get(order_id)
        return report if report is not None else OrderReport(order_id, "", symbol, "CANCELED", 0, 0)

    async def open_orders(self) -> list[OrderReport]:
        return [self._reports[i] for m in self._models.values() for i in m.resting]

    async def fills(self, symbol: str, since_us: int) -> list[FillReport]:
        return [f for f in self._fills if f.symbol == symbol and f.ts_venue_us >= since_us]

    async def balances(self) -> dict[str, Amounts]:
        return {asset: Amounts(amount, amount, EXP) for asset, amount in self.held.items()}

    async def positions(self) -> dict[str, tuple[int, int]]:
        return {symbol: (held.size, held.size_exp) for symbol, held in self.derivatives.items() if held.size}

    async def events(self) -> AsyncIterator[OrderReport | FillReport | None]:
        while True:
            yield await self._events.get()
