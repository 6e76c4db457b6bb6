"""The synthetic chain of a demo: a real EVM with the real exchanges' contracts beside the venues, and what mirrors it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from bus.connection import configured_bootstrap
from cli.chain_proof import ChainProof
from cli.proof import Truth
from cli.screen import ChainNumbers
from cli.stack import Child, Stack, free_port
from cli.views import ViewError, Views
from config.chains import ChainSettings
from config.settings import Settings
from simulator.common_price import PARTS, CommonPrice
from simulator.npm import is_cached

NAME = "sim-chain"
START_S, FETCH_S = 60, 300
BLOCK_TIME_MS = 1000
REORG_SHARE = 0.15
KEYFRAME_S = 2.0
COMMON = 7
"""The path that the prices of all exchanges and pools of a demo share (simulator/common_price.py)."""
ASSETS = {"ETH": "ETHUSDT", "BTC": "BTCUSDT"}
"""Assets that the pools trade, and where the first venue says what they are worth."""

Say = Callable[[str], None]


class DemoChain:
    """The chain of a demo, its collector and its proof."""

    def __init__(self, name: str, child: Child, started: Mapping[str, Any], section: ChainSettings) -> None:
        self.name = name
        self.child = child
        self.truth_url: str = started["truth"]
        self.pools: int = started["pools"]
        """Books that are expected of it."""
        self.section = section
        self.trader: Path | None = None
        """The files of an address that may trade on it (simulator/evm_trader.py)."""
        self.metrics_url = ""
        self._last: dict[str, float] = {}

    async def collect(self, settings: Settings, stack: Stack, views: Views) -> None:
        """Start its collector and its proof."""
        port = free_port()
        # Its books change with a block, not a thousand times a second: they are repeated often, for the proof's sake.
        collector = settings.collector.model_copy(update={"metrics_port": port, "keyframe_max_s": KEYFRAME_S})
        self.metrics_url = f"http://{collector.metrics_host}:{port}/metrics"
        own = settings.model_copy(update={"collector": collector, "chains": {self.name: self.section}})
        self.proof = ChainProof(own, self.name, self.truth_url, views)
        await stack.start(f"collector-{self.name}", "collect-chain", self.name, settings=own)

    async def look(self, views: Views, books: list[dict[str, Any]]) -> ChainNumbers:
        """Its numbers now, for the screen."""
        with contextlib.suppress(ViewError):  # it is starting: the numbers from before stay
            self._last = await views.metrics(self.metrics_url)
        m, venues, proof = self._last, self.proof.venues, self.proof
        return ChainNumbers.of(
            self.name, m, [b for b in books if b["venue"] in venues], compared=proof.compared, mismatches=proof.mismatches
        )

    async def conclude(self, views: Views, say: Say) -> bool:
        """Compare every pool and its book with the chain, print the count; whether all agreed.

        What the collector itself found different while it ran counts too.
        """
        say("comparing every pool, and what its book promises, with the chain at the same block")
        seen = await self.proof.conclude()
        proof, folded = self.proof, self.proof.folded
        numbers = await self.look(views, [])
        for text in proof.problems[:20]:
            say(text)
        print(
            f"pools={seen} heads={folded.heads} reorgs={folded.reorgs} retracted={folded.retracts} "
            f"chain_compared={numbers.compared} chain_books={proof.books_compared} chain_mismatches={numbers.mismatches}",
            flush=True,
        )
        if seen != self.pools:
            say(f"error: {self.pools} pools expected, {seen} compared at the end")
        return seen == self.pools and not numbers.mismatches


async def start_chain(
    settings: Settings, stack: Stack, folder: Path, venue: str, truth: Truth, seed: int, views: Views, say: Say
) -> DemoChain | None:
    """Start the chain at the prices of a venue (of this seed), where its trader hedges too.

    None where npm or the EVM cannot be had, after a line that says so.
    """
    name = f"{NAME}-{int(time.time())}" if configured_bootstrap(settings) else NAME
    config, timeout_s = folder / "chain.toml", START_S
    if not is_cached():
        say("fetching an EVM and the exchanges' contracts with npm, once")
        timeout_s = FETCH_S
    arguments = ["chain", "--name", name, "--config-out", str(config), "--block-time-ms", str(BLOCK_TIME_MS),
                 "--reorg-share", str(REORG_SHARE), "--common", str(COMMON), "--trader-out", str(folder / "trader"),
                 "--hedge-at", venue]  # fmt: skip
    for asset, native in ASSETS.items():
        book = await views.get_url(f"{truth.rest_url}/truth/{native}")
        began = (Decimal(book["bids"][0][0]) + Decimal(book["asks"][0][0])) / 2 * PARTS / CommonPrice(COMMON, asset, seed).parts()
        arguments += ["--price", f"{asset}={began:.8f}"]
    child = await stack.start(f"chain-{name}", "simulate", *arguments)

    def started() -> str:
        return next((text for text in child.tail(20).splitlines() if text.startswith("{")), "")

    deadline = time.monotonic() + timeout_s
    while not (text := started()):
        if child.process.returncode is not None or time.monotonic() > deadline:
            lines = [line for line in child.tail(5).splitlines() if line.startswith("error")] or [child.tail(1)]
            await stack.stop(child)
            say(f"chain: left out of this demo ({lines[-1] or 'it did not start in time'}); --no-chain says so at once")
            return None
        await asyncio.sleep(0.1)
    section = tomllib.loads(config.read_text("utf-8"))["chains"][name]
    chain = DemoChain(name, child, json.loads(text), ChainSettings(**section))
    chain.trader = folder / "trader"
    say(f"starting {name}: a real EVM, {chain.pools} pools of Uniswap V2, V3 and V4, reorganisations now and then")
    return chain
