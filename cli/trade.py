"""The commands of strategies and orders: run them, look at them, explain them, stop them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import trade_control
from cli.logs import log_to_stderr
from cli.trade_control import AsJson, Config, fail, settings_of

limits_app = typer.Typer(no_args_is_help=True, help="The limits that the risk gate holds every order against.")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def trade(
    strategy: Annotated[Path, typer.Argument(help="The strategy's TOML file: kind, name, parameters (docs/TRADING.md).")],
    mode: Annotated[str, typer.Option(help="paper, shadow (decides, never executed) or live.")] = "paper",
    config: Config = None,
) -> None:
    """Run one strategy until SIGTERM. It sends intents; `execute` makes orders of them."""
    from bus.errors import BusError
    from strategies.registry import load_config
    from strategies.runner import run_process
    from strategies.strategy import StrategyError

    log_to_stderr()
    if mode not in ("paper", "shadow", "live"):
        raise fail(f"--mode is paper, shadow or live, not {mode!r}", 64)
    try:
        raise typer.Exit(run_process(settings_of(config), load_config(strategy), mode.upper(), _say))  # pyright: ignore
    except StrategyError as error:
        raise fail(error, 64) from None
    except BusError as error:
        raise fail(error, 2) from None


def execute(
    accounts: Annotated[Path, typer.Argument(help="The accounts' TOML file (docs/TRADING.md).")],
    config: Config = None,
    live: Annotated[bool, typer.Option("--live", help="Real orders, where the arm file names the account.")] = False,
    arm: Annotated[Path | None, typer.Option(help="File with a line 'VENUE ACCOUNT' for each account with real money.")] = None,
) -> None:
    """Run the executor: risk gate and gateways of these accounts. Without --live nothing real can leave."""
    from bus.errors import BusError
    from execution.config import load_config
    from execution.errors import ExecutionError
    from execution.executor import run_process

    log_to_stderr()
    try:
        raise typer.Exit(run_process(settings_of(config), load_config(accounts, live=live, arm_file=arm), _say))
    except ExecutionError as error:
        raise fail(error, 64) from None
    except BusError as error:
        raise fail(error, 2) from None


def watchdog(
    accounts: Annotated[Path, typer.Argument(help="The accounts' TOML file, the executor's own (docs/TRADING.md).")],
    config: Config = None,
    after: Annotated[float, typer.Option(help="Seconds of silence after which resting orders are cancelled.")] = 60.0,
    live: Annotated[bool, typer.Option("--live", help="As for execute.")] = False,
    arm: Annotated[Path | None, typer.Option(help="As for execute.")] = None,
) -> None:
    """Cancel what rests at venues without a dead man's switch when its executor falls silent. Better on another machine."""
    from bus.errors import BusError
    from execution.config import load_config
    from execution.errors import ExecutionError
    from execution.watchdog import run_process

    log_to_stderr()
    try:
        raise typer.Exit(run_process(settings_of(config), load_config(accounts, live=live, arm_file=arm), after, _say))
    except ExecutionError as error:
        raise fail(error, 64) from None
    except BusError as error:
        raise fail(error, 2) from None


def _show(name: str, config: Path | None, as_json: bool, last: int) -> None:
    from bus.errors import BusError
    from cli.trade_views import rows, table

    try:
        found = rows(settings_of(config), name)[-last:]
    except BusError as error:
        raise fail(error, 2) from None
    if as_json:
        for row in found:
            print(json.dumps(row))
    else:
        table(name, found)


Last = Annotated[int, typer.Option(min=1, help="How many, the newest.")]


def opps(
    config: Config = None,
    as_json: AsJson = False,
    last: Last = 20,
    live: Annotated[bool, typer.Option("--live", help="Go on, until Ctrl-C.")] = False,
) -> None:
    """What the strategies saw: edge, legs and the reason."""
    _show("opps", config, as_json, last)
    if live:
        from cli.trade_views import follow

        follow(settings_of(config), "opps", as_json)


def orders(config: Config = None, as_json: AsJson = False, last: Last = 20) -> None:
    """Orders with their newest state."""
    _show("orders", config, as_json, last)


def fills(config: Config = None, as_json: AsJson = False, last: Last = 20) -> None:
    """Executions."""
    _show("fills", config, as_json, last)


def positions(config: Config = None, as_json: AsJson = False, last: Last = 1000) -> None:
    """Positions by account and symbol."""
    _show("positions", config, as_json, last)


def balances(config: Config = None, as_json: AsJson = False, last: Last = 1000) -> None:
    """Balances: the ledger's beside the venue's; BREAK where they differ."""
    _show("balances", config, as_json, last)


def residuals(config: Config = None, as_json: AsJson = False, last: Last = 1000) -> None:
    """What hedge groups left over: HEDGING, UNHEDGED (an alarm), DUST; amounts are exact."""
    _show("residuals", config, as_json, last)


def notices(config: Config = None, as_json: AsJson = False, last: Last = 50) -> None:
    """Alarms, and what was verified at the venues."""
    _show("notices", config, as_json, last)


def pnl(config: Config = None, as_json: AsJson = False, last: Last = 1000) -> None:
    """Realised profit and fees by account and asset, from the ledger alone."""
    _show("pnl", config, as_json, last)


