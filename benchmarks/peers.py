"""cryptofeed and ccxt.pro over the frames of a capture, in an interpreter of their own; started by benchmarks/collector.py.

    python benchmarks/peers.py cryptofeed|ccxt VENUE NATIVES FRAMES CAPTURE...

NATIVES: JSON list of the venue's names; FRAMES: only the first so many, 0 for all.

Commands by line on stdin, a JSON object by line on stdout. ``check``: handle everything once, count what came out and
give each book's best levels. ``run N``: handle everything N times, with a fresh object each; CPU seconds of this process.
``verify N``: the same with cryptofeed's own checksum validation on. ``kafka N FRAMES ADDRESS``: the first FRAMES frames,
with cryptofeed's own Kafka backend.

No network: instruments are injected, and a REST call is answered with the capture's own answer. Each library gets what its
own socket code would hand over (text), the JSON library that it prefers, uvloop, and no consumer: nobody awaits its books.
Binance: cryptofeed subscribes aggTrade where the capture has trade, so it gets those frames under that name.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from simulator.capture_file import CaptureLine, read_capture  # only needs the standard library

Tops = dict[str, list[list[str]]]
"""Best bid and ask as [price, size], by the venue's name of the instrument."""
BACKEND_S = 60
PARTS = re.compile(r"[=/&?]")


def first_frames(lines: list[CaptureLine], frames: int) -> list[CaptureLine]:
    """The lines up to the frame of this number; all of them with 0."""
    ends = [i for i, line in enumerate(lines) if line.kind == "frame"]
    return lines[: ends[frames - 1] + 1] if 0 < frames < len(ends) else lines


def answers_of(lines: list[CaptureLine], natives: list[str]) -> dict[str, bytes]:
    """The REST answers by instrument; one without an address is the only instrument's."""
    found: dict[str, bytes] = {}
    for line in lines:
        if line.kind == "rest":
            parts = PARTS.split(line.url)
            native = next((n for n in natives if n in parts), natives[0] if not line.url else "")
            found.setdefault(native, line.data)
    return found


