"""Commands of the chains: collect one, list what is known by name."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]


def collect_chain(
    chain: Annotated[str, typer.Argument(help="Chain id: a preset such as ethereum, or a [chains.NAME] of the settings.")],
    config: Config = None,
    http: Annotated[list[str] | None, typer.Option(help="JSON-RPC endpoint; may be given several times.")] = None,
    ws: Annotated[list[str] | None, typer.Option(help="Websocket endpoint; may be given several times.")] = None,
) -> None:
    """Mirror a chain's pools: chain.block, chain.pool, and a book for each in market.book. SIGTERM stops it cleanly."""
    from cli.main import fail, log_to_stderr, settings_of
    from collectors.dex.collector import main as run
    from collectors.errors import UnknownVenue
    from config.chains import ChainSettings

    log_to_stderr()
    settings = settings_of(config)
    given = {k: tuple(v) for k, v in (("http_urls", http), ("ws_urls", ws)) if v}
    if given:
        own = settings.chains.get(chain) or ChainSettings()  # pyright: ignore[reportCallIssue]
        settings = settings.model_copy(update={"chains": {**settings.chains, chain: own.model_copy(update=given)}})
    try:
        raise typer.Exit(run(settings, chain))
    except UnknownVenue as error:
        raise fail(error, 64) from None


def chains() -> None:
    """List the chains that are known by name, with their factories."""
    from collectors.dex.presets import PRESETS

    for name, preset in PRESETS.items():
        print(f"{name:10} chain id {preset.chain_id:<6} block {preset.block_time_ms} ms  quotes {', '.join(preset.quotes)}")
        for factory in preset.factories:
            print(f"{'':10} {factory.protocol:11} {factory.address}  {factory.venue or f'{factory.protocol}-{name}'}")


def chain_fuzz(
    config: Config = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from --first on.")] = 4,
    actions: Annotated[int, typer.Option(min=1, help="Blocks and reorganisations for each seed.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
) -> None:
    """Random life and reorganisations on a real local EVM, the mirror compared at every head. A JSON line a seed.

    Exit code 1 when anything differed. Needs Kafka, and npm once.
    """
    import asyncio
    import json
    import uuid

    from bus.errors import BusError
    from bus.topics import apply
    from cli.chain_fuzz import fuzz, summary
    from cli.main import fail, log_to_stderr, settings_of
    from simulator.npm import NpmError

    log_to_stderr()
    wrong = 0
    try:
        apply(settings_of(config))
        for seed in range(first, first + seeds):
            name = f"fuzz-{uuid.uuid4().hex[:8]}"
            report = asyncio.run(fuzz(lambda chains: settings_of(config, chains=chains), name, seed, actions))
            print(json.dumps(summary(report)), flush=True)
            wrong += report.wrong
    except BusError as error:
        raise fail(error, 2) from None
    except NpmError as error:
        raise fail(error, 3) from None
    raise typer.Exit(1 if wrong else 0)


def simulate_chain(
    name: Annotated[str, typer.Option(help="Name of the chain in the settings that are written.")] = "local",
    config_out: Annotated[Path | None, typer.Option(help="TOML file to write, for collect-chain --config.")] = None,
    seed: int = 1,
    block_time_ms: Annotated[int, typer.Option(min=20)] = 1000,
    reorg_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the steps that reorganise.")] = 0.1,
    price: Annotated[
        list[str] | None, typer.Option(help="ETH=3000, BTC=65000: pools at these prices in USDT, and trades of usual sizes.")
    ] = None,
    common: Annotated[int, typer.Option(min=0, help="They follow the path of exchanges of this number; 0: none.")] = 0,
    trader_out: Annotated[
        Path | None, typer.Option(help="Folder for an address with play money: key, account.toml, pools.toml.")
    ] = None,
    hedge_at: Annotated[str, typer.Option(help="The exchange at which it hedges.")] = "binance-spot",
) -> None:
    """A real EVM with the real exchanges' contracts and random life, fetched by npm once; until SIGTERM."""
    from cli.main import fail, log_to_stderr
    from simulator.evm import EvmError
    from simulator.evm_world import run_world
    from simulator.npm import NpmError

    log_to_stderr()
    try:
        run_world(
            name, config_out, seed=seed, block_time_ms=block_time_ms, reorg_share=reorg_share, prices=_prices(price or []),
            common=common, trader_out=trader_out, hedge_at=hedge_at,
        )  # fmt: skip
    except (NpmError, EvmError) as error:
        raise fail(error, 3) from None


def _prices(texts: list[str]) -> dict[str, Decimal]:
    from simulator.evm_market import WRAPPED

    out: dict[str, Decimal] = {}
    for text in texts:
        asset, _, number = text.partition("=")
        try:
            out[asset] = Decimal(number)
        except InvalidOperation:
            out[asset] = Decimal(0)
        if asset not in WRAPPED or not (out[asset].is_finite() and out[asset] > 0):
            known = ", ".join(a for a in WRAPPED if a != "USDT")
            raise typer.BadParameter(f"{text!r} is not ASSET=PRICE with an asset of {known} and a price above 0")
    return out
