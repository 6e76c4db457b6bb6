"""Logs: a line for people, an object for machines, whatever is in a record."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from cli.logs import JsonLines
from tests.conftest import ROOT


def line(message: str, *arguments: object, error: BaseException | None = None, **more: object) -> dict[str, object]:
    own = {"name": "room", "levelno": 40, "levelname": "ERROR", "msg": message, "args": arguments}
    record = logging.makeLogRecord(own | more)
    if error is not None:
        record.exc_info = (type(error), error, error.__traceback__)
    text = JsonLines().format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_record_is_one_object_with_what_was_given_with_it() -> None:
    told = line("%s: %d\nlines", "okx", 2, venue="okx", symbol="BTC/USDT", epoch=5, odd={1, 2})
    assert told["message"] == "okx: 2\nlines" and told["level"] == "ERROR" and told["logger"] == "room"
    assert (told["venue"], told["symbol"], told["epoch"]) == ("okx", "BTC/USDT", 5)
    assert told["odd"] == "{1, 2}" and set(told) == {"ts", "level", "logger", "message", "venue", "symbol", "epoch", "odd"}


def test_a_traceback_is_in_the_object() -> None:
    try:
        raise ValueError("wrong\nthing")
    except ValueError as error:
        told = line("failed", error=error)
    assert "Traceback" in str(told["error"]) and "ValueError: wrong" in str(told["error"])


def test_the_environment_chooses_the_form() -> None:
    code = "import logging\nfrom cli.logs import log_to_stderr\nlog_to_stderr()\nlogging.getLogger('x').warning('said')"
    for form in ("text", "json"):
        env = {"PYTHONPATH": str(ROOT), "VENUE_MIRROR_LOG_FORMAT": form}
        told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert told.returncode == 0, told.stderr
        if form == "json":
            assert json.loads(told.stderr)["message"] == "said" and str(json.loads(told.stderr)["ts"]).endswith("Z")
        else:
            assert told.stderr.endswith("WARNING x: said\n")
