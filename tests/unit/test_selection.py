"""Which instruments become workers."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from collectors.errors import MalformedFrame
from collectors.selection import Selector
from collectors.venue import adapter
from config.settings import SelectSettings, VenueSettings


def record(symbol: str, kind: str = "SPOT", state: str = "TRADING") -> dict[str, Any]:
    base, _, rest = symbol.partition("/")
    quote = rest.partition(":")[0]
    return {"symbol": symbol, "native_id": symbol.replace("/", ""), "base": base, "quote": quote, "kind": kind, "state": state}


RECORDS = {
    r["symbol"]: r
    for r in (
        record("BTC/USDT"), record("ETH/USDT"), record("SHIB/USDT"), record("BTC/EUR"),
        record("BTC/USDT:USDT", "PERPETUAL"), record("OLD/USDT", state="HALTED"),
    )
}  # fmt: skip


def chosen(select: dict[str, Any], symbols: tuple[str, ...] = (), volumes: dict[str, str] | None = None) -> set[str]:
    selector = Selector(VenueSettings(symbols=symbols, select=SelectSettings(**select)))
    if volumes is not None:
        selector.rank(RECORDS, volumes)
    return {symbol for symbol, one in RECORDS.items() if selector.takes(one)}


@pytest.mark.parametrize(
    ("select", "wanted"),
    [
        ({}, set(RECORDS)),
        ({"quotes": ["EUR"]}, {"BTC/EUR"}),
        ({"bases": ["BTC"]}, {"BTC/USDT", "BTC/EUR", "BTC/USDT:USDT"}),
        ({"kinds": ["PERPETUAL"]}, {"BTC/USDT:USDT"}),
        ({"allow": ["ETH/*", "*/EUR"]}, {"ETH/USDT", "BTC/EUR"}),
        ({"deny": ["*:*", "OLD/*"]}, {"BTC/USDT", "ETH/USDT", "SHIB/USDT", "BTC/EUR"}),
        ({"bases": ["BTC"], "quotes": ["USDT"], "deny": ["*:*"]}, {"BTC/USDT"}),
    ],
)
def test_every_rule_must_hold(select: dict[str, Any], wanted: set[str]) -> None:
    assert chosen(select) == wanted


def test_symbols_are_a_rule_too() -> None:
    assert chosen({"quotes": ["USDT"]}, symbols=("BTC/USDT", "BTC/EUR")) == {"BTC/USDT"}


VOLUMES = {"BTCUSDT": "1000.5", "ETHUSDT": "1000.50000000000000000001", "SHIBUSDT": "99.9999", "BTCUSDT:USDT": "nonsense"}


def test_by_volume() -> None:
    assert chosen({"top": 1}, volumes=VOLUMES) == {"BTC/USDT"}, "what is finer than 18 decimals does not rank"
    assert chosen({"top": 2}, volumes=VOLUMES) == {"BTC/USDT", "ETH/USDT"}
    assert chosen({"min_volume": "100"}, volumes=VOLUMES) == {"BTC/USDT", "ETH/USDT"}
    assert chosen({"min_volume": "99.9999"}, volumes=VOLUMES) == {"BTC/USDT", "ETH/USDT", "SHIB/USDT"}
    assert chosen({"top": 5, "kinds": ["SPOT"], "quotes": ["USDT"]}, volumes=VOLUMES) == {"BTC/USDT", "ETH/USDT", "SHIB/USDT"}


def test_before_the_volumes_are_known_nothing_is_taken() -> None:
    assert chosen({"top": 5}) == set()


def test_a_volume_that_is_no_number_is_refused_at_once() -> None:
    with pytest.raises(ValidationError):
        SelectSettings(min_volume="-1")


def test_binances_volumes() -> None:
    venue = adapter("binance-spot")()
    body = b'[{"symbol":"BTCUSDT","quoteVolume":"15.30000000","volume":"1"},{"symbol":"X","quoteVolume":"0"}]'
    assert venue.parse_volumes(body) == {"BTCUSDT": "15.30000000", "X": "0"}
    with pytest.raises(MalformedFrame):
        venue.parse_volumes(b"{}")
