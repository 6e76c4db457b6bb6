"""Logs a CPU second through decode, apply and publish against web3.py's own subscription; quotes; head to ladder.

    python benchmarks/chain.py [--blocks 40] [--swaps 60] [--heads 60] [--pairs 0] [--pools 0]

All in one run, on a real EVM with the real contracts and a real Kafka. ``collector`` is the whole collector catching up
over the blocks: fetching, checking against the bloom, decoding, applying, undo records, chain.pool, chain.block and the
books in market.book. ``web3.py`` is its AsyncWeb3 subscription to the same pools' logs with ``process_log`` for each,
and nothing kept or written. Figures are by CPU second of this process. Head to ladder is wall time from the moment
that the chain is told to mine to the record's arrival at a consumer of market.book. With --pairs and --pools, so many
are created while the collector runs, and the time from a creation's block to LIVE is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from bus.consumer import TailReader
from cli.chain_fuzz import chain_settings
from cli.stack import private_broker
from collectors.dex.collector import ChainCollector
from config.settings import Settings, load_settings
from schemas.codec import codec
from schemas.topics import BOOK, STATUS
from simulator.evm import Evm, encode
from simulator.evm_dex import Dex
from simulator.evm_traffic import Traffic

SYNC_ABI = [
    {
        "type": "event", "name": "Sync", "anonymous": False,
        "inputs": [
            {"indexed": False, "name": "reserve0", "type": "uint112"},
            {"indexed": False, "name": "reserve1", "type": "uint112"},
        ],
    },
    {
        "type": "event", "name": "Swap", "anonymous": False,
        "inputs": [
            {"indexed": True, "name": "sender", "type": "address"},
            *({"indexed": False, "name": n, "type": "uint256"} for n in ("a0In", "a1In", "a0Out", "a1Out")),
            {"indexed": True, "name": "to", "type": "address"},
        ],
    },
]  # fmt: skip


async def running(settings: Settings, name: str) -> tuple[ChainCollector, asyncio.Task[None], asyncio.Event]:
    """A collector in this process, at the chain's first block."""
    collector, stop = ChainCollector(settings, name), asyncio.Event()
    task = asyncio.create_task(collector.run(stop))
    while collector.health()["height"] < 0:
        await asyncio.sleep(0.05)
        if task.done():
            task.result()
    return collector, task, stop


async def until_head(collector: ChainCollector, evm: Evm) -> None:
    """Wait for the chain's head."""
    head = evm.head()["hash"]
    while collector.follower.chain.tip is None or collector.follower.chain.tip.hash != head:
        await asyncio.sleep(0.002)


def fill(evm: Evm, traffic: Traffic, blocks: int, swaps: int) -> int:
    """Blocks full of V2 swaps; gives how many logs the pools themselves wrote (Sync and Swap)."""
    pairs = [p for p in traffic.pools if p.kind == "v2"]
    for n in range(blocks):
        calls = []
        for k in range(swaps):
            p = pairs[(n + k) % len(pairs)]
            to, data = traffic.dex.v2_swap(*((p.a, p.b) if (n + k) % 2 else (p.b, p.a)), 10**9 + k)
            calls.append(("eth_sendTransaction", [evm.transaction(to, data)]))
        evm.batch(calls)
        evm.mine()
    return 2 * blocks * swaps


async def web3_rate(evm: Evm, traffic: Traffic, blocks: int, swaps: int) -> tuple[float, int]:
    """Logs a CPU second through web3.py, and how many there were."""
    from web3 import AsyncWeb3, WebSocketProvider

    addresses = [AsyncWeb3.to_checksum_address(p.ident) for p in traffic.pools if p.kind == "v2"]
    async with AsyncWeb3(WebSocketProvider(evm.ws_url, max_connection_retries=3)) as w3:
        contract: Any = w3.eth.contract(abi=SYNC_ABI)
        topics = {contract.events.Sync().topic: contract.events.Sync(), contract.events.Swap().topic: contract.events.Swap()}
        await w3.eth.subscribe("logs", {"address": addresses})
        expected = 2 * blocks * swaps
        filler = threading.Thread(target=fill, args=(evm, traffic, blocks, swaps))
        seen, before = 0, 0.0
        # The thread that fills the chain is this process's too: its CPU is measured by itself and taken off.
        spent: list[float] = []

        def run() -> None:
            began = time.thread_time()
            fill(evm, traffic, blocks, swaps)
            spent.append(time.thread_time() - began)

        filler = threading.Thread(target=run)
        before = time.process_time()
        filler.start()
        async for message in w3.socket.process_subscriptions():
            entry = message["result"]
            event = topics.get(entry["topics"][0].to_0x_hex())
            if event is not None:
                event.process_log(entry)
                seen += 1
                if seen >= expected:
                    break
        filler.join()
        return seen / (time.process_time() - before - spent[0]), seen


