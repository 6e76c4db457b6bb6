"""What every venue must hold. An adapter that is registered is in this suite: nothing else has to be added for it.

Run it alone while writing a venue: ``.venv/bin/python -m pytest tests/unit/test_venue_conformance.py -k <venue id>``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.venues import markdown_table, proof_of
from collectors.errors import MalformedFrame, UnknownVenue
from collectors.events import BookDelta, BookSnapshot, Event, TickerEvent, TradeEvent
from collectors.venue import ALL_CHANNELS, RestRequest, Venue, adapter, adapter_ids

EVENTS = get_args(Event)
CEX = Path(__file__).parent.parent.parent / "collectors" / "cex"
ALLOWED_IMPORTS = ("collectors.venue", "collectors.cex", "market", "schemas")
NO_IO = {"aiohttp", "asyncio", "http", "io", "os", "picows", "random", "requests", "select", "socket", "ssl", "subprocess",
         "threading", "time", "urllib.request", "websockets"}  # fmt: skip


VENUES = {name: adapter(name)(channels=ALL_CHANNELS) for name in adapter_ids()}
BESIDE = {f"{name} beside": route for name, one in VENUES.items() if (route := one.beside()) is not None}


@pytest.fixture(params=[*VENUES, *BESIDE])
def venue(request: pytest.FixtureRequest) -> Venue:
    return (VENUES | BESIDE)[request.param]


def natives(n: int) -> list[str]:
    return [f"COIN{i:05d}USDT" for i in range(n)]


def test_it_names_itself_and_its_public_addresses(venue: Venue) -> None:
    assert venue.id == venue.id.lower()
    assert "|" not in venue.id
    assert venue.rest_url.startswith("https://")
    assert venue.ws_url.startswith("wss://")
    assert not venue.rest_url.endswith("/")
    assert not venue.ws_url.endswith("/")
    assert venue.ws_path() == "" or venue.ws_path().startswith(("/", "?"))


def test_its_limits_can_be_kept(venue: Venue) -> None:
    limits = venue.limits
    assert 1 <= limits.instruments_per_request <= limits.instruments_per_connection
    assert 0 < limits.request_interval_s < 60
    assert 0 < limits.connect_interval_s < 60
    assert 1 <= limits.connect_burst <= 100
    assert limits.rest_weight_per_minute > 0
    assert 1 <= limits.rest_concurrency <= 64
    assert 0 < limits.heartbeat_s <= 120
    assert 0 <= limits.reply_timeout_s <= 120


def test_a_full_subscription_is_one_frame_of_modest_size(venue: Venue) -> None:
    full = natives(venue.limits.instruments_per_request)
    for frame in (*venue.subscribe(full, 1), *venue.unsubscribe(full, 2)):
        assert isinstance(frame, bytes)
        assert len(frame) <= 64 * 1024
    assert venue.subscribe(full, 1) != venue.unsubscribe(full, 1)
    assert venue.subscribe(full[:1], 1) == type(venue)(channels=ALL_CHANNELS).subscribe(full[:1], 1), "an adapter keeps no state"


@pytest.mark.parametrize("name", BESIDE)
def test_what_travels_beside_the_books_is_asked_for_on_one_address_only(name: str) -> None:
    main, route = VENUES[name.partition(" ")[0]], BESIDE[name]
    assert (route.ws_url, route.ws_path()) != (main.ws_url, main.ws_path()) or not route.limits.quiet
    assert route.channels < main.channels
    assert not set(route.subscribe(["BTCUSDT"], 1)) & set(main.subscribe(["BTCUSDT"], 1))
    assert route.beside() is None
    assert type(main)(channels=("book", "trade")).beside() is None


def test_its_heartbeat_is_a_frame_or_left_to_the_websocket(venue: Venue) -> None:
    assert venue.heartbeat() is None or isinstance(venue.heartbeat(), bytes)


def test_its_rest_calls_are_paths_within_its_own_budget(venue: Venue) -> None:
    requests = venue.instruments_requests()
    if venue.rule("BTCUSDT").snapshot_from == "rest":
        requests.append(venue.snapshot_request("BTCUSDT"))
    for request in requests:
        assert isinstance(request, RestRequest)
        assert request.path.startswith("/")
        assert 1 <= request.weight <= venue.limits.rest_weight_per_minute


def test_a_rule_belongs_to_one_book_or_remembers_nothing(venue: Venue) -> None:
    first, second = venue.rule("A"), venue.rule("B")
    assert first.snapshot_from in ("rest", "stream")
    if first is second:
        assert not vars(first), "a rule that is shared by all books must not keep anything"
        assert not first.has_checksum


GARBAGE = [
    b"", b" ", b"\n", b"null", b"true", b"0", b'""', b"[]", b"{}", b"[[]]", b"{", b"}", b"\xff", b"\x00", b"<html>",
    b'{"stream":', b"[" * 10_000, b'{"a":' * 10_000, b'{"data":[]}', b'{"data":null}', b'{"data":{}}', b"1e999", b"NaN",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(GARBAGE)))
def test_garbage_is_malformed_or_says_nothing(number: int, venue: Venue) -> None:
    for parse in (venue.parse, venue.connection()):
        try:
            events = parse(GARBAGE[number])
        except MalformedFrame:
            continue
        assert not any(isinstance(event, BookDelta | BookSnapshot | TradeEvent | TickerEvent) for event in events)


@given(st.sampled_from(adapter_ids()), st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_arrives_is_events_or_malformed(name: str, frame: bytes) -> None:
    try:
        events = adapter(name)().parse(frame)
    except MalformedFrame:
        return
    assert all(isinstance(event, EVENTS) for event in events)


def test_garbage_in_place_of_a_rest_answer_is_malformed(venue: Venue) -> None:
    for body in GARBAGE:
        with pytest.raises(MalformedFrame):
            venue.parse_instruments(body)
        if venue.rule("X").snapshot_from == "rest":
            with pytest.raises(MalformedFrame):
                venue.parse_snapshot("X", body)


def test_sniffing_takes_any_frames_and_knows_none_of_them(venue: Venue) -> None:
    assert not type(venue).sniff([])
    assert not type(venue).sniff(GARBAGE)


def test_an_unknown_adapter_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnknownVenue) as caught:
        adapter("nasdaq")
    assert "nasdaq" in str(caught.value)
    assert all(name in str(caught.value) for name in adapter_ids())


def imports(file: Path) -> set[str]:
    """The modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", sorted(CEX.glob("*.py")), ids=lambda file: file.stem)
