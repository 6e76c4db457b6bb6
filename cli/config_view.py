"""`config`: whether the settings hold, and what holds in the end. Secrets are never shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="The settings: do they hold, and what holds in the end.")
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
]


@app.command("check")
def config_check(config: Config = None) -> None:
    """Say every mistake at once, with its place and what would be right; exit code 64 when there is one."""
    from cli.main import settings_of

    settings = settings_of(config)
    print(f"the settings hold: {len(settings.venues)} venues, {len(settings.chains)} chains")


@app.command("show")
def config_show(
    config: Config = None,
    every: Annotated[bool, typer.Option("--all", help="Defaults too, not only what differs from them.")] = False,
) -> None:
    """Print the settings that hold, from the file, the environment and the defaults, as TOML; secrets are hidden."""
    from cli.main import settings_of
    from config.redact import shown
    from config.settings import Settings

    found = settings_of(config).model_dump(mode="json", exclude_defaults=not every)
    order = {name: number for number, name in enumerate(Settings.model_fields)}
    lines = [line for name in sorted(found, key=order.__getitem__) for line in _table((name,), shown(name, found[name]))]
    print("\n".join(lines) if lines else "# nothing differs from the defaults; --all shows them")


def _table(place: tuple[str, ...], table: dict[str, Any]) -> list[str]:
    """A table of TOML with those below it."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict) and not _is_tables(value)}
    lines = [f"[{'.'.join(map(_name, place))}]", *(f"{_name(k)} = {_value(v)}" for k, v in plain.items() if v is not None)]
    lines = lines if len(lines) > 1 else []
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _table((*place, key), value)
        elif _is_tables(value):
            for one in value:
                lines += [f"[[{'.'.join(map(_name, (*place, key)))}]]"]
                lines += [f"{_name(k)} = {_value(v)}" for k, v in one.items() if v is not None]
    return lines


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _name(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _value(value: Any) -> str:
    """JSON's texts, numbers and truth are TOML's too."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_name(k)} = {_value(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
