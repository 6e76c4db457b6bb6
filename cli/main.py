"""venue-mirror: the exact state of trading venues, mirrored in one place. One program starts every room."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import trade as trade_commands
from cli.chain import chain_fuzz, chains, collect_chain, simulate_chain
from cli.config_view import app as config_app
from cli.demo_commands import demo, live
from cli.doctor import doctor
from cli.history import archive, asof, export
from cli.logs import log_to_stderr
from cli.quote import quote_command
from cli.topics import app as topics_app
from cli.workers import process
from config.settings import ConfigError, Settings, load_settings

app = typer.Typer(
    name="venue-mirror",
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
broker_app = typer.Typer(no_args_is_help=True, help="The embedded broker: Apache Kafka itself, on this machine.")
query_app = typer.Typer(no_args_is_help=True, help="Ask the processors' web views.")
simulate_app = typer.Typer(
    no_args_is_help=True, help="Venues that speak the real venues' protocols, with ground truth."
)
app.add_typer(broker_app, name="broker")
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")
app.add_typer(query_app, name="query")
app.add_typer(simulate_app, name="simulate")
trade_commands.register(app)
app.command("process")(process)
app.command("doctor")(doctor)
app.command("archive")(archive)
app.command("asof")(asof)
app.command("export")(export)
app.command("quote")(quote_command)
app.command("collect-chain")(collect_chain)
app.command("chains")(chains)
app.command("demo")(demo)
app.command("live")(live)
simulate_app.command("chain-fuzz")(chain_fuzz)
simulate_app.command("chain")(simulate_chain)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]
Url = Annotated[str, typer.Option(help="Address of a processor's views; default: from the settings.")]


def say(text: str) -> None:
    """Progress goes to stderr, so that stdout holds results only."""
    print(text, file=sys.stderr, flush=True)


def fail(error: Exception | str, code: int) -> typer.Exit:
    """Print the error as one sentence; gives what to raise."""
    say(f"error: {error}")
    return typer.Exit(code)


def settings_of(config: Path | None, **overrides: Any) -> Settings:
    """The settings, or exit code 64 with every problem listed."""
    try:
        return load_settings(config, **overrides)
    except ConfigError as error:
        raise fail(error, 64) from None


@broker_app.command("start")
def broker_start(
    config: Config = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of its data; default: .venue-mirror/kafka.")] = None,
    port: Annotated[int | None, typer.Option(help="Port on localhost; default: 19092.")] = None,
) -> None:
    """Start it in the background; the first time its jars are fetched through Maven. Prints its address."""
    from bus.broker import EmbeddedBroker
    from bus.errors import BusError

    try:
        print(EmbeddedBroker(_broker(config, data_dir, port).broker, say).start())
    except BusError as error:
        raise fail(error, 2) from None


@broker_app.command("stop")
def broker_stop(
    config: Config = None, data_dir: Annotated[Path | None, typer.Option(help="Folder of its data.")] = None
) -> None:
    """Stop it cleanly."""
    from bus.broker import EmbeddedBroker

    stopped = EmbeddedBroker(_broker(config, data_dir, None).broker, say).stop()
    print("stopped" if stopped else "no embedded broker was running")


@broker_app.command("status")
def broker_status(
    config: Config = None, data_dir: Annotated[Path | None, typer.Option(help="Folder of its data.")] = None
) -> None:
    """Say where it runs; exit code 1 when it does not."""
    from bus.broker import EmbeddedBroker

    status = EmbeddedBroker(_broker(config, data_dir, None).broker).status()
    if status is None:
        print("not running")
        raise typer.Exit(1)
    print(json.dumps(status.__dict__))


def _broker(config: Path | None, data_dir: Path | None, port: int | None) -> Settings:
    given = {k: v for k, v in (("data_dir", data_dir), ("port", port)) if v is not None}
    return settings_of(config, **({"broker": given} if given else {}))


@app.command()
def collect(
    venue: Annotated[str, typer.Argument(help="Venue id, e.g. binance-spot; see `venue-mirror venues`.")],
    config: Config = None,
    symbols: Annotated[str, typer.Option(help="Comma-separated unified symbols; default: all that trade.")] = "",
) -> None:
    """Run one collector of a venue. Start more of the same venue to share its instruments. SIGTERM stops it cleanly."""
    from collectors.errors import UnknownVenue
    from collectors.program import main as run

    log_to_stderr()
    settings = settings_of(config)
    if symbols:
        section = settings.venue(venue).model_copy(update={"symbols": tuple(_split(symbols))})
        settings = settings.model_copy(update={"venues": {**settings.venues, venue: section}})
    try:
        # What the command line says stays; what the file says may change while it runs.
        raise typer.Exit(run(settings, venue, None if symbols else partial(load_settings, config)))
    except UnknownVenue as error:
        raise fail(error, 64) from None


@app.command()
def console(
    config: Config = None,
    web_port: Annotated[int | None, typer.Option(help="Port of the page; 0: any free one, printed.")] = None,
) -> None:
    """Serve the page that people look at: coverage, books, cross-venue, orders, health. Read-only."""
    from cli.console import run

    log_to_stderr()
    raise typer.Exit(run(settings_of(config, **({"console": {"web_port": web_port}} if web_port is not None else {}))))


@app.command()
def venues(
    markdown: Annotated[bool, typer.Option("--markdown", help="As the table of ADDING_A_VENUE.md.")] = False,
    endpoints: Annotated[bool, typer.Option("--endpoints", help="With the public endpoints.")] = False,
) -> None:
    """List the venues that can be collected: their channels, and what proves a book."""
    from cli.venues import show

    show(markdown=markdown, endpoints=endpoints)


@app.command()
def replay(
    files: Annotated[list[Path], typer.Argument(help="Captures; several of one venue are one stream in this order.")],
    out: Annotated[Path, typer.Option(help="Where the final books go, a JSON line each.")],
    config: Config = None,
    speed: Annotated[float, typer.Option(min=0, help="1: as it was recorded; 0: as fast as the collector reads.")] = 0,
    digests: Annotated[Path | None, typer.Option(help="Digests of the processor's books at each key frame.")] = None,
    drop_every: Annotated[int, typer.Option(min=0, help="The venue loses one depth frame in this many.")] = 0,
    seed: Annotated[int, typer.Option(help="Which ones it loses.")] = 0,
    keyframe_every: Annotated[int, typer.Option(min=1, help="Book events between two key frames.")] = 100,
) -> None:
    """Play captures through collector, Kafka and Faust; print one JSON line of counts.

    Exit code 1 when the venue's own ticker or a key frame disagreed with the mirror.
    """
    from bus.errors import BusError
    from cli.replay import ReplayError, ReplayOptions
    from cli.replay import replay as run
    from cli.stack import StackError
    from cli.views import ViewError
    from simulator.capture_file import CaptureError

    log_to_stderr()
    options = ReplayOptions(files, out, speed, digests, drop_every, seed, keyframe_every)
    try:
        summary = asyncio.run(run(settings_of(config), options, say))
    except asyncio.CancelledError:
        raise typer.Exit(143) from None
    except BusError as error:
        raise fail(error, 2) from None
    except (ReplayError, StackError, ViewError, CaptureError, OSError) as error:
        raise fail(error, 1) from None
    print(json.dumps(summary))
    raise typer.Exit(1 if summary["bbo_bad"] or summary["keyframe_bad"] or summary["checksum_bad"] else 0)


@simulate_app.command("synthetic")
def simulate_synthetic(
    protocol: Annotated[
        str, typer.Option("--protocol", "--adapter", help="Whose protocol to speak; an unknown one lists them.")
    ] = "binance-spot",
    instruments: Annotated[int, typer.Option(min=1)] = 60,
    rate: Annotated[float, typer.Option(min=0, help="Book events a second over all instruments.")] = 2000,
    seed: int = 1,
    levels: Annotated[int, typer.Option(min=0, help="Of a book, a side, at first; 0: 100, or 20 in many books.")] = 0,
    fault_every: Annotated[float, typer.Option(min=0, help="Seconds between two random faults; 0: none.")] = 0,
    common: Annotated[int, typer.Option(min=0, help="Prices near those of all venues of this number; 0: on their own.")] = 0,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0: any free port, printed.")] = 0,
) -> None:
    """A venue with generated order flow; its exact books at /truth/SYMBOL, faults and listings at /control."""
    from simulator.main import run_synthetic
    from simulator.protocols import UnknownProtocol

    log_to_stderr()
    try:
        run_synthetic(
            adapter=protocol, instruments=instruments, rate=rate, seed=seed, host=host, port=port,
            levels=levels or None, fault_every_s=fault_every, common=common,
        )  # fmt: skip
    except UnknownProtocol as error:
        raise fail(error, 64) from None


@simulate_app.command("load")
def simulate_load(
    instruments: Annotated[int, typer.Option(min=1)] = 60,
    rate: Annotated[float, typer.Option(min=0, help="Depth frames a second over all instruments.")] = 500,
    levels: Annotated[int, typer.Option(min=1, help="Levels that change in a depth frame; a quiet instrument's has few.")] = 68,
    seed: int = 1,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0: any free port, printed.")] = 0,
) -> None:
    """Binance USD-M with frames as large as its busy instruments', sent at little cost: to measure what reads them."""
    from simulator.main import run_load

    log_to_stderr()
    run_load(instruments=instruments, rate=rate, levels=levels, seed=seed, host=host, port=port)


