"""Who may ask the web views, and how often, on real sockets and without a broker; and what the clients of the views send."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from cli.doctor import _tokens
from cli.views import ViewError, Views
from config.access import AccessError, bearer, read_token, same
from config.settings import ProcessorSettings
from console import security
from console.metrics import Counts as ConsoleCounts
from console.processors import Processors
from processors import guard as guarding
from processors.app import main as process
from processors.guard import ADDRESSES_MAX, HEADERS, PASSED, Guard, Limiter, network
from processors.metrics import Counts, Gauges, ProcessorMetrics
from processors.openapi import describe
from processors.routing import Elsewhere, NotReady, Router
from tests.hostile_http import answer, attack

TOKEN = "canary-" + "0123456789abcdef" * 2
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(TOKEN + "\n")
    return tmp_path / "token"


class Worker:
    """A web server behind a guard, as a processor has it, without the processor."""

    def __init__(self, url: str, guard: Guard, counts: Counts) -> None:
        self.url, self.guard, self.counts, self.seen = url, guard, counts, list[dict[str, str]]()


@contextlib.asynccontextmanager
async def worker(**own: Any) -> AsyncIterator[Worker]:
    counts = Counts()
    guard, app = Guard(ProcessorSettings(**own), counts), web.Application()
    guard.install(app)
    made = Worker("", guard, counts)

    async def page(request: web.Request) -> web.Response:
        made.seen.append(dict(request.headers))
        return web.json_response({"state": "LIVE", "bids": [], "asks": [], "path": request.raw_path})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=ProcessorMetrics(counts, Gauges()).exposition())

    app.add_routes([web.get(p, page) for p in ("/healthz", "/readyz", "/books/{venue}/{symbol:.+}", "/books")])
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], str]:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, allow_redirects=False) as response:
        return response.status, dict(response.headers), await response.text()


# The token.


async def test_without_the_token_only_the_probes_are_answered(file: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with worker(web_token_file=file) as one:
        for path in ("/healthz", "/readyz"):
            assert (await get(one.url + path))[0] == 200
        for path in ("/books", "/metrics", "/table/books", "/nothing", "/healthz/", "//healthz", "/readyz/..%2fbooks"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}):
                status, told, text = await get(one.url + path, headers)
                assert (status, told["WWW-Authenticate"]) == (401, "Bearer"), (path, headers)
                assert "a token is needed" in text and "canary" not in text + repr(told)
        assert one.counts.requests_refused == 28
        for headers in (BEARER, {"Authorization": f"bearer  {TOKEN}"}):
            assert (await get(one.url + "/books", headers))[0] == 200
        status, _, text = await get(one.url + "/metrics", BEARER)
        assert "processor_requests_refused_total 28.0" in text and "canary" not in text
    assert "canary" not in caplog.text


async def test_whatever_strangers_send_is_refused_and_shows_nothing(file: Path):
    async with worker(web_token_file=file, web_rate_per_s=0) as one:
        seen = await attack(one.url, seed=3, count=300, headers=HEADERS)
        assert set(seen) <= {0, 100, 200, 400, 401} and seen[401] > 100, seen
        assert not [headers for headers in one.seen if "Authorization" in headers], "the probes alone were reached"
        head = b"GET /books HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n"
        assert (await answer(one.url, head, 20))[0] == 401


async def test_the_default_needs_no_token_and_nothing_is_asked_for():
    async with worker() as one:
        assert (await get(one.url + "/books"))[0] == 200
        assert not one.guard.asks_for_a_token


async def test_every_answer_has_the_headers_that_make_sense_for_json(file: Path):
    async with worker(web_token_file=file) as one:
        for path, headers in (("/healthz", {}), ("/books", BEARER), ("/books", {}), ("/nothing", BEARER)):
            _, told, _ = await get(one.url + path, headers)
            for name, value in HEADERS.items():
                assert told[name] == value, (path, name)
            assert told["Cache-Control"] == "no-store" and "Server" not in told
    for name in HEADERS.keys() - {"Content-Security-Policy"}:
        assert HEADERS[name] == security.HEADERS[name], "the console's own"


def test_the_comparison_is_the_one_that_tells_nothing_by_its_time(monkeypatch: pytest.MonkeyPatch, file: Path):
    compared: list[tuple[bytes, bytes]] = []

    def digest(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return False

    monkeypatch.setattr(hmac, "compare_digest", digest)
    own = Guard(ProcessorSettings(web_token_file=file), Counts())
    assert not own._knows(SimpleNamespace(headers=BEARER))  # pyright: ignore[reportArgumentType]
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_whatever_is_given_is_compared_and_only_the_token_is_the_token(given_: str):
    assert same(given_, TOKEN) == (given_ == TOKEN)
    assert same(bearer(f"Bearer {given_}"), TOKEN) == (given_.strip() == TOKEN)


def test_a_tokens_file_is_checked_and_never_shown(tmp_path: Path):
    for text, says in (("short", "openssl rand"), ("naïve-" + "x" * 20, "no header can carry"), ("a" * 20 + "\nb", "no header")):
        (tmp_path / "token").write_text(text)
        with pytest.raises(AccessError, match=says) as caught:
            read_token(tmp_path / "token", "processor.web_token_file")
        assert text not in str(caught.value) and "processor.web_token_file" in str(caught.value)
    with pytest.raises(AccessError, match="cannot read"):
        read_token(tmp_path / "none", "x")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "processor-1", "::"])
def test_an_address_that_others_reach_needs_a_token_or_the_word_that_something_stands_in_front(host: str, file: Path, settings):
    with pytest.raises(AccessError, match=r"processor\.web_token_file.*processor\.web_open"):
        Guard(ProcessorSettings(web_host=host), Counts())
    assert Guard(ProcessorSettings(web_host=host, web_token_file=file), Counts()).asks_for_a_token
    assert not Guard(ProcessorSettings(web_host=host, web_open=True), Counts()).asks_for_a_token
    [found] = _tokens(settings(processor={"web_host": host}))
    assert found.level == "fail" and "processor.web_host" in found.what and "web_open" in found.mend
    assert not list(_tokens(settings(processor={"web_host": host, "web_open": True})))


def test_a_processor_that_may_not_serve_ends_before_it_asks_kafka(settings, capsys: pytest.CaptureFixture[str]):
    own = settings(kafka={"bootstrap_servers": "127.0.0.1:1"}, processor={"web_host": "0.0.0.0"})
    assert process(own) == 64
    assert "set processor.web_token_file" in capsys.readouterr().err


# How often.


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_client_has_a_burst_and_then_its_rate_and_others_have_their_own():
    clock = Clock()
    limiter = Limiter(10, clock)
    assert [limiter.wait_s("10.0.0.1") for _ in range(20)] == [0.0] * 20
    assert limiter.wait_s("10.0.0.1") == pytest.approx(0.1)
    assert limiter.wait_s("10.0.0.2") == 0.0
    clock.now_s += 0.1
    assert limiter.wait_s("10.0.0.1") == 0.0 and limiter.wait_s("10.0.0.1") > 0
    clock.now_s += 3600
    assert sum(limiter.wait_s("10.0.0.1") == 0.0 for _ in range(100)) == 20, "an hour of silence is no longer burst"


def test_the_memory_is_bounded_and_a_crowd_does_not_free_who_asks_too_much():
    clock = Clock()
    limiter = Limiter(10, clock)
    while limiter.wait_s("192.0.2.1") == 0.0:
        pass
    passed = sum(limiter.wait_s(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") == 0.0 for n in range(3 * ADDRESSES_MAX))
    assert len(limiter) <= ADDRESSES_MAX + 1
    assert passed == ADDRESSES_MAX - 1 + 20, "those without a place share one bucket"
    assert limiter.wait_s("192.0.2.1") > 0
    clock.now_s += 10
    assert limiter.wait_s("198.51.100.1") == 0.0
    assert len(limiter) <= ADDRESSES_MAX + 1


def test_of_ipv6_a_client_is_its_network_and_of_a_mapped_address_the_inner_one():
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9%eth0") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network("") == ""


async def test_over_the_limit_is_a_429_that_says_when_and_is_counted(file: Path, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(guarding, "Limiter", lambda rate: Limiter(rate, clock))
    async with worker(web_rate_per_s=2, web_token_file=file) as one:
        statuses = [(await get(one.url + "/books", h))[0] for h in (BEARER, {}, BEARER, {}, BEARER, {})]
        assert statuses == [200, 401, 200, 401, 429, 429], "guessing is counted too"
        status, told, text = await get(one.url + "/books", BEARER)
        assert (status, told["Retry-After"]) == (429, "1") and "too many requests" in text
        assert (await get(one.url + "/healthz"))[0] == (await get(one.url + "/readyz"))[0] == 200
        clock.now_s += 0.5
        assert (await get(one.url + "/books", BEARER))[0] == 200
        assert one.counts.requests_limited == 3


async def test_the_limit_is_off_by_its_setting():
    async with worker(web_rate_per_s=0) as one, aiohttp.ClientSession() as http:
        for _ in range(300):
            async with http.get(one.url + "/books") as response:
                assert response.status == 200
        assert one.counts.requests_limited == 0 and len(one.guard._limiter) == 0


# From worker to worker.


class Here:
    """A worker that holds nothing: every key is another's."""

    def __init__(self, url: str, guard: Guard, http: aiohttp.ClientSession) -> None:
        found = SimpleNamespace(table_metadata=lambda _: {url: {"changelog": [0]}})
        app = SimpleNamespace(http_client=http, router=found)
        processor: Any = SimpleNamespace(
            partition_of=lambda _: 0, ready=True, books=SimpleNamespace(by_partition={}), url="http://here:1"
        )
        self.router = Router(app, SimpleNamespace(name="books"), processor, guard)

    async def ask(self, path: str) -> Elsewhere:
        request: Any = SimpleNamespace(headers=BEARER, path_qs=path)
        with pytest.raises(Elsewhere) as caught:
            await self.router.require("key", request)
        return caught.value


