"""The documentation holds: every command in it exists with its options, every link leads somewhere, the site is built."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cli.main import app
from collectors.venue import adapter_ids
from strategies.registry import KINDS

ROOT = Path(__file__).parent.parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAM = typer.main.get_command(app)
SAFE = (
    "venues", "venues --markdown", "venues --endpoints", "chains", "topics list", "config show", "config show --all",
    "config check", "limits names",
)  # fmt: skip
"""Commands that need no broker, no network and leave nothing behind: run, wherever the docs name them."""

RUN_BY = {
    "e2e/test_documented_commands.py": "asof backtest balances export fills notices opps orders pnl positions query quote recon "
    "record residuals status",
    "e2e/test_trading.py": "execute kill limits rerun resume trade why",
    "e2e/test_demo.py": "broker demo", "e2e/rooms.py": "collect process", "e2e/browser.py": "console",
    "e2e/test_chain_proof.py": "collect-chain", "e2e/test_doctor.py": "doctor", "e2e/test_history.py": "archive",
    "e2e/test_live.py": "live", "e2e/test_replay.py": "replay", "e2e/test_topics_commands.py": "topics",
    "e2e/test_watchdog.py": "watchdog", "unit/test_simulator_faults.py": "simulate",
}  # fmt: skip
"""Where every other command that the docs name is run as a program: in quotes there, alone or first of its words."""

OPTIONAL = str.maketrans("", "", "[]")
"""Brackets stand around what may be left out."""


def pages() -> ModuleType:
    """docs/pages.py, as mkdocs loads it."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "docs" / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_of_code(text: str) -> Iterator[str]:
    """Each line of a fenced block that is no TOML or output, and each piece of inline code; comments cut off."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        if language in ("", "sh", "console", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield re.split(r"\s#\s", line)[0].strip().removeprefix("$ ")
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    yield from (line.strip() for line in re.findall(r"^ {4}(venue-mirror .*)$", text, re.MULTILINE))


def commands(word: str) -> list[tuple[Path, list[str]]]:
    """(page, words after ``word``) of every command line in the docs that begins with it."""
    found: list[tuple[Path, list[str]]] = []
    for page in DOCS:
        for line in lines_of_code(page.read_text("utf-8")):
            match = re.match(rf"(?:\w+=\S+ )*(?:\S*/)?{word}(?: (.*))?$", line)
            if match is not None:
                cut = re.split(r"\s(?:&|\||>|#)(?:\s|$)", f" {match[1] or ''} ")[0].translate(OPTIONAL)
                found.append((page, shlex.split(cut, comments=True)))
    return found


def refusal(words: list[str]) -> str:
    """Why the program would not take this command line; empty: it would. Capital words stand for anything."""
    command: Any = PROGRAM
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            return ""  # a group alone is spoken of
        name = rest.pop(0)
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    room = [param for param in command.params if param.param_type_name == "argument"]
    options = {name: one for one in command.params if one not in room for name in (*one.opts, *one.secondary_opts)}
    options |= dict.fromkeys(("--help", "-h"))
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            given += word != "…"
            continue
        name, _, value = word.partition("=")
        if name not in options:
            return f"{command.name} has no option {name}"
        if options[name] is not None and not options[name].is_flag and not value:
            if not rest:
                return f"{name} needs a value"
            rest.pop(0)
    if given > len(room) and not any(param.nargs == -1 for param in room):
        return f"{command.name} takes {len(room)} words, not {given}"
    return ""


def test_every_command_of_the_program_in_the_docs_exists_with_its_options() -> None:
    found = commands("venue-mirror")
    assert len(found) > 50, "the docs' commands are not found any more"
    wrong = [f"{page.name}: venue-mirror {' '.join(words)}: {why}" for page, words in found if (why := refusal(words))]
    assert not wrong, "\n".join(wrong)


def test_every_command_in_the_docs_is_run_by_a_test() -> None:
    named = {words[0] for _, words in commands("venue-mirror") if words and words[0] in PROGRAM.commands}  # pyright: ignore
    run = {line.split()[0] for line in SAFE} | set(" ".join(RUN_BY.values()).split())
    assert len(named) > 30 and named <= run, f"say in RUN_BY what runs {named - run}"
    for file, words in RUN_BY.items():
        text = (ROOT / "tests" / file).read_text("utf-8")
        for word in words.split():
            assert re.search(rf'"{word}["\s]', text), f"{file} does not run {word}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("topics aply", "no command 'aply'"), ("query book a b --dept 5", "no option --dept"),
        ("query book a b c", "takes 2 words"), ("query book a b --depth", "needs a value"),
        ("query book a b --depth 5 --watch", ""), ("replay A B C --out X", ""),
    ],
)  # fmt: skip
def test_a_command_that_does_not_exist_would_be_found(line: str, wrong: str) -> None:
    assert (wrong in refusal(line.split())) if wrong else refusal(line.split()) == ""


@pytest.mark.parametrize("line", sorted({" ".join(words) for _, words in commands("venue-mirror")} & set(SAFE)))
def test_commands_that_can_be_run_anywhere_run(line: str) -> None:
    told = CliRunner().invoke(app, line.split())
    assert told.exit_code == 0, told.output


def test_targets_scripts_modules_and_tests_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page, words in commands("make"):
        assert {word for word in words if re.fullmatch(r"[a-z-]+", word)} <= targets, f"{page.name}: make {words}"
    for page, words in [*commands(r"python3?"), *commands("pytest"), *commands("bash")]:
        module = words[words.index("-m") + 1] if "-m" in words[:2] else ""
        if module and module not in ("pytest", "mkdocs", "venv", "pip"):
            there = ROOT / (module.replace(".", "/") + ".py")
            assert there.exists(), f"{page.name}: no module {module}"
        for word in words:
            if re.fullmatch(r"(tests|benchmarks|deploy|docs)/[\w/.-]+", word.partition("::")[0]) and "<" not in word:
                assert (ROOT / word.partition("::")[0]).exists(), f"{page.name}: no {word}"
    for page in DOCS:
        for script in re.findall(r"`((?:deploy|benchmarks|tests|schemas|config|docs)/[\w/-]+\.\w+)`", page.read_text("utf-8")):
            assert (ROOT / script).exists(), f"{page.name}: no {script}"


def test_the_site_is_built_strictly_from_the_docs_and_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))  # a warning raises
    for name in (*(f"venues/{v}" for v in adapter_ids()), *(f"strategies/{k}" for k in KINDS), "api", "settings", "topics"):
        assert (tmp_path / f"{name}.html").exists(), name
    assert "/books/{venue}/{symbol}" in (tmp_path / "api.html").read_text("utf-8")
    assert "prevSeqId" in (tmp_path / "venues" / "okx.html").read_text("utf-8")
    for file in tmp_path.rglob("*.html"):
        foreign = re.findall(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="(https?:[^"]+)"', file.read_text("utf-8"))
        assert not foreign, f"{file.name} fetches {foreign}"


def test_links_lead_somewhere(tmp_path: Path) -> None:
    made = pages()
    found = {"docs/a.md": "a.md", "ARCHITECTURE.md": "ARCHITECTURE.md"}
    text = "[x](../ARCHITECTURE.md#rooms) [code](../config/settings.py) [out](https://example.org) [here](#there)"
    want = "[x](ARCHITECTURE.md#rooms) code [out](https://example.org) [here](#there)"
    assert made.linked(text, "docs/a.md", found) == want
    with pytest.raises(FileNotFoundError, match="nothing"):
        made.linked("[x](nothing.md)", "docs/a.md", found)
    for page in (ROOT / "README.md", *ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            assert "://" in target or (ROOT / target).exists(), f"{page.name}: {target}"


def test_the_capacity_table_is_what_the_command_computes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import capacity

    monkeypatch.setattr("sys.argv", ["capacity.py"])
    capacity.main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(capacity.STEPS)
    assert "\n".join(table) in (ROOT / "docs" / "scaling.md").read_text("utf-8"), "run: python benchmarks/capacity.py"


def test_capacity_grows_with_what_is_sent_and_says_which_figure_is_missing() -> None:
    from benchmarks.capacity import Rates, need, rates

    measured = Rates(20.0, 50_000, 250, 50)
    small, large = need(4, measured, 0.5), need(4000, measured, 0.5)
    assert small.messages_s == pytest.approx(4e9 / 3600 / 250)
    assert (small.collectors, small.processors, small.brokers) == (1, 1, 3)
    assert large.collectors == -(-large.messages_s * 20 // 500_000) and large.partitions >= 2 * large.processors
    with pytest.raises(SystemExit, match=r"benchmarks/collector\.py"):
        rates([])