async def collector_rate(collector: ChainCollector, evm: Evm, traffic: Traffic, blocks: int, swaps: int) -> tuple[float, float]:
    """(pool events, all logs) a CPU second through the whole collector, catching up over new blocks."""
    spent: list[float] = []

    def run() -> None:
        began = time.thread_time()
        fill(evm, traffic, blocks, swaps)
        spent.append(time.thread_time() - began)

    logs, before = collector.counts.logs, time.process_time()
    await asyncio.to_thread(run)
    await until_head(collector, evm)
    used = time.process_time() - before - spent[0]
    return 2 * blocks * swaps / used, (collector.counts.logs - logs) / used


def quote_times(collector: ChainCollector, evm: Evm, traffic: Traffic) -> dict[str, float]:
    """Microseconds of a quote here and by a call on the chain, for each kind."""
    rng, out = random.Random(1), {}
    for kind in ("v2", "v3"):
        p = next(p for p in traffic.pools if p.kind == kind)
        pool = collector.follower.mirror.pools[p.ident].pool
        sizes = [rng.randrange(10**6, 10**18) for _ in range(2000)]
        began = time.perf_counter()
        for size in sizes:
            pool.amount_out(0, 1, size)
        out[kind] = (time.perf_counter() - began) / len(sizes) * 1e6
        began = time.perf_counter()
        for _ in range(200):
            pool.segments(0, 1, buy=True)
            pool.segments(0, 1, buy=False)
        out[f"{kind} ladder"] = (time.perf_counter() - began) / 200 * 1e6
    p = next(p for p in traffic.pools if p.kind == "v3")
    began = time.perf_counter()
    for size in sizes[:100]:
        traffic.dex.v3_quote(p.a, p.b, p.fee, size, exact_out=False)
    out["v3 on chain"] = (time.perf_counter() - began) / 100 * 1e6
    return out


async def head_times(settings: Settings, evm: Evm, traffic: Traffic, heads: int) -> list[float]:
    """Milliseconds from mining to the ladder's record at a consumer."""
    tail = TailReader(settings, [BOOK.name], start="end")
    decode, out = codec("BookEvent").decode, []
    pair = next(p for p in traffic.pools if p.kind == "v2")
    venue = "uniswap-v2-bench"
    for n in range(heads):
        evm.send(*traffic.dex.v2_swap(*((pair.a, pair.b) if n % 2 else (pair.b, pair.a)), 10**17))
        began = time.perf_counter()
        evm.mine()
        deadline = began + 5
        while time.perf_counter() < deadline:
            messages = await asyncio.to_thread(tail.poll, 100, 0.02)
            if any(decode(m.value())["venue"] == venue for m in messages if m.key().startswith(venue.encode())):
                out.append((time.perf_counter() - began) * 1000)
                break
        await asyncio.sleep(0.05)
    tail.close()
    return sorted(out)


