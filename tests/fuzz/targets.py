"""What is fuzzed, and what may come of it: venues' frames and answers, records, a node's JSON, and what a node says.

Whatever the bytes are: a venue's parser raises MalformedFrame and nothing else, a worker that is fed its events foresees
everything, books stay integers; the codec raises DecodeError, and what it accepts it writes again; a node's answer is an
answer or a ChainError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import fastavro.utils
from yarl import URL

from collectors.dex.blocks import Header, Log, checked_logs
from collectors.dex.chain import Chain
from collectors.dex.errors import ChainError
from collectors.dex.metrics import ChainCounts
from collectors.dex.mirror import Mirror
from collectors.dex.nodes import Node, Nodes
from collectors.dex.tokens import text_of
from collectors.dex.uniswap_v2 import UniswapV2
from collectors.dex.uniswap_v3 import UniswapV3
from collectors.errors import MalformedFrame
from collectors.metrics import Counts
from collectors.pipeline import Pipeline
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, RestRequest, Venue, adapter, adapter_ids
from collectors.worker import BookWorker
from config.settings import CollectorSettings
from console.errors import BadRequest
from console.server import watch_of
from processors.views import INTERVALS, Refused, choice, whole
from schemas.codec import RECORD_NAMES, codec, parsed
from schemas.errors import DecodeError
from tests.fuzz.engine import Target
from tests.unit import test_binance_adapters, test_chain_blocks, test_venues_exactness, test_venues_exactness_others

CORPUS = Path(__file__).parent / "corpus"
FRAMES_MAX = 8
BOOKS_MAX = 3
SETTINGS = CollectorSettings()  # pyright: ignore[reportCallIssue]


def corpus() -> dict[str, list[bytes]]:
    """What earlier runs found worth keeping, by target."""
    found: dict[str, list[bytes]] = {}
    for file in sorted(CORPUS.glob("*.json")):
        for name, texts in json.loads(file.read_text("utf-8")).items():
            found.setdefault(name, []).extend(text.encode("latin-1") for text in texts)
    return found


def targets(kept: dict[str, list[bytes]] | None = None) -> list[Target]:
    """All of them."""
    kept = corpus() if kept is None else kept
    made = [*_frames(), *_answers(), *_records(), *_chain(), *_web()]
    return [Target(t.name, t.run, (*t.seeds, *kept.get(t.name, ())), t.files) for t in made]


# Venues.


def _samples() -> dict[str, list[bytes]]:
    """Real-looking frames by adapter: those of the tests."""
    found: dict[str, list[bytes]] = {}
    for name, text in (*test_venues_exactness.FRAMES, *test_venues_exactness_others.FRAMES):
        found.setdefault(name, []).append(text.encode())
    for name in (n for n in adapter_ids() if n.startswith("binance")):
        found[name] = [json.dumps(frame).encode() for frame in test_binance_adapters.FRAMES.values()]
    return found


def _module_of(kind: type[Venue]) -> str:
    return kind.__module__.rpartition(".")[2] + ".py"


def _frames() -> Iterable[Target]:
    samples = _samples()
    for name in adapter_ids():
        venue = adapter(name)(channels=ALL_CHANNELS)
        own = samples.get(name, [])
        seeds = (*own, b"\n".join(own[:FRAMES_MAX])) if own else (b"{}",)
        files = (_module_of(type(venue)), "collectors/worker.py", "collectors/pipeline.py", "collectors/sync_rules.py")
        yield Target(f"frames of {name}", lambda data, venue=venue: _feed(venue, data), seeds, files)


def _feed(venue: Venue, data: bytes) -> None:
    """Lines as frames of one connection, through parser, rule and worker."""
    counts = Counts()
    sent: list[tuple[str, bytes]] = []
    publisher = Publisher("fuzz", lambda topic, key, value: sent.append((topic, value)), counts)
    pipeline = Pipeline(publisher, counts)
    frames = data.split(b"\n", FRAMES_MAX) if b"\n" in data else [data, data]
    for native in _natives(venue, frames):
        worker = BookWorker(f"{native}/X", native, venue.rule(native), publisher, counts, SETTINGS, lambda worker, delay_s: None)
        worker.announce()
        pipeline.workers[native] = worker
    receive = pipeline.receiver(venue.connection())
    for number, frame in enumerate(frames):
        receive(frame, 1_000_000_000 + number)
    for worker in pipeline.workers.values():
        worker.on_timer(2_000_000_000)
    if counts.internal_errors:
        raise AssertionError(f"internal error: {_reason(sent)}")
    for topic, value in sent:
        if topic == "market.book":
            codec("BookEvent").decode(value)


def _natives(venue: Venue, frames: list[bytes]) -> list[str]:
    parse, found = venue.connection(), dict[str, None]()
    for frame in frames:
        try:
            for event in parse(frame):
                native = getattr(event, "native", "")
                if isinstance(native, str) and native:
                    found[native] = None
        except MalformedFrame:
            continue
    return list(found)[:BOOKS_MAX]


def _reason(sent: list[tuple[str, bytes]]) -> str:
    letters = [codec("DeadLetter").decode(value)["error"] for topic, value in sent if topic == "dead.letter"]
    return letters[-1] if letters else "no dead letter says which"


def _answers() -> Iterable[Target]:
    """REST answers: instruments, snapshots, volumes, addresses, polls."""
    for name in adapter_ids():
        venue = adapter(name)(channels=ALL_CHANNELS)
        seeds = (b"{}", b"[]", b'{"code":0,"data":[],"result":{"list":[]}}', b'{"bids":[["1","2"]],"asks":[],"lastUpdateId":5}')
        yield Target(f"answers of {name}", lambda data, venue=venue: _answer(venue, data), seeds, (_module_of(type(venue)),))


def _answer(venue: Venue, data: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: venue.parse_snapshot("BTCUSDT", data), lambda: venue.parse_volumes(data), lambda: venue.parse_endpoint(data),
        *(lambda request=poll.request: venue.parse_poll(request, data) for poll in venue.polls()),
        lambda: _pages(venue, data),
    ]  # fmt: skip
    for call in calls:
        try:
            call()
        except (MalformedFrame, NotImplementedError):
            continue


def _pages(venue: Venue, data: bytes) -> None:
    for listing in venue.parse_instruments(data):
        assert listing.symbol and "|" not in listing.symbol, listing
    for request in venue.instruments_requests()[:1]:
        following = venue.next_instruments_request(request, data)
        assert following is None or isinstance(following, RestRequest)


# Records.


def _records() -> Iterable[Target]:
    for name in RECORD_NAMES:
        seeds = tuple(_encoded(name) for _ in range(3))
        yield Target(f"record {name}", lambda data, name=name: _decode(name, data), seeds, ("schemas/codec.py",))


def _encoded(name: str) -> bytes:
    body = BytesIO()
    fastavro.schemaless_writer(body, parsed(name), fastavro.utils.generate_one(parsed(name)))
    return b"\0" + codec(name).schema_id.to_bytes(4, "big") + body.getvalue()


def _decode(name: str, data: bytes) -> None:
    try:
        record = codec(name).decode(data)
    except DecodeError:
        return
    again = codec(name).encode(record)
    assert codec(name).decode(again) == record, "what was accepted is not what is written again"


# The web servers' parameters.


class _Asked:
    """A request of which only the query is looked at, parsed as the server parses it."""

    def __init__(self, data: bytes) -> None:
        self.query = URL("http://localhost/?" + data.decode("latin-1"), encoded=True).query


def _web() -> Iterable[Target]:
    watched = b"watch=okx%7CBTC/USDT&watch=a%7Cb"
    seeds = (b"depth=5", b"limit=240&interval=1m", b"state=LIVE", watched, b"depth=%D9%A3", b"depth=%B2")
    yield Target("web: parameters", _parameters, seeds, ("processors/views.py", "console/server.py"))


def _parameters(data: bytes) -> None:
    try:
        asked: Any = _Asked(data)
    except ValueError:
        return  # the server's own parser refuses it before anything of ours is asked
    for most in (240, 1_000_000):
        try:
            number = whole(asked, "depth", 7, most)
            assert number is not None and 1 <= number <= most
        except Refused as refused:
            assert refused.status == 400
    try:
        assert choice(asked, "interval", INTERVALS) in (None, *INTERVALS)
    except Refused as refused:
        assert refused.status == 400
    try:
        keys = watch_of(asked)
        assert len(keys) <= 4 and all("|" in key and len(key.encode()) <= 800 for key in keys)
    except BadRequest:
        pass


# A chain's node.


class _Said:
    """One HTTP answer of a node, without the socket."""

    def __init__(self, data: bytes) -> None:
        self.data, self.status = data, 200

    def post(self, *_: Any, **__: Any) -> _Said:
        return self

    async def __aenter__(self) -> _Said:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        return self.data


def _nodes(data: bytes) -> Nodes:
    nodes = Nodes([Node("node", ChainCounts())], ChainCounts())
    nodes._session = _Said(data)  # pyright: ignore
    return nodes


def _drive(work: Any) -> Any:
    """Run a coroutine that never really waits; a loop for each would cost more than what is fuzzed."""
    try:
        while True:
            work.send(None)
    except StopIteration as done:
        return done.value


def _said(result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 0, "result": result}).encode()


def _header_json(header: Header) -> dict[str, Any]:
    return {
        "number": header.number_hex, "hash": header.hash, "parentHash": header.parent_hash, "timestamp": header.timestamp_hex,
        "logsBloom": header.logs_bloom, "baseFeePerGas": "0x7",
    }  # fmt: skip


def _log_json(log: Log) -> dict[str, Any]:
    return {
        "address": log.address, "topics": log.topics, "data": log.data, "blockHash": log.block_hash,
        "transactionHash": log.transaction_hash, "logIndex": log.log_index_hex, "removed": False,
    }  # fmt: skip


LOGS = [test_chain_blocks.created2(0), test_chain_blocks.sync(1, 5, 7)]
HEADER = test_chain_blocks.header(5, test_chain_blocks.HASH, test_chain_blocks.OTHER, LOGS)
NO_BLOOM = Header("0x5", HEADER.hash, HEADER.parent_hash, "0x1", "")
FILES = ("collectors/dex/",)


def _chain() -> Iterable[Target]:
    refused = b'{"id":0,"error":{"code":-32000,"message":"x"}}'
    symbol = b"20".zfill(64) + b"03".zfill(64) + b"616263".ljust(64, b"0")
    yield Target("node: header", _header, (_said(_header_json(HEADER)), _said(None), refused), FILES)
    yield Target("node: logs", _logs, (_said([_log_json(log) for log in LOGS]), _said([])), FILES)
    yield Target("node: a token's symbol", _symbol, (b'"0x' + symbol + b'"',), FILES)


def _header(data: bytes) -> None:
    nodes = _nodes(data)
    for name in (HEADER.hash, 5, "safe"):
        try:
            header = _drive(Chain(nodes, ChainCounts()).header(name))
        except ChainError:
            continue
        assert header.number >= 0 and header.ts_us >= 0 and header.base_fee_wei >= -1


def _logs(data: bytes) -> None:
    nodes = _nodes(data)
    try:
        found = _drive(nodes.one(nodes.nodes[0], "eth_getLogs", kind=list[Log]))
        logs = checked_logs(NO_BLOOM, found)
    except ChainError:
        return
    protocols = [UniswapV2(test_chain_blocks.FACTORY2, "v2"), UniswapV3(test_chain_blocks.FACTORY3, "v3")]
    mirror = Mirror(protocols, lambda emission: None)
    mirror.creations(logs)
    mirror.apply(NO_BLOOM, logs)


def _symbol(data: bytes) -> None:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    if answer is None or isinstance(answer, str):
        try:
            assert len(text_of(answer)) <= 64
        except (ValueError, IndexError):
            return  # the reader of tokens takes these two

