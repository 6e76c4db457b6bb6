"""The strategies there are, by kind, and how one is made from its configuration file."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from market.decimals import DecimalError, parse_decimal
from market.fees import rate_from_bps
from strategies.cex_dex import CexDex
from strategies.cross_exchange_mm import CrossExchangeMarketMaking
from strategies.cross_venue import CrossVenue
from strategies.cyclic import Cyclic
from strategies.funding_carry import FundingCarry
from strategies.market_making import MarketMaking
from strategies.strategy import Strategy, StrategyError, View

KINDS: dict[str, type[Strategy]] = {
    s.kind: s for s in (CrossVenue, CexDex, Cyclic, FundingCarry, MarketMaking, CrossExchangeMarketMaking)
}
Mode = Literal["LIVE", "PAPER", "SHADOW", "BACKTEST"]


class Fees(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The fees of one's own tier at a venue, in basis points."""

    maker_bps: str
    taker_bps: str


class Config(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One strategy instance: what a configuration file holds."""

    kind: str
    name: str
    """Instance name; two instances of a kind need two names."""
    accounts: dict[str, str] = {}
    """venue → account; what is not named trades on VENUE:main. On paper all trade on VENUE:paper but sandboxes."""
    fees: dict[str, Fees] = {}
    """venue → fees of one's own tier, which win over what the venue publishes."""
    inventory: dict[str, dict[str, str]] = {}
    """venue → asset → amount to start with, where no ledger says (backtest)."""
    parameters: dict[str, Any] = {}

    def account(self, venue: str, mode: Mode) -> str:
        """The account that trades there in this mode: paper never shares one with real money."""
        named = self.accounts.get(venue, "")
        if mode == "PAPER":
            return named if is_sandbox(named) else f"{venue}:paper"
        return self.accounts.get(venue) or f"{venue}:main"

    def rates(self, venue: str) -> tuple[int | None, int | None]:
        """(maker, taker) fee rates of the own tier; (None, None): what the venue publishes counts."""
        own = self.fees.get(venue)
        return (rate_from_bps(own.maker_bps), rate_from_bps(own.taker_bps)) if own else (None, None)


def is_sandbox(account: str) -> bool:
    """Whether an account holds play money on a chain of one's own machine: CHAIN:sandbox, or CHAIN:sandbox-NAME."""
    return account.partition(":")[2].partition("-")[0] == "sandbox"


def load_config(path: Path) -> Config:
    """Read a configuration file; raises StrategyError saying what is wrong in it."""
    try:
        return config_of(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise StrategyError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StrategyError(f"{path} is not valid TOML: {error}") from error


def config_of(data: Any) -> Config:
    """Check a configuration; raises StrategyError."""
    try:
        config = msgspec.convert(data, Config)
        for venue in config.fees:
            config.rates(venue)
        for amounts in config.inventory.values():
            for text in amounts.values():
                parse_decimal(text)
    except (msgspec.ValidationError, DecimalError) as error:
        raise StrategyError(f"the strategy's configuration does not hold: {error}") from error
    return config


def make(config: Config, view: View, kind: type[Strategy] | None = None) -> Strategy:
    """The strategy of a configuration; raises StrategyError. ``kind`` replaces the registered class."""
    found = kind or KINDS.get(config.kind)
    if found is None:
        raise StrategyError(f"no strategy of kind {config.kind!r}; there are: {', '.join(sorted(KINDS))}")
    try:
        return found(msgspec.convert(config.parameters, found.parameters_type), view)
    except (msgspec.ValidationError, DecimalError) as error:
        raise StrategyError(f"{config.name}: parameters of {config.kind}: {error}") from error


def load_code(path: Path) -> type[Strategy]:
    """The one Strategy class of a Python file, for deciding again with other code; raises StrategyError."""
    spec = importlib.util.spec_from_file_location("strategy_under_test", path)
    if spec is None or spec.loader is None:
        raise StrategyError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StrategyError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    own = [
        value for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    ]  # fmt: skip
    if len(own) != 1:
        raise StrategyError(f"{path} must define exactly one Strategy, not {len(own)}")
    return own[0]