async def test_a_request_that_is_passed_on_is_signed_and_not_counted_again_and_the_token_stays_here(file: Path):
    async with worker(web_token_file=file, web_rate_per_s=1) as other, aiohttp.ClientSession() as http:
        here = Here(other.url, Guard(ProcessorSettings(web_token_file=file), Counts()), http)
        for path in ("/books/okx/BTC/USDT?depth=5", "/books/a%7Cb/BTC%2FUSDT", "/books/a%20b/%FF?x=%zz&y=ü", "/books/ü/x") * 3:
            assert (await here.ask(path)).status == 200, path
        assert other.counts.requests_limited == other.counts.requests_refused == 0
        assert TOKEN not in repr(other.seen) and all(PASSED in headers for headers in other.seen)


async def test_a_signature_is_for_one_path_and_for_a_minute(file: Path, monkeypatch: pytest.MonkeyPatch):
    async with worker(web_token_file=file) as other:
        own = Guard(ProcessorSettings(web_token_file=file), Counts())
        signed = own.hop("/books/a/b")
        assert (await get(other.url + "/books/a/b", signed))[0] == 200
        for path in ("/books/a/c", "/books/a/b?depth=1", "/metrics"):
            assert (await get(other.url + path, signed))[0] == 401
        when, _, word = signed[PASSED].partition(".")
        times = (int(when) - 61, "9" * 5000, "-1", "٣", "")
        for wrong in ("1", "", word, f"{when}.{word[:-1]}", f"{when}.", *(f"{time}.{word}" for time in times)):
            assert (await get(other.url + "/books/a/b", {PASSED: wrong}))[0] == 401, wrong[:20]
        clock = guarding.time.time() + 61
        monkeypatch.setattr(guarding.time, "time", lambda: clock)
        assert (await get(other.url + "/books/a/b", signed))[0] == 401


