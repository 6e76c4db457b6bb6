"""Reorganisation fuzzing: a real chain with random life beside a real collector, compared at every head.

Every pool's state is read from the chain at the head's hash and must equal the mirror's; random quotes must equal the
router's or quoter's; at the end the state is rebuilt from Kafka alone and must be the same, and every event of an
orphaned block must have been retracted exactly once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bus.consumer import TailReader
from cli.chain_fold import ChainFold, EventKey
from collectors.dex.collector import ChainCollector
from collectors.dex.protocol import MirroredPool
from config.settings import Settings
from market.pools.pool import PoolError
from schemas.codec import codec
from schemas.topics import CHAIN_BLOCK, CHAIN_POOL
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_solidly import Solidly
from simulator.evm_traffic import Traffic, TrafficPool
from simulator.evm_truth import Truth

SETTLE_S = 120.0


@dataclass
class FuzzReport:
    """What a run found; ``wrong`` counts every difference of any kind."""

    seed: int
    steps: int = 0
    heads: int = 0
    heads_exact: int = 0
    states: int = 0
    quotes: int = 0
    quotes_exact: int = 0
    reorgs: int = 0
    deltas: int = 0
    retracts: int = 0
    orphaned_events: int = 0
    rebuilt_exact: bool = False
    seconds: float = 0.0
    wrong: int = 0
    first_wrong: str = ""
    newest_wrong: str = ""

    def difference(self, text: str) -> None:
        """Note one."""
        self.wrong += 1
        self.first_wrong, self.newest_wrong = self.first_wrong or text, text


def chain_settings(evm: Evm, dex: Dex, name: str, solidly: Solidly | None = None, **more: Any) -> dict[str, Any]:
    """The settings of a local chain with all its exchanges."""
    own: dict[str, Any] = {
        "http_urls": [evm.http_url],
        "ws_urls": [evm.ws_url],
        "block_time_ms": 1000,
        "finality": "depth",
        "final_depth": 40,
        "factories": [
            {"protocol": "uniswap-v2", "address": dex.v2_factory, "start_block": 0},
            {"protocol": "uniswap-v3", "address": dex.v3_factory, "start_block": 0, "quoter": dex.v3_quoter},
            {"protocol": "uniswap-v4", "address": dex.v4_manager, "start_block": 0, "quoter": dex.v4_quoter},
        ],
    }
    if solidly is not None:
        own["factories"].append({"protocol": "solidly", "address": solidly.factory, "start_block": 0})
    return {name: own | more}


async def fuzz(
    make_settings: Any, name: str, seed: int, steps: int, *, quotes: int = 2, late_pools: bool = True,
    with_solidly: bool = True,
) -> FuzzReport:
    """Run one seed. ``make_settings(chains)`` gives Settings; the topics must exist. Needs npm once.

    ``with_solidly``: Solidly's two curves too, which are compiled the first time.
    """
    report = FuzzReport(seed)
    began = time.monotonic()
    with Evm() as evm:
        dex = Dex(evm)
        solidly = Solidly(evm, dex) if with_solidly else None
        traffic = Traffic(evm, dex, seed, solidly=solidly)
        traffic.start()
        settings: Settings = make_settings(chain_settings(evm, dex, name, solidly))
        collector = ChainCollector(settings, name)
        stop = asyncio.Event()
        running = asyncio.create_task(collector.run(stop))
        try:
            await _settled(collector, evm, running)
            if late_pools:
                await asyncio.to_thread(traffic.start, 1, 3, 2)
            truth, rng = Truth(evm, dex), random.Random(seed)  # noqa: S311 - a seed to repeat
            for _ in range(steps):
                await asyncio.to_thread(traffic.step)
                head = await _settled(collector, evm, running)
                mirrored = collector.follower.mirror.pools
                await asyncio.to_thread(compare, mirrored, traffic.pools, truth, head, rng, quotes, report)
            report.steps, report.reorgs = traffic.steps, traffic.reorgs
            report.retracts = collector.counts.retracts
        finally:
            stop.set()
            await running
        slots = {i: dict(p.slots) for i, p in collector.follower.mirror.pools.items()}
        await asyncio.to_thread(_audit, settings, name, slots, evm, report)
    report.seconds = round(time.monotonic() - began, 1)
    return report


async def _settled(collector: ChainCollector, evm: Evm, running: asyncio.Task[None]) -> str:
    """Wait until the collector stands at the chain's head; gives its hash. Raises TimeoutError."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        head = (await asyncio.to_thread(evm.head))["hash"]
        follower = collector.follower
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            if running.done():
                running.result()
            if follower.chain.tip is not None and follower.chain.tip.hash == head and follower.idle:
                return head
            await asyncio.sleep(0.001)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the collector did not reach {head} within {SETTLE_S:g} s: {collector.health()}")


