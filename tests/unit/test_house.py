"""Rules of the house that no other tool holds."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROOMS = (
    "config", "schemas", "market", "bus", "collectors", "processors", "strategies", "execution", "history",
    "simulator", "console", "deploy", "cli",
)  # fmt: skip
FILES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_one_idea(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_says_what_it_is(file: Path) -> None:
    text = file.read_text("utf-8")
    if text:
        assert ast.get_docstring(ast.parse(text)), "a module starts with a sentence about what it is"


def test_every_room_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert all(any(fnmatch(room, pattern) for pattern in included) for room in ROOMS)
    folders = {file.parent for file in FILES}
    assert all((folder / "__init__.py").exists() for folder in folders), "a folder without __init__.py is not installed"


def test_every_dependency_is_locked_with_a_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    wanted = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        name = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]
        assert re.search(rf"^{re.escape(name)}==.*\\$", lock, re.MULTILINE), f"{name}: run make lock"
    pinned = re.findall(r"^[a-z0-9].*==.*", lock, re.MULTILINE)
    assert all(line.endswith("\\") for line in pinned), "a line without a hash"


def test_the_lock_names_no_registry() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text("utf-8")


@pytest.mark.parametrize("file", sorted((ROOT / "schemas").glob("*.avsc")), ids=lambda file: file.stem)
def test_a_schemas_numbers_carry_their_unit_or_are_said(file: Path) -> None:
    """Times are named with their unit; no field is a float."""
    for field in json.loads(file.read_text("utf-8"))["fields"]:
        assert field["type"] not in ("float", "double")
        if field["name"].startswith(("ts_", "expiry")):
            assert field["name"].endswith(("_us", "_ns")), f"{field['name']} does not say its unit"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nobody_waits_in_a_way_that_loses_a_cancellation(file: Path) -> None:
    # Up to Python 3.11 asyncio.wait_for() swallows it when what it waits for comes at the same moment: a loop around it
    # never ends. asyncio.timeout() does not.
    assert "asyncio.wait_for(" not in file.read_text("utf-8")