async def test_a_worker_with_another_token_is_told_apart_from_a_client_without(file: Path, tmp_path: Path):
    (tmp_path / "other").write_text("x" * 20)
    async with worker(web_token_file=file) as other, aiohttp.ClientSession() as http:
        here = Here(other.url, Guard(ProcessorSettings(web_token_file=tmp_path / "other"), Counts()), http)
        request: Any = SimpleNamespace(headers={}, path_qs="/books/a/b")
        with pytest.raises(NotReady, match=r"another processor\.web_token_file"):
            await here.router.require("key", request)


async def test_without_a_token_a_hop_is_counted_as_any_request_and_its_429_comes_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guarding, "Limiter", lambda rate: Limiter(rate, Clock()))
    async with worker(web_rate_per_s=1) as other, aiohttp.ClientSession() as http:
        here = Here(other.url, Guard(ProcessorSettings(), Counts()), http)
        assert [(await here.ask("/books/a/b")).status for _ in range(3)] == [200, 200, 429]
        assert (await here.ask("/books/a/b")).headers == {"Retry-After": "1"}


# The clients.


async def test_the_programs_client_sends_the_token_of_the_settings_to_its_processor_alone(file: Path, settings):
    async with worker(web_token_file=file) as one, worker() as stranger:
        async with Views.of(settings(processor={"web_token_file": file}), one.url) as views:
            assert await views.ready() and (await views.get("/books"))["path"] == "/books"
            assert (await views.metrics())["processor_requests_refused_total"] == 0
            await views.get_url(stranger.url + "/books")
            assert [headers.get("Authorization") for headers in stranger.seen] == [None]
        async with Views.of(settings(), one.url) as views:
            with pytest.raises(ViewError, match=r"401.*web_token_file") as caught:
                await views.get("/books")
            with pytest.raises(ViewError, match="no metrics"):
                await views.metrics()
        assert "canary" not in str(caught.value)
    file.write_text("short")
    with pytest.raises(ViewError, match="fewer than 16"):
        Views.of(settings(processor={"web_token_file": file}))


