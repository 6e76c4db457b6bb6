"""Solidity sources that a package ships, compiled by solc from npm; kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from simulator.npm import NpmError

SCRIPT = """
const fs = require('fs'), path = require('path');
const [modules, root, entry, settings] = process.argv.slice(2);
const solc = require(path.join(modules, 'solc'));
const read = p => { for (const base of [root, modules]) { const f = path.join(base, p);
  if (fs.existsSync(f)) return {contents: fs.readFileSync(f, 'utf8')}; } return {error: 'not found: ' + p}; };
const input = {language: 'Solidity', sources: {}, settings: {optimizer: {enabled: true, runs: 200},
  ...JSON.parse(settings), outputSelection: {'*': {'*': ['evm.bytecode.object']}}}};
for (const e of entry.split(',')) input.sources[e] = {content: read(e).contents};
process.stdout.write(solc.compile(JSON.stringify(input), {import: read}));
"""
TIMEOUT_S = 300
NEW: dict[str, Any] = {"evmVersion": "paris"}
NEW_BY_IR: dict[str, Any] = {**NEW, "viaIR": True}
"""For functions with more variables than the stack holds; compiling takes five to twenty times as long."""
OLD: dict[str, Any] = {"evmVersion": "istanbul"}
"""Settings for compilers before 0.8, which know no intermediate form."""


def compiled(
    modules: Path, root: Path, entries: list[str], cache: Path, settings: dict[str, Any] = NEW
) -> dict[str, Path]:
    """Contract name → file with its ``bytecode``, for the contracts of these sources (paths below ``root``).

    ``settings`` are the compiler's, beside the optimizer's; what they made is kept apart from what others made. Blocks
    for some seconds the first time. Raises NpmError with the compiler's words.
    """
    told = json.dumps(settings, sort_keys=True)
    cache = cache.with_name(f"{cache.name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}")
    names = {Path(e).stem: cache / f"{Path(e).stem}.json" for e in entries}
    if all(p.exists() for p in names.values()):
        return names
    node = shutil.which("node")
    if node is None:
        raise NpmError("node is needed to compile contracts: install Node.js")
    cache.mkdir(parents=True, exist_ok=True)
    script = cache / "compile.js"
    script.write_text(SCRIPT, "utf-8")
    command = [node, str(script), str(modules), str(root), ",".join(entries), told]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    try:
        output: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    except ValueError:
        raise NpmError(f"solc did not answer: {result.stderr[-500:]}") from None
    problems = [e["formattedMessage"] for e in output.get("errors", []) if e["severity"] == "error"]
    if problems:
        raise NpmError("solc: " + "\n".join(problems)[:2000])
    for entry in entries:
        name = Path(entry).stem
        code = output["contracts"][entry][name]["evm"]["bytecode"]["object"]
        # Renamed when complete: two processes may compile at the same time.
        partial = names[name].with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps({"bytecode": code}), "utf-8")
        partial.rename(names[name])
    return names
