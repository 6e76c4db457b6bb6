"""The soak's judgement: what is flat passes, and each thing that is not is told by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.soak import judge

RATE = 650.0


def samples(minutes: int = 60, **changed: Any) -> list[dict[str, Any]]:
    """One a minute. ``changed``: a field's value by minute."""
    made: list[dict[str, Any]] = []
    for minute in range(minutes + 1):
        sample: dict[str, Any] = {
            "s": 60.0 * minute, "memory_mb": {"collector": 115, "kafka": 500 + minute % 3}, "lag": 20.0 + minute % 5,
            "events": RATE * 60 * minute, "frame_bytes": 2.3e6 * 60 * minute, "keyframes_ok": minute, "keyframes_bad": 0,
            "gaps": 0, "audit_mismatches": 0, "probes": 10 * minute, "wrong": 0,
        }  # fmt: skip
        made.append(sample | {name: of(minute) for name, of in changed.items()})
    return made


def missed(**changed: Any) -> list[str]:
    return [row.row for row in judge(samples(**changed), RATE).rows if row.met is False]


def test_what_is_flat_passes_and_says_how_much_it_was() -> None:
    told = judge(samples(), RATE)
    assert [row.row for row in told.rows if row.met is False] == []
    volume = told.rows[0]
    assert volume.ours == pytest.approx(8.28) and volume.ratio == pytest.approx(2.07)


@pytest.mark.parametrize(("changed", "row"), [
    ({"memory_mb": lambda m: {"collector": 115 + m, "kafka": 500}}, "memory of collector: growth"),
    ({"lag": lambda m: 100.0 * m}, "records not yet read: growth"),
    ({"wrong": lambda m: int(m > 30)}, "answers that were wrong"),
    ({"keyframes_bad": lambda m: int(m > 59)}, "key frames other than the book"),
    ({"gaps": lambda m: int(m > 5)}, "gaps"),
    ({"audit_mismatches": lambda m: int(m > 5)}, "audits that differed"),
    ({"probes": lambda _: 0}, "answers of the views LIVE and equal to the venue's own"),
])  # fmt: skip
def test_what_is_not_is_told_by_name(changed: dict[str, Any], row: str) -> None:
    assert missed(**changed) == [row]


def test_too_little_to_judge_is_no_success() -> None:
    with pytest.raises(SystemExit, match="too few samples"):
        judge(samples(minutes=2), RATE)