async def measured(run: Callable[[], Awaitable[None]]) -> float:
    """CPU seconds of this process for one call."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        await run()
        return time.process_time() - start
    finally:
        gc.enable()


class Cryptofeed:
    """Its feed class of the venue; message_handler is what its connection handler calls for each frame."""

    CLASSES: ClassVar = {
        "binance-spot": "Binance", "binance-usdm": "BinanceFutures", "binance-coinm": "BinanceDelivery", "okx": "OKX",
        "krakenfutures": "KrakenFutures", "kucoin-spot-full": "KuCoin", "deribit": "Deribit", "poloniex": "Poloniex",
    }  # fmt: skip

    def __init__(self, venue: str, natives: list[str], lines: list[CaptureLine]) -> None:
        import cryptofeed.exchanges
        from cryptofeed.symbols import Symbols

        if venue not in self.CLASSES:
            raise LookupError(f"cryptofeed: no class named for {venue}")
        self.kind = getattr(cryptofeed.exchanges, self.CLASSES[venue])
        # The library's names are the venue's own here; it asks Kraken Futures' by lower case.
        names = {n: n.lower() if venue == "krakenfutures" else n for n in natives}
        Symbols.set(self.kind.id, names, {"instrument_type": {}, "tick_size": {}})
        self.natives = natives
        self.answers = answers_of(lines, natives)
        frames = [line.data.decode() for line in lines if line.kind == "frame"]
        self.frames = [_as_aggregate(f) for f in frames] if venue.startswith("binance") else frames
        if venue == "kucoin-spot-full":  # its constructor asks for a connection token
            address = {"data": {"token": "", "instanceServers": [{"endpoint": "ws://", "pingInterval": 18000}]}}
            self.kind.http_sync = SimpleNamespace(write=lambda *_, **__: address)

    def feed(self, **options: Any) -> Any:
        """A fresh one."""
        keys = {"key_id": "x", "key_secret": "x", "key_passphrase": "x"}
        feed = self.kind(config={"uvloop": True, "log": {"disabled": True}, self.kind.id.lower(): keys}, **options)
        answers = self.answers

        async def read(address: str, **_: Any) -> str:
            parts = PARTS.split(address)
            return next(body for native, body in answers.items() if native in parts).decode()

        feed.http_conn = SimpleNamespace(read=read)
        for name in [name for name in dir(feed) if name.endswith("__reset")]:
            getattr(feed, name)()  # what its subscribe() does before it writes to the socket
        return feed

    async def handle(self, feed: Any, frames: list[str]) -> None:
        """These frames."""
        handler, now, connection = feed.message_handler, time.time(), SimpleNamespace(uuid=feed.id)
        for frame in frames:
            await handler(frame, connection, now)

    async def run(self, times: int, **options: Any) -> dict[str, Any]:
        """Time all frames."""
        spent = 0.0
        for _ in range(times):
            feed = self.feed(**options)
            spent += await measured(lambda feed=feed: self.handle(feed, self.frames))
        return {"cpu": spent}

    async def check(self) -> dict[str, Any]:
        """Count and give the books."""
        seen: Counter[str] = Counter()

        def counter(kind: str) -> Callable[[Any, float], Awaitable[None]]:
            async def count(_: Any, __: float) -> None:
                seen[kind] += 1

            return count

        kinds = ("l2_book", "trades", "ticker", "funding", "open_interest", "liquidations")
        feed = self.feed(callbacks={kind: counter(kind) for kind in kinds})
        await self.handle(feed, self.frames)
        tops: Tops = {}
        for native, book in feed._l2_book.items():
            sides = [book.book.bids, book.book.asks]
            tops[native] = [[str(x) for x in side.index(0)] if len(side) else [] for side in sides]
        return {"events": dict(seen), "tops": tops}

    async def kafka(self, times: int, frames: int, address: str) -> dict[str, Any]:
        """With its Kafka backend, JSON, as its documentation shows it; until the last record is acknowledged."""
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic
        from cryptofeed.backends import kafka

        kinds = {
            "l2_book": kafka.BookKafka, "trades": kafka.TradeKafka, "ticker": kafka.TickerKafka,
            "funding": kafka.FundingKafka, "open_interest": kafka.OpenInterestKafka,
        }  # fmt: skip
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        names = [f"{kind.default_key}-{self.kind.id}-{native}" for kind in kinds.values() for native in self.natives]
        fresh = set(names) - set(await admin.list_topics())
        await admin.create_topics([NewTopic(name, 1, 1) for name in sorted(fresh)])
        await admin.close()
        before = await _log_sizes(address, names)
        backends = {name: kind(bootstrap_servers=address, client_id="cryptofeed") for name, kind in kinds.items()}
        if strays := await self.topics(backends, frames) - set(names):
            raise RuntimeError(f"its records name topics that are no instrument's, such as {min(strays)}")
        loop = asyncio.get_running_loop()
        for backend in backends.values():
            backend.start(loop)
        while not all(backend.running for backend in backends.values()):
            await asyncio.sleep(0.05)

        async def run() -> None:
            for _ in range(times):
                await self.handle(self.feed(callbacks=backends), self.frames[:frames])
            for backend in backends.values():
                await _written(backend)

        started = time.monotonic()
        spent = await measured(run)
        took = time.monotonic() - started
        records = await _log_sizes(address, names)
        for backend in backends.values():
            await backend.stop()
            await backend.worker
        return {"cpu": spent, "s": took, "records": records - before}

    async def topics(self, backends: dict[str, Any], frames: int) -> set[str]:
        """Where these frames' records would go. One whose topic is not there waits 40 s for it and is lost."""
        found: set[str] = set()

        def note(backend: Any) -> Callable[[Any, float], Awaitable[None]]:
            async def topic(one: Any, _: float) -> None:
                found.add(backend.topic({"exchange": one.exchange, "symbol": one.symbol}))

            return topic

        await self.handle(self.feed(callbacks={kind: note(backend) for kind, backend in backends.items()}), self.frames[:frames])
        return found


