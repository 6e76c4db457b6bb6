"""`topics`: the catalogue on the broker, how far its readers are behind, and what must outlive a cluster as a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="The topics of the catalogue on the broker.")
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
DAY_MS = 86_400_000


def _run(action: Callable[..., Any], config: Path | None, *arguments: Any) -> Any:
    """The action's result on the settings; a broker that fails is one sentence and exit code 2."""
    from bus.errors import BusError
    from cli.main import fail, settings_of

    try:
        return action(settings_of(config), *arguments)
    except (BusError, OSError) as error:
        raise fail(error, 2) from None


@app.command("list")
def topics_list(config: Config = None) -> None:
    """Print the catalogue: record, key, partitions, how long it is kept. Needs no broker."""
    from bus.topics import wanted_partitions
    from cli.main import settings_of
    from schemas.topics import TOPICS

    settings = settings_of(config)
    for topic in TOPICS.values():
        kept = "for ever" if topic.retention_ms < 0 else f"{topic.retention_ms / DAY_MS:g} d"
        kept = "newest by key" if "compact" in topic.cleanup else kept
        print(f"{topic.name:22} {topic.record:16} {topic.key:18} {wanted_partitions(topic, settings):5}  {kept}")


@app.command("apply")
def topics_apply(
    config: Config = None,
    grow: Annotated[
        bool, typer.Option("--grow", help="Raise partitions to kafka.market_partitions; see docs/OPERATIONS.md first.")
    ] = False,
) -> None:
    """Create what is missing and set what differs; never shrinks or deletes a topic."""
    from bus.topics import apply

    lines = _run(_grow, config) if grow else []
    lines += _run(apply, config)
    print("\n".join(lines) or "nothing to do: the topics are as the catalogue says")


def _grow(settings: Any) -> list[str]:
    from bus.growth import grow
    from processors.changelogs import changelogs

    return grow(settings, settings.processor.app_id, changelogs(settings))


@app.command("check")
def topics_check(config: Config = None) -> None:
    """Compare the broker with the catalogue; exit code 1 when they differ."""
    from bus.topics import check

    problems = _run(check, config)
    print("\n".join(problems) or "the topics are as the catalogue says")
    raise typer.Exit(1 if problems else 0)


@app.command("lag")
def topics_lag(
    config: Config = None,
    group: Annotated[str, typer.Option(help="Only this consumer group.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Partitions without lag too.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far consumer groups are behind, by partition; those that wait most come first."""
    from bus.lag import lags

    found = _run(lags, config, group)
    shown = sorted((one for one in found if every or one.records), key=lambda one: -one.records)
    if as_json:
        for one in shown:
            print(json.dumps({**one._asdict(), "lag": one.records}))
        return
    width = max((len(one.group) for one in shown), default=5)
    for one in shown:
        place = f"{one.group:{width}}  {one.topic:22} {one.partition:4}"
        print(f"{place}  at {one.committed:>12}  of {one.end:>12}  lag {one.records}")
    groups = ", ".join(sorted({one.group for one in found})) or "none"
    print(f"{sum(one.records for one in found)} records wait, {len(found)} partitions, groups: {groups}")


@app.command("backup")
def topics_backup(
    file: Annotated[Path, typer.Argument(help="File to write, gzip.")],
    config: Config = None,
    topics: Annotated[str, typer.Option(help="Comma-separated; default: all that are kept for ever.")] = "",
) -> None:
    """Write what must outlive a cluster into a file: instruments, statuses, limits, orders, the ledger."""
    from bus.backup import backup

    for name, count in _run(backup, config, file, [t.strip() for t in topics.split(",") if t.strip()]).items():
        print(f"{name:22} {count}")


@app.command("restore")
def topics_restore(file: Annotated[Path, typer.Argument(help="File of `topics backup`.")], config: Config = None) -> None:
    """Write a backup into the empty topics of a new cluster (`topics apply` first). Refuses topics that hold records."""
    from bus.backup import restore

    for name, count in _run(restore, config, file).items():
        print(f"{name:22} {count}")
