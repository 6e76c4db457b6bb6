"""Commands of the chains: collect one, list what is known by name."""

from __future__ import annotations

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
