"""Every instrument of every venue, read from market.instrument by each worker: small, compacted, the same for all."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from typing import Any

from bus.consumer import TailReader
from bus.errors import BusError
from config.settings import Settings
from market.decimals import DecimalError, parse_decimal
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import INSTRUMENT, market_key

log = logging.getLogger(__name__)

RETRY_S = 5.0


class Instruments:
    """The newest Instrument record of each venue|symbol. A thread reads; everyone else looks things up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._values: dict[str, bytes] = {}
        self.complete = False
        """The topic was read to its end once."""

    def start(self) -> None:
        """Begin to read, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="instruments", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for it at most two seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._read()
            except BusError as error:
                log.warning("market.instrument cannot be read, tried again in %g s: %s", RETRY_S, error)
                self._stopped.wait(RETRY_S)

    def _read(self) -> None:
        reader = TailReader(self._settings, [INSTRUMENT.name])
        try:
            ends = reader.ends()
            while not self._stopped.is_set():
                for message in reader.poll(2000, 0.5):
                    self._take(message.key(), message.value())
                self.complete = self.complete or reader.has_read(ends)
        finally:
            reader.close()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        name = (key or b"").decode("utf-8", "replace")
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value

    def get(self, venue: str, symbol: str) -> dict[str, Any] | None:
        """The Instrument record; None when it is not known or cannot be read."""
        value = self._values.get(market_key(venue, symbol))
        return None if value is None else _decoded(value)

    def taker_fee_bps(self, venue: str, symbol: str) -> tuple[int, int] | None:
        """(mantissa, exponent) of the taker fee in basis points; None: not known."""
        value = self._values.get(market_key(venue, symbol))
        return None if value is None else _fee(value)

    def all(self) -> list[dict[str, Any]]:
        """Every instrument, by venue and symbol."""
        records = [record for value in list(self._values.values()) if (record := _decoded(value)) is not None]
        return sorted(records, key=lambda r: (r["venue"], r["symbol"]))


@lru_cache(maxsize=65_536)
def _decoded(value: bytes) -> dict[str, Any] | None:
    try:
        return codec("Instrument").decode(value)
    except DecodeError:  # whoever keeps dead letters for this topic says so; here one is as good as unknown
        return None


@lru_cache(maxsize=65_536)
def _fee(value: bytes) -> tuple[int, int] | None:
    record = _decoded(value)
    if record is None or record["taker_fee_bps"] is None:
        return None
    try:
        return parse_decimal(record["taker_fee_bps"])
    except DecimalError:
        return None
