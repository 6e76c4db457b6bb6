"""`doctor` names each breakage rightly, says how to mend it, and finds nothing where all is well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bus.topics import apply
from cli.doctor import Finding, examine
from simulator.synthetic import SyntheticVenue
from tests.conftest import free_port
from tests.e2e.rooms import section

pytestmark = pytest.mark.broker


@contextlib.asynccontextmanager
async def serving(handler: Callable[[web.Request], Any]) -> AsyncIterator[int]:
    """Something that answers everything in this way; gives its port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def failed(found: list[Finding], *words: str) -> Finding:
    """The one failure or warning that says these words."""
    hits = [f for f in found if f.level != "ok" and all(word in f.what for word in words)]
    assert len(hits) == 1, [f"{f.level} {f.what}" for f in found]
    assert hits[0].mend, "each says how to mend it"
    return hits[0]


@pytest.fixture
def good(kafka: str, settings, tmp_path: Path):
    """Settings in which everything holds."""

    def make(**sections: Any):
        own: dict[str, Any] = {"kafka": {"bootstrap_servers": kafka}, "console": {"web_port": free_port()}}
        for name, values in sections.items():
            own[name] = {**own.get(name, {}), **values}
        return settings(**own)

    return make


async def test_nothing_is_wrong_where_all_is_well(good, run_cli, kafka: str):
    venue = SyntheticVenue("binance-spot", instruments=1, rate=1)
    await venue.start()
    own = good(venues={"binance-spot": section("binance-spot", venue)})
    await asyncio.to_thread(apply, own)
    found = await examine(own)
    assert [f for f in found if f.level == "fail"] == []
    assert any("venue binance-spot answers" in f.what for f in found)
    assert any(f.what == "the topics are as the catalogue says" for f in found)
    await venue.stop()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", ("nothing listens", "127.0.0.1:1")),
        ("no-such-host.invalid:9092", ("nobody knows the host", "no-such-host.invalid")),
        ("localhost", ("no host:port",)),
    ],
)
async def test_a_broker_that_is_not_there(good, address: str, words: tuple[str, ...]):
    failed(await examine(good(kafka={"bootstrap_servers": address})), *words)


async def test_a_broker_that_wants_another_security(good):
    finding = failed(await examine(good(kafka={"security_protocol": "SSL"})), "no Kafka broker answers")
    assert "security_protocol is SSL" in finding.mend


async def test_partitions_of_another_number(good):
    await asyncio.to_thread(apply, good())
    found = await examine(good(kafka={"market_partitions": 5}))
    wrong = [f for f in found if f.level == "fail"]
    assert wrong and all("partitions, the catalogue says 5" in f.what and "market_partitions" in f.mend for f in wrong)


async def test_secrets_that_are_missing_empty_or_open_to_all(good, tmp_path: Path):
    empty, open_to_all = tmp_path / "empty", tmp_path / "open"
    empty.write_text("\n")
    open_to_all.write_text("canary-0123456789abcdef")
    open_to_all.chmod(0o644)
    found = await examine(
        good(
            kafka={"sasl_password_file": tmp_path / "none", "ssl_key_file": empty},
            console={"token_file": open_to_all},
        )
    )
    failed(found, "kafka.sasl_password_file", "No such file")
    failed(found, "kafka.ssl_key_file", "is empty")
    assert "chmod 600" in failed(found, "console.token_file", "read by everybody").mend
    assert "canary" not in repr(found)


async def test_a_console_that_others_reach_without_a_token(good):
    failed(await examine(good(console={"web_host": "0.0.0.0"})), "no token")


async def test_a_folder_that_cannot_be_written(good, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    found = await examine(good(processor={"data_dir": tmp_path / "file" / "faust"}))
    failed(found, "processor.data_dir", "cannot be written")


async def test_a_port_that_another_program_has(good):
    async def another(_: web.Request) -> web.Response:
        return web.Response(text="something else")

    async with serving(another) as port:
        found = await examine(good(processor={"web_port": port}))
    assert f"VENUE_MIRROR_PROCESSOR__WEB_PORT={port + 1}" in failed(found, "processor", "taken by another program").mend


async def test_venues_that_nobody_knows_that_do_not_answer_that_ban_and_a_clock_that_is_wrong(good):
    async def banned(_: web.Request) -> web.Response:
        return web.Response(status=418, headers={"Date": "Tue, 01 Jan 2030 00:00:00 GMT"})

    async with serving(banned) as port:
        found = await examine(
            good(
                venues={
                    "atlantis": {},
                    "kraken": {"rest_url": "http://127.0.0.1:1"},
                    "okx": {"rest_url": f"http://127.0.0.1:{port}"},
                }
            )
        )
    failed(found, "venue atlantis")
    failed(found, "venue kraken", "cannot be reached")
    failed(found, "venue okx answers 418")
    failed(found, "this clock is", "okx")


async def test_an_endpoint_of_another_chain_and_one_that_is_none(good):
    async def base(_: web.Request) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": 1, "result": "0x2105"})

    async with serving(base) as port:
        url = f"http://127.0.0.1:{port}/key-canary"
        found = await examine(
            good(chains={"ethereum": {"http_urls": [url]}, "base": {"http_urls": [url, "http://127.0.0.1:1/"]}})
        )
    failed(found, "ethereum", "is chain 8453, not 1")
    failed(found, "chain base, endpoint 2", "does not answer")
    assert any(f.what == "chain base, endpoint 1 is chain 8453" for f in found)
    assert "canary" not in repr(found), "addresses of endpoints hold keys"


async def test_a_registry_that_does_not_answer(good, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    failed(await examine(good()), "schema registry", "does not answer")


def test_the_command_says_it_line_by_line_and_ends_with_1(run_cli):
    done = run_cli("doctor", env={"VENUE_MIRROR_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert done.returncode == 1, done.stderr
    assert "fail  Kafka: nothing listens at 127.0.0.1:1" in done.stdout
    assert "      → start it" in done.stdout