@simulate_app.command("capture")
def simulate_capture(
    files: Annotated[list[Path], typer.Argument(help="Captures of one venue, one stream in this order.")],
    speed: Annotated[float, typer.Option(min=0, help="1: as recorded; 0: as fast as the client reads.")] = 1,
    drop_every: Annotated[int, typer.Option(min=0, help="Lose one depth frame in this many.")] = 0,
    seed: int = 0,
    host: str = "127.0.0.1",
    port: int = 0,
) -> None:
    """Serve a capture as the venue itself would."""
    from simulator.main import run_capture

    log_to_stderr()
    run_capture(files, speed=speed, drop_every=drop_every, seed=seed, host=host, port=port)


@query_app.command("book")
def query_book(
    venue: str,
    symbol: str,
    config: Config = None,
    url: Url = "",
    depth: Annotated[int, typer.Option(min=1, help="Levels a side.")] = 10,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The view's JSON instead of a table.")] = False,
) -> None:
    """Show one book, e.g. `venue-mirror query book binance-spot BTC/USDT --watch`."""
    from cli.query import show_book
    from cli.views import ViewError, Views

    try:
        asyncio.run(show_book(Views.of(settings_of(config), url), venue, symbol, depth, watch, as_json))
    except ViewError as error:
        raise fail(error, 1) from None
    except KeyboardInterrupt:
        pass


@query_app.command("books")
def query_books(
    config: Config = None,
    url: Url = "",
    as_json: Annotated[bool, typer.Option("--json", help="The view's JSON instead of a table.")] = False,
) -> None:
    """List every book with its state."""
    from cli.query import show_books
    from cli.views import ViewError, Views

    try:
        asyncio.run(show_books(Views.of(settings_of(config), url), as_json))
    except ViewError as error:
        raise fail(error, 1) from None


@app.command()
def record(
    venue: str,
    symbols: Annotated[str, typer.Option(help="Comma-separated unified symbols.")],
    out: Annotated[Path, typer.Option(help="Capture to write: lines `RECV_NS JSON`, gzip when it ends in .gz.")],
    config: Config = None,
    seconds: Annotated[float, typer.Option(min=0, help="0: until Ctrl-C.")] = 0,
) -> None:
    """Record what a venue sends, for `replay`. Needs no Kafka."""
    from collectors.errors import CollectorError
    from collectors.recorder import record as run

    log_to_stderr()
    try:
        frames = asyncio.run(run(settings_of(config), venue, _split(symbols), out, seconds, say))
    except CollectorError as error:
        raise fail(error, 3) from None
    print(f"{frames} messages written to {out}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
