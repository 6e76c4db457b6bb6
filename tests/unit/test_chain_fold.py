"""A chain's records folded without knowing any protocol: where the states stand, and what cannot be believed."""

from __future__ import annotations

import pytest

from cli.chain_fold import ChainFold


def word(value: int) -> bytes:
    return (value % (1 << 256)).to_bytes(32, "big")


def hash_of(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")


def event(kind: str, index: int, block: str, log_index: int, event_name: str = "Sync", **slots: int) -> dict:
    return {
        "chain": "c", "pool": "p", "kind": kind, "epoch": 1, "index": index, "event": event_name,
        "block_hash": hash_of(block), "log_index": log_index, "slots": list(slots), "fixed": [],
        "values": [word(v) for v in slots.values()],
    }  # fmt: skip


def block(kind: str, number: int, name: str, parent: str, events: int) -> dict:
    return {"chain": "c", "kind": kind, "number": number, "hash": hash_of(name), "parent_hash": hash_of(parent), "events": events}


def folded_until_block_a() -> ChainFold:
    fold = ChainFold("c")
    fold.block(block("COMPLETE", 1, "genesis", "", 0))
    fold.pool(event("SNAPSHOT", 0, "a", 0, "Created", reserve0=0))
    fold.pool(event("DELTA", 1, "a", 1, reserve0=5))
    fold.block(block("COMPLETE", 2, "a", "genesis", 2))
    return fold


def test_the_states_stand_at_a_block_once_all_of_its_events_are_there():
    fold = ChainFold("c")
    fold.block(block("COMPLETE", 1, "genesis", "", 0))
    fold.block(block("COMPLETE", 2, "a", "genesis", 2))
    assert fold.tip is None
    fold.pool(event("SNAPSHOT", 0, "a", 0, "Created", reserve0=0))
    assert fold.tip is None
    fold.pool(event("DELTA", 1, "a", 1, reserve0=5))
    assert fold.tip == (2, "0x" + hash_of("a").hex())
    assert fold.states["p"] == {"reserve0": 5}


def test_events_before_their_block_is_complete_leave_no_block_to_stand_at():
    fold = folded_until_block_a()
    fold.pool(event("DELTA", 2, "b", 0, reserve0=6))
    assert fold.tip is None
    fold.block(block("COMPLETE", 3, "b", "a", 1))
    assert fold.tip == (3, "0x" + hash_of("b").hex())


def test_a_reorganisation_is_undone_and_counted_once():
    fold = folded_until_block_a()
    fold.pool(event("RETRACT", 2, "a", 1, reserve0=0))
    fold.block(block("RETRACTED", 2, "a", "genesis", 2))
    assert fold.tip is None
    fold.pool(event("RETRACT", 3, "a", 0, "Created"))
    fold.block(block("COMPLETE", 2, "b", "genesis", 0))
    assert fold.tip == (2, "0x" + hash_of("b").hex())
    assert fold.states == {"p": None}
    assert (fold.reorgs, fold.retracted_blocks, fold.retracts) == (1, 1, 2)
    assert set(fold.standing.values()) == {0}


def test_a_tick_of_zero_is_removed_and_its_word_is_unsigned():
    fold = folded_until_block_a()
    fold.pool(event("DELTA", 2, "a", 2, **{"tick:-60": (1 << 256) - 1, "tick": -5}))
    assert fold.states["p"] == {"reserve0": 5, "tick:-60": (1 << 256) - 1, "tick": -5}
    fold.pool(event("DELTA", 3, "a", 3, **{"tick:-60": 0}))
    assert fold.states["p"] == {"reserve0": 5, "tick": -5}


def test_a_hole_in_a_pools_index_is_refused():
    fold = folded_until_block_a()
    with pytest.raises(ValueError, match="after"):
        fold.pool(event("DELTA", 3, "a", 2, reserve0=6))


def test_a_retraction_of_a_block_that_is_not_the_newest_is_refused():
    fold = folded_until_block_a()
    with pytest.raises(ValueError, match="was not the newest"):
        fold.block(block("RETRACTED", 1, "genesis", "", 0))


def test_another_chains_records_are_passed_over():
    fold = folded_until_block_a()
    fold.pool({**event("DELTA", 9, "x", 0, reserve0=1), "chain": "other"})
    fold.block({**block("RETRACTED", 1, "x", "", 0), "chain": "other"})
    assert fold.tip == (2, "0x" + hash_of("a").hex())
