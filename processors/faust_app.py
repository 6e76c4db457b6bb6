"""The Faust app as we want it: raw keys and values, our transport, and a last word before it stops."""

from __future__ import annotations

import logging
from typing import Any

import faust

from bus.connection import Quieter, password, ssl_context
from config.settings import Settings
from processors.changelogs import CONFIG, MAX_BYTES, changelog_name
from schemas.topics import durable

MAX_POLL_RECORDS = 1000
"""Records in one turn: about 30 ms of work, and more on a busy machine, between which the views answer."""
NOISY = (
    "aiokafka", "aiokafka.conn", "aiokafka.cluster", "aiokafka.consumer.fetcher", "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)  # fmt: skip
"""The driver's loggers: while a broker is away each says so ten times a second."""
_QUIETER = Quieter()


class App(faust.App):
    """Writes the last checkpoint while the consumer still lives."""

    before_stop: Any = None

    async def on_stop(self) -> None:
        if self.before_stop is not None:
            await self.before_stop()
        await super().on_stop()


def make_app(settings: Settings, bootstrap: str, url: str) -> App:
    """The app of one worker; ``url`` is where the others reach its views."""
    for name in NOISY:
        logging.getLogger(name).addFilter(_QUIETER)  # the same one again changes nothing
    s, p = settings, settings.processor
    context = ssl_context(s.kafka)
    credentials: Any = None
    if s.kafka.security_protocol.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=s.kafka.sasl_username, password=password(s.kafka), ssl_context=context,
            mechanism=s.kafka.sasl_mechanism or "SCRAM-SHA-512",
        )  # fmt: skip
    elif context is not None:
        credentials = faust.SSLCredentials(context)
    return App(
        p.app_id,
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        broker_credentials=credentials,
        store="memory://",
        datadir=str(p.data_dir / str(p.web_port)),
        topic_partitions=s.kafka.market_partitions,
        topic_replication_factor=s.kafka.replication_factor,
        topic_allow_declare=True,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_BYTES,
        producer_max_request_size=MAX_BYTES,
        producer_compression_type="lz4",
        broker_max_poll_records=MAX_POLL_RECORDS,
        broker_session_timeout=p.session_timeout_s,
        broker_heartbeat_interval=p.session_timeout_s / 5,
        table_standby_replicas=p.standby_replicas,
        stream_wait_empty=False,
        web_host=p.web_host,
        web_bind=p.web_host,
        web_port=p.web_port,
        canonical_url=url,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )


def make_table(app: App, settings: Settings, name: str) -> Any:
    """A table whose keys and values go to its changelog as they are.

    Faust's own default writes keys as JSON: with quotes around them they would hash to another partition than the
    instrument's records, and come back as other keys.
    """
    kafka = settings.kafka
    table: Any = app.Table(
        name, key_type=str, value_type=bytes, partitions=kafka.market_partitions, use_partitioner=True,
        changelog_topic=app.topic(
            changelog_name(settings, name), key_type=str, value_type=bytes,
            key_serializer="raw", value_serializer="raw", partitions=kafka.market_partitions, compacting=True,
            internal=True, replicas=kafka.replication_factor, config=CONFIG | durable(kafka.replication_factor),
        ),
    )  # fmt: skip
    table.key_serializer = table.value_serializer = "raw"
    return table


def subscribe(app: App, topic: str, partitions: int) -> None:
    """Have Faust subscribe and assign the topic; its batches go to the transport's handler, not to this agent."""
    source = app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=partitions,
        allow_empty=True,
    )  # fmt: skip

    async def never(stream: Any) -> None:
        async for _ in stream:
            pass

    app.agent(source, name=f"processors.{topic}")(never)