def test_a_venues_file_does_no_io_and_knows_only_the_interface(file: Path) -> None:
    rooms = {"bus", "cli", "collectors", "config", "market", "processors", "schemas", "simulator"}
    for module in imports(file):
        assert module not in NO_IO, f"{file.name} imports {module}: a venue's file does no I/O"
        if module.partition(".")[0] in rooms:
            assert any(module == a or module.startswith(f"{a}.") for a in ALLOWED_IMPORTS), f"{file.name} imports {module}"


@pytest.mark.parametrize("file", sorted(CEX.glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_a_venues_file_can_be_loaded(file: Path) -> None:
    importlib.import_module(f"collectors.cex.{file.stem}")


def test_the_table_of_venues_is_what_the_adapters_say() -> None:
    page = (CEX.parent.parent / "ADDING_A_VENUE.md").read_text("utf-8")
    assert markdown_table() in page, "put the output of `venue-mirror venues --markdown` into ADDING_A_VENUE.md"


@pytest.mark.parametrize("name", adapter_ids())
def test_every_adapter_says_where_its_rules_come_from(name: str) -> None:
    kind = adapter(name)
    assert inspect.getdoc(kind)
    module = importlib.import_module(kind.__module__)
    assert "Source:" in (module.__doc__ or ""), "name the venue's documentation page in the module's docstring"
    assert proof_of(kind), "say behind 'Proof:' in the module's docstring what proves a book"
