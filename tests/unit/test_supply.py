"""What ships: licences, the list of parts, known weaknesses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deploy import supply

ROOT = Path(__file__).parent.parent.parent


def test_nothing_ships_under_a_licence_that_binds_whoever_ships_it():
    found = supply.parts(ROOT / "deploy" / "requirements.lock")
    assert supply.refused(found) == []
    assert len([part for part in found if not part.only_on]) > 50


@pytest.mark.parametrize(
    ("licence", "may"),
    [
        ("MIT", True), ("LGPL-2.1-only", True), ("MIT OR GPL-2.0-only", True), ("GNU Lesser General Public License v3", True),
        ("GPL-3.0-or-later", False), ("MIT AND AGPL-3.0-only", False), ("GNU General Public License (GPL)", False),
        ("GNU Affero General Public License v3", False), ("SSPL-1.0", False), ("", False),
    ],
)  # fmt: skip
def test_licences_are_told_apart(licence: str, may: bool):
    assert (supply.refused([supply.Part("x", "1", licence)]) == []) == may


def test_the_list_of_parts_is_cyclonedx():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = supply.parts(ROOT / "deploy" / "requirements.lock")
    text = json.dumps(supply.sbom(found))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert len(json.loads(text)["components"]) == len(found)


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("", 0, "cannot be reached"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "cannot be reached"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages audited, 0 known"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}]}', 1,
         "a 1: PYSEC-1, mended in 2"),
    ],
    ids=["no answer", "unknown there", "clean", "weak"],
)  # fmt: skip
def test_an_audit_fails_for_a_weakness_and_says_when_nobody_answers(
    answer: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch
):
    told = subprocess.CompletedProcess([], 1, answer, "could not connect")
    monkeypatch.setattr(supply.subprocess, "run", lambda *_, **__: told)
    got, text = supply.audit([supply.Part("a", "1", "MIT")])
    assert got == code and says in text
