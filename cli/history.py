"""Commands about the past: keep it, ask for a book of it, take parts of it away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]
Root = Annotated[str, typer.Option(help="Folder or s3://bucket/prefix of the archive; default: history.root.")]
Clock = Annotated[str, typer.Option(help="receive: when the collector had it; venue: what the venue wrote on it.")]


def _settings(config: Path | None, root: str, **more: Any) -> Any:
    from cli.main import settings_of

    given = {"root": root, **more} if root else more
    return settings_of(config, **({"history": given} if given else {}))


def _run(action: Any) -> Any:
    """The action's result; errors become one sentence and an exit code: 64 wrong words, 2 no broker, 1 not there."""
    from bus.errors import BusError
    from cli.main import fail
    from history.errors import HistoryError, WrongRoot, WrongTime

    try:
        return action()
    except (WrongRoot, WrongTime) as error:
        raise fail(error, 64) from None
    except BusError as error:
        raise fail(error, 2) from None
    except HistoryError as error:
        raise fail(error, 1) from None
    except OSError as error:
        raise fail(f"the archive's storage: {error}", 1) from None


def archive(
    config: Config = None,
    root: Root = "",
    until_end: Annotated[bool, typer.Option("--until-end", help="Stop where the log ends now.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Merge the small files of past hours before stopping.")] = False,
) -> None:
    """Keep every record of the log as Parquet, each exactly once. SIGTERM stops it cleanly."""
    from cli.main import log_to_stderr, say
    from history.archiver import main as run

    log_to_stderr()
    settings = _settings(config, root)
    raise typer.Exit(_run(lambda: run(settings, until_end=until_end, compact_too=compact, say=say)))


def asof(
    moment: Annotated[str, typer.Argument(help="2026-11-24T14:03:07.250Z, or `now`.")],
    venue: Annotated[str, typer.Option(help="Venue id.")],
    symbol: Annotated[str, typer.Option(help="Unified symbol; all books of the venue without it.")] = "",
    config: Config = None,
    root: Root = "",
    clock: Clock = "receive",
    depth: Annotated[int, typer.Option(min=0, help="Levels a side; 0: all.")] = 0,
) -> None:
    """The exact book at a past moment, from the nearest key frame and the deltas since; a JSON line a book."""
    from cli.main import fail
    from history.asof import book_at, market_at, parse_time

    if clock not in ("receive", "venue"):
        raise fail(f"--clock is receive or venue, not {clock!r}", 64)
    settings = _settings(config, root)

    def find() -> list[Any]:
        at_ns = time.time_ns() if moment == "now" else parse_time(moment)
        if symbol:
            return [book_at(settings, venue, symbol, at_ns, clock)]
        return list(market_at(settings, at_ns, clock=clock, venue=venue).values())

    for book in _run(find):
        print(json.dumps(book.shown(depth or None)))


def export(
    what: Annotated[str, typer.Argument(help="trades, bars or books.")],
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    start: Annotated[str, typer.Option("--from", help="2026-11-24T14:00:00Z, by Kafka's time.")],
    end: Annotated[str, typer.Option("--to", help="Not included; `now` is understood.")] = "now",
    venue: Annotated[str, typer.Option(help="Only this venue.")] = "",
    symbol: Annotated[str, typer.Option(help="Only this symbol.")] = "",
    config: Config = None,
    root: Root = "",
) -> None:
    """Write trades, bars or book events of a time range to one file."""
    from cli.main import fail
    from history.asof import parse_time
    from history.export import TOPIC
    from history.export import export as run

    if what not in TOPIC:
        raise fail(f"there are {', '.join(TOPIC)} to export, not {what!r}", 64)
    settings = _settings(config, root)

    def write() -> int:
        to_ns = time.time_ns() if end == "now" else parse_time(end)
        return run(settings, what, parse_time(start), to_ns, out, venue=venue or None, symbol=symbol or None)  # pyright: ignore

    print(f"{_run(write)} rows written to {out}")
