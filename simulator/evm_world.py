"""A local chain that lives by itself: anvil, the real exchanges, random traffic and reorganisations, for the demo."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from simulator.evm import Evm, EvmError
from simulator.evm_answers import Answers
from simulator.evm_dex import Dex
from simulator.evm_market import QUOTE, Market
from simulator.evm_trader import TraderFiles, trader_files
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth

REORG_DEPTH = 3
TRADER = {"final_depth": REORG_DEPTH + 1, "poll_ms": 250}


def toml_of(name: str, evm: Evm, dex: Dex, assets: Mapping[str, tuple[str, int]], quotes: list[str], block_time_ms: int) -> str:
    """The ``[chains.NAME]`` section that mirrors this chain; ``assets`` (by address: asset, decimals) is its asset map."""
    lines = [
        f"[chains.{name}]",
        f'http_urls = ["{evm.http_url}"]',
        f'ws_urls = ["{evm.ws_url}"]',
        f"block_time_ms = {block_time_ms}",
        'finality = "depth"',
        "final_depth = 32",
        f"quotes = {json.dumps(quotes)}",
        "",
        f"[chains.{name}.tokens]",
        *(f'"{at}" = {{ asset = "{asset}", decimals = {decimals} }}' for at, (asset, decimals) in assets.items()),
    ]
    for protocol, address, quoter in (
        ("uniswap-v2", dex.v2_factory, ""),
        ("uniswap-v3", dex.v3_factory, dex.v3_quoter),
        ("uniswap-v4", dex.v4_manager, dex.v4_quoter),
    ):
        lines += ["", f"[[chains.{name}.factories]]", f'protocol = "{protocol}"', f'address = "{address}"', "start_block = 0"]
        if quoter:
            lines.append(f'quoter = "{quoter}"')
    return "\n".join(lines) + "\n"


class World:
    """Starts the chain and lets it live. Use as a context manager; ``live`` steps until it is cancelled.

    With ``prices`` (asset → its worth in USDT) the pools quote those assets at those prices, and the asset map calls the
    wrapped tokens by them; without, amounts are of any size. ``common``: see Market.
    """

    def __init__(
        self, *, seed: int = 1, block_time_ms: int = 1000, reorg_share: float = 0.1,
        prices: Mapping[str, Decimal] | None = None, common: int = 0,
    ) -> None:  # fmt: skip
        self.block_time_ms = block_time_ms
        self.evm = Evm()
        self.calm = False
        self.busy = asyncio.Lock()
        """Held while a block is made."""
        self._seed = seed
        self._reorg_share = reorg_share
        self._prices = prices or {}
        self._common = common

    def __enter__(self) -> World:
        self.evm.start()
        self.dex = Dex(self.evm)
        if self._prices:
            self.traffic: Traffic = Market(
                self.evm, self.dex, self._seed, self._prices, reorg_share=self._reorg_share, reorg_depth=REORG_DEPTH,
                common=self._common,
            )  # fmt: skip
            self.traffic.start(2, 4, 2)
        else:
            self.traffic = Traffic(
                self.evm, self.dex, self._seed, reorg_share=self._reorg_share, reorg_depth=REORG_DEPTH
            )
            self.traffic.start(3, 3, 2)
        self.evm.mine(REORG_DEPTH)  # a reorganisation would take the last pool's first liquidity away
        return self

    def __exit__(self, *_: object) -> None:
        self.evm.stop()

    def toml(self, name: str) -> str:
        """See ``toml_of``."""
        tokens = {t.address: t for p in self.traffic.pools for t in (p.a, p.b)}.values()
        names = self.traffic.assets if isinstance(self.traffic, Market) else {}
        assets = {t.address: (names.get(t.address, t.symbol), t.decimals) for t in tokens}
        return toml_of(name, self.evm, self.dex, assets, ["USDT"] if names else ["USDC", "DAI"], self.block_time_ms)

    def trader(self, folder: Path, name: str, venue: str) -> TraderFiles:
        """Files of an address that may trade with the pools that have prices, and hedges at this venue (evm_trader)."""
        if not isinstance(self.traffic, Market):
            raise EvmError("who trades needs prices: a chain without them has amounts of any size")
        hedges = {f"{asset}/{QUOTE}": f"{venue}|{asset}/{QUOTE}" for asset in self._prices}
        pools, assets = self.traffic.pools, self.traffic.assets
        return trader_files(folder, name, self.evm, self.dex, pools, assets, (QUOTE,), hedges, **TRADER)

    def answers(self) -> Answers:
        """The server of the truth; not started."""

        def be_calm() -> None:
            self.calm = True

        return Answers(self.evm, Truth(self.evm, self.dex), self.traffic.pools, self.busy, be_calm)

    async def live(self) -> None:
        """One step each block time, until cancelled."""
        while True:
            began_s = time.monotonic()
            async with self.busy:
                await asyncio.to_thread(self.evm.mine if self.calm else self.traffic.step)
            await asyncio.sleep(max(0.01, self.block_time_ms / 1000 - (time.monotonic() - began_s)))


def run_world(
    name: str, config_out: Path | None, *, seed: int, block_time_ms: int, reorg_share: float,
    prices: Mapping[str, Decimal] | None = None, common: int = 0, trader_out: Path | None = None, hedge_at: str = "",
    say: Callable[[str], Any] = lambda text: print(text, file=sys.stderr, flush=True),
) -> None:  # fmt: skip
    """Live until SIGTERM or SIGINT; writes the settings that mirror it, and who may trade; prints one JSON line.

    Raises NpmError, EvmError.
    """

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        given: dict[str, Any] = {"seed": seed, "block_time_ms": block_time_ms, "reorg_share": reorg_share, "common": common}
        with World(**given, prices=prices) as world:
            if trader_out is not None:
                world.trader(trader_out, name, hedge_at)
            answers = world.answers()
            truth_url = await answers.start()
            living = asyncio.create_task(world.live())
            stopped = asyncio.create_task(stop.wait())
            try:
                if config_out is not None:
                    config_out.write_text(world.toml(name), "utf-8")
                    say(f"mirror it: venue-mirror collect-chain {name} --config {config_out}")
                print(json.dumps({"http_url": world.evm.http_url, "ws_url": world.evm.ws_url,
                                  "pools": len(world.traffic.pools), "truth": truth_url}), flush=True)  # fmt: skip
                await asyncio.wait([living, stopped], return_when=asyncio.FIRST_COMPLETED)
                if living.done():
                    living.result()
            finally:
                for task in (living, stopped):
                    task.cancel()
                async with world.busy:  # a block that is being made ends before its chain does
                    await answers.stop()

    asyncio.run(run())
