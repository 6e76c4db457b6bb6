"""The protocols that a synthetic venue can speak, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulator.binance_wire import MARKETS, BinanceWire
from simulator.bybit_wire import BybitWire
from simulator.coinbase_wire import CoinbaseWire
from simulator.deribit_wire import DeribitWire
from simulator.kraken_wire import KrakenWire
from simulator.okx_wire import OkxWire
from simulator.wire import Wire

PROTOCOLS: dict[str, Callable[[Any], Wire]] = {
    "binance-spot": lambda venue: BinanceWire(venue, MARKETS["binance-spot"]),
    "binance-usdm": lambda venue: BinanceWire(venue, MARKETS["binance-usdm"]),
    "binance-coinm": lambda venue: BinanceWire(venue, MARKETS["binance-coinm"]),
    "okx": OkxWire,
    "kraken": KrakenWire,
    "bybit-spot": lambda venue: BybitWire(venue, "spot"),
    "bybit-linear": lambda venue: BybitWire(venue, "linear"),
    "coinbase": CoinbaseWire,
    "deribit": DeribitWire,
}
"""name → the protocol of a given venue. The names are those of the adapters that speak to such a venue."""


class UnknownProtocol(Exception):
    """No such protocol; the text lists them."""


def wire_of(name: str, venue: Any) -> Wire:
    """The protocol for this venue; raises UnknownProtocol."""
    try:
        make = PROTOCOLS[name]
    except KeyError:
        raise UnknownProtocol(f"no protocol named {name!r}; there are: {', '.join(PROTOCOLS)}") from None
    return make(venue)
