"""A venue account through ccxt: spot and linear derivatives of any venue that it speaks, by its unified calls.

The sandbox by default. A real order needs three things at once: the flag ``live``, an arm file that names this very
venue and account, and keys from files. ccxt's numbers are read as texts (``number = str``), so nothing passes through a
float. What ccxt's errors mean for an order is decided in one place, ``outcome``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ccxt
import ccxt.pro

from execution.account import Amounts, Capabilities, FillReport, OrderReport, OrderRequest, VenueAccount
from execution.errors import AccountError, NotFound, Refused, Throttled, Unclear, VenueError
from execution.orders import OURS, order_id_of
from market.decimals import format_decimal, parse_decimal

log = logging.getLogger(__name__)

STREAM_QUEUE_MAX = 10_000
CALL_TIMEOUT_S = 10.0
STATES = {"closed": "FILLED", "canceled": "CANCELED", "rejected": "REJECTED", "expired": "EXPIRED"}
"""ccxt's words for an order's status; everything else is open."""
CODES = {
    # What venues say beside ccxt's own classes; the text is the venue's documentation.
    "-1006": Unclear,  # Binance: "execution status unknown"
    "-1007": Unclear,  # Binance: "timeout waiting for response from backend server"
}


@dataclass(frozen=True)
class CcxtOptions:
    """How one account is reached."""

    exchange: str
    """ccxt's id: binance, okx, kraken, …"""
    venue: str
    account: str
    key_file: Path | None = None
    """Lines ``apiKey``, ``secret`` and, where the venue has one, ``password``; readable by the owner only."""
    live: bool = False
    arm_file: Path | None = None
    """Must hold the line ``VENUE ACCOUNT`` for real orders."""
    rest_url: str = ""
    """Replaces the venue's address (a local venue); such an account is never a real one."""
    ws_url: str = ""
    default_type: str = "spot"


KNOWN: dict[str, Capabilities] = {
    # recvWindow; newClientOrderId: [.A-Z:/a-z0-9_-]{1,36}; cancel-all-after exists on futures alone.
    "binance": Capabilities(request_expiry_ms=5000, client_id=r"[.A-Z:/a-z0-9_-]{1,36}"),
    # A timestamp 30 s off is refused; clOrdId: letters and digits, 32 at most; cancel-all-after: 10 to 120 s.
    "okx": Capabilities(request_expiry_ms=30_000, cancel_all_after=True, page=100, newest_first=True),
    # No bound on how late a request may arrive (ccxt sends no deadline); cl_ord_id: a UUID, or 18 characters at most.
    "kraken": Capabilities(
        query_by_client_id=False, request_expiry_ms=60_000, cancel_all_after=True, client_id="[0-9a-f]{32}|.{1,18}",
        client_id_uuid=True, page=50, newest_first=True,
    ),
}  # fmt: skip
"""What is known of venues beyond ccxt's ``has``. Sources: their REST documentation."""
UUID_PREFIX = "766d0000"
"""Before an intent's 24 digits, where a venue takes our ids only as a UUID's 32."""


def to_venue(order_id: str, can: Capabilities) -> str:
    """Our order id in the venue's charset and length; raises AccountError where it does not fit."""
    told = UUID_PREFIX + order_id.removeprefix(OURS) if can.client_id_uuid else order_id
    if not re.fullmatch(can.client_id, told):
        raise AccountError(f"the venue takes no client order id like {told!r}: {can.client_id}")
    return told


def from_venue(told: str, can: Capabilities) -> str:
    """Our order id of the venue's; another's is given as it is."""
    plain = told.replace("-", "")
    if can.client_id_uuid and len(plain) == 32 and plain.startswith(UUID_PREFIX):
        return OURS + plain.removeprefix(UUID_PREFIX)
    return told


