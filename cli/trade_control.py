"""Stopping, going on, and how things stand: kill, resume, status."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from config.settings import ConfigError, Settings, load_settings

Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with the settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Record = dict[str, Any]
WAIT_S = 75.0
"""Longer than an executor tries to verify a kill and to flatten."""
FAILED = ("NOT SURE", ": not flat ")
"""In alarms that end the waiting. Others may come meanwhile: a group that the kill leaves open is closed by the flattening."""


def settings_of(config: Path | None) -> Settings:
    """The settings; exit code 64 with all that is wrong in them."""
    try:
        return load_settings(config)
    except ConfigError as error:
        raise fail(error, 64) from None


def fail(error: Exception | str, code: int) -> typer.Exit:
    """Say an error; the exit to raise."""
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(code)


def kill(
    config: Config = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    venue: str = "",
    account: str = "",
    strategy: str = "",
    flatten: Annotated[bool, typer.Option("--flatten", help="Then close the positions, reduce-only, within collars.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until every running account has verified it.")] = True,
    reason: Annotated[str, typer.Option(help="Why.")] = "by hand",
) -> None:
    """Stop: cancel all, refuse all. Executors verify at the venue that nothing is open, or alarm.

    A killed strategy decides nothing more; the gateway still closes what its fills left half done. Exit code 1 when an
    account that should run has not confirmed.
    """
    scope = _scope(all_, venue, account, strategy)
    settings = settings_of(config)
    version = _control(settings, scope, "KILL", reason, flatten=flatten)
    if wait and not _confirmed(settings, scope, version, flatten=flatten):
        raise typer.Exit(1)


def resume(
    reason: Annotated[str, typer.Option(help="Why it may trade again; kept with the version.")],
    config: Config = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    venue: str = "",
    account: str = "",
    strategy: str = "",
) -> None:
    """Allow trading. Before the first `resume --all` nothing trades at all."""
    _control(settings_of(config), _scope(all_, venue, account, strategy), "RUN", reason)


def _scope(all_: bool, venue: str, account: str, strategy: str) -> str:
    given = [("all", all_), (f"venue:{venue}", venue), (f"account:{account}", account), (f"strategy:{strategy}", strategy)]
    scopes = [scope for scope, wanted in given if wanted]
    if len(scopes) != 1:
        raise fail("say exactly one of --all, --venue, --account, --strategy", 64)
    return scopes[0]


def _control(settings: Settings, scope: str, state: str, reason: str, *, flatten: bool = False) -> int:
    """Write a Control record; gives its version."""
    from bus.errors import BusError
    from cli.trade_views import records, write

    try:
        version = max((r["version"] for r in records(settings, "orders.control")), default=0) + 1
        offset = write(settings, "orders.control", "Control", scope, {
            "scope": scope, "version": version, "state": state, "flatten": flatten, "by": who(), "reason": reason,
            "ts_ns": time.time_ns(),
        })  # fmt: skip
    except BusError as error:
        raise fail(error, 2) from None
    print(f"{scope}: {state}, version {version}, offset {offset}", flush=True)
    return version


def running(notices: list[Record]) -> dict[str, int]:
    """account → its last sign of life (ns), of those whose executor has not said that it stopped."""
    alive: dict[str, int] = {}
    for notice in notices:
        if notice["kind"] == "STOPPED":
            alive.pop(notice["account"], None)
        elif notice["kind"] == "READY" or notice["account"] in alive:
            alive[notice["account"]] = notice["ts_ns"]
    return alive


def _confirmed(settings: Settings, scope: str, version: int, *, flatten: bool) -> bool:
    """Wait for every running account's word on a kill, and print it. False: somebody's is missing."""
    from bus.log_reader import LogReader, start_positions
    from cli.trade_views import records
    from schemas.codec import codec

    kind, _, name = scope.partition(":")
    positions = start_positions(settings, {"orders.notice": "end"})
    seen = records(settings, "orders.notice")
    wanted = {
        a for a in running(seen)
        if kind in ("all", "strategy") or (kind == "account" and a == name) or (kind == "venue" and a.partition(":")[0] == name)
    }  # fmt: skip
    waiting = {(a, k) for a in wanted for k in (("KILLED", "FLATTENED") if flatten else ("KILLED",))}
    sure, deadline = True, time.monotonic() + WAIT_S
    decode, reader = codec("Notice").decode, LogReader(settings, positions)
    news = [n for n in seen if n["control_version"] == version]
    try:
        while waiting and time.monotonic() < deadline:
            for notice in news:
                account, what = notice["account"], notice["kind"]
                if notice["control_version"] == version and (account, what) in waiting:
                    waiting.discard((account, what))
                    print(f"{account}: {what}, {notice['text']}, after {notice['took_us'] / 1000:.1f} ms", flush=True)
                elif what == "ALARM" and any(a == account for a, _ in waiting) and any(w in notice["text"] for w in FAILED):
                    sure = False
                    waiting = {(a, k) for a, k in waiting if a != account}
                    print(f"{account}: ALARM, {notice['text']}", flush=True)
            news = [decode(r.value or b"") for r in reader.batch(100, 0.2)] if waiting else []
    finally:
        reader.close()
    for account, what in sorted(waiting):
        print(f"{account}: no word of {what} within {WAIT_S:.0f} s: look at the venue", flush=True)
    return sure and not waiting


def status(config: Config = None, as_json: AsJson = False) -> None:
    """How things stand: what may trade, which accounts run, what is open, what is left over, what was alarmed."""
    import json

    from bus.errors import BusError
    from cli.trade_views import status_rows, table

    try:
        parts = status_rows(settings_of(config))
    except BusError as error:
        raise fail(error, 2) from None
    if as_json:
        print(json.dumps(parts))
        return
    for title, rows in parts.items():
        table(title, rows)


def recon(
    venue: Annotated[str, typer.Argument(help="A venue, or one account (venue:name).")],
    accounts: Annotated[Path, typer.Argument(help="The accounts' TOML file, for how they are reached.")],
    config: Config = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the real venue; only questions are asked.")] = False,
    arm: Annotated[Path | None, typer.Option(help="As for execute.")] = None,
) -> None:
    """Ask the venue for balances, positions, open orders and recent fills: each difference is a line. Exit code 1 on any."""
    from bus.errors import BusError
    from cli.trade_recon import reconcile
    from execution.errors import ExecutionError, VenueError

    try:
        found = reconcile(settings_of(config), venue, accounts, live=live, arm=arm)
    except (BusError, VenueError) as error:
        raise fail(error, 2) from None
    except ExecutionError as error:
        raise fail(error, 64) from None
    print("\n".join(found) if found else f"{venue}: no difference")
    raise typer.Exit(1 if found else 0)


def calibrate(
    venue: str,
    symbol: str,
    config: Config = None,
    capture: Annotated[list[Path] | None, typer.Option(help="Captures to read; default: the recorded topics.")] = None,
    bucket_ticks: Annotated[int, typer.Option(min=1, help="Distance step of the fit, in ticks.")] = 1,
    window_s: Annotated[int, typer.Option(min=10, help="So much of the end is fitted.")] = 3600,
) -> None:
    """A, k and sigma for market making from recorded trades and books, and measured delays, as TOML that `trade` takes."""
    from bus.errors import BusError
    from cli.trade_backtest import BacktestError
    from cli.trade_calibrate import CalibrationError
    from cli.trade_calibrate import calibrate as fit

    try:
        print(fit(settings_of(config), venue, symbol, capture or [], bucket_ticks=bucket_ticks, window_s=window_s))
    except BusError as error:
        raise fail(error, 2) from None
    except (CalibrationError, BacktestError) as error:
        raise fail(error, 64) from None


def who() -> str:
    """The person at the keyboard, as far as the machine knows."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


COMMANDS = (kill, resume, status, recon, calibrate)
