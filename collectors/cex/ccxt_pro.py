"""Every venue of ccxt.pro without a file of its own, by ccxt's id: ``venue-mirror collect whitebit``, or ``ccxt:kraken``.

ccxt.pro keeps the books and brings its own sockets, so this venue says no frames: collectors/ccxt_feed.py drives the
exchange object that is made here. What ccxt cannot give is not invented: numbers are its floats, written back as
decimals, there are no sequence numbers, and every event says ``exact=false``.

Source: ccxt manual, "Exchange Structure", "Market Structure", "Precision And Limits", "ccxt.pro".
Proof: ccxt's own checks, where it has any for the venue; nothing that can be repeated (simulated).
"""

from __future__ import annotations

import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from collectors.venue import (
    BOOK,
    TRADE,
    Event,
    Limits,
    Listing,
    MalformedFrame,
    RestRequest,
    SyncRule,
    UnknownVenue,
    Venue,
)
from market.decimals import format_decimal, parse_decimal

PREFIX = "ccxt:"
KINDS = {"spot": "SPOT", "swap": "PERPETUAL", "future": "FUTURE", "option": "OPTION"}
TICK_SIZE, DECIMAL_PLACES = 4, 2
"""ccxt's precision modes; significant digits (3) say nothing about a step."""


class CcxtRule(SyncRule):
    """ccxt says when a book is whole; nothing else can be judged."""

    snapshot_from = "stream"


class CcxtVenue(Venue):
    """One venue of ccxt.pro; a subclass for each id is made by ``ccxt_adapter``."""

    limits = Limits(
        instruments_per_connection=100,  # symbols in one watch call, where the venue has it for several
        instruments_per_request=100,
        request_interval_s=0.1,
        connect_interval_s=0.5,
        rest_weight_per_minute=600,
        reply_timeout_s=0,
    )
    offers = frozenset({BOOK, TRADE})
    exact = False
    exchange_id: ClassVar[str]
    _rule = CcxtRule()

    def exchange(self, rest_url: str = "", ws_url: str = "", options: Mapping[str, Any] | None = None) -> Any:
        """A new ccxt.pro exchange object; addresses given here replace the scheme and host of all of its own."""
        import ccxt.pro

        exchange: Any = getattr(ccxt.pro, self.exchange_id)(
            {"enableRateLimit": True, "newUpdates": True, "options": dict(options or {})}
        )
        if rest_url or ws_url:
            exchange.urls["api"] = _redirected(exchange.urls["api"], rest_url, ws_url, exchange.hostname or "")
        return exchange

    def listings(self, markets: Mapping[str, Mapping[str, Any]], precision_mode: int) -> list[Listing]:
        """ccxt's markets, each by its unified symbol; one that cannot be read is left out."""
        found = (_listing(market, precision_mode) for market in markets.values())
        return [listing for listing in found if listing is not None]

    def rule(self, native: str) -> SyncRule:
        return self._rule

    # Frames are ccxt's affair.

    def instruments_requests(self) -> list[RestRequest]:
        raise NotImplementedError("ccxt loads its markets itself")

    def parse_instruments(self, body: bytes) -> list[Listing]:
        raise MalformedFrame("ccxt loads its markets itself")

    def subscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        raise NotImplementedError("ccxt subscribes itself")

    def unsubscribe(self, natives: Sequence[str], request_id: int) -> list[bytes]:
        raise NotImplementedError("ccxt subscribes itself")

    def parse(self, frame: bytes) -> Sequence[Event]:
        raise MalformedFrame("ccxt reads its frames itself")


@cache
def ccxt_ids() -> tuple[str, ...]:
    """The ids of all venues that ccxt.pro can stream; none when ccxt is not installed."""
    try:
        spec = importlib.util.find_spec("ccxt.pro")
    except ModuleNotFoundError:
        return ()
    if spec is None or spec.submodule_search_locations is None:
        return ()
    return tuple(sorted(m.name for m in pkgutil.iter_modules(spec.submodule_search_locations) if not m.ispkg))


def ccxt_adapter(name: str) -> type[CcxtVenue]:
    """The adapter of a ccxt id, with or without ``ccxt:`` before it; raises UnknownVenue."""
    exchange_id = name.removeprefix(PREFIX)
    if exchange_id not in ccxt_ids():
        raise UnknownVenue(f"ccxt.pro has no venue named {exchange_id!r}")
    return _adapter_of(exchange_id)


@cache
def _adapter_of(exchange_id: str) -> type[CcxtVenue]:
    host = f"ccxt.{exchange_id}"
    members = {"__doc__": f"{exchange_id}, by ccxt.pro.", "exchange_id": exchange_id, "__module__": __name__}
    kind = type(f"Ccxt_{exchange_id}", (CcxtVenue,), members)
    kind.id, kind.rest_url, kind.ws_url = PREFIX + exchange_id, f"https://{host}", f"wss://{host}"
    return kind


def text_of(number: Any) -> str:
    """ccxt's number as a decimal text without an exponent; empty for none. Raises ValueError for what is no number."""
    if number is None:
        return ""
    return format_decimal(*parse_decimal(repr(number) if isinstance(number, float) else str(number)))


def _listing(market: Mapping[str, Any], precision_mode: int) -> Listing | None:
    try:
        limits = market.get("limits") or {}
        return Listing(
            native_id=market["symbol"],
            symbol=market["symbol"],
            base=market["base"],
            quote=market["quote"],
            settle=market.get("settle"),
            kind=KINDS[market["type"]],
            state="HALTED" if market.get("active") is False else "TRADING",
            inverse=bool(market.get("inverse")),
            tick_size=_step((market.get("precision") or {}).get("price"), precision_mode),
            lot_size=_step((market.get("precision") or {}).get("amount"), precision_mode),
            min_size=text_of((limits.get("amount") or {}).get("min")) or None,
            min_notional=text_of((limits.get("cost") or {}).get("min")) or None,
            contract_size=text_of(market.get("contractSize")) or None,
            maker_fee_bps=_bps(market.get("maker")),
            taker_fee_bps=_bps(market.get("taker")),
            expiry_us=int(market["expiry"]) * 1000 if market.get("expiry") else None,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _step(precision: Any, mode: int) -> str:
    """A tick or lot; "0" where ccxt says none."""
    if precision is None:
        return "0"
    if mode == TICK_SIZE:
        return text_of(precision)
    if mode == DECIMAL_PLACES:
        return format_decimal(1, -int(precision))
    return "0"


def _bps(rate: Any) -> str | None:
    if rate is None:
        return None
    try:
        return text_of(Decimal(str(rate)) * 10_000)
    except InvalidOperation:
        return None


def _redirected(urls: Any, rest_url: str, ws_url: str, hostname: str) -> Any:
    if isinstance(urls, Mapping):
        return {name: _redirected(url, rest_url, ws_url, hostname) for name, url in urls.items()}
    if not isinstance(urls, str):
        return urls
    parts = urlsplit(urls.replace("{hostname}", hostname))
    new = urlsplit(ws_url if parts.scheme in ("ws", "wss") else rest_url)
    if not new.netloc:
        return urls
    return urlunsplit((new.scheme, new.netloc, new.path.rstrip("/") + parts.path, parts.query, ""))
