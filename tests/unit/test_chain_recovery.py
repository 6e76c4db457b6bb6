"""Blocks restored from the records: what is left of one whose retraction had begun, and what it was."""

from __future__ import annotations

from collectors.dex.recovery import Rebuild
from collectors.dex.uniswap_v2 import UniswapV2

FACTORY, PAIR, HASH = "0x" + "fa" * 20, "0x" + "01" * 20, bytes(32)


def pool(kind: str, index: int, log_index: int, event: str = "Sync") -> dict:
    fixed = [f"factory={FACTORY}", f"token0={PAIR}", f"token1={PAIR}", "fee_num=3", "fee_den=1000"]
    return {
        "chain": "c", "pool": PAIR, "kind": kind, "epoch": 1, "index": index, "event": event, "block_number": 7,
        "block_hash": HASH, "tx_hash": HASH, "log_index": log_index, "slots": ["reserve0", "reserve1"],
        "values": [bytes(32), bytes(32)], "fixed": fixed if kind == "SNAPSHOT" else [],
    }  # fmt: skip


def test_a_block_whose_retraction_had_begun_still_says_how_many_events_it_had():
    rebuild = Rebuild("c", [UniswapV2(FACTORY, "v2")], 100)
    for record in (pool("SNAPSHOT", 0, -1, "Snapshot"), pool("DELTA", 1, 0), pool("DELTA", 2, 1), pool("RETRACT", 3, 1)):
        rebuild.pool(record)
    rebuild.block(
        {"chain": "c", "kind": "COMPLETE", "number": 7, "hash": HASH, "parent_hash": HASH, "ts_block_us": 0,
         "base_fee_wei": 0, "events": 2, "logs": 2}
    )  # fmt: skip
    (block,) = rebuild.result().blocks
    assert (len(block.changes), block.events) == (1, 2)
