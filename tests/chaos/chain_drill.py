"""A chain's collector killed at random under random life with reorganisations; at every head the log is the chain.

    python -m tests.chaos.chain_drill --seeds 4 --actions 1000 --kills 20

What is compared is rebuilt from Kafka alone, while the collector runs and after each of its restarts: at every head the
whole state of every pool is the chain's own at that block hash, and quotes of pools built of that state are the router's
or quoter's; no event stands twice, none is missing, every orphaned one was retracted once, and blocks follow each other.
A JSON line a seed; exit code 1 when anything differed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bus.consumer import TailReader
from cli.chain_fold import ChainFold
from cli.chain_fuzz import FuzzReport, audit_events, blocks_of, chain_settings, compare
from cli.stack import Stack, private_broker
from collectors.dex.presets import protocols_of
from collectors.dex.protocol import MirroredPool, fixed_of
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import CHAIN_BLOCK, CHAIN_POOL
from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.evm_solidly import Solidly
from simulator.evm_traffic import Traffic
from simulator.evm_truth import Truth

WRITTEN_S = 300.0
BURST = 4
"""Steps at most that are not waited for before a kill, and as many again while nobody follows."""
KILL_WITHIN_S = 0.1
"""After the last of them: about the time that a few blocks take, so that kills hit their middle too."""


@dataclass
class Report(FuzzReport):
    """What a run saw; heads and quotes are of the log's pools."""

    kills: int = 0
    blocks: int = 0
    restarts_s: list[float] = field(default_factory=list[float])
    """From each start of the process to the head's last event in Kafka."""


class LoggedChain:
    """One chain as its records in Kafka tell it, read on and on."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.fold = ChainFold(name)
        self._tail = TailReader(settings, [CHAIN_POOL.name, CHAIN_BLOCK.name])
        self._protocols = {p.address: p for p, _ in protocols_of(name, settings.chains[name])}
        self._decode = {
            CHAIN_POOL.name: (codec("ChainPool").decode, self.fold.pool),
            CHAIN_BLOCK.name: (codec("ChainBlock").decode, self.fold.block),
        }

    def at(self, head: str) -> bool:
        """Read what is new; whether every record up to the end of this block, and none of a later one, was read."""
        for message in self._tail.poll(5000, 0.02):
            decode, take = self._decode[message.topic()]
            take(decode(message.value()))
        return self.fold.tip is not None and self.fold.tip[1] == head

    def pools(self) -> dict[str, MirroredPool]:
        """Every pool there is, built of its slots."""
        out: dict[str, MirroredPool] = {}
        for ident, slots in self.fold.states.items():
            if slots is not None:
                fixed = fixed_of(self.fold.fixed[ident])
                out[ident] = self._protocols[fixed["factory"]].new_pool(ident, fixed, slots)
        return out

    def close(self) -> None:
        """Stop reading."""
        self._tail.close()


async def run(
    settings: Any, name: str, seed: int, kills: int, folder: Path, *, actions: int, quotes: int = 2,
    with_solidly: bool = True, say: Any = lambda _: None,
) -> Report:  # fmt: skip
    """One seed. ``settings(chains=…)`` makes settings of a broker whose topics exist. Needs npm's packages."""
    rng, report = random.Random(seed), Report(seed)
    began = time.monotonic()
    with Evm() as evm:
        dex = Dex(evm)
        solidly = Solidly(evm, dex) if with_solidly else None
        traffic, truth = Traffic(evm, dex, seed, solidly=solidly), Truth(evm, dex)
        traffic.start(1, 1, 1)
        own: Settings = settings(chains=chain_settings(evm, dex, name, solidly))
        logged = LoggedChain(own, name)
        async with Stack(own, folder) as stack:
            told = 0

            async def start() -> Any:
                before = time.monotonic()
                child = await stack.start(f"{name}-{report.kills}", "collect-chain", name, settings=own)
                await at_head()
                report.restarts_s.append(round(time.monotonic() - before, 1))
                return child

            async def at_head() -> None:
                head = (await asyncio.to_thread(evm.head))["hash"]
                deadline = time.monotonic() + WRITTEN_S
                while not await asyncio.to_thread(logged.at, head):
                    stack.check()
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"the head {head} was not written within {WRITTEN_S:g} s")
                await asyncio.to_thread(compare, logged.pools(), traffic.pools, truth, head, rng, quotes, report)
                tell(f"at {head}")

            def tell(where: str) -> None:
                nonlocal told
                if report.wrong > told:
                    told = report.wrong
                    say(f"seed {seed}: {told} wrong after step {traffic.steps}, {where}: {report.newest_wrong}")

            child = await start()
            await asyncio.to_thread(traffic.start, 1, 2, 1)
            deaths = set(rng.sample(range(actions), kills))
            for number in range(actions):
                if number not in deaths:
                    await asyncio.to_thread(traffic.step)
                    await at_head()
                    continue
                for _ in range(rng.randint(1, BURST)):
                    await asyncio.to_thread(traffic.step)
                await asyncio.sleep(rng.uniform(0, KILL_WITHIN_S))
                child.process.kill()
                await child.process.wait()
                stack.children.remove(child)
                report.kills += 1
                for _ in range(rng.randint(0, BURST)):
                    await asyncio.to_thread(traffic.step)
                child = await start()
                await asyncio.to_thread(audit_events, logged.fold.standing, logged.fold.retracts, evm, report)
                tell(f"by what stands in the log after kill {report.kills}")
                say(f"seed {seed}: killed {report.kills} of {kills} at step {traffic.steps}; {report.wrong} wrong")
        await asyncio.to_thread(audit_events, logged.fold.standing, logged.fold.retracts, evm, report)
        records = await asyncio.to_thread(blocks_of, own, name)
        for fault in block_faults(records):
            report.difference(fault)
        report.blocks = sum(record["kind"] == "COMPLETE" for record in records)
        report.steps, report.reorgs = traffic.steps, traffic.reorgs
        report.deltas, report.retracts = logged.fold.events, logged.fold.retracts
        report.rebuilt_exact = not report.wrong
        logged.close()
    report.seconds = round(time.monotonic() - began, 1)
    return report


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


async def drill(seeds: range, actions: int, kills: int) -> int:
    """All seeds, one after the other, on a broker of their own; gives how many differences there were."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    wrong = 0
    with tempfile.TemporaryDirectory(prefix="venue-mirror-chain-") as folder:
        async with private_broker(load_settings(), say) as settings:

            def make(**more: Any) -> Settings:
                return load_settings(None, kafka={"bootstrap_servers": settings.kafka.bootstrap_servers}, **more)

            for seed in seeds:
                report = await run(make, f"drill-{seed}", seed, kills, Path(folder), actions=actions, say=say)
                print(json.dumps(asdict(report)), flush=True)
                wrong += report.wrong
    return wrong


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=7, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--actions", type=int, default=200, help="blocks and reorganisations for each seed")
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.seeds)
    sys.exit(bool(asyncio.run(drill(seeds, args.actions, args.kills))))


if __name__ == "__main__":
    main()
