"""Where Kafka is, and how to talk to it: one place for addresses and security settings."""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import Any

from bus.broker import EmbeddedBroker
from bus.errors import BrokerUnreachable, BusError
from config.settings import KafkaSettings, Settings

log = logging.getLogger(__name__)

QUIET_S = 30.0
RECONNECT_MS = 1000


def configured_bootstrap(settings: Settings) -> str:
    """The address that the user named (settings, then KAFKA_BOOTSTRAP_SERVERS); empty: use the embedded broker."""
    return settings.kafka.bootstrap_servers or os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "").strip()


def bootstrap(settings: Settings) -> str:
    """The address of Kafka; raises BrokerUnreachable when none is named and no embedded broker runs."""
    if address := configured_bootstrap(settings):
        return address
    status = EmbeddedBroker(settings.broker).status()
    if status is None:
        raise BrokerUnreachable(
            f"no Kafka: KAFKA_BOOTSTRAP_SERVERS is not set and no embedded broker runs in {settings.broker.data_dir}; "
            "start one with: venue-mirror broker start"
        )
    return status.bootstrap


def password(kafka: KafkaSettings) -> str:
    """The SASL password, read from its file; raises BusError naming the file, never the password."""
    if kafka.sasl_password_file is None:
        return ""
    try:
        return kafka.sasl_password_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BusError(f"cannot read kafka.sasl_password_file {kafka.sasl_password_file}: {error}") from error


def _ignore(_: Any) -> None:
    """The answer, or its absence, is all that is asked for."""


class ErrorLog:
    """One line for each kind of error in QUIET_S: while a broker is away, every client tries twenty times a second."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[float, int]] = {}
        """By the error's code: when it was said last, and how many were not said since."""

    def __call__(self, error: Any) -> None:
        """For ``error_cb``, from any thread."""
        code, now_s = error.code(), time.monotonic()
        said_s, unsaid = self._said.get(code, (-QUIET_S, 0))
        if now_s - said_s < QUIET_S:
            self._said[code] = said_s, unsaid + 1
            return
        self._said[code] = now_s, 0
        log.warning("kafka: %s%s", error, f" ({unsaid} more of this kind before it)" if unsaid else "")


_log_error = ErrorLog()


SENTENCES = 1000
"""Remembered by one Quieter."""


class Quieter(logging.Filter):
    """The same for a logger of a library: one line for each of its sentences in QUIET_S, whatever it is about."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written; what was not since then is counted behind it."""
        sentence, now_s = str(record.msg), time.monotonic()
        said_s, unsaid = self._said.get(sentence, (-QUIET_S, 0))
        if now_s - said_s < QUIET_S:
            self._said[sentence] = said_s, unsaid + 1
            return False
        if len(self._said) >= SENTENCES:
            self._said.clear()  # a library that writes what it is about into the sentence itself
        self._said[sentence] = now_s, 0
        if unsaid:
            record.msg, record.args = f"{record.getMessage()} ({unsaid} more like it before)", None
        return True


def client_config(settings: Settings) -> dict[str, Any]:
    """librdkafka's settings for the address and the security of every client."""
    kafka = settings.kafka
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap(settings),
        "security.protocol": kafka.security_protocol,
        # librdkafka would write a line to stderr at each of its twenty attempts a second while a broker is away;
        # the log gets a line now and then instead.
        "log_level": 0,
        "error_cb": _log_error,
        # By default a client stays away from a broker for up to ten seconds after it is back. A processor that is back
        # earlier than a book's collector sees the log end where it ended before, and nothing says that it will go on.
        "reconnect.backoff.max.ms": RECONNECT_MS,
    }
    for name, value in (
        ("ssl.ca.location", kafka.ssl_ca_file),
        ("ssl.certificate.location", kafka.ssl_certificate_file),
        ("ssl.key.location", kafka.ssl_key_file),
    ):
        if value is not None:
            config[name] = str(value)
    if kafka.security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = kafka.sasl_mechanism or "SCRAM-SHA-512"
        config["sasl.username"] = kafka.sasl_username
        config["sasl.password"] = password(kafka)
    return config


def ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """The same for clients that take an SSLContext (aiokafka, under Faust); None without TLS."""
    if not kafka.security_protocol.endswith("SSL"):
        return None
    context = ssl.create_default_context(cafile=str(kafka.ssl_ca_file) if kafka.ssl_ca_file else None)
    if kafka.ssl_certificate_file is not None:
        context.load_cert_chain(
            str(kafka.ssl_certificate_file), str(kafka.ssl_key_file) if kafka.ssl_key_file else None
        )
    return context


def require_broker(settings: Settings, timeout_s: float = 10) -> str:
    """Wait until a broker answers; gives its address. Blocks up to ``timeout_s``; raises BrokerUnreachable."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    config = client_config(settings)
    config["error_cb"] = _ignore
    admin = AdminClient(config)
    try:
        admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise BrokerUnreachable(
            f"no Kafka broker answers at {config['bootstrap.servers']} within {timeout_s:g} s ({error.args[0].str()}); "
            "check the address in KAFKA_BOOTSTRAP_SERVERS, or unset it and run: venue-mirror broker start"
        ) from None
    return config["bootstrap.servers"]
