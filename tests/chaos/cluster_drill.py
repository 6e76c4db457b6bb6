"""The whole system on three Kafka brokers under the faults that a cluster has, while a checker that knows the truth looks on.

    python -m tests.chaos.cluster_drill --seed 1 --minutes 10

Two synthetic venues and one that is traded on live in this process, so that their truth is read at once; brokers,
collectors, processors, strategy, executor and archiver are processes of their own. A seeded schedule breaks one thing
after the other; after each the time is taken until every book is LIVE and equal on every processor, the cluster is whole
and orders go out again. What has to hold is in ``cluster_checks``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus.topics import apply
from cli.stack import free_port
from cli.trade_views import records, write
from config.settings import Settings, load_settings
from schemas.topics import BOOK, RISK, TRADE
from simulator.synthetic import SyntheticVenue
from tests.chaos.cluster import Cluster
from tests.chaos.cluster_checks import (
    Findings,
    Mirrored,
    Prober,
    Stranger,
    Witness,
    judge_events,
    judge_history,
    judge_orders,
    scrape,
    unsettled,
)  # fmt: skip
from tests.chaos.cluster_faults import BESIDE, FAULTS, UNSEEN, about, schedule
from tests.chaos.cluster_rooms import Rooms
from tests.chaos.drill_chain import DrillChain
from tests.chaos.trading_floor import LIMITS, TradingFloor
from tests.e2e.rooms import section

RECOVER_S = 600.0
"""Patience with a crowded machine; what was needed is in the report."""
AWAY_S = 300.0
KEPT = (BOOK.name, TRADE.name)
"""What the archiver keeps in a drill."""
COUNTED = (
    "collector_reconnects_total", "collector_gaps_total", "collector_resyncs_total", "collector_rest_errors_total",
    "collector_connection_errors_total", "collector_congestions_total", "collector_dead_letters_total",
    "processor_rebalances_total", "processor_gaps_total", "processor_replayed_total", "processor_restored_total",
    "processor_fenced_total", "collector_instruments_changed_total", "collector_failed_deliveries",
    "collector_producer_queue", "processor_lagging_partitions", "processor_producer_queue",
)  # fmt: skip
"""Metrics in which faults are looked for."""

Say = Callable[[str], None]


@dataclass
class World:
    """All that a fault may touch."""

    settings: Settings
    cluster: Cluster
    rooms: Rooms
    floor: TradingFloor
    floor_name: str
    synthetic: dict[str, SyntheticVenue]
    ports: list[int]
    metrics_urls: dict[str, str]
    long: bool
    findings: Findings
    away_s: float = 0.0
    away: set[str] = field(default_factory=set[str])
    """Venues that nobody reaches for long, and nothing waits for."""
    look_for_partitions: Callable[[], None] = lambda: None
    """Tells the witness."""

    def present(self) -> list[str]:
        """The synthetic venues that are not away."""
        return sorted(set(self.synthetic) - self.away)

    def venues(self) -> list[Mirrored]:
        """Every mirrored venue with its truth."""
        out = [
            Mirrored(name, lambda v=v: v.books, lambda v=v: v.natives_by_symbol(), v.wire.by_time)
            for name, v in self.synthetic.items()
        ]
        return [*out, Mirrored(self.floor_name, lambda: self.floor.books, lambda: self.floor.symbols)]


@dataclass
class Happened:
    """One fault and what came after it."""

    kind: str
    what: str
    lasted_s: float
    books_s: float = 0.0
    """From its end until every book was LIVE and equal on every processor."""
    orders_s: float | None = None
    """From its end until the venue got an order again."""
    cluster_s: float | None = None
    """From its end until every partition was in sync everywhere."""
    states: dict[str, int] = field(default_factory=dict[str, int])
    """What was told instead of LIVE meanwhile."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """What moved in the metrics."""

    @property
    def visible(self) -> bool:
        """Whether somebody who looks only at states and metrics would have seen that something was wrong."""
        return bool(self.states or self.metrics)


@dataclass
class Report:
    """What a drill saw."""

    seed: int
    minutes: float
    machine: str = ""
    happened: list[Happened] = field(default_factory=list[Happened])
    findings: Findings = field(default_factory=Findings)
    ended: dict[str, dict[int, int]] = field(default_factory=dict[str, dict[int, int]])
    statuses: Counter[str] = field(default_factory=Counter[str])
    memory_mb: dict[str, list[int]] = field(default_factory=dict[str, list[int]])

    def text(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}, {self.minutes:g} minutes, {len(self.happened)} faults; {self.machine}"]
        lines += [f"  {what}: {count}" for what, count in self.findings.looked.items()]
        lines += [f"  states written to market.status: {dict(self.statuses)}"]
        lines += [f"  {name} ended by itself, by exit code: {codes}" for name, codes in self.ended.items() if codes]
        lines += [f"  memory of {name}: {mb} MB" for name, mb in self.memory_mb.items()]
        lines.append("seconds after the fault's end until books, orders and cluster were well: p50, p99")
        lines.append(f"{'fault':20} {'n':>3} {'books':>10} {'':7} {'orders':>10} {'':7} {'cluster':>10} {'':7}  seen")
        for kind in FAULTS:
            if not (mine := [h for h in self.happened if h.kind == kind]):
                continue
            cells = [f"{kind:20} {len(mine):3}"]
            for name in ("books_s", "orders_s", "cluster_s"):
                values = [value for h in mine if (value := getattr(h, name)) is not None]
                cells.append(f"{_share(values, 0.5):10.1f} {_share(values, 0.99):7.1f}" if values else f"{'–':>10} {'–':>7}")
            lines.append(" ".join(cells) + f"  {sum(h.visible for h in mine)}/{len(mine)}")
        lines += [f"PROBLEM {text}" for text in self.findings.problems]
        return "\n".join([*lines, *(["all promises held"] if self.clean else [])])

    @property
    def clean(self) -> bool:
        """Nothing wrong was seen, and enough was looked at."""
        return not self.findings.problems and bool(self.findings.looked["LIVE and equal"] and self.happened)


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class ClusterDrill:
    """One drill. ``await run()`` gives its report."""

    def __init__(
        self, work: Path, *, seed: int, minutes: float, instruments: int = 8, rate: float = 60, processors: int = 3,
        kinds: tuple[str, ...] = tuple(FAULTS), most: int = 1000, chain: bool = False, say: Say = lambda _: None,
    ) -> None:  # fmt: skip
        self.report = Report(seed, minutes)
        self._work, self._seed, self._say = work, seed, say
        self._seconds, self._instruments, self._rate, self._processors = minutes * 60, instruments, rate, processors
        self._kinds, self._most, self._with_chain = kinds, most, chain
        self._chain: DrillChain | None = None
        self._chance = random.Random(seed)

    async def run(self) -> Report:
        """Start everything, break it for a while, judge it."""
        async with self._world() as world:
            findings = self.report.findings
            witness = Witness(world.settings)
            prober = Prober(world.ports, world.venues(), findings, self._seed, witness.late_s, world.away)
            await asyncio.to_thread(witness.start)
            world.look_for_partitions = witness.look_for_partitions
            self._say(f"every book LIVE and equal after {await prober.until_all_equal(RECOVER_S):.1f} s")
            await self._until_ordered(world)
            self._remember_memory(world)
            stranger = Stranger(world.ports, findings, self._seed)
            watching = [asyncio.create_task(prober.run()), asyncio.create_task(stranger.run())]
            beside = asyncio.create_task(self._break_beside(world, prober))
            try:
                await self._break(world, prober)
                await beside
            except AssertionError as error:
                findings.wrong(str(error))
            finally:
                for task in (*watching, beside):
                    task.cancel()
                await asyncio.gather(*watching, beside, return_exceptions=True)
                world.away.clear()
            self._remember_memory(world)
            await self._settle(world, prober, witness)
            self.report.statuses = Counter(s["state"] for s in witness.statuses)
            self.report.ended = {room.name: dict(room.ended) for room in world.rooms.rooms.values()}
        return self.report

    @contextlib.asynccontextmanager
    async def _world(self) -> AsyncIterator[World]:
        run, shape = f"{self._seed}-{int(time.time()) % 100_000}", {"instruments": self._instruments, "rate": self._rate}
        synthetic = {
            f"{adapter}-{run}": SyntheticVenue(adapter, levels=12, seed=self._seed, **shape)
            for adapter in ("binance-usdm", "okx")
        }
        floor, floor_name = TradingFloor(self._seed), f"floor-{run}"
        cluster = Cluster(self._work / "kafka", say=self._say)
        self.report.machine = "each broker on a loopback address of its own behind a network of TCP links"
        async with contextlib.AsyncExitStack() as end:
            end.push_async_callback(cluster.stop)
            for venue in (*synthetic.values(), floor):
                await venue.start()
                end.push_async_callback(venue.stop)
            if self._with_chain:
                self._chain = await end.enter_async_context(DrillChain(f"chain-{run}", self._seed))
            await cluster.start(small_disk="disk full" in self._kinds)
            settings = self._settings(cluster, run, synthetic, floor, floor_name)
            await asyncio.to_thread(apply, settings)
            await cluster.until_joined()
            rooms = await end.enter_async_context(Rooms(settings, self._work / "logs", self._say))
            long, findings = self._seconds > 120, self.report.findings
            world = World(settings, cluster, rooms, floor, floor_name, synthetic, [], {}, long, findings)
            await self._start(world, run)
            yield world

    def _settings(
        self, cluster: Cluster, run: str, synthetic: dict[str, SyntheticVenue], floor: TradingFloor, floor_name: str
    ) -> Settings:
        venues: dict[str, Any] = {name: section(venue.adapter, venue).model_dump() for name, venue in synthetic.items()}
        venues[floor_name] = {
            "adapter": "binance-spot", "rest_url": floor.venue.rest_url, "ws_url": floor.venue.ws_url,
            "rest_weight_per_minute": 1_000_000, "channels": ("book",),
        }  # fmt: skip
        return cluster.settings(load_settings(
            None, venues=venues, kafka={"market_partitions": 4},
            processor={
                "app_id": f"drill-{run}", "data_dir": self._work / "faust", "derived": ("depth",), "session_timeout_s": 10,
            },
            collector={
                "discovery_s": 4.0, "stale_connection_s": 15.0, "stale_s": 30.0, "session_timeout_ms": 10_000,
                "keyframe_max_s": 10.0,
            },
            chains=self._chain.settings() if self._chain else {},
            history={"root": str(self._work / "history"), "topics": KEPT, "flush_s": 2.0},
        ))  # fmt: skip

    async def _start(self, world: World, run: str) -> None:
        settings, rooms = world.settings, world.rooms
        account = f"{world.floor_name}:main"
        now = time.time_ns()
        await asyncio.to_thread(write, settings, "orders.limits", "Limits", "global", {
            "scope": "global", "version": 1, "names": sorted(LIMITS), "limits": [LIMITS[n] for n in sorted(LIMITS)],
            "by": "drill", "reason": "drill", "ts_ns": now,
        })  # fmt: skip
        await asyncio.to_thread(write, settings, "orders.control", "Control", "all", {
            "scope": "all", "version": 1, "state": "RUN", "flatten": False, "by": "drill", "reason": "drill", "ts_ns": now,
        })  # fmt: skip
        for name in (*world.synthetic, world.floor_name):
            port = free_port()
            world.metrics_urls[name] = f"http://127.0.0.1:{port}/metrics"
            own = settings.model_copy(update={"collector": settings.collector.model_copy(update={"metrics_port": port})})
            await rooms.start(f"collector {name.partition('-')[0]}", "collect", name, settings=own)
        for number in range(1, self._processors + 1):
            port = free_port()
            world.ports.append(port)
            world.metrics_urls[f"processor {number}"] = f"http://127.0.0.1:{port}/metrics"
            own = settings.model_copy(update={"processor": settings.processor.model_copy(update={"web_port": port})})
            await rooms.start(f"processor {number}", "process", settings=own)
        strategy, accounts = world.floor.files(self._work, world.floor_name, f"mm-{run}")
        await rooms.start("executor", "execute", str(accounts), settings=settings)
        await rooms.start("strategy", "trade", str(strategy), "--mode", "live", settings=settings)
        await rooms.start("archiver", "archive", settings=settings)
        if self._chain is not None:
            await rooms.start("collector chain", "collect-chain", self._chain.name, settings=settings)
            self._chain.live()
        self._account = account

    async def _until_ordered(self, world: World, patience_s: float = RECOVER_S) -> float:
        """Wait until the venue has got an order that it took; gives the seconds."""
        started = time.monotonic()
        mine = _ours(world)
        while _ours(world) == mine:
            if time.monotonic() - started > patience_s:
                verdicts = Counter((r["verdict"], r["rule"]) for r in await asyncio.to_thread(records, world.settings, RISK.name))
                raise AssertionError(f"no order went out within {patience_s:g} s; verdicts until now: {dict(verdicts)}")
            await asyncio.sleep(0.2)
        return time.monotonic() - started

    async def _break(self, world: World, prober: Prober) -> None:
        following = schedule(
            self._seed, lambda name: name in self._kinds and (name != "disk full" or world.cluster.has_small_disk)
        )
        end = time.monotonic() + self._seconds
        while time.monotonic() < end and len(self.report.happened) < self._most:
            kind = following()
            prober.not_live.clear()
            before = await scrape(world.metrics_urls.values())
            started = time.monotonic()
            what = await FAULTS[kind](world, self._chance)
            one = Happened(kind, what, time.monotonic() - started)
            self.report.happened.append(one)
            during = asyncio.create_task(scrape(world.metrics_urls.values()))
            one.books_s, one.orders_s, one.cluster_s = await asyncio.gather(
                prober.until_all_equal(RECOVER_S), self._until_ordered(world), self._until_whole(world)
            )
            await world.rooms.until_up()
            one.states = dict(prober.not_live)
            one.metrics = _moved(before, await during, await scrape(world.metrics_urls.values()))
            self._say(
                f"{len(self.report.happened)} {kind} ({what}): books after {one.books_s:.1f} s, orders {one.orders_s:.1f} s, "
                f"cluster {one.cluster_s:.1f} s; {one.states} {one.metrics}"
            )
            if not one.visible and kind not in UNSEEN:
                self.report.findings.wrong(f"{kind} ({what}) was to be seen in no state and no metric")
            if self.report.findings.problems:
                self._say(f"PROBLEM {self.report.findings.problems[-1]}")

    async def _break_beside(self, world: World, prober: Prober) -> None:
        """One venue is away for minutes, once, while the other faults come."""
        if BESIDE not in self._kinds or not world.long:
            return
        world.away_s, findings = min(AWAY_S, self._seconds / 2), self.report.findings
        chance, started = random.Random(f"{self._seed} beside"), time.monotonic()
        fault = asyncio.create_task(FAULTS[BESIDE](world, chance))
        try:
            await asyncio.sleep(world.away_s * 0.8)
            name = min(world.away)
            states = await prober.is_told(name, findings)
            one = Happened(BESIDE, await fault, time.monotonic() - started, states=dict(states))
        finally:
            fault.cancel()
        self._say(f"{BESIDE} ({one.what}) is back; it was told as {one.states}")
        world.away.clear()
        one.books_s = await prober.until_all_equal(RECOVER_S, name)  # another may be down by now, and has its own time
        self.report.happened.append(one)
        self._say(f"{BESIDE}: books after {one.books_s:.1f} s")

    async def _until_whole(self, world: World) -> float:
        started = time.monotonic()
        await world.cluster.until_joined()
        return time.monotonic() - started

    async def _settle(self, world: World, prober: Prober, witness: Witness) -> None:
        """Let everything come to rest, then judge the logs."""
        findings, settings = self.report.findings, world.settings
        await world.rooms.stop("strategy")
        world.rooms.rooms.pop("strategy")
        await world.floor.quiet()
        deadline = time.monotonic() + RECOVER_S
        problem = "not asked"
        while problem and time.monotonic() < deadline:
            problem = await asyncio.to_thread(unsettled, settings, world.floor, self._account)
            await asyncio.sleep(1)
        if problem:
            self._say(f"orders do not settle: {problem}")
        for venue in world.synthetic.values():
            venue.control("calm")
        try:
            await prober.until_all_equal(RECOVER_S)
        except AssertionError as error:
            findings.wrong(f"at the end: {error}")
        for venue in world.synthetic.values():
            venue.control("rate", rate=0)
        if self._chain is not None:
            await self._chain.quiet()
            await asyncio.to_thread(self._chain.judge, settings, findings)
        for name in [name for name in world.rooms.rooms if name.startswith(("collector", "executor", "processor"))]:
            await world.rooms.stop(name)
            world.rooms.rooms.pop(name)
        await asyncio.to_thread(witness.stop)
        while time.monotonic() < deadline and await asyncio.to_thread(judge_history, settings, KEPT, findings, True):
            await asyncio.sleep(0.5)
        await world.rooms.stop("archiver")
        world.rooms.rooms.pop("archiver")
        for judge in (
            lambda: judge_history(settings, KEPT, findings), lambda: witness.judge(findings),
            lambda: judge_events(settings, [*world.synthetic, world.floor_name], findings),
            lambda: judge_orders(settings, world.floor, self._account, findings),
        ):  # fmt: skip
            await asyncio.to_thread(judge)

    def _remember_memory(self, world: World) -> None:
        for name, mb in world.rooms.memory_mb().items():
            self.report.memory_mb.setdefault(name, []).append(mb)


def _ours(world: World) -> int:
    from tests.chaos.trading_floor import OURS

    return sum(1 for owner, _ in world.floor.venue.core.placed if owner == OURS)


def _moved(*pages: dict[str, dict[str, float]]) -> dict[str, float]:
    """What differs between scrapes: counters by how much, gauges by their highest, processes that were new or silent."""
    before, *later = pages
    out: dict[str, float] = {}
    for name in COUNTED:
        for url in before:
            grown = max((page[url].get(name, 0.0) for page in later if url in page), default=0.0) - before[url].get(name, 0.0)
            if grown > 0:
                out[name] = out.get(name, 0.0) + grown
    if gone := sum(url not in page for page in later for url in before):
        out["pages that did not answer"] = gone
    restarted = sum(
        page[url].get("processor_events_created", 0) + page[url].get("collector_frames_created", 0)
        > before[url].get("processor_events_created", 0) + before[url].get("collector_frames_created", 0)
        for page in later[-1:] for url in before if url in page
    )  # fmt: skip
    return out | ({"processes started anew": restarted} if restarted else {})


async def main() -> int:
    """The command; 0 when all promises held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--instruments", type=int, default=8, help="of each synthetic venue")
    parser.add_argument("--rate", type=float, default=60, help="book events a second of each synthetic venue")
    parser.add_argument("--processors", type=int, default=3)
    parser.add_argument("--no-chain", action="store_true", help="without a local EVM (which needs npm once)")
    parser.add_argument("--kinds", default="", help="only these faults, separated by commas: " + ", ".join(FAULTS))
    parser.add_argument("--json", type=Path, help="write the report there too")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and data, instead of a temporary one")
    given = parser.parse_args()
    kinds = tuple(k.strip() for k in given.kinds.split(",") if k.strip()) or tuple(FAULTS)
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        parser.error(f"no such fault: {unknown}; there are: " + "; ".join(f"{name}: {about(name)}" for name in FAULTS))
    if not set(kinds) - {BESIDE}:
        parser.error(f"{BESIDE} needs other faults, which it lasts beside")

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    for name in ("bus.connection", "aiohttp.server"):  # what the drill does to them is no news
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    me = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel if me is not None else sys.exit)
    # What cannot be removed must not hide the report.
    with tempfile.TemporaryDirectory(prefix="venue-mirror-drill-", ignore_cleanup_errors=True) as temporary:
        drill = ClusterDrill(
            (given.keep or Path(temporary)).resolve(), seed=given.seed, minutes=given.minutes, instruments=given.instruments,
            rate=given.rate, processors=given.processors, kinds=kinds, chain=not given.no_chain, say=say,
        )  # fmt: skip
        report = await drill.run()
    print(report.text(), flush=True)
    if given.json:
        given.json.write_text(json.dumps(report, default=lambda o: o.__dict__, indent=1), "utf-8")
    return 0 if report.clean else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
