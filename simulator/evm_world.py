"""A local chain that lives by itself: anvil, the real exchanges, random traffic and reorganisations, for the demo."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic


def toml_of(name: str, evm: Evm, dex: Dex, traffic: Traffic, block_time_ms: int) -> str:
    """The ``[chains.NAME]`` section that mirrors this chain; its tokens are in the asset map."""
    lines = [
        f"[chains.{name}]",
        f'http_urls = ["{evm.http_url}"]',
        f'ws_urls = ["{evm.ws_url}"]',
        f"block_time_ms = {block_time_ms}",
        'finality = "depth"',
        "final_depth = 32",
        'quotes = ["USDC", "DAI"]',
        "",
        f"[chains.{name}.tokens]",
        *(
            f'"{t.address}" = {{ asset = "{t.symbol}", decimals = {t.decimals} }}'
            for t in {t.address: t for p in traffic.pools for t in (p.a, p.b)}.values()
        ),
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
    """Starts the chain and lets it live. Use as a context manager; ``live`` steps until it is cancelled."""

    def __init__(self, *, seed: int = 1, block_time_ms: int = 1000, reorg_share: float = 0.1) -> None:
        self.block_time_ms = block_time_ms
        self.evm = Evm()
        self._seed = seed
        self._reorg_share = reorg_share

    def __enter__(self) -> World:
        self.evm.start()
        self.dex = Dex(self.evm)
        self.traffic = Traffic(self.evm, self.dex, self._seed, reorg_share=self._reorg_share, reorg_depth=3)
        self.traffic.start(3, 3, 2)
        return self

    def __exit__(self, *_: object) -> None:
        self.evm.stop()

    def toml(self, name: str) -> str:
        """See ``toml_of``."""
        return toml_of(name, self.evm, self.dex, self.traffic, self.block_time_ms)

    async def live(self) -> None:
        """One step each block time, until cancelled."""
        while True:
            await asyncio.to_thread(self.traffic.step)
            await asyncio.sleep(self.block_time_ms / 1000)


def run_world(
    name: str, config_out: Path | None, *, seed: int, block_time_ms: int, reorg_share: float,
    say: Callable[[str], Any] = lambda text: print(text, file=sys.stderr, flush=True),
) -> None:  # fmt: skip
    """Live until SIGTERM or SIGINT; writes the settings that mirror it, prints one JSON line. Raises NpmError, EvmError."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with World(seed=seed, block_time_ms=block_time_ms, reorg_share=reorg_share) as world:
            if config_out is not None:
                config_out.write_text(world.toml(name), "utf-8")
                say(f"mirror it: venue-mirror collect-chain {name} --config {config_out}")
            print(json.dumps({"http_url": world.evm.http_url, "ws_url": world.evm.ws_url, "pools": len(world.traffic.pools)}),
                  flush=True)  # fmt: skip
            living = asyncio.create_task(world.live())
            await stop.wait()
            living.cancel()

    asyncio.run(run())
