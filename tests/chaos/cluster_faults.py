"""What a cluster drill does wrong, by name: brokers, their network and disk, processes, venues. Seeded; each ends healed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any

import fastavro

from bus.producer import Producer
from cli.stack import environment
from cli.views import ViewError, Views
from config.settings import Settings
from schemas.codec import HEADER_SIZE, MAGIC, codec, fingerprint_id, history, parsed
from schemas.topics import BOOK, STATUS
from tests.chaos.cluster import MEMBERS
from tests.chaos.cluster_checks import scrape

if TYPE_CHECKING:
    from tests.chaos.cluster_drill import World

GROW_S = 400.0
"""Patience with a crowded machine."""

Fault = Callable[["World", random.Random], Awaitable[str]]
"""Does it and heals it; gives what exactly was done. What comes after is the system's own recovery."""


async def broker_kill(world: World, chance: random.Random) -> str:
    """kill -9 of a broker, started again after a while."""
    n, down_s = chance.choice(MEMBERS), chance.uniform(1, 6)
    await world.cluster.kill(n)
    await asyncio.sleep(down_s)
    await world.cluster.restart(n)
    return f"broker {n}, away for {down_s:.1f} s"


async def leader_partitioned(world: World, chance: random.Random) -> str:
    """The leader of a partition of market.book is cut off from both others; clients still reach it."""
    leaders: dict[int, int] = await asyncio.to_thread(world.cluster.leaders, BOOK.name)
    partition = chance.choice(sorted(leaders))
    n, seconds = leaders[partition], chance.uniform(8, 14)
    await world.cluster.network.change(world.cluster.peers(n), cut=True)
    await asyncio.sleep(seconds)
    await world.cluster.network.change(world.cluster.peers(n))
    return f"broker {n}, leader of {BOOK.name}[{partition}], for {seconds:.1f} s"


async def clients_partitioned(world: World, chance: random.Random) -> str:
    """No client reaches one broker, which is well with its peers and keeps its leaderships."""
    n, seconds = chance.choice(MEMBERS), chance.uniform(4, 10)
    await world.cluster.network.change([f"client>{n}"], cut=True)
    await asyncio.sleep(seconds)
    await world.cluster.network.change([f"client>{n}"])
    return f"broker {n}, for {seconds:.1f} s"


async def broker_stopped(world: World, chance: random.Random) -> str:
    """SIGSTOP: a broker whose disk hangs."""
    n, seconds = chance.choice(MEMBERS), chance.uniform(4, 12)
    world.cluster.pause(n)
    try:
        await asyncio.sleep(seconds)
    finally:
        world.cluster.go_on(n)
    return f"broker {n}, for {seconds:.1f} s"


async def network_slow(world: World, chance: random.Random) -> str:
    """All links of a broker are slow and lossy."""
    n, seconds = chance.choice(MEMBERS), chance.uniform(6, 12)
    how = {"delay_ms": chance.randint(20, 150), "jitter_ms": chance.randint(0, 100), "loss": chance.uniform(0, 0.05)}
    await world.cluster.network.change(world.cluster.links(n), **how)
    await asyncio.sleep(seconds)
    await world.cluster.network.change(world.cluster.links(n))
    return f"broker {n}: +{how['delay_ms']} ms, jitter {how['jitter_ms']} ms, loss {how['loss']:.1%}, for {seconds:.1f} s"


async def disk_full(world: World, chance: random.Random) -> str:
    """The disk of broker 3 is full; it stops by itself, and is started again when there is room."""
    seconds = chance.uniform(4, 10)
    world.cluster.fill_disk()
    await asyncio.sleep(seconds)
    ended = not world.cluster.alive(3)
    world.cluster.free_disk()
    await world.cluster.restart(3)
    return f"broker 3, for {seconds:.1f} s; it {'ended' if ended else 'lived on'}"


async def process_kill(world: World, chance: random.Random) -> str:
    """kill -9 of any process."""
    name = chance.choice(sorted(world.rooms.rooms))
    await world.rooms.kill(name)
    return name


async def process_stopped(world: World, chance: random.Random) -> str:
    """SIGSTOP of any process, for longer than its session at times."""
    name, seconds = chance.choice(sorted(world.rooms.rooms)), chance.uniform(2, 12)
    await world.rooms.pause(name, seconds)
    return f"{name}, for {seconds:.1f} s"


async def two_at_once(world: World, chance: random.Random) -> str:
    """A broker and a process die in the same second."""
    n, name = chance.choice(MEMBERS), chance.choice(sorted(world.rooms.rooms))
    await asyncio.gather(world.cluster.kill(n), world.rooms.kill(name))
    await asyncio.sleep(chance.uniform(0.5, 3))
    await world.cluster.restart(n)
    return f"broker {n} and {name}"


