"""Kafka with TLS, SCRAM, client certificates and ACLs: rooms work with their own rights, and only with those."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from confluent_kafka import Producer as RdProducer

from bus.connection import client_config, require_broker
from bus.consumer import TailReader
from bus.errors import BrokerUnreachable, BusError
from bus.topics import apply as apply_topics
from bus.topics import check
from cli.stack import Stack, free_port
from cli.views import Views
from deploy import acls
from simulator.synthetic import SyntheticVenue
from tests.e2e.rooms import DEADLINE_S, Rooms, section
from tests.e2e.secured import SecuredKafka

INSTRUMENTS = 6


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        pytest.skip("these tests start a broker of their own")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    kafka = SecuredKafka(tmp_path_factory.mktemp("secured"))
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.broker.stop()


@pytest.fixture
def rights(secured: SecuredKafka, settings) -> SecuredKafka:
    """Topics and ACLs in force, made by the administrator."""
    admin = settings(kafka=secured.kafka("admin"))
    apply_topics(admin)
    assert acls.apply(admin) > 100
    # Brokers take a moment to enforce what was agreed.
    collector = settings(kafka=secured.kafka(acls.user("collector")))
    deadline = time.monotonic() + 120
    while refused(collector, "market.trade"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return secured


def refused(own, topic: str) -> str:
    """Write one record as this user; gives why Kafka did not take it, or nothing."""
    told: list[str] = []
    # Not idempotent: a user who may write nothing would be refused before its first record.
    producer = RdProducer({**client_config(own), "linger.ms": 0})
    producer.produce(topic, b"x", b"v|S", on_delivery=lambda error, _: told.append("" if error is None else error.name()))
    assert producer.flush(30) == 0
    return told[0]


def test_a_room_writes_its_own_topics_and_no_others(rights: SecuredKafka, settings):
    for room in ("collector", "processor", "strategy", "gateway", "console", acls.OPERATOR):
        own = settings(kafka=rights.kafka(acls.user(room)))
        for topic in ("market.trade", "derived.bbo", "orders.intent", "orders.journal", "orders.control"):
            told = refused(own, topic)
            if topic in acls.WRITES[room]:
                assert told == "", f"{room} must be able to write {topic}"
            else:
                assert "TOPIC_AUTHORIZATION_FAILED" in told, f"{room} could write {topic}: {told}"


def test_a_room_reads_what_it_may_and_no_more(rights: SecuredKafka, settings):
    console = settings(kafka=rights.kafka(acls.user("console")))
    TailReader(console, ["derived.bbo", "market.status"]).close()
    with pytest.raises(BusError, match="does not exist"):  # what it may not see is not there
        TailReader(console, ["orders.journal"])


def test_the_operator_may_apply_and_check_the_catalogue_and_others_may_not(rights: SecuredKafka, settings):
    assert check(settings(kafka=rights.kafka(acls.user(acls.OPERATOR)))) == []
    with pytest.raises(BusError):
        acls.apply(settings(kafka=rights.kafka(acls.user("collector"))))


def test_a_client_certificate_is_a_user_too(rights: SecuredKafka, settings):
    collector = settings(kafka=rights.mtls(acls.user("collector")))
    assert refused(collector, "market.trade") == ""
    assert "AUTHORIZATION" in refused(collector, "derived.bbo")


def test_nobody_gets_in_without_name_or_trust(rights: SecuredKafka, settings, tmp_path: Path):
    good = rights.kafka(acls.user("console"))
    (tmp_path / "wrong").write_text("canary-wrong-password")
    wrong = [
        {**good, "sasl_password_file": tmp_path / "wrong"},
        {**good, "security_protocol": "SASL_PLAINTEXT", "ssl_ca_file": None},
        {**good, "security_protocol": "PLAINTEXT"},
        {**good, "ssl_ca_file": None},  # the system's CAs do not know this broker
        {**rights.mtls(acls.user("console")), "ssl_certificate_file": None, "ssl_key_file": None},
    ]
    for kafka in wrong:
        with pytest.raises(BrokerUnreachable) as caught:
            require_broker(settings(kafka=kafka), timeout_s=4)
        assert "canary" not in str(caught.value)


async def test_rooms_mirror_a_venue_each_with_its_own_rights_and_no_secret_shows(
    rights: SecuredKafka, settings, unique: str, tmp_path: Path
):
    """Collector, processor and console as processes, each its own user; then every place is searched for the secrets."""
    name = f"secured-{unique}"
    venue = SyntheticVenue("binance-spot", instruments=INSTRUMENTS, rate=200, levels=30)
    await venue.start()
    token = "canary-" + "0123456789abcdef" * 2
    (tmp_path / "token").write_text(token)

    def of(room: str):
        return settings(
            kafka=rights.kafka(acls.user(room)),
            venues={name: section("binance-spot", venue)},
            collector={"discovery_s": 3},
            processor={"app_id": acls.PROCESSOR_GROUP, "web_port": port},
            console={"token_file": tmp_path / "token"},
        )

    port, console_port = free_port(), free_port()
    found: dict[str, str] = {}
    try:
        async with Stack(of("processor"), tmp_path / "logs") as stack, Views(f"http://127.0.0.1:{port}") as views:
            os.environ["VENUE_MIRROR_LOG"] = "DEBUG"  # the most that any log can say
            rooms = Rooms(of("processor"), stack, views)
            await rooms.processor()
            rooms.settings = of("collector")
            await rooms.collector(name)
            await rooms.live(name, INSTRUMENTS)
            for native in venue.books:
                assert await rooms.equals_truth(name, native.removesuffix("USDT") + "/USDT", native, venue)
            own = of("console")
            own = own.model_copy(update={"console": own.console.model_copy(update={"web_port": console_port})})
            console = await stack.start("console", "console", settings=own)
            await stack.until("the console", lambda: "console http" in console.tail(), DEADLINE_S)
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
                base = f"http://127.0.0.1:{console_port}"

                async def reads() -> bool:
                    async with http.get(base + "/healthz") as answer:
                        return (await answer.json())["books"] >= INSTRUMENTS

                await stack.until("the console's books", reads, DEADLINE_S)
                for path in ("/", "/metrics", "/healthz", "/readyz"):
                    async with http.get(base + path) as answer:
                        assert answer.status == 200, path
                        found[f"console {path}"] = await answer.text()
                async with http.get(base + "/stream") as answer:
                    found["console /stream"] = (await answer.content.readuntil(b"\n\n")).decode()
                for path in ("/metrics", "/healthz", "/books"):
                    async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                        found[f"processor {path}"] = await answer.text()
                for path in ("/metrics", "/healthz"):
                    async with http.get(rooms.metrics_urls["collector"] + path) as answer:
                        found[f"collector {path}"] = await answer.text()
            # What another user of this machine sees: command lines, and the environment of each process.
            for child in stack.children:
                for part in ("cmdline", "environ"):
                    file = Path(f"/proc/{child.process.pid}/{part}")
                    if file.exists():
                        found[f"{child.name} {part}"] = file.read_bytes().decode("utf-8", "replace")
        for file in (tmp_path / "logs").glob("*.log"):
            found[file.name] = file.read_text("utf-8", "replace")
        found["broker.log"] = (rights.folder / "kafka" / "broker.log").read_text("utf-8", "replace")
        found["settings"] = repr(of("collector")) + of("console").model_dump_json()
        everything = await asyncio.to_thread(topics_text, settings(kafka=rights.kafka("admin")))
        found |= everything
    finally:
        os.environ.pop("VENUE_MIRROR_LOG", None)
        await venue.stop()
    assert len(found) > 20
    for place, text in found.items():
        for user, word in {**rights.passwords, "token": token}.items():
            assert word not in text, f"the secret of {user} is in {place}"
    assert "AUTHORIZATION" not in "".join(text for place, text in found.items() if place.endswith(".log"))


def topics_text(admin) -> dict[str, str]:
    """Every record of every topic, as text."""
    from schemas.topics import TOPICS

    reader = TailReader(admin, list(TOPICS))
    try:
        out: dict[str, str] = {}
        for message in reader.read_to_end():
            value = message.value() or b""
            out[message.topic()] = out.get(message.topic(), "") + value.decode("latin-1")
        return {f"topic {name}": text for name, text in out.items()}
    finally:
        reader.close()
