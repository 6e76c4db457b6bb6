"""Our own records against the venue's: balances, positions, open orders and recent fills, each difference as a line."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from config.settings import Settings
from execution.account import VenueAccount
from execution.accounting import Accounts, amount
from execution.config import account_of, load_config
from execution.errors import AccountError
from execution.hedging import OVER
from market.decimals import format_decimal
from market.terms import Terms, TermsError, terms_of

Record = dict[str, Any]
DAY_NS = 86_400_000_000_000
SETTLING_NS = 10_000_000_000
"""What is younger may be on its way, on either side."""


def reconcile(settings: Settings, venue: str, accounts: Path, *, live: bool, arm: Path | None) -> list[str]:
    """The differences of all accounts of a venue. Raises AccountError, VenueError, BusError."""
    config = load_config(accounts, live=live, arm_file=arm)
    wanted = {name: c for name, c in config.accounts.items() if venue in (name, name.partition(":")[0]) and c.adapter == "ccxt"}
    if not wanted:
        raise AccountError(f"{accounts} has no account of {venue!r} that is reached through ccxt")

    async def ask() -> list[str]:
        out: list[str] = []
        for name, own in wanted.items():
            books, terms = {}, _terms(settings)
            account = account_of(name, own, books, terms, {}, "recon", pools={}, live=live, arm_file=config.arm_file)
            await account.connect()
            try:
                out += await differences(account, *_ours(settings, name, terms), time.time_ns())
            finally:
                await account.close()
        return out

    return asyncio.run(ask())


def _terms(settings: Settings) -> dict[str, Terms]:
    from cli.trade_views import records

    out: dict[str, Terms] = {}
    for record in records(settings, "market.instrument"):
        try:
            made = terms_of(record)
        except TermsError:
            continue
        out[made.key] = made
    return out


def _ours(settings: Settings, name: str, terms: dict[str, Terms]) -> tuple[Accounts, dict[str, Record], list[Record]]:
    """(the fold of an account, its newest order events by order id, its fills)."""
    from cli.trade_views import records

    accounts = Accounts(name, terms)
    for entry in records(settings, "orders.ledger"):
        if entry["account"] == name:
            accounts.take_entry(entry)
    fills = [f for f in records(settings, "orders.fill") if f["account"] == name]
    for fill in fills:
        accounts.take_fill(fill)
    return accounts, {e["order_id"]: e for e in records(settings, "orders.event") if e["account"] == name}, fills


async def differences(
    account: VenueAccount, accounts: Accounts, events: dict[str, Record], fills: list[Record], now_ns: int
) -> list[str]:
    """What our records and the venue tell differently, one line each; nothing is mended. Raises VenueError."""
    name, out = account.account, list[str]()
    held = await account.balances()
    for asset in sorted({*held, *accounts.balances}):
        theirs = amount(held[asset].total, held[asset].exp) if asset in held else 0
        ours = accounts.balances.get(asset, 0)
        if ours != theirs:
            out.append(f"{name} balance {asset}: ledger {format_decimal(ours, -18)}, venue {format_decimal(theirs, -18)}")
    positions = await account.positions()
    for symbol, (size, exp) in sorted(positions.items()):
        own = accounts.holdings.get(symbol)
        ours, theirs = amount(own.size, own.size_exp) if own else 0, amount(size, exp)
        if ours != theirs:
            out.append(f"{name} position {symbol}: ours {format_decimal(ours, -18)}, venue {format_decimal(theirs, -18)}")
    resting = {o.order_id or o.venue_order_id: o for o in await account.open_orders()}
    for order_id, order in sorted(resting.items()):
        known = events.get(order_id)
        if known is None:
            out.append(f"{name} order {order_id}: open at the venue ({order.symbol}), not one of ours")
        elif known["state"] in OVER and now_ns - known["ts_ns"] > SETTLING_NS:
            out.append(f"{name} order {order_id}: open at the venue, {known['state']} here")
    for order_id, event in sorted(events.items()):
        if event["state"] not in OVER and order_id not in resting and now_ns - event["ts_ns"] > SETTLING_NS:
            out.append(f"{name} order {order_id}: {event['state']} here, not open at the venue")
    since_ns = now_ns - DAY_NS
    ours = {(f["symbol"], f["trade_id"], f["side"]): f for f in fills if f["ts_venue_us"] * 1000 > since_ns}
    symbols = {f["symbol"] for f in fills} | {e["symbol"] for e in events.values()} | {o.symbol for o in resting.values()}
    theirs = {
        (f.symbol, f.trade_id, f.side): f for symbol in sorted(symbols) for f in await account.fills(symbol, since_ns // 1000)
        if f.ts_venue_us * 1000 > since_ns
    }  # fmt: skip
    for key in sorted({*ours, *theirs}):
        if key not in ours and now_ns - theirs[key].ts_venue_us * 1000 > SETTLING_NS:
            fill = theirs[key]
            size, price = format_decimal(fill.size, fill.size_exp), format_decimal(fill.price, fill.price_exp)
            out.append(f"{name} fill {fill.trade_id}: {fill.side} {size} {fill.symbol} at {price} at the venue, not here")
        elif key not in theirs and now_ns - ours[key]["ts_ns"] > SETTLING_NS:
            out.append(f"{name} fill {key[1]}: {key[2]} {key[0]} here, not at the venue")
    return out
