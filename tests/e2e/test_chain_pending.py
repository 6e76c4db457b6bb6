"""Pending swaps on a real EVM: seen, preconfirmed, mined, retracted, replaced and dropped, as records of chain.pending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bus.consumer import TailReader
from bus.topics import apply
from cli.chain_fuzz import chain_settings
from collectors.dex.collector import ChainCollector
from schemas.codec import codec
from schemas.topics import CHAIN_PENDING
from simulator.evm import Evm, encode
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from tests.evm_state import require_npm

SWAP_V4 = "x(((address,address,uint24,int24,address),bool,uint128,uint128,bytes))"


@pytest.mark.broker
async def test_pending_swaps_are_told_and_taken_back(kafka: str, settings, unique: str):
    require_npm()
    name = f"pending-{unique}"
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, 3)
        traffic.start(1, 1, 1)
        v2, v3, v4 = traffic.pools
        more = {
            "pending": True, "preconfirmed_ms": 50,
            "routers": [
                {"address": dex.v2_router}, {"address": dex.v3_router, "factories": [dex.v3_factory]},
                {"address": dex.v4_swapper, "factories": [dex.v4_manager]},
            ],
        }  # fmt: skip
        own = settings(kafka={"bootstrap_servers": kafka}, chains=chain_settings(evm, dex, name, **more))
        await asyncio.to_thread(apply, own)
        tail = TailReader(own, [CHAIN_PENDING.name], start="end")
        collector, stop = ChainCollector(own, name), asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        records: list[dict[str, Any]] = []

        async def until(what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            for _ in range(600):
                for message in await asyncio.to_thread(tail.poll, 100, 0.1):
                    record = codec("ChainPending").decode(message.value())
                    if record["chain"] == name:
                        records.append(record)
                if found := next((r for r in reversed(records) if what(r)), None):
                    return found
                if running.done():
                    running.result()
            raise AssertionError(f"not told: {[(r['tx_hash'].hex()[:8], r['state'], r['reason']) for r in records]}")

        def state(tx: str, *wanted: str) -> Callable[[dict[str, Any]], bool]:
            return lambda r: "0x" + r["tx_hash"].hex() == tx and r["state"] in wanted

        def send(action: tuple[str, bytes], **fields: str) -> str:
            return evm.rpc("eth_sendTransaction", evm.transaction(*action) | fields)

        try:
            # Without its pool a swap is told with its tokens only: both are to be known first.
            while collector.health()["live"] < len(traffic.pools) or not evm_listens(collector):
                await asyncio.sleep(0.05)
                if running.done():
                    running.result()
            first = send(dex.v2_swap(v2.a, v2.b, 12345))
            record = await until(state(first, "PENDING"))
            assert record["tokens"] == [v2.a.address, v2.b.address] and record["pools"] == [v2.ident]
            assert (int.from_bytes(record["amount"], "big"), record["exact_out"]) == (12345, False)
            record = await until(state(first, "PRECONFIRMED"))
            assert record["block_number"] == int(evm.head()["number"], 16) + 1
            evm.mine()
            record = await until(state(first, "MINED"))
            assert "0x" + record["block_hash"].hex() == evm.head()["hash"]
            await asyncio.to_thread(evm.reorg, 1)
            await until(lambda r: state(first, "PENDING")(r) and "retracted" in r["reason"])

            second = send(dex.v3_swap(v3.a, v3.b, v3.fee, 777))
            record = await until(state(second, "PENDING"))
            assert record["fees"] == [v3.fee] and record["pools"] == [v3.ident]
            nonce = evm.rpc("eth_getTransactionByHash", second)["nonce"]
            third = send(
                dex.v3_swap(v3.a, v3.b, v3.fee, 778), nonce=nonce, maxFeePerGas=hex(4 * 10**9), maxPriorityFeePerGas="0x9"
            )
            record = await until(state(second, "REPLACED"))
            assert "0x" + record["replaced_by"].hex() == third
            await until(state(third, "PENDING"))
            evm.rpc("anvil_dropTransaction", third)

            async def beating() -> None:
                while True:
                    await asyncio.to_thread(evm.mine)
                    await asyncio.sleep(0.2)

            beat = asyncio.create_task(beating())
            try:
                await until(state(third, "DROPPED"))
            finally:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

            # The universal router is in no package: its calls go to another address here, which is not asked to obey them.
            given = encode(SWAP_V4, (v4.key, True, 779, 1, b""))[4:]
            command = encode("x(bytes,bytes[])", bytes([0x06]), [given])[4:]
            fourth = send((dex.v4_swapper, encode("execute(bytes,bytes[])", bytes([0x10]), [command])))
            record = await until(state(fourth, "PENDING"))
            assert record["tokens"] == list(v4.key[:2]) and record["fees"] == [v4.fee] and record["pools"] == [v4.ident]
            assert collector.counts.pending_unreadable == 0
        finally:
            stop.set()
            await running
            tail.close()


def evm_listens(collector: ChainCollector) -> bool:
    """Whether the pending view's subscription is open."""
    return collector.pending is not None and collector.pending.open > 0