async def creation_times(
    settings: Settings, collector: ChainCollector, evm: Evm, dex: Dex, pairs: int, pools: int
) -> list[float]:
    """Milliseconds from a creation's block to LIVE for each of many pools created while the collector runs."""
    tail = TailReader(settings, [STATUS.name], start="end")
    mined: dict[int, float] = {}
    before = collector.counts.pools_created

    def create() -> None:
        tokens = [dex.token(f"T{n}") for n in range(max(4, int((2 * (pairs + pools)) ** 0.5) + 2))]
        both = [(a, b) for n, a in enumerate(tokens) for b in tokens[n + 1 :]]
        jobs = [(dex.v2_factory, encode("createPair(address,address)", a.address, b.address)) for a, b in both[:pairs]]
        jobs += [
            (dex.v3_factory, encode("createPool(address,address,uint24)", a.address, b.address, 3000))
            for a, b in both[:pools]
        ]
        for start in range(0, len(jobs), 40):
            evm.batch([("eth_sendTransaction", [evm.transaction(*j)]) for j in jobs[start : start + 40]])
            evm.mine()
            mined[int(evm.head()["number"], 16)] = time.time_ns() / 1e6

    await asyncio.to_thread(create)
    await until_head(collector, evm)
    while collector.counts.pools_created - before < pairs + pools:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(collector.producer.flush, 20)
    live: dict[str, float] = {}
    for message in await asyncio.to_thread(tail.read_to_end):
        record = codec("BookStatus").decode(message.value())
        if record["state"] == "LIVE" and record["owner"] == collector.owner:
            live.setdefault(f"{record['venue']}|{record['symbol']}", record["since_ns"] / 1e6)
    tail.close()
    out = []
    for ident, book in collector.follower.books.items():
        created = collector.follower.mirror.pools[ident].created[0]
        key = f"{book.venue}|{book.symbol}"
        if created in mined and key in live:
            out.append(max(0.0, live[key] - mined[created]))
    print(f"created {pairs + pools}, discovered {collector.counts.pools_created - before}, LIVE {len(out)}, "
          f"serial holes {collector.follower.serials.holes()}")  # fmt: skip
    return sorted(out)


def percentile(values: list[float], part: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


async def main(blocks: int, swaps: int, heads: int, pairs: int, pools: int, json: Path | None) -> None:
    settings = load_settings()
    async with private_broker(settings, lambda line: print(line, file=sys.stderr)) as own:
        with Evm(block_gas=4_000_000_000) as evm:
            dex = Dex(evm)
            traffic = Traffic(evm, dex, 1)
            traffic.start(3, 2, 1)
            more: dict[str, Any] = {"proof_calls": 0, "block_time_ms": 12_000}
            own = load_settings(
                None, kafka=own.kafka.model_dump(), chains=chain_settings(evm, dex, "bench", **more)
            )
            collector, task, stop = await running(own, "bench")
            await until_head(collector, evm)
            ours, all_logs = await collector_rate(collector, evm, traffic, blocks, swaps)
            quotes = quote_times(collector, evm, traffic)
            times = await head_times(own, evm, traffic, heads)
            created = await creation_times(own, collector, evm, dex, pairs, pools) if pairs + pools else []
            stop.set()
            await task
            theirs, _ = await web3_rate(evm, traffic, blocks, swaps)
    print_table(
        "Chain",
        ["what", "figure"],
        [
            ["web3.py subscription + process_log, logs a CPU second", f"{theirs:,.0f}"],
            ["collector, the same pool logs a CPU second", f"{ours:,.0f}"],
            ["collector, all logs a CPU second", f"{all_logs:,.0f}"],
            ["ratio (pool logs)", f"{ours / theirs:.1f}"],
            ["ratio (all logs read and checked)", f"{all_logs / theirs:.1f}"],
            *([f"quote {kind}, µs", f"{value:.1f}"] for kind, value in quotes.items()),
            ["head → ladder in market.book, ms p50", f"{percentile(times, 0.5):.1f}"],
            ["head → ladder in market.book, ms p99", f"{percentile(times, 0.99):.1f}"],
            *(
                [f"creation → LIVE, ms p{int(part * 100)}", f"{percentile(created, part):.0f}"]
                for part in (0.5, 0.99)
                if created
            ),
        ],
    )
    told, peer = Results("chain"), f"web3.py {version('web3')}, subscription and process_log"
    told.add(
        "pool logs", ours, "logs/CPU s", theirs=theirs, alternative=peer, better="higher", aim=Aim("≥", 15, "ratio")
    )  # fmt: skip
    told.add("all logs, read and checked", all_logs, "logs/CPU s", theirs=theirs, alternative=peer, better="higher")
    for kind, value in quotes.items():
        if kind in ("v2", "v2 ladder", "v3 ladder"):
            told.add(f"quote {kind}", value, "µs")
    told.add("quote v3", quotes["v3"], "µs", theirs=quotes["v3 on chain"], alternative="a call of the quoter on the chain")
    for label, values in (("head → ladder in market.book", times), ("creation → LIVE", created)):
        for part in (0.5, 0.99) if values else ():
            told.add(f"{label}, p{part * 100:g}", percentile(values, part), "ms")
    told.write(json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("blocks", 40), ("swaps", 60), ("heads", 60), ("pairs", 0), ("pools", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    json_option(parser)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.blocks, arguments.swaps, arguments.heads, arguments.pairs, arguments.pools, arguments.json))
