"""Logs to stderr: a line for people, or with VENUE_MIRROR_LOG_FORMAT=json an object for machines. One set-up for all rooms."""

from __future__ import annotations

import json
import logging
import os
import sys

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record of logging has; the rest was given with it (``extra={"venue": …, "symbol": …}``)."""


class JsonLines(logging.Formatter):
    """One JSON object a line: ``ts`` (UTC), ``level``, ``logger``, ``message``, ``error`` with the traceback, and extras."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """The line; a value that JSON does not know becomes its text."""
        out = {
            "ts": self.formatTime(record), "level": record.levelname, "logger": record.name, "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in OWN},
        }  # fmt: skip
        if record.exc_info:
            out["error"] = self.formatException(record.exc_info)
        return json.dumps(out, ensure_ascii=False, default=str)


def log_to_stderr() -> None:
    """VENUE_MIRROR_LOG sets the level (WARNING), VENUE_MIRROR_LOG_FORMAT the form: text or json."""
    import time

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LINE))
    if os.environ.get("VENUE_MIRROR_LOG_FORMAT", "text") == "json":
        JsonLines.converter = time.gmtime  # pyright: ignore[reportAttributeAccessIssue]  # logging's own way to say UTC
        handler.setFormatter(JsonLines())
    logging.basicConfig(level=os.environ.get("VENUE_MIRROR_LOG", "WARNING").upper(), handlers=[handler])
