"""Blocks and logs: what is believed, what is refused, and how a mirror undoes what it did."""

from __future__ import annotations

import random

import pytest

from collectors.dex.blocks import Header, Log, bloom_of, checked_logs, keccak, topic, words
from collectors.dex.discovery import Serials
from collectors.dex.errors import BadAnswer
from collectors.dex.mirror import Emission, Mirror
from collectors.dex.presets import PRESETS, protocols_of, with_preset
from collectors.dex.tokens import text_of
from collectors.dex.uniswap_v2 import PAIR_CREATED, SYNC, UniswapV2
from collectors.dex.uniswap_v3 import BURN, INITIALIZE, MINT, POOL_CREATED, SWAP, UniswapV3
from config.chains import ChainSettings
from market.pools.tick_math import sqrt_ratio_at_tick

HASH, OTHER = "0x" + "11" * 32, "0x" + "22" * 32
FACTORY2, FACTORY3 = "0x" + "f2" * 20, "0x" + "f3" * 20
A, B, PAIR, POOL = ("0x" + sign * 20 for sign in ("aa", "bb", "c1", "c3"))


def word(value: int | str) -> str:
    number = int(value, 16) if isinstance(value, str) else value
    return f"{number % (1 << 256):064x}"


def log(index: int, address: str, topics: list[str], *data: int | str, block: str = HASH) -> Log:
    return Log(address, topics, "0x" + "".join(map(word, data)), block, "0x" + "99" * 32, hex(index))


def header(number: int, own: str, parent: str, logs: list[Log] | None = None) -> Header:
    return Header(hex(number), own, parent, hex(1000 + number), hex(bloom_of(logs or [])))


def created2(index: int, serial: int = 1, block: str = HASH) -> Log:
    return log(index, FACTORY2, [PAIR_CREATED, "0x" + word(A), "0x" + word(B)], PAIR, serial, block=block)


def sync(index: int, x: int, y: int, block: str = HASH) -> Log:
    return log(index, PAIR, [SYNC], x, y, block=block)


def test_the_topics_are_the_ones_of_the_documentation():
    assert SYNC == "0x1c411e9a96e071241c2f21f7726b17ae89e3cab4c78be50e062b03a9fffbbad1"
    assert PAIR_CREATED == "0x0d3648bd0f6ba80134a33ba9275ac585d9d315f0ad8355cddefde31afa28d0e9"
    assert POOL_CREATED == "0x783cca1c0412dd0d695e784568c96da2e9c22ff989357a2e8b1d9b2b4e6b7118"
    assert SWAP == "0xc42079f94a6350d7e6235f29174924f928cc2ac818eb64fed8004e115fbcca67"
    assert keccak(b"").hex().startswith("c5d2460186f7233c927e7db2dcc703c0")


def test_a_whole_block_is_believed_and_comes_in_order():
    logs = [sync(2, 3, 4), created2(0), sync(1, 1, 2)]
    found = checked_logs(header(5, HASH, OTHER, logs), [*logs, sync(1, 1, 2)])
    assert [one.log_index for one in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda logs: [], "do not explain the bloom"),
        (lambda logs: logs[1:], "missing"),
        (lambda logs: logs[:1], "do not explain the bloom"),
        (lambda logs: [*logs, sync(2, 9, 9)], "two different logs"),
        (lambda logs: [*logs, sync(3, 9, 9, block=OTHER)], "a log of block"),
    ],
)
def test_what_cannot_be_the_whole_block_is_refused(spoil, why: str):
    logs = [created2(0), log(1, POOL, [SWAP]), sync(2, 1, 2)]
    with pytest.raises(BadAnswer, match=why):
        checked_logs(header(5, HASH, OTHER, logs), spoil(list(logs)))


def test_a_removed_log_and_torn_words_are_refused():
    gone = sync(0, 1, 2)
    gone.removed = True
    with pytest.raises(BadAnswer, match="removed"):
        checked_logs(header(5, HASH, OTHER, [gone]), [gone])
    with pytest.raises(BadAnswer, match="no whole words"):
        words("0x1234")


def mirror_of() -> tuple[Mirror, list[Emission], list[str]]:
    told: list[Emission] = []
    places: list[str] = []

    def emit(emission: Emission) -> None:
        told.append(emission)
        places.append(f"{emission.kind} {emission.event} {emission.pool.index}")

    return Mirror([UniswapV2(FACTORY2, "v2"), UniswapV3(FACTORY3, "v3")], emit), told, places


