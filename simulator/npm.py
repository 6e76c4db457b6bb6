"""Packages from npm, fetched once into the cache folder: a real EVM and the real contracts, for tests and the demo.

Their licences (GPL, BUSL) allow use, not shipping: nothing of them is ever copied into this project.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from bus.broker import cache_dir

EVM_PACKAGES = (
    "@foundry-rs/anvil@1.7.1",
    "@uniswap/v2-core@1.0.1",
    "@uniswap/v2-periphery@1.1.0-beta.0",
    "@uniswap/v3-core@1.0.1",
    "@uniswap/v3-periphery@1.4.4",
    "@uniswap/v4-core@1.0.2",
    "@uniswap/v4-periphery@1.0.3",
    "canonical-weth@1.4.0",
)
BALANCER_PACKAGES = ("@balancer-labs/v2-deployments@3.2.0",)
SOLIDLY_PACKAGES = ("sphere-mezo-solidity-files@1.2.0", "@openzeppelin/contracts@5.0.2", "solc@0.8.24")

TIMEOUT_S = 300


class NpmError(Exception):
    """npm is not here, or could not fetch; the text says what to do."""


def is_cached(packages: tuple[str, ...] = EVM_PACKAGES) -> bool:
    """Whether these packages were fetched before."""
    return (_folder(packages) / "node_modules").is_dir()


def _folder(packages: tuple[str, ...]) -> Path:
    return cache_dir() / f"npm-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"


def node_modules(packages: tuple[str, ...] = EVM_PACKAGES) -> Path:
    """The ``node_modules`` folder that holds these packages; fetched where it is not cached. Blocks; raises NpmError.

    No script of a package is run.
    """
    folder = _folder(packages)
    if (folder / "node_modules").is_dir():
        return folder / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise NpmError("npm is needed to fetch the EVM and the contracts: install Node.js (Debian: apt-get install npm)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A folder of its own, renamed when complete: two processes may fetch at the same time.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        work = Path(temporary) / "work"
        work.mkdir()
        (work / "package.json").write_text("{}", "utf-8")
        command = [
            npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--loglevel=error",
            *packages,
        ]  # fmt: skip
        try:
            result = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NpmError(f"npm did not fetch {', '.join(packages)} within {TIMEOUT_S} s") from None
        if result.returncode:
            tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
            raise NpmError(f"npm could not fetch {', '.join(packages)}:\n{tail}")
        try:
            work.rename(folder)
        except OSError:
            if not (folder / "node_modules").is_dir():
                raise
    return folder / "node_modules"
