"""A local chain for drills: a real EVM with pools, random life and reorganisations, and what the log has to say of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from cli.chain_fuzz import blocks_of, canonical_hashes, chain_settings, fold
from config.settings import Settings
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth
from tests.chaos.cluster_checks import Findings

PAUSE_S = 1.0
SETTLE_S = 180.0


class DrillChain:
    """The chain ``name``. Use as an async context manager; needs npm's packages."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self._evm = Evm()
        self._seed = seed
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DrillChain:
        await asyncio.to_thread(self._evm.__enter__)
        self.dex = await asyncio.to_thread(Dex, self._evm)
        self.traffic = Traffic(self._evm, self.dex, self._seed)
        await asyncio.to_thread(self.traffic.start, 1, 1, 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.quiet()
        await asyncio.to_thread(self._evm.__exit__, None, None, None)

    def settings(self) -> dict[str, Any]:
        """The section ``chains``."""
        return chain_settings(self._evm, self.dex, self.name)

    def live(self) -> None:
        """Blocks and reorganisations from now on."""
        self._task = asyncio.create_task(self._live())

    async def _live(self) -> None:
        while True:
            await asyncio.to_thread(self.traffic.step)
            await asyncio.sleep(PAUSE_S)

    async def quiet(self) -> None:
        """No more blocks."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def judge(self, settings: Settings, findings: Findings) -> None:
        """The log's pools are the chain's, and each event of its blocks stands once. Blocks until the head is written."""
        deadline = time.monotonic() + SETTLE_S
        head = self._evm.head()["hash"]
        while not any("0x" + r["hash"].hex() == head and r["kind"] == "COMPLETE" for r in blocks_of(settings, self.name)):
            if time.monotonic() > deadline:
                findings.wrong(f"the chain's head was not written within {SETTLE_S:g} s")
                return
            time.sleep(0.5)
        try:
            states, net, deltas, retracts = fold(settings, self.name)
        except ValueError as error:
            findings.wrong(f"chain.pool has a hole: {error}")
            return
        canonical = canonical_hashes(self._evm, net)
        findings.looked["chain: reorganisations"] += self.traffic.reorgs
        findings.looked["chain: events"] += deltas
        findings.looked["chain: events retracted"] += retracts
        if wrong := {key: times for key, times in net.items() if times != (key[0] in canonical)}:
            findings.wrong(f"{len(wrong)} events of the chain do not stand once, or not never: {list(wrong.items())[:2]}")
        truth = Truth(self._evm, self.dex)
        for pool in self.traffic.pools:
            if (state := states.get(pool.ident)) is None:
                if pool.kind != "v4" and self._evm.rpc("eth_getCode", pool.ident, "latest") != "0x":
                    findings.wrong(f"the pool {pool.ident} is on the chain and not in the log")
                continue
            theirs = truth.state(pool, head)
            findings.looked["chain: pools equal"] += 1
            if {k: v for k, v in state.items() if k in theirs or k.startswith("tick:")} != theirs:
                findings.wrong(f"the pool {pool.ident} is another one in the log than on the chain")
