"""What the log says of a broker that is away."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError

from bus import connection


def test_an_error_that_repeats_is_said_once_in_a_while_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    say = connection.ErrorLog()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            say(KafkaError(KafkaError._TRANSPORT, "refused"))
        say(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        assert [record.message.count("refused") for record in caplog.records] == [1, 0]
        now[0] += connection.QUIET_S
        say(KafkaError(KafkaError._TRANSPORT, "refused"))
    assert "999 more of this kind" in caplog.records[-1].message


def test_a_librarys_sentence_is_said_once_in_a_while_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr(connection.time, "monotonic", lambda: now[0])
    log = logging.getLogger("some.library")
    quieter = connection.Quieter()
    log.addFilter(quieter)
    try:
        with caplog.at_level(logging.WARNING, "some.library"):
            for node in range(50):
                log.error("Unable to connect to node %s", node)
            log.error("Unable to update metadata")
            now[0] += connection.QUIET_S
            log.error("Unable to connect to node %s", 7)
    finally:
        log.removeFilter(quieter)
    assert [record.getMessage() for record in caplog.records] == [
        "Unable to connect to node 0", "Unable to update metadata", "Unable to connect to node 7 (49 more like it before)",
    ]  # fmt: skip
