"""What ships with the program: its parts, their licences, what is known against them.

::

    python -m deploy.supply licences --lock deploy/requirements.lock    # exit code 1: one may not be shipped
    python -m deploy.supply sbom --lock deploy/requirements.lock        # CycloneDX 1.6 (JSON)
    python -m deploy.supply audit --lock deploy/requirements.lock       # known weaknesses, by pip-audit

Without ``--lock``: of all that is installed beside this Python, as inside the image.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any, NamedTuple

FORBIDDEN = re.compile(r"\bA?GPL|GNU (Affero )?General Public|SSPL|Server Side Public|Business Source", re.IGNORECASE)
"""Licences that would bind whoever ships this program. The lesser GPL, which does not, is another word."""
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)(?: ; ([^\\]*))?", re.MULTILINE)
UNREACHABLE = "the advisory database cannot be reached from here: nothing was audited"


class Part(NamedTuple):
    """One package that ships."""

    name: str
    version: str
    licence: str
    """An SPDX expression, or the author's own words; empty: not known on this machine."""
    only_on: str = ""
    """The lock's marker of a package that is not for this machine."""


def licence_of(found: Distribution) -> str:
    """What the package says about its licence: expression, classifier, own words, or its licence file's first line."""
    meta = found.metadata
    if expression := meta["License-Expression"] or "":
        return expression
    named = [c.rsplit(" :: ", 1)[-1] for c in meta.get_all("Classifier") or () if c.startswith("License :: ")]
    if named:
        return " AND ".join(named)
    if (own := (meta["License"] or "").strip()) and "\n" not in own:
        return own
    for file in found.files or ():
        if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE):
            lines = (line.strip() for line in file.read_text().splitlines())
            return next((line for line in lines if line), "")
    return ""


def parts(lock: Path | None) -> list[Part]:
    """What the lock names, or all that is installed; by name. Raises ValueError when another version is installed."""
    if lock is None:
        found = {Part(d.metadata["Name"], d.version, licence_of(d)) for d in distributions()}
        return sorted(found, key=lambda part: part.name.lower())
    out: list[Part] = []
    pins = PIN.findall(lock.read_text("utf-8"))
    pinned = {(name, version) for name, version, _ in pins}
    for name, version, marker in pins:
        try:
            one = distribution(name)
        except PackageNotFoundError:
            if not marker:
                raise ValueError(f"{name} is locked and not installed: run make setup") from None
            out.append(Part(name, version, "", marker.strip()))
            continue
        if one.version != version and marker and (name, one.version) in pinned:
            out.append(Part(name, version, "", marker.strip()))  # another Python's
            continue
        if one.version != version:
            raise ValueError(f"{name} is locked at {version}, and {one.version} is installed: run make setup")
        out.append(Part(name, version, licence_of(one)))
    return out


def refused(found: list[Part]) -> list[str]:
    """Those that may not ship, with the reason. Of several licences to choose from one that may is enough."""
    out: list[str] = []
    for part in found:
        if part.only_on:
            continue
        if not part.licence:
            out.append(f"{part.name}: says nothing about its licence")
        elif all(FORBIDDEN.search(choice) for choice in re.split(r"\s+OR\s+", part.licence)):
            out.append(f"{part.name}: {part.licence}")
    return out


def sbom(found: list[Part]) -> dict[str, Any]:
    """The list as CycloneDX 1.6; the same parts give the same bytes."""

    def component(part: Part) -> dict[str, Any]:
        purl = f"pkg:pypi/{part.name.lower()}@{part.version}"
        out: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": part.name, "version": part.version, "purl": purl}
        if part.licence:
            out["licenses"] = [{"license": {"name": part.licence}}]
        return out

    own = {"type": "application", "bom-ref": "venue-mirror", "name": "venue-mirror", "licenses": [{"license": {"id": "MIT"}}]}
    components = [component(part) for part in found if part.name != "venue-mirror"]
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": own}, "components": components,
        "dependencies": [{"ref": "venue-mirror", "dependsOn": [c["bom-ref"] for c in components]}],
    }  # fmt: skip


def audit(found: list[Part]) -> tuple[int, str]:
    """Known weaknesses of these versions, by pip-audit: (exit code, what to say). Not reached is said, and no failure."""
    code, text = _pip_audit(found[:1])  # one question says whether anybody answers
    if code is not None:
        code, text = _pip_audit(found)
    return (0, text) if code is None else (code, text)


def _pip_audit(found: list[Part]) -> tuple[int | None, str]:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{part.name}=={part.version}\n" for part in found))
        command = [sys.executable, "-m", "pip_audit", "-r", str(wanted), "--disable-pip", "--no-deps", "-f", "json"]
        done = subprocess.run([*command, "--timeout", "10"], capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None, f"{UNREACHABLE} ({(done.stderr.strip().splitlines() or ['no answer'])[-1][:200]})"
    audited = [one for one in told if "vulns" in one]
    if not audited:
        return None, f"{UNREACHABLE} ({len(found)} asked for, none known there)"
    weak = [f"{one['name']} {one['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}"
            for one in audited for v in one["vulns"]]  # fmt: skip
    skipped = f", {len(told) - len(audited)} unknown there" if len(told) > len(audited) else ""
    return bool(weak), "\n".join([*weak, f"{len(audited)} packages audited{skipped}, {len(weak)} known weaknesses"])


def main(arguments: list[str] | None = None) -> int:
    """Print what is asked for; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.supply", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("licences", "sbom", "audit"))
    parser.add_argument("--lock", type=Path, help="of what this lock names, instead of all that is installed")
    parser.add_argument("--quiet", action="store_true", help="licences: only the count and what is refused")
    options = parser.parse_args(arguments)
    try:
        found = parts(options.lock)
    except (OSError, ValueError) as error:
        print(f"supply: {error}", file=sys.stderr)
        return 1
    if options.what == "sbom":
        print(json.dumps(sbom(found), indent=1))
        return 0
    if options.what == "audit":
        code, text = audit(found)
        print(f"audit: {text}")
        return code
    if not options.quiet:
        for part in found:
            print(f"{part.name:28} {part.version:14} {part.licence or f'only where {part.only_on}'}")
    bad = refused(found)
    print(f"licences: {len(found)} packages, {len(bad)} that may not ship" + "".join(f"\n  {line}" for line in bad))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
