"""The executor's configuration file: which accounts it trades for, on what, with which hard caps."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from execution.account import VenueAccount
from execution.chain_account import ChainAccount, ChainOptions
from execution.errors import AccountError
from execution.paper import EXP, PaperAccount
from market.decimals import DecimalError, parse_decimal
from market.fees import rate_from_bps
from market.live_book import LiveBook
from market.terms import Terms


class AccountConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One account. ``notional_per_minute`` is in whole units of the quote; 0 lets nothing out."""

    adapter: Literal["paper", "ccxt", "chain"]
    notional_per_minute: int
    orders_per_minute: int = 600
    requests_per_minute: int = 1000
    balances: dict[str, str] = {}
    """Paper: what it begins with."""
    latency_ms: int = 5
    exchange: str = ""
    """ccxt's id."""
    key_file: str = ""
    rest_url: str = ""
    """ccxt: another address (a local venue); never a real account."""
    ws_url: str = ""
    default_type: str = "spot"
    chain: ChainOptions | None = None

    @property
    def paper(self) -> bool:
        return self.adapter == "paper"

    def amounts(self) -> dict[str, int]:
        """What paper begins with, at paper.EXP."""
        out: dict[str, int] = {}
        for asset, text in self.balances.items():
            mantissa, exponent = parse_decimal(text)
            out[asset] = mantissa * 10 ** (exponent - EXP)
        return out


class FeeTier(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Fees of one's own tier, in basis points."""

    maker_bps: str
    taker_bps: str


class ExecutorConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole file."""

    accounts: dict[str, AccountConfig]
    fees: dict[str, FeeTier] = {}
    watch: tuple[str, ...] = ()
    """Further venues whose prices count for the median collar."""
    priority: dict[str, int] = {}
    """strategy → who goes first where two would trade with each other on one account; who is not named has 0."""
    live: bool = False
    """Set by the command line alone."""
    arm_file: str = ""

    def play_money(self, name: str) -> bool:
        """Whether an account of the file is for PAPER intents: on paper, or a sandbox on a development chain."""
        return self.accounts[name].paper or is_sandbox(name)

    def venues(self) -> set[str]:
        """Venues that the accounts trade at."""
        return {v for n, a in self.accounts.items() for v in (a.chain.venues if a.chain else (n.partition(":")[0],))}

    def rates(self, venue: str) -> tuple[int | None, int | None]:
        """(maker, taker) of the own tier."""
        own = self.fees.get(venue)
        return (rate_from_bps(own.maker_bps), rate_from_bps(own.taker_bps)) if own else (None, None)

    def watches(self, venue: str) -> bool:
        """Whether the venue's books are wanted beside those of the accounts."""
        return venue in self.watch


def is_sandbox(name: str) -> bool:
    """CHAIN:sandbox or CHAIN:sandbox-NAME: such an account runs on a development chain only."""
    return name.partition(":")[2].partition("-")[0] == "sandbox"


def load_config(path: Path, *, live: bool = False, arm_file: Path | None = None) -> ExecutorConfig:
    """Read the file; raises AccountError saying what is wrong in it."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
        if "live" in data or "arm_file" in data:
            raise AccountError(f"{path}: live and arm_file are said on the command line, never in a file")
        config = msgspec.convert(data, ExecutorConfig)
        for venue in config.fees:
            config.rates(venue)
        for name, account in config.accounts.items():
            account.amounts()
            if ":" not in name:
                raise AccountError(f"{path}: {name!r} is no account: write venue:name")
            if (account.adapter == "chain") != (account.chain is not None):
                raise AccountError(f"{path}: {name}: adapter = \"chain\" and a section [accounts.\"{name}\".chain] go together")
            if account.paper != name.endswith(":paper"):
                raise AccountError(f"{path}: {name}: accounts on paper, and only they, are called VENUE:paper")
    except OSError as error:
        raise AccountError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, DecimalError) as error:
        raise AccountError(f"{path} does not hold: {error}") from error
    return msgspec.structs.replace(config, live=live, arm_file=str(arm_file or ""))


def account_of(
    name: str,
    config: AccountConfig,
    books: Mapping[str, LiveBook],
    terms: Mapping[str, Terms],
    paper_held: Mapping[str, int],
    run: str,
    *,
    pools: Mapping[str, str],
    live: bool = False,
    arm_file: str = "",
) -> VenueAccount:
    """The adapter of an account; raises AccountError."""
    venue = name.partition(":")[0]
    if config.paper:
        return PaperAccount(venue, name, books, terms, paper_held, latency_ms=config.latency_ms, run=run)
    if config.chain is not None:
        return ChainAccount(name, config.chain, pools, live=live, arm_file=Path(arm_file) if arm_file else None)
    from execution.ccxt_account import CcxtAccount, CcxtOptions  # ccxt takes a second to load

    return CcxtAccount(
        CcxtOptions(
            config.exchange, venue, name, Path(config.key_file) if config.key_file else None, live=live,
            arm_file=Path(arm_file) if arm_file else None, rest_url=config.rest_url, ws_url=config.ws_url,
            default_type=config.default_type,
        )
    )  # fmt: skip
