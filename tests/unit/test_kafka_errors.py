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