async def _written(backend: Any) -> None:
    """Wait until what it queued is written; its writer may end by an error of its own, and then nothing more would be."""
    join = asyncio.ensure_future(backend.queue.join())
    await asyncio.wait({join, backend.worker}, timeout=BACKEND_S, return_when=asyncio.FIRST_COMPLETED)
    if not join.done():
        join.cancel()
        why = backend.worker.exception() if backend.worker.done() else f"{backend.queue.qsize()} records wait"
        raise RuntimeError(f"{type(backend).__name__} did not finish in {BACKEND_S} s: {why!r}")


async def _log_sizes(address: str, topics: list[str]) -> int:
    """Records in these topics of one partition each."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        consumer.assign(partitions := [TopicPartition(topic, 0) for topic in topics])  # all known in one go
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


def _as_aggregate(frame: str) -> str:
    if '@trade"' not in frame[:60]:
        return frame
    return frame.replace('@trade"', '@aggTrade"', 1).replace('"e":"trade"', '"e":"aggTrade"', 1).replace('"t":', '"a":', 1)


class Ccxt:
    """ccxt.pro's exchange; its client's handle_text_or_binary_message is what its socket calls for each frame."""

    VENUES: ClassVar = {
        "binance-spot": ("binance", "wss://stream.binance.com:9443/ws"), "binance-usdm": ("binance", "wss://fstream.binance.com/ws"),
        "binance-coinm": ("binance", "wss://dstream.binance.com/ws"), "okx": ("okx", "wss://ws.okx.com:8443/ws/v5/public"),
        "krakenfutures": ("krakenfutures", "wss://futures.kraken.com/ws/v1"), "kucoin-spot-full": ("kucoin", "wss://ws-api.kucoin.com"),
        "deribit": ("deribit", "wss://www.deribit.com/ws/api/v2"),
        "poloniex": ("poloniex", "wss://ws.poloniex.com/ws/public"),
    }  # fmt: skip

    def __init__(self, venue: str, natives: list[str], lines: list[CaptureLine]) -> None:
        if venue not in self.VENUES:
            raise LookupError(f"ccxt.pro: nothing said for {venue}")
        self.venue, self.natives = venue, natives
        self.name, self.url = self.VENUES[venue]
        self.answers = answers_of(lines, natives)
        self.frames = [line.data.decode() for line in lines if line.kind == "frame"]

    def market(self, exchange: Any, native: str) -> dict[str, Any]:
        """The instrument as the library describes one; its unified name is the venue's own here."""
        parts = native.split("-")
        kind = "swap"
        if self.venue in ("binance-spot", "kucoin-spot-full", "poloniex") or (self.venue == "okx" and len(parts) == 2):
            kind = "spot"
        elif self.venue == "deribit" and len(parts) == 4:
            kind = "option"
        inverse = self.venue in ("binance-coinm", "krakenfutures", "deribit") or "-USD-" in native
        contract = kind != "spot"
        return exchange.safe_market_structure({
            "id": native, "symbol": native, "base": native, "quote": "USD", "baseId": native, "quoteId": "USD",
            "settle": "USD" if contract else None, "type": kind, "active": True, "contract": contract,
            **{k: k == kind for k in ("spot", "swap", "future", "option")}, "contractSize": 1 if contract else None,
            "linear": not inverse if contract else None, "inverse": inverse if contract else None,
            "precision": {"amount": 1e-8, "price": 1e-8}, "info": {},
        })  # fmt: skip

    def exchange(self) -> tuple[Any, Any]:
        """A fresh one and its connection's object."""
        import ccxt.pro

        exchange = getattr(ccxt.pro, self.name)({"enableRateLimit": False})
        exchange.set_markets([self.market(exchange, native) for native in self.natives])
        answers = self.answers

        async def fetch(url: str, *_: Any) -> Any:
            parts = PARTS.split(url)
            return json.loads(next(body for native, body in answers.items() if native in parts))

        exchange.fetch = fetch
        client = exchange.client(self.url)
        if self.venue == "okx":
            client.subscriptions = {f"books:{native}": True for native in self.natives}
        return exchange, client

    async def handle(self, exchange: Any, client: Any) -> None:
        """All frames. While a snapshot is being fetched, its task gets its turn as it would between two frames."""
        if self.venue.startswith("binance"):
            subscription: dict[str, Any] = {"symbols": self.natives, "type": "linear" if self.venue == "binance-usdm" else "spot"}
            subscription["params"] = {}
            for native in self.natives:
                client.subscriptions[f"orderbook::{native}"] = subscription
            exchange.handle_order_book_subscription(client, {}, subscription)
        spawn, waiting = exchange.spawn, []

        def watched(*args: Any) -> Any:
            waiting.append(spawn(*args))
            return waiting[-1]

        exchange.spawn = watched
        for _ in range(50):  # the first snapshots
            await asyncio.sleep(0)
        take = client.handle_text_or_binary_message
        for frame in self.frames:
            take(frame)
            if waiting:
                await asyncio.sleep(0)
                waiting[:] = [future for future in waiting if not future.done()]

    async def run(self, times: int) -> dict[str, Any]:
        """Time all frames."""
        spent = 0.0
        for _ in range(times):
            exchange, client = self.exchange()
            spent += await measured(lambda e=exchange, c=client: self.handle(e, c))
            await exchange.close()
        return {"cpu": spent}

    async def check(self) -> dict[str, Any]:
        """Count and give the books."""
        exchange, client = self.exchange()
        seen: Counter[str] = Counter()

        def resolve(_: Any, message_hash: Any = None) -> None:
            seen[re.split(r"[:|.]", str(message_hash))[0]] += 1

        def reject(error: Any, message_hash: Any = None) -> None:
            raise RuntimeError(f"{message_hash}: {error!r}")

        client.resolve, client.reject = resolve, reject
        await self.handle(exchange, client)
        tops: Tops = {}
        for native, book in exchange.orderbooks.items():
            tops[native] = [[repr(x) for x in side[0][:2]] if side else [] for side in (book["bids"], book["asks"])]
        await exchange.close()
        return {"events": dict(seen), "tops": tops}


async def _answer(peer: Any, command: list[str]) -> dict[str, Any]:
    match command:
        case ["check"]:
            return await peer.check()
        case ["run", times]:
            return await peer.run(int(times))
        case ["verify", times]:
            return await peer.run(int(times), checksum_validation=True)
        case ["kafka", times, frames, address]:
            return await peer.kafka(int(times), int(frames), address)
    raise ValueError(f"no such command: {command}")


def main() -> None:
    """Answer commands until stdin ends."""
    from importlib.metadata import version

    import uvloop

    which, venue, natives, frames, *paths = sys.argv[1:]
    lines = first_frames(sorted(read_capture(Path(p) for p in paths), key=lambda line: line.ts_ns), int(frames))
    try:
        peer: Any = {"cryptofeed": Cryptofeed, "ccxt": Ccxt}[which](venue, json.loads(natives), lines)
    except Exception as error:
        print(json.dumps({"version": version(which), "error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    gc.freeze()  # a collection before each of many short runs need not walk through all that is loaded
    print(json.dumps({"version": version(which), "python": sys.version.split()[0], "frames": len(peer.frames)}), flush=True)
    for command in sys.stdin:
        try:
            answer = uvloop.run(_answer(peer, command.split()))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
