"""A chain's collector killed at random under random life with reorganisations; after each restart the log is the chain.

    python -m tests.chaos.chain_drill --kills 20 --seed 7

After each kill and restart the state of every pool is rebuilt from chain.pool alone and must be the chain's own at its
head; no event may stand twice, none may be missing, every orphaned one must be taken back, and blocks follow each other.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.chain_fuzz import blocks_of, canonical_hashes, chain_settings, fold
from cli.stack import Stack, private_broker
from config.settings import Settings, load_settings
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth

WRITTEN_S = 300.0


@dataclass
class Report:
    """What a run saw."""

    kills: int = 0
    blocks: int = 0
    reorgs: int = 0
    events: int = 0
    retracts: int = 0
    states: int = 0
    restarts_s: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """For people."""
        times = sorted(self.restarts_s)
        return (
            f"kills={self.kills} blocks={self.blocks} reorgs={self.reorgs} events={self.events} retracts={self.retracts} "
            f"states_compared={self.states} wrong={len(self.wrong)} {self.wrong[:3] or ''}\n"
            f"start to the head's last event in Kafka: p50 {times[len(times) // 2]:.1f} s, longest {times[-1]:.1f} s"
        )


async def run(settings: Any, name: str, seed: int, kills: int, folder: Path, say: Any = lambda _: None) -> Report:
    """One run. ``settings(chains=…)`` makes settings of a broker whose topics exist. Needs npm's packages."""
    rng, report = random.Random(seed), Report()
    with Evm() as evm:
        dex = Dex(evm)
        traffic = Traffic(evm, dex, seed)
        traffic.start(1, 1, 1)
        own: Settings = settings(chains=chain_settings(evm, dex, name))
        truth = Truth(evm, dex)
        async with Stack(own, folder) as stack:
            for life in range(kills + 1):
                began = time.monotonic()
                child = await stack.start(f"chain{life}", "collect-chain", name, settings=own)
                head = await written(own, name, evm)
                report.restarts_s.append(time.monotonic() - began)
                await asyncio.to_thread(compare, own, name, traffic, truth, head, report)
                if life == 0:
                    await asyncio.to_thread(traffic.start, 1, 2, 1)
                end = time.monotonic() + rng.uniform(0.5, 2.0)
                while time.monotonic() < end:
                    await asyncio.to_thread(traffic.step)
                    await asyncio.sleep(0.05)
                if life < kills:
                    child.process.kill()
                    await child.process.wait()
                    stack.children.remove(child)
                    report.kills += 1
                    say(f"killed {report.kills} of {kills}; {report.states} states compared, {len(report.wrong)} wrong")
                    for _ in range(rng.randint(0, 4)):
                        await asyncio.to_thread(traffic.step)
            head = await written(own, name, evm)
        await asyncio.to_thread(compare, own, name, traffic, truth, head, report)
        report.reorgs = traffic.reorgs
        records = await asyncio.to_thread(blocks_of, own, name)
        report.wrong += block_faults(records)
        report.blocks = sum(record["kind"] == "COMPLETE" for record in records)
    return report


async def written(own: Settings, name: str, evm: Evm) -> str:
    """Wait until the chain's head is COMPLETE in Kafka; gives its hash."""
    deadline = time.monotonic() + WRITTEN_S
    while time.monotonic() < deadline:
        head = evm.head()["hash"]
        records = await asyncio.to_thread(blocks_of, own, name)
        if any("0x" + r["hash"].hex() == head and r["kind"] == "COMPLETE" for r in records):
            return head
        await asyncio.sleep(0.25)
    raise AssertionError(f"the head was not written within {WRITTEN_S:g} s")


def compare(own: Settings, name: str, traffic: Traffic, truth: Truth, head: str, report: Report) -> None:
    """What chain.pool says against the chain at its head; call it while the chain rests."""
    states, net, report.events, report.retracts = fold(own, name)
    canonical = canonical_hashes(truth.evm, net)
    report.wrong += [
        f"{key} stands {count} times" for key, count in net.items() if count != (1 if key[0] in canonical else 0)
    ]
    for pool in traffic.pools:
        state = states.get(pool.ident)
        if state is None:  # a reorganisation took its creation away
            if pool.kind != "v4" and truth.evm.rpc("eth_getCode", pool.ident, "latest") != "0x":
                report.wrong.append(f"{pool.kind} {pool.ident} is not in chain.pool at {head}")
            continue
        theirs = truth.state(pool, head)
        report.states += 1
        if {k: v for k, v in state.items() if k in theirs or k.startswith("tick:")} != theirs:
            report.wrong.append(f"{pool.kind} {pool.ident} at {head}")


def block_faults(records: list[dict[str, Any]]) -> list[str]:
    """Blocks follow each other, a retraction takes the newest away, nothing final is retracted or said twice."""
    stack, final, out = list[dict[str, Any]](), set[int](), list[str]()
    for record in records:
        number = record["number"]
        if record["kind"] == "COMPLETE":
            if stack and (record["parent_hash"] != stack[-1]["hash"] or number != stack[-1]["number"] + 1):
                out.append(f"block {number} does not follow {stack[-1]['number']}")
            stack.append(record)
        elif record["kind"] == "RETRACTED":
            if not stack or stack.pop()["hash"] != record["hash"] or number in final:
                out.append(f"block {number} was retracted and is not the newest, or was final")
        elif record["kind"] == "FINAL":
            if number in final:
                out.append(f"block {number} is final twice")
            final.add(number)
    return out


async def drill(kills: int, seed: int) -> Report:
    """On a broker of its own."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="venue-mirror-chain-") as folder:
        async with private_broker(load_settings(), say) as settings:

            def make(**more: Any) -> Settings:
                return load_settings(None, kafka={"bootstrap_servers": settings.kafka.bootstrap_servers}, **more)

            return await run(make, "drill", seed, kills, Path(folder), say)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    report = asyncio.run(drill(args.kills, args.seed))
    print(report.line())
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