async def test_the_programs_client_asks_again_after_a_429(monkeypatch: pytest.MonkeyPatch):
    clock, slept = Clock(), list[float]()
    monkeypatch.setattr(guarding, "Limiter", lambda rate: Limiter(rate, clock))

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now_s += seconds

    async with worker(web_rate_per_s=1) as one, Views(one.url) as views:
        monkeypatch.setattr("cli.views.asyncio", SimpleNamespace(sleep=sleep))
        for _ in range(4):
            assert (await views.get("/books"))["state"] == "LIVE"
        assert slept == [1, 1]

        async def asleep(_: float) -> None:
            pass

        monkeypatch.setattr("cli.views.asyncio", SimpleNamespace(sleep=asleep))
        with pytest.raises(ViewError, match="429"):
            await views.get("/books")


async def test_the_console_sends_the_token_to_processors_and_not_to_collectors(file: Path):
    async with worker(web_token_file=file) as one, worker() as collector:
        asks = Processors([one.url], [collector.url + "/metrics", collector.url + "/books"], ConsoleCounts(), TOKEN)
        await asks.start()
        task = asyncio.create_task(asks.ask(lambda _: True))
        try:
            watched = asks.want("okx|BTC/USDT")
            assert watched is not None
            async with asyncio.timeout(60):
                while not watched.version:
                    await asyncio.sleep(0.01)
            assert watched.view["state"] == "LIVE"
            await asks.scrape()
            assert asks.scraped[one.url + "/metrics"]["processor_requests_refused_total"] == 0
            assert all("Authorization" not in headers for headers in collector.seen) and collector.seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asks.stop()


def test_the_description_names_the_token_where_one_is_asked_for():
    plain, with_token = describe(), describe(True)
    assert "security" not in plain and "401" not in plain["paths"]["/books"]["get"]["responses"]
    assert with_token["security"] == [{"bearer": []}] and with_token["paths"]["/healthz"]["get"]["security"] == []
    for path, one in with_token["paths"].items():
        assert ({"401", "429"} <= one["get"]["responses"].keys()) == (path not in guarding.OPEN_PATHS), path
