"""The fuzzers, short, and every input that ever failed: `make fuzz SECONDS=…` is the long one."""

from __future__ import annotations

import json

import pytest

from tests.fuzz.engine import Target, fuzz, signature
from tests.fuzz.targets import CORPUS, targets

RUNS = 60
TARGETS = {target.name: target for target in targets()}
FOUND: dict[str, list[str]] = json.loads((CORPUS / "found.json").read_text("utf-8"))


@pytest.mark.parametrize("name", [name for name in TARGETS if not name.startswith("record")])
def test_what_others_write_is_read_or_refused(name: str) -> None:
    outcome = fuzz(TARGETS[name], 0, seed=1, runs=RUNS)
    assert not outcome.failures, [(f.error, f.data, f.trace) for f in outcome.failures.values()]
    assert outcome.runs >= RUNS


def test_records_are_read_or_refused() -> None:
    for name, target in TARGETS.items():
        if name.startswith("record"):
            outcome = fuzz(target, 0, seed=1, runs=RUNS)
            assert not outcome.failures, [(f.error, f.data, f.trace) for f in outcome.failures.values()]


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FOUND.items() for text in texts])
def test_what_was_found_once_stays_mended(name: str, text: str) -> None:
    TARGETS[name].run(text.encode("latin-1"))


def test_the_fuzzer_finds_what_is_hidden_behind_a_condition() -> None:
    """A fuzzer that finds nothing proves nothing: this target fails only when two values of its JSON are changed."""

    def fragile(data: bytes) -> None:
        try:
            given = json.loads(data)
        except ValueError:
            return
        if not isinstance(given, dict):
            return
        if not str(given.get("size")).startswith("-"):
            return
        if given.get("side", 0) is None:
            raise ZeroDivisionError

    target = Target("fragile", fragile, (b'{"size":"15","side":"buy","price":"7","more":[1,2,3]}',), ("tests/fuzz/test_fuzz",))
    outcome = fuzz(target, 60, seed=1, runs=20_000)
    assert [failure.error for failure in outcome.failures.values()] == ["ZeroDivisionError in the target itself"]
    assert signature(ValueError()) == "ValueError in the target itself"
