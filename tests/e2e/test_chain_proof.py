"""The demo's chain: a living EVM, its collector and a processor as processes, and the proof that can also fail."""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from cli.chain_proof import ChainProof
from cli.stack import free_port
from cli.views import ViewError
from simulator.evm_world import World
from tests.e2e.rooms import rooms_of
from tests.evm_state import require_npm


@pytest.mark.broker
async def test_pools_and_exchanges_share_their_books_and_the_proof_finds_what_is_changed(
    kafka: str, settings, unique: str, tmp_path: Path
):
    require_npm()
    name = f"world-{unique}"
    with World(block_time_ms=1000, reorg_share=0.4, prices={"ETH": Decimal("1099.7"), "BTC": Decimal(100)}) as world:
        answers = world.answers()
        url = await answers.start()
        living = asyncio.create_task(world.live())
        try:
            own = settings(
                kafka={"bootstrap_servers": kafka}, chains=tomllib.loads(world.toml(name))["chains"],
                collector={"metrics_port": free_port(), "keyframe_max_s": 1.0},
                processor={"data_dir": tmp_path / "faust", "web_port": free_port(), "app_id": unique},
            )  # fmt: skip
            async with rooms_of(own, tmp_path) as rooms:
                await rooms.processor()
                await rooms.stack.start("chain", "collect-chain", name)
                proof = ChainProof(own, name, url, rooms.views)
                pools = len(world.traffic.pools)

                async def lived() -> bool:
                    await proof.step()
                    books, folded = list[dict](), proof.folded
                    with contextlib.suppress(ViewError):
                        books = [b for b in await rooms.views.books() if b["venue"] in proof.venues]
                    return len(books) == pools and proof.compared >= pools and folded.reorgs >= 2 and folded.retracts > 0

                await rooms.stack.until("two reorganisations, and every book in the views", lived, 240)
                books = [b for b in await rooms.views.books() if b["venue"] in proof.venues]
                assert {b["symbol"] for b in books} == {"ETH/USDT", "BTC/USDT"}
                assert await proof.conclude() == pools
                assert (proof.mismatches, proof.books_compared) == (0, pools), proof.problems
                ident, state = next((i, s) for i, s in proof.folded.states.items() if s and "reserve0" in s)
                state["reserve0"] += 1
                assert await proof._pool(ident)
                assert proof.mismatches == 1 and "reserve0" in proof.problems[-1]
                proof.close()
        finally:
            living.cancel()
            async with world.busy:
                await answers.stop()
