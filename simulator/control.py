"""Carries out the orders that a synthetic venue gets, by method or by ``POST /control/VERB``."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from simulator.faults import VERBS, ControlError
from simulator.instrument import SyntheticInstrument

if TYPE_CHECKING:
    from simulator.synthetic import SyntheticVenue

COUNT_MAX = 1_000_000
GARBAGE = (b"\x00\xff not json", b'{"stream":"btcusdt@depth@100ms","data":{', b"[]")


class Control:
    """One method a verb; each takes the order's values and raises ControlError."""

    def __init__(self, venue: SyntheticVenue) -> None:
        self._venue = venue
        self._faults = venue.faults
        self._cuts: set[asyncio.Task[None]] = set()

    def obey(self, verb: str, values: Mapping[str, Any]) -> None:
        """Do what VERBS says. Raises ControlError, with nothing done."""
        if verb not in VERBS:
            raise ControlError(f"no command {verb!r}; there are: {', '.join(VERBS)}")
        getattr(self, f"_{verb}")(values)

    def routes(self) -> list[web.RouteDef]:
        """``GET /control`` lists the verbs; ``POST /control/VERB`` takes values from the query or a JSON object."""
        return [web.get("/control", self._show), web.post("/control/{verb}", self._take)]

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response(VERBS)

    async def _take(self, request: web.Request) -> web.Response:
        verb, values = request.match_info["verb"], dict[str, Any](request.query)
        try:
            if body := await request.text():
                given = json.loads(body)
                if not isinstance(given, dict):
                    raise ControlError("the values must be one JSON object")
                values |= given
            self.obey(verb, values)
        except (ControlError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"done": verb})

    # One method a verb from here on, in the order of VERBS.

    def _list(self, values: Mapping[str, Any]) -> None:
        self._venue.list_instrument(_text(values, "symbol"))

    def _delist(self, values: Mapping[str, Any]) -> None:
        self._venue.delist_instrument(self._known(values).native)

    def _halt(self, values: Mapping[str, Any]) -> None:
        self._known(values).status = "PENDING_TRADING" if self._venue.market.futures else "BREAK"

    def _resume(self, values: Mapping[str, Any]) -> None:
        self._known(values).status = "TRADING"

    def _rate(self, values: Mapping[str, Any]) -> None:
        self._venue.rate = _number(values, "rate", None)

    def _drop(self, values: Mapping[str, Any]) -> None:
        if "every" in values:
            self._faults.drop_every = _count(values, "every")
        else:
            self._faults.drop_next += _count(values)

    def _duplicate(self, values: Mapping[str, Any]) -> None:
        self._faults.duplicate += _count(values)

    def _reorder(self, values: Mapping[str, Any]) -> None:
        self._faults.reorder += _count(values)

    def _garbage(self, values: Mapping[str, Any]) -> None:
        for i in range(_count(values)):
            self._venue.stream.broadcast(GARBAGE[i % len(GARBAGE)])

    def _wrongtype(self, values: Mapping[str, Any]) -> None:
        native = next(iter(self._venue.instruments), "BTCUSDT")
        self._send_bad(_count(values), {"s": native, "U": 1, "u": "not a number"})

    def _unknown(self, values: Mapping[str, Any]) -> None:
        self._send_bad(_count(values), {"s": "NOBODYUSDT", "U": 1, "u": 1})

    def _ratelimit(self, values: Mapping[str, Any]) -> None:
        count, retry_after_s = _count(values), _number(values, "retry_after", 1.0)
        self._faults.ratelimit, self._faults.retry_after_s = count, retry_after_s

    def _stale_snapshot(self, values: Mapping[str, Any]) -> None:
        count, behind = _count(values), _count(values, "behind", 50)
        self._faults.stale_snapshots, self._faults.behind = count, behind

    def _silence(self, values: Mapping[str, Any]) -> None:
        one, seconds = self._known(values), _number(values, "seconds", 5.0)
        one.silent_until_s = time.monotonic() + seconds

    def _cut(self, _: Mapping[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._venue.stream.cut())
        self._cuts.add(task)
        task.add_done_callback(self._cuts.discard)

    def _known(self, values: Mapping[str, Any]) -> SyntheticInstrument:
        native = _text(values, "symbol")
        if native not in self._venue.instruments:
            raise ControlError(f"{native} is not listed")
        return self._venue.instruments[native]

    def _send_bad(self, count: int, fields: Mapping[str, Any]) -> None:
        stream = f"{fields['s'].lower()}@{self._venue.market.depth_stream}"
        data = {"e": "depthUpdate", "E": 1, "T": 1, **fields, "pu": 1, "b": [], "a": []}
        frame = json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()
        for _ in range(count):
            self._venue.stream.broadcast(frame)


def _text(values: Mapping[str, Any], name: str) -> str:
    if not values.get(name):
        raise ControlError(f"this command needs {name}")
    return str(values[name])


def _number(values: Mapping[str, Any], name: str, default: float | None) -> float:
    value = values.get(name, default)
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]  # None is a TypeError
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ControlError(f"{name} must be a number from 0 on, not {value!r}")
    return number


def _count(values: Mapping[str, Any], name: str = "n", default: int = 1) -> int:
    number = _number(values, name, default)
    if number > COUNT_MAX or number != int(number):
        raise ControlError(f"{name} must be a whole number up to {COUNT_MAX}, not {values[name]!r}")
    return int(number)