def outcome(error: Exception) -> VenueError:
    """What a failed call means: a sure no, not looked at, not found, or unclear. Unclear is the rule, not the exception."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    for code, kind in CODES.items():
        if f'"code":{code}' in str(error).replace(" ", ""):
            return kind(text)
    if isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
        return Throttled(text, 5.0)
    if isinstance(error, ccxt.OrderNotFound):
        return NotFound(text)
    # Before NetworkError: a wrong nonce is one of its kinds, but the venue looked and said no.
    if isinstance(error, ccxt.InvalidNonce | ccxt.ExchangeError) and not isinstance(error, ccxt.ExchangeNotAvailable):
        return Refused(text)
    return Unclear(text)


class CcxtAccount(VenueAccount):
    """One account. ``start`` loads the markets and checks the keys; the stream is watched in the background."""

    def __init__(self, options: CcxtOptions) -> None:
        self.options = options
        self.venue, self.account = options.venue, options.account
        self.capabilities = KNOWN.get(options.exchange, Capabilities())
        self._queue: asyncio.Queue[OrderReport | FillReport | None] = asyncio.Queue(STREAM_QUEUE_MAX)
        self._tasks: list[asyncio.Task[None]] = []
        self.stream_overflows = 0
        self._exchange: Any = self._made()

    def _made(self) -> Any:
        o = self.options
        kind = getattr(ccxt.pro, o.exchange, None)
        if kind is None:
            raise AccountError(f"ccxt has no exchange {o.exchange!r}")
        settings = {
            "defaultType": o.default_type, "fetchMarkets": {"types": [o.default_type]},
            # The venue itself refuses what arrives later: the bound after which an order cannot appear any more.
            "recvWindow": self.capabilities.request_expiry_ms,
        }  # fmt: skip
        config: dict[str, Any] = {
            "enableRateLimit": True, "timeout": int(CALL_TIMEOUT_S * 1000), "options": settings, **_keys(o.key_file)
        }  # fmt: skip
        exchange = kind(config)
        exchange.number = str
        if o.rest_url:
            _redirect(exchange, o.rest_url, o.ws_url)
        elif not o.live:
            try:
                exchange.set_sandbox_mode(True)
            except ccxt.NotSupported as error:
                raise AccountError(f"{o.exchange} has no sandbox: paper is what remains without --live") from error
        else:
            armed(o)
        return exchange

    async def connect(self) -> None:
        to_venue(order_id_of("0" * 24), self.capabilities)
        try:
            await self._exchange.load_markets()
            await self._exchange.fetch_balance()
        except ccxt.BaseError as error:
            await self._exchange.close()
            raise AccountError(f"{self.account}: {type(error).__name__}: {str(error)[:300]}") from error

    async def start(self) -> None:
        await self.connect()
        watches = [self._watch(self._exchange.watch_orders, self._order_seen)]
        if self._exchange.has.get("watchMyTrades"):
            watches.append(self._watch(self._exchange.watch_my_trades, self._trade_seen))
        self._tasks = [asyncio.create_task(w) for w in watches]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exchange.close()

    async def place(self, order: OrderRequest) -> OrderReport:
        params: dict[str, Any] = {"clientOrderId": to_venue(order.order_id, self.capabilities)}
        if order.time_in_force == "POST_ONLY":
            params["postOnly"] = True
        else:
            params["timeInForce"] = order.time_in_force
        if order.reduce_only and self.options.default_type != "spot":
            params["reduceOnly"] = True
        price, size = format_decimal(order.price, order.price_exp), format_decimal(order.size, order.size_exp)
        answer = await self._call(
            self._exchange.create_order(order.symbol, "limit", order.side.lower(), size, price, params)
        )
        report = self._report(answer, order.symbol)
        return OrderReport(
            order.order_id, report.venue_order_id, order.symbol, report.state, report.filled, report.size_exp
        )

    async def cancel(self, order_id: str, venue_order_id: str, symbol: str) -> OrderReport | None:
        params = {} if venue_order_id else {"clientOrderId": to_venue(order_id, self.capabilities)}
        answer = await self._call(self._exchange.cancel_order(venue_order_id or None, symbol, params))
        report = self._report(answer, symbol)
        if report.state not in ("CANCELED", "FILLED", "EXPIRED"):
            return None
        return OrderReport(order_id, report.venue_order_id, symbol, report.state, report.filled, report.size_exp)

    async def query(self, order_id: str, symbol: str) -> OrderReport:
        told = to_venue(order_id, self.capabilities)
        answer = await self._call(self._exchange.fetch_order(None, symbol, {"clientOrderId": told}))
        return self._report(answer, symbol)

    async def open_orders(self) -> list[OrderReport]:
        # Asked for all symbols at once on purpose: ccxt warns that this is dear, and it is what a kill must know.
        self._exchange.options["warnOnFetchOpenOrdersWithoutSymbol"] = False
        out: dict[str, OrderReport] = {}
        while True:
            after = {"after": next(reversed(out.values())).venue_order_id} if out else {}
            page = await self._call(self._exchange.fetch_open_orders(None, None, None, after))
            rows = [self._report(o, o["symbol"]) for o in page]
            # Oldest last: the next page begins after it.
            new = [r for r in sorted(rows, key=lambda r: _age(r.venue_order_id), reverse=True) if r.venue_order_id not in out]
            out |= {r.venue_order_id: r for r in new}
            if not self.capabilities.newest_first or len(page) < self.capabilities.page or not new:
                return list(out.values())

    async def fills(self, symbol: str, since_us: int) -> list[FillReport]:
        out: dict[tuple[str, str], FillReport] = {}
        since_ms, params, can = max(0, since_us // 1000), dict[str, Any](), self.capabilities
        while True:
            page = await self._call(self._exchange.fetch_my_trades(symbol, since_ms or None, can.page, params))
            rows = [self._fill(t, "REST") for t in page]
            new = {(f.trade_id, f.venue_order_id): f for f in rows if (f.trade_id, f.venue_order_id) not in out}
            out |= new
            if len(page) < can.page or not new:
                return sorted(out.values(), key=lambda f: f.ts_venue_us)
            # A full page may not be all: on, towards the end that it does not reach. Its edge is asked for again.
            times = [int(t["timestamp"]) for t in page]
            if can.newest_first:
                params = {"until": min(times)}
            else:
                since_ms = max(since_ms, max(times))

    async def balances(self) -> dict[str, Amounts]:
        answer = await self._call(self._exchange.fetch_balance())
        out: dict[str, Amounts] = {}
        for asset, total in (answer.get("total") or {}).items():
            t, te = parse_decimal(str(total or "0"))
            f, fe = parse_decimal(str((answer.get("free") or {}).get(asset) or "0"))
            exponent = min(te, fe)
            out[asset] = Amounts(t * 10 ** (te - exponent), f * 10 ** (fe - exponent), exponent)
        return out

    async def positions(self) -> dict[str, tuple[int, int]]:
        if self.options.default_type == "spot" or not self._exchange.has.get("fetchPositions"):
            return {}
        out: dict[str, tuple[int, int]] = {}
        for row in await self._call(self._exchange.fetch_positions()):
            size, exponent = parse_decimal(str(row.get("contracts") or "0"))
            if size:
                out[row["symbol"]] = (-size if row.get("side") == "short" else size, exponent)
        return out

    async def cancel_all(self, symbols: set[str]) -> None:
        if not self._exchange.has.get("cancelAllOrders"):
            await super().cancel_all(symbols)
            return
        open_symbols = {o.symbol for o in await self.open_orders()}
        for symbol in sorted(symbols & open_symbols):
            try:
                await self._call(self._exchange.cancel_all_orders(symbol))
            except NotFound:
                continue

    @property
    def dead_man(self) -> bool:
        return self.capabilities.cancel_all_after and bool(self._exchange.has.get("cancelAllOrdersAfter"))

    async def keep_alive(self, timeout_s: int) -> None:
        if self.dead_man:
            await self._call(self._exchange.cancel_all_orders_after(timeout_s * 1000))

    async def events(self) -> AsyncIterator[OrderReport | FillReport | None]:
        while True:
            yield await self._queue.get()

    async def _call(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S + 5):
                return await call
        except (ccxt.BaseError, TimeoutError, OSError) as error:
            raise outcome(error) from error

    async def _watch(self, watch: Any, seen: Any) -> None:
        """Hand on what the private stream brings, until cancelled. Whatever breaks, a sweep (None) finds what it hid."""
        while True:
            try:
                found = await watch()
            except Exception as error:  # ccxt's own mistakes too: they must not end the stream
                log.warning("%s: the private stream broke: %s: %s", self.account, type(error).__name__, str(error)[:200])
                self._put(None)
                await asyncio.sleep(1)
                continue
            for one in found:
                try:
                    self._put(seen(one))
                except Exception as error:
                    log.error("%s: an event of the private stream makes no sense: %s", self.account, str(error)[:200])
                    self._put(None)

    def _put(self, event: OrderReport | FillReport | None) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            # What is lost here is found again by the sweep that None asks for.
            self.stream_overflows += 1
            self._queue.get_nowait()
            self._queue.put_nowait(None)

    def _order_seen(self, order: Any) -> OrderReport:
        return self._report(order, order["symbol"])

    def _trade_seen(self, trade: Any) -> FillReport:
        return self._fill(trade, "STREAM")

    def _report(self, order: Any, symbol: str) -> OrderReport:
        filled, exp = parse_decimal(str(order.get("filled") or "0"))
        state = STATES.get(order.get("status") or "", "OPEN")
        if state == "OPEN" and filled:
            state = "PARTIAL"
        told = from_venue(str(order.get("clientOrderId") or ""), self.capabilities)
        return OrderReport(told, str(order.get("id") or ""), symbol, state, filled, exp)

    def _fill(self, trade: Any, source: Any) -> FillReport:
        price, price_exp = parse_decimal(str(trade["price"]))
        size, size_exp = parse_decimal(str(trade["amount"]))
        fee_info = trade.get("fee") or {}
        fee, fee_exp = parse_decimal(str(fee_info.get("cost") or "0"))
        info = trade.get("info") or {}
        if "fillFee" in info:
            # OKX's orders channel: ccxt passes its fee on as it is, negative where it is paid; by REST it turns the sign.
            fee, fee_exp = parse_decimal(str(info["fillFee"] or "0"))
            fee = -fee
        client_id = from_venue(str(info.get("c") or info.get("clOrdId") or ""), self.capabilities)
        return FillReport(
            str(trade["id"]), client_id, str(trade.get("order") or ""), trade["symbol"],
            "BUY" if trade["side"] == "buy" else "SELL", price, price_exp, size, size_exp, fee, fee_exp,
            str(fee_info.get("currency") or ""), trade.get("takerOrMaker") == "maker",
            int(trade.get("timestamp") or 0) * 1000, source,
        )  # fmt: skip


def _age(venue_order_id: str) -> tuple[int, str]:
    return len(venue_order_id), venue_order_id


def armed(options: CcxtOptions) -> None:
    """Raise AccountError unless everything that real money needs is there."""
    if options.arm_file is None:
        raise AccountError("real orders need an arm file: one line 'VENUE ACCOUNT', named with --arm")
    try:
        lines = {" ".join(line.split()) for line in options.arm_file.read_text("utf-8").splitlines()}
    except OSError as error:
        raise AccountError(f"the arm file {options.arm_file} cannot be read: {error.strerror}") from error
    if f"{options.venue} {options.account}" not in lines:
        raise AccountError(f"{options.arm_file} does not arm '{options.venue} {options.account}'")
    if options.key_file is None:
        raise AccountError(f"{options.account}: real orders need keys from a file")


def _keys(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        if path.stat().st_mode & 0o077:
            raise AccountError(f"{path} can be read by others: chmod 600 {path}")
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise AccountError(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(lines) not in (2, 3):
        raise AccountError(f"{path} must hold two or three lines: key, secret, password")
    return dict(zip(("apiKey", "secret", "password"), lines, strict=False))


def _redirect(exchange: Any, rest_url: str, ws_url: str) -> None:
    """Point every address of the exchange at another host; paths stay the venue's own."""

    def moved(value: Any, base: str) -> Any:
        if isinstance(value, dict):
            return {k: moved(v, ws_url if k == "ws" else base) for k, v in value.items()}
        if not isinstance(value, str) or "://" not in value:
            return value
        scheme, rest = value.split("://", 1)
        path = rest.partition("/")[2]
        return f"{ws_url if scheme.startswith('ws') else rest_url}/{path}".rstrip("/")

    exchange.urls["api"] = moved(exchange.urls["api"], rest_url)
