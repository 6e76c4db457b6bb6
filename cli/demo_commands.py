"""Commands of the whole on one machine: `demo` and `live`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]


def demo(
    config: Config = None,
    duration: Annotated[float, typer.Option(envvar="DURATION", min=0, help="Seconds; 0: until Ctrl-C.")] = 0,
    captures: Annotated[Path | None, typer.Option(envvar="CAPTURES", help="Folder with captures to play too.")] = None,
    chain: Annotated[bool, typer.Option(help="A local chain with the real exchanges' contracts too; needs npm.")] = True,
    trading: Annotated[bool, typer.Option(help="Arbitrage between exchanges and pools too, with play money.")] = True,
) -> None:
    """Run everything on this machine against simulated venues and a chain, and prove the mirror against their own books."""
    from cli.demo import run_demo
    from cli.logs import log_to_stderr
    from cli.main import say, settings_of

    log_to_stderr()
    raise typer.Exit(_run_screen(lambda: run_demo(
        settings_of(config), duration, captures, say, with_chain=chain, with_trading=trading
    )))  # fmt: skip


def live(
    venue: str,
    symbols: Annotated[str, typer.Option(help="Comma-separated unified symbols; default: all that trade.")] = "",
    config: Config = None,
    duration: Annotated[float, typer.Option(envvar="DURATION", min=0, help="Seconds; 0: until Ctrl-C.")] = 0,
) -> None:
    """The same against a real venue's public endpoints; no keys are needed."""
    from cli.demo import run_live
    from cli.logs import log_to_stderr
    from cli.main import say, settings_of

    log_to_stderr()
    wanted = [part.strip() for part in symbols.split(",") if part.strip()]
    raise typer.Exit(_run_screen(lambda: run_live(settings_of(config), venue, wanted, duration, say)))


def _run_screen(make: Any) -> int:
    from bus.errors import BusError
    from cli.main import fail
    from cli.stack import StackError
    from cli.views import ViewError
    from collectors.errors import UnknownVenue

    try:
        return asyncio.run(make())
    except KeyboardInterrupt:
        return 130
    except BusError as error:
        raise fail(error, 2) from None
    except UnknownVenue as error:
        raise fail(error, 64) from None
    except (StackError, ViewError) as error:
        raise fail(error, 1) from None