async def rolling_restart(world: World, chance: random.Random) -> str:
    """Every broker, one after the other, each only when the cluster is whole; then every process."""
    for n in chance.sample(MEMBERS, 3):
        await world.cluster.shut_down(n)
        await world.cluster.restart(n)
        await world.cluster.until_joined()
    for name in chance.sample(sorted(world.rooms.rooms), len(world.rooms.rooms)):
        await world.rooms.stop(name)
        await world.rooms.until_up()
    return "three brokers, " + str(len(world.rooms.rooms)) + " processes"


async def partitions_added(world: World, chance: random.Random) -> str:
    """Two more of each topic, as docs/OPERATIONS.md has it: all rooms stop in its order, keys move, all start again."""
    rooms, wanted = world.rooms, world.settings.kafka.market_partitions + 2
    first = [name for name in rooms.rooms if name in ("strategy", "executor")]
    collectors = [name for name in rooms.rooms if name.startswith("collector")]
    processors = [name for name in rooms.rooms if name.startswith("processor")]
    kafka = world.settings.kafka.model_copy(update={"market_partitions": wanted})
    grown = world.settings.model_copy(update={"kafka": kafka})
    try:
        for name in (*first, *collectors):
            await rooms.hold(name)
        refusals = await _grow(world, grown, processors)
        world.settings = grown
        rooms.reconfigure(lambda settings: settings.model_copy(update={"kafka": kafka}))
        world.look_for_partitions()
    finally:
        rooms.let_go()
    await rooms.until_up()
    return f"{wanted} of them, after {refusals} refusals"


