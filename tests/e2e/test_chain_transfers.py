"""Tokens with a fee of transfers, and paused ones, found out by a transfer that is only simulated, on a real EVM."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bus.broker import cache_dir
from bus.topics import apply
from cli.chain_fuzz import _settled, chain_settings
from collectors.dex import transfers
from collectors.dex.collector import ChainCollector
from simulator.evm import Evm, encode
from simulator.evm_dex import MAX_UINT, Dex, Token
from simulator.npm import EVM_PACKAGES, SOLIDLY_PACKAGES, node_modules
from simulator.solc import compiled
from tests.evm_state import require_npm

CONTRACTS = Path(__file__).parent.parent / "contracts"


@pytest.mark.broker
async def test_a_token_that_does_not_move_as_it_says_halts_its_books(
    kafka: str, settings, unique: str, monkeypatch: pytest.MonkeyPatch
):
    require_npm(EVM_PACKAGES, SOLIDLY_PACKAGES)
    monkeypatch.setattr(transfers, "AGAIN", 2)
    monkeypatch.setattr(transfers, "LONG_AGO", 2)
    made = compiled(node_modules(SOLIDLY_PACKAGES), CONTRACTS, ["Odd.sol"], cache_dir() / "tests-0.8.24")
    name = f"odd-{unique}"
    with Evm() as evm:
        dex = Dex(evm)
        plain, odd = dex.token("PLAIN"), Token(evm.deploy(made["Odd"]), "ODD", 18)
        evm.send(odd.address, encode("mint(address,uint256)", dex.owner, 10**30))
        evm.transact(odd.address, encode("approve(address,uint256)", dex.v2_router, MAX_UINT))
        pair = dex.v2_create(plain, odd)
        evm.transact(*dex.v2_add(plain, odd, 10**22, 10**22))
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name))
        await asyncio.to_thread(apply, own)
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))

        async def until(state: str, reason: str) -> None:
            for _ in range(100):
                evm.send(*dex.v2_swap(plain, odd, 10**15))
                await asyncio.to_thread(evm.mine)
                await _settled(collector, evm, running)
                book = collector.follower.books.get(pair)
                if book is not None and book.state == state and reason in book.reason:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(f"{book and (book.state, book.reason)}, not {state} {reason}")

        try:
            await until("LIVE", "")
            evm.transact(odd.address, encode("set(uint256,bool)", 500, False))
            await until("HALTED", "takes 500 basis points of a transfer")
            evm.transact(odd.address, encode("set(uint256,bool)", 0, True))
            await until("HALTED", "refuses to be transferred")
            evm.transact(odd.address, encode("set(uint256,bool)", 0, False))
            await until("LIVE", "")
            assert collector.counts.transfers_refused == 2
            assert collector.counts.transfers_unjudged == 0
        finally:
            stop.set()
            await running