def test_a_block_undone_is_retracted_newest_first_and_leaves_no_trace():
    mirror, told, places = mirror_of()
    mirror.apply(header(1, HASH, OTHER), [created2(0), sync(1, 10, 20)])
    before = dict(mirror.pools[PAIR].slots)
    mirror.apply(header(2, OTHER, HASH), [sync(0, 11, 19, OTHER), sync(1, 12, 18, OTHER)])
    mirror.undo()
    assert mirror.pools[PAIR].slots == before == {"reserve0": 10, "reserve1": 20}
    assert mirror.pools[PAIR].pool.to_state()["reserve0"] == 10
    assert places == [
        "SNAPSHOT Created 0", "DELTA Sync 1", "DELTA Sync 2", "DELTA Sync 3", "RETRACT Sync 4", "RETRACT Sync 5"
    ]  # fmt: skip
    assert [e.log_index for e in told[-2:]] == [1, 0]
    outcome = mirror.undo()
    assert [p.ident for p in outcome.removed] == [PAIR] and not mirror.pools


def test_random_v3_life_undone_block_by_block_comes_back_to_every_state():
    rng = random.Random(4)
    mirror, _, _ = mirror_of()
    creation = log(0, FACTORY3, [POOL_CREATED, "0x" + word(A), "0x" + word(B), "0x" + word(3000)], 60, POOL)
    mirror.apply(header(0, HASH, OTHER), [creation, log(1, POOL, [INITIALIZE], sqrt_ratio_at_tick(0), 0)])
    states = [mirror.pools[POOL].pool.to_state()]
    positions: dict[tuple[int, int], int] = {}
    for number in range(1, 60):
        logs = []
        for index in range(rng.randint(0, 5)):
            lower = rng.randint(-20, 19) * 60
            upper = rng.randint(lower // 60 + 1, 20) * 60
            topics = ["0x" + word(0), "0x" + word(lower), "0x" + word(upper)]
            held = positions.get((lower, upper), 0)
            if held and rng.random() < 0.6:
                amount = rng.choice((held, rng.randint(0, held)))
                positions[(lower, upper)] = held - amount
                logs.append(log(index, POOL, [BURN, *topics], amount, 0, 0))
            else:
                amount = rng.randint(1, 10**20)
                positions[(lower, upper)] = held + amount
                logs.append(log(index, POOL, [MINT, *topics], 0, amount, 0, 0))
        mirror.apply(header(number, HASH, OTHER), logs)
        states.append(mirror.pools[POOL].pool.to_state())
    gross = sum(t["gross"] for t in states[-1]["ticks"].values())
    assert gross == 2 * sum(positions.values())
    while len(states) > 1:
        states.pop()
        mirror.undo()
        assert mirror.pools[POOL].pool.to_state() == states[-1]


def test_an_event_that_makes_no_sense_stops_nothing_and_makes_its_pool_suspect():
    unreadable: list[str] = []
    mirror = Mirror([UniswapV2(FACTORY2, "v2")], lambda e: None, unreadable=lambda entry, error: unreadable.append(error))
    mirror.apply(header(1, HASH, OTHER), [created2(0), log(1, PAIR, [SYNC], 5), sync(2, 7, 8)])
    assert mirror.suspect == {PAIR} and len(unreadable) == 1
    assert mirror.pools[PAIR].slots == {"reserve0": 7, "reserve1": 8}


def test_a_factorys_serials_show_a_missed_pair():
    serials = Serials()
    protocol = UniswapV2(FACTORY2, "v2")
    for serial in (1, 2, 4):
        serials.note(protocol.created(created2(0, serial)))
    assert serials.holes() == 1
    serials.note(protocol.created(created2(0, 3)))
    assert serials.holes() == 0


def test_every_preset_is_whole_and_can_be_built():
    for name, preset in PRESETS.items():
        own, _ = with_preset(name, ChainSettings())
        assert own.chain_id == preset.chain_id > 0 and own.block_time_ms > 0 and own.factories
        assert len({p.address for p, _ in protocols_of(name, own)}) == len(own.factories)
        assert all(a == a.lower() and len(a) == 42 for a in own.tokens)
    assert len({p.chain_id for p in PRESETS.values()}) == len(PRESETS) == 7


def test_a_tokens_symbol_is_read_in_both_forms_and_cut_to_safe_signs():
    old = "0x" + b"MKR".ljust(32, b"\0").hex()
    new = "0x" + word(32) + word(6) + b"US/D|C".ljust(32, b"\0").hex()
    assert text_of(old) == "MKR" and text_of(new) == "USDC"
    assert text_of(None) == text_of("0x") == "TOKEN"
    assert topic("Sync(uint112,uint112)") == SYNC