async def _grow(world: World, grown: Settings, processors: list[str]) -> int:
    """Stop the processors when they have read all, and move the keys; gives how often that was refused."""
    urls = [world.metrics_urls[name] for name in processors]
    deadline, refusals = time.monotonic() + GROW_S, 0
    while time.monotonic() < deadline:
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            pages = await scrape(urls)
            quiet = quiet + 1 if len(pages) == len(urls) and not any(p.get("processor_lag") for p in pages.values()) else 0
            await asyncio.sleep(1)
        for name in ("archiver", *processors):
            await world.rooms.hold(name)
        command = [sys.executable, "-m", "cli.main", "topics", "apply", "--grow"]
        while True:
            child = await asyncio.create_subprocess_exec(
                *command, env=environment(grown), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            out = (await child.communicate())[0].decode()
            if not child.returncode:
                return refusals
            refusals += 1
            if "records wait" in out or time.monotonic() > deadline:
                break  # they have to read on
            await asyncio.sleep(1)  # Kafka has not noticed yet that they are gone
        for name in processors:
            world.rooms.rooms[name].held = False
    raise AssertionError(f"partitions could not be added within {GROW_S:g} s: {out[-500:]}")


async def venue_away(world: World, chance: random.Random) -> str:
    """A venue answers nobody for five minutes, while everything else goes on, and goes wrong in other ways."""
    seconds, name = world.away_s, chance.choice(sorted(world.synthetic))
    world.away.add(name)
    world.synthetic[name].control("maintenance", seconds=seconds)
    await asyncio.sleep(seconds)
    return f"{name}, for {seconds:.0f} s"


async def venue_down(world: World, chance: random.Random) -> str:
    """A venue answers nobody."""
    seconds = chance.uniform(4, 10) if not world.long else chance.uniform(10, 60)
    name = chance.choice([*world.present(), world.floor_name])
    if name == world.floor_name:
        await world.floor.down(seconds)
    else:
        world.synthetic[name].control("maintenance", seconds=seconds)
        await asyncio.sleep(seconds)
    return f"{name}, for {seconds:.1f} s"


async def venue_frames(world: World, chance: random.Random) -> str:
    """A venue loses, repeats and garbles frames."""
    name = chance.choice(world.present())
    venue = world.synthetic[name]
    for verb in chance.sample(("drop", "duplicate", "reorder", "garbage", "wrongtype", "cut"), 3):
        venue.control(verb, **({} if verb == "cut" else {"n": 3}))
        await asyncio.sleep(0.5)
    return name


async def clock_skew(world: World, chance: random.Random) -> str:
    """A venue's clock is wrong; a machine's own is not touched."""
    name, seconds = chance.choice(world.present()), chance.choice((-30, -3, 3, 30))
    world.synthetic[name].control("skew", seconds=seconds)
    await asyncio.sleep(4)
    world.synthetic[name].control("skew", seconds=0)
    return f"{name} by {seconds} s"


async def listings(world: World, chance: random.Random) -> str:
    """A venue lists new instruments and delists one."""
    name = chance.choice(world.present())
    venue = world.synthetic[name]
    venue.control("storm", n=2)
    venue.control("delist", symbol=chance.choice(venue.symbols))
    await asyncio.sleep(1)
    return name


async def schema_upgraded(world: World, chance: random.Random) -> str:
    """A writer is upgraded in mid-epoch, from the oldest version of the schema ever committed to the newest; an old
    reader reads the new records."""
    versions = list({fingerprint_id(schema): schema for schema in (*history("BookEvent"), parsed("BookEvent"))}.values())
    venue, symbol, levels = f"upgraded-{time.time_ns() // 1_000_000 % 1_000_000_000}", "OLD/USDT", dict[int, int]()
    producer, now = Producer(world.settings, linger_ms=0), time.time_ns()
    status = {"venue": venue, "symbol": symbol, "state": "LIVE", "reason": "", "epoch": 1, "since_ns": now, "owner": "drill"}
    producer.send(STATUS.name, f"{venue}|{symbol}", codec("BookStatus").encode(status))
    event, written = dict[str, Any](), b""
    for index in range(30):
        bids = {100 - n: chance.randint(1, 9) for n in range(5)} if not index else {chance.randint(90, 100): chance.randint(0, 9)}
        levels |= bids
        event = {
            "venue": venue, "symbol": symbol, "kind": "DELTA" if index else "SNAPSHOT", "epoch": 1, "index": index,
            "venue_seq": index, "venue_prev_seq": index - 1, "ts_venue_us": 0, "ts_received_ns": time.time_ns(), "price_exp": 0,
            "size_exp": 0, "bid_prices": list(bids), "bid_sizes": list(bids.values()), "ask_prices": [] if index else [200],
            "ask_sizes": [] if index else [7], "venue_checksum": None, "exact": True,
        }  # fmt: skip
        written = _written(versions[index * len(versions) // 30], event)
        producer.send(BOOK.name, f"{venue}|{symbol}", written)
    waiting = await asyncio.to_thread(producer.flush, 60)
    wanted = [[str(p), str(s)] for p, s in sorted(levels.items(), reverse=True) if s]
    deadline, told = time.monotonic() + 90, dict[int, object]()
    for port in world.ports:
        while told.get(port) != ("LIVE", 29, wanted) and time.monotonic() < deadline:
            async with Views(f"http://127.0.0.1:{port}") as views:
                with contextlib.suppress(ViewError):
                    book = await views.book(venue, symbol)
                    told[port] = (book["state"], book["index"], book["bids"])
            await asyncio.sleep(0.1)
        if told.get(port) != ("LIVE", 29, wanted):
            world.findings.wrong(f"a book of a writer that was upgraded in mid-epoch is {told.get(port)}, not {wanted} at 29")
    old: Any = fastavro.schemaless_reader(BytesIO(written[HEADER_SIZE:]), versions[-1], versions[0])
    if any(old[f["name"]] != event[f["name"]] for f in versions[0]["fields"]):
        world.findings.wrong("a reader of the oldest schema reads the newest record as another one")
    world.findings.looked["schema versions written in one epoch"] = len(versions)
    return f"{len(versions)} versions, {waiting} records not taken"


def _written(schema: Any, record: dict[str, Any]) -> bytes:
    out = BytesIO()
    out.write(bytes([MAGIC]) + fingerprint_id(schema).to_bytes(4, "big"))
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


FAULTS: dict[str, Fault] = {
    "broker kill -9": broker_kill, "leader partitioned": leader_partitioned, "clients partitioned": clients_partitioned,
    "broker SIGSTOP": broker_stopped, "network slow": network_slow, "disk full": disk_full, "process kill -9": process_kill,
    "process SIGSTOP": process_stopped, "broker and process": two_at_once, "rolling restart": rolling_restart,
    "venue down": venue_down, "venue frames": venue_frames, "clock skew": clock_skew, "listings": listings,
    "schema upgraded": schema_upgraded, "partitions added": partitions_added, "venue away": venue_away,
}  # fmt: skip
BESIDE = "venue away"
"""It lasts while the others come one after the other; at most once in a drill."""


UNSEEN = ("schema upgraded", "listings")
"""What is no trouble, and needs not be seen as one."""


def schedule(seed: int, able: Callable[[str], bool]) -> Callable[[], str]:
    """The next fault's name, for ever: in rounds of all kinds, each round in an order of its own."""
    chance = random.Random(seed)
    left: list[str] = []

    def following() -> str:
        nonlocal left
        if not left:
            left = [name for name in FAULTS if name != BESIDE and able(name)]
            chance.shuffle(left)
        return left.pop()

    return following


def about(name: str) -> Any:
    """What a fault is, in a sentence."""
    return (FAULTS[name].__doc__ or "").strip()