def why(
    name: Annotated[str, typer.Argument(help="Intent id, order id, opportunity id or trade id.")], config: Config = None
) -> None:
    """The chain of causes of an order: fills, order, verdict, intent, opportunity, and the very books it was decided on."""
    from bus.errors import BusError
    from cli.trade_why import explain

    try:
        text = explain(settings_of(config), name)
    except BusError as error:
        raise fail(error, 2) from None
    except LookupError as error:
        raise fail(error, 1) from None
    print(text)


def rerun(
    intent: Annotated[str, typer.Argument(help="Intent id; ALL: every decision since the oldest snapshot of --strategy.")],
    config: Config = None,
    strategy: Annotated[str, typer.Option(help="Instance name, with ALL.")] = "",
    code: Annotated[Path | None, typer.Option(help="Decide with the Strategy class of this file instead.")] = None,
) -> None:
    """Decide again from the recorded inputs, and compare byte by byte. Exit code 1 when anything differs."""
    from bus.errors import BusError
    from cli.trade_why import decide_again
    from strategies.strategy import StrategyError

    try:
        same, text = decide_again(settings_of(config), intent, strategy, code)
    except BusError as error:
        raise fail(error, 2) from None
    except (LookupError, StrategyError) as error:
        raise fail(error, 1) from None
    print(text)
    raise typer.Exit(0 if same else 1)


@limits_app.command("show")
def limits_show(config: Config = None) -> None:
    """The limits of every scope as they are now."""
    from cli.trade_views import newest_by

    for record in newest_by(settings_of(config), "orders.limits", "scope"):
        print(f"{record['scope']} version {record['version']} by {record['by']}: {record['reason']}")
        for name, value in zip(record["names"], record["limits"], strict=True):
            print(f"  {name} = {value}")


@limits_app.command("set")
def limits_set(
    scope: Annotated[str, typer.Argument(help="global, an account, or strategy:NAME.")],
    values: Annotated[list[str], typer.Argument(help="NAME=VALUE …; what is not named stays; NAME= takes it away.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the version.")],
    config: Config = None,
) -> None:
    """Write a new version of a scope's limits."""
    from cli.trade_control import who
    from cli.trade_views import newest_by, write
    from execution.risk_state import NEEDED
    from market.decimals import DecimalError, parse_decimal

    settings = settings_of(config)
    known = {r["scope"]: r for r in newest_by(settings, "orders.limits", "scope")}
    old = known.get(scope)
    now: dict[str, str] = dict(zip(old["names"], old["limits"], strict=True)) if old else {}
    for item in values:
        name, equals, text = item.partition("=")
        if not equals or name not in NEEDED:
            raise fail(f"{item!r}: write NAME=VALUE; names are {', '.join(NEEDED)}", 64)
        try:
            if text and parse_decimal(text)[0] < 0:
                raise DecimalError("a limit is not negative")
        except DecimalError as error:
            raise fail(f"{item}: {error}", 64) from None
        now.pop(name, None)
        if text:
            now[name] = text
    version = max((r["version"] for r in known.values()), default=0) + 1
    write(settings, "orders.limits", "Limits", scope, {
        "scope": scope, "version": version, "names": sorted(now), "limits": [now[n] for n in sorted(now)], "by": who(),
        "reason": reason, "ts_ns": time.time_ns(),
    })  # fmt: skip
    missing = [n for n in NEEDED if n not in now]
    print(f"{scope}: version {version}" + (f"; not limited here: {', '.join(missing)}" if missing else ""))


@limits_app.command("history")
def limits_history(config: Config = None) -> None:
    """Every version that ever was, oldest first."""
    from cli.trade_views import records

    for r in records(settings_of(config), "orders.limits"):
        print(json.dumps(r))


def backtest(
    strategy: Annotated[Path, typer.Argument(help="The strategy's TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, equity.png, fills.jsonl.")],
    config: Config = None,
    latency_ms: Annotated[int, typer.Option(min=0, help="From decision to the venue's matching.")] = 5,
    no_queue: Annotated[bool, typer.Option("--no-queue", help="Resting orders fill at the first trade there.")] = False,
    capture: Annotated[list[Path] | None, typer.Option(help="Captures to play; default: the recorded topics.")] = None,
) -> None:
    """Run a strategy over recorded books and trades, faster than they came. Prints a JSON summary."""
    from bus.errors import BusError
    from cli.trade_backtest import BacktestError, run_backtest
    from strategies.registry import load_config
    from strategies.strategy import StrategyError

    try:
        summary = run_backtest(
            settings_of(config), load_config(strategy), out, capture or [], latency_ms=latency_ms, queue=not no_queue
        )
    except BusError as error:
        raise fail(error, 2) from None
    except (StrategyError, BacktestError) as error:
        raise fail(error, 64) from None
    print(json.dumps(summary))


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(limits_app, name="limits")
    commands: tuple[Any, ...] = (
        trade, execute, watchdog, opps, orders, fills, positions, balances, residuals, notices, pnl, why, rerun, backtest,
        *trade_control.COMMANDS,
    )  # fmt: skip
    for command in commands:
        app.command()(command)
