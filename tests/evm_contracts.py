"""Contracts of these tests' own, compiled once for each text that they have had."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bus.broker import cache_dir
from simulator.npm import SOLIDLY_PACKAGES, node_modules
from simulator.solc import NEW, NEW_BY_IR, OLD, compiled

V3_SOURCES = ("@uniswap/v3-core@1.0.1", "solc@0.7.6")
"""Uniswap V3's libraries as their authors wrote them, and the compiler that they ask for."""
CONTRACTS = Path(__file__).parent / "contracts"
OF_MANY_VARIABLES = frozenset({"CryptoFactory"})


def contract(name: str, packages: tuple[str, ...] = SOLIDLY_PACKAGES) -> Path:
    """The file with the bytecode of ``name`` in ``contracts/name.sol``. Blocks for some seconds the first time."""
    source = CONTRACTS / f"{name}.sol"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    settings = OLD if packages == V3_SOURCES else NEW_BY_IR if name in OF_MANY_VARIABLES else NEW
    return compiled(node_modules(packages), CONTRACTS, [source.name], cache_dir() / f"tests-{digest}", settings)[name]