def compare(
    mirrored: Mapping[str, MirroredPool], pools: list[TrafficPool], truth: Truth, head: str, rng: random.Random, quotes: int,
    report: FuzzReport,
) -> None:  # fmt: skip
    """Every pool's state, and some quotes, against the chain's at this head; ``mirrored`` must stand there."""
    report.heads += 1
    before = report.wrong
    for pool in pools:
        ours = mirrored.get(pool.ident)
        if ours is None:
            # A reorganisation may have taken the pool's creation away.
            if truth.evm.rpc("eth_getCode", pool.ident[:42], "latest") != "0x" and pool.kind != "v4":
                report.difference(f"{pool.kind} {pool.ident} is not mirrored at {head}")
            continue
        theirs = truth.state(pool, head)
        report.states += 1
        have = {k: v for k, v in ours.slots.items() if k in theirs or k.startswith("tick:")}
        if have != theirs:
            wrong = {k: (have.get(k), theirs.get(k)) for k in have.keys() | theirs.keys() if have.get(k) != theirs.get(k)}
            report.difference(f"{pool.kind} {pool.ident} at {head}: (mirror, chain) {dict(list(wrong.items())[:3])}")
    for _ in range(quotes):
        pool = rng.choice(pools)
        if (ours := mirrored.get(pool.ident)) is None:
            continue
        zero_for_one, exact_out = rng.random() < 0.5, rng.random() < 0.5
        amount = rng.randrange(1, 10 ** rng.randint(1, 23))
        theirs = truth.quote(pool, zero_for_one, amount, exact_out, head)
        i = 0 if zero_for_one else 1
        try:
            mine = ours.pool.amount_in(i, 1 - i, amount) if exact_out else ours.pool.amount_out(i, 1 - i, amount)
        except PoolError:
            mine = None
        if theirs is None and pool.kind in ("v2", "solidly"):
            continue  # V2's library refuses zero amounts, which the maths answers with zero; Solidly has no exact out
        if mine is None and theirs is not None and not exact_out:
            continue  # V3's quoter answers a partial fill with what it pays; the maths refuses
        report.quotes += 1
        if mine == theirs:
            report.quotes_exact += 1
        else:
            report.difference(f"{pool.kind} {pool.ident} at {head}: {amount} {exact_out=}: mirror {mine}, chain {theirs}")
    report.heads_exact += report.wrong == before


def _audit(settings: Settings, name: str, mirrored: dict[str, dict[str, int]], evm: Evm, report: FuzzReport) -> None:
    """The state from Kafka alone, the retractions, and that no event stands twice."""
    states, net, deltas, retracts = fold(settings, name)
    rebuilt = {i: s for i, s in states.items() if s is not None}
    report.rebuilt_exact = rebuilt == mirrored
    if not report.rebuilt_exact:
        report.difference(f"the state from Kafka differs: {sorted(rebuilt)[:3]} {sorted(mirrored)[:3]}")
    report.deltas = deltas
    audit_events(net, retracts, evm, report)


def audit_events(net: Counter[EventKey], retracts: int, evm: Evm, report: FuzzReport) -> None:
    """Each event of the chain stands once, each orphaned one not, and that by one retraction each."""
    canonical = canonical_hashes(evm, net)
    for (block_hash, index, ident), count in net.items():
        if count != (1 if block_hash in canonical else 0):
            report.difference(f"event {index} of block {block_hash}, pool {ident}, stands {count} times")
    report.orphaned_events = sum(block_hash not in canonical for block_hash, _, _ in net)
    if retracts != report.orphaned_events:
        report.difference(f"{retracts} retractions for {report.orphaned_events} orphaned events")


def fold(
    settings: Settings, name: str
) -> tuple[dict[str, dict[str, int] | None], Counter[EventKey], int, int]:
    """Fold chain.pool to its end: (slots by pool, how often each event stands, deltas, retractions); see ChainFold."""
    tail = TailReader(settings, [CHAIN_POOL.name])
    messages = tail.read_to_end()
    tail.close()
    decode = codec("ChainPool").decode
    folded = ChainFold(name)
    for message in messages:
        folded.pool(decode(message.value()))
    return folded.states, folded.standing, folded.events, folded.retracts


def blocks_of(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Every record of chain.block of this chain, in order."""
    tail = TailReader(settings, [CHAIN_BLOCK.name])
    records = [codec("ChainBlock").decode(m.value()) for m in tail.read_to_end()]
    tail.close()
    return [r for r in records if r["chain"] == name]


def canonical_hashes(evm: Evm, net: Counter[EventKey]) -> set[str]:
    """Which of these blocks are in the chain now."""
    hashes = sorted({h for h, _, _ in net})
    found = evm.batch([("eth_getBlockByHash", [h, False]) for h in hashes])
    numbers = {h: b["number"] for h, b in zip(hashes, found, strict=True) if b is not None}
    canonical = evm.batch([("eth_getBlockByNumber", [n, False]) for n in numbers.values()])
    return {h for (h, _), b in zip(numbers.items(), canonical, strict=True) if b is not None and b["hash"] == h}


def summary(report: FuzzReport) -> dict[str, Any]:
    """The report as JSON."""
    return asdict(report)
