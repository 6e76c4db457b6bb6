"""Carries out the orders that a synthetic venue gets, by method or by ``POST /control/VERB``."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from simulator.fault_script import FaultScript
from simulator.faults import VERBS, ControlError
from simulator.instrument import SyntheticInstrument
from simulator.stream_server import Client

if TYPE_CHECKING:
    from simulator.synthetic import SyntheticVenue

COUNT_MAX = 1_000_000
GARBAGE = (b"\x00\xff not json", b'{"stream":"btcusdt@depth@100ms","data":{', b"[]")


class Control:
    """One method a verb; each takes the order's values and raises ControlError."""

    def __init__(self, venue: SyntheticVenue) -> None:
        self._venue = venue
        self._faults = venue.faults
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End what was begun."""
        for task in self._tasks:
            task.cancel()

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

    def _storm(self, values: Mapping[str, Any]) -> None:
        self._faults.note("storm")
        self._venue.list_more(_count(values, "n", 500))

    def _halt(self, values: Mapping[str, Any]) -> None:
        self._known(values).status = self._venue.wire.halted

    def _resume(self, values: Mapping[str, Any]) -> None:
        self._known(values).status = self._venue.wire.trading

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

    def _delay(self, values: Mapping[str, Any]) -> None:
        count, seconds = _count(values), _number(values, "seconds", 0.5)
        self._faults.delay, self._faults.delay_s = self._faults.delay + count, seconds

    def _checksum(self, values: Mapping[str, Any]) -> None:
        if not self._venue.wire.has_checksum:
            raise ControlError(f"{self._venue.adapter} sends no checksums")
        self._faults.checksum += _count(values)

    def _garbage(self, values: Mapping[str, Any]) -> None:
        for i in range(_count(values)):
            self._venue.stream.broadcast(GARBAGE[i % len(GARBAGE)])

    def _wrongtype(self, values: Mapping[str, Any]) -> None:
        self._send_bad(_count(values), 0)

    def _unknown(self, values: Mapping[str, Any]) -> None:
        self._send_bad(_count(values), 1)

    def _ratelimit(self, values: Mapping[str, Any]) -> None:
        count, retry_after_s = _count(values), _number(values, "retry_after", 1.0)
        status = _count(values, "status", 429)
        if status not in (418, 429):
            raise ControlError(f"status must be 429 or 418, not {status}")
        self._faults.ratelimit, self._faults.retry_after_s = count, retry_after_s
        self._faults.ratelimit_status = status

    def _slow_rest(self, values: Mapping[str, Any]) -> None:
        count, seconds = _count(values), _number(values, "seconds", 2.0)
        self._faults.slow_rest, self._faults.slow_rest_s = count, seconds

    def _slow_frames(self, values: Mapping[str, Any]) -> None:
        count, seconds, client = _count(values), _number(values, "seconds", 2.0), self._client(values)
        client.dribble_frames, client.dribble_pause_s = count, seconds
        self._faults.note("slow_frames", connection=client.number)

    def _stale_snapshot(self, values: Mapping[str, Any]) -> None:
        count, behind = _count(values), _count(values, "behind", 50)
        self._faults.stale_snapshots, self._faults.behind = count, behind

    def _silence(self, values: Mapping[str, Any]) -> None:
        one, seconds = self._known(values), _number(values, "seconds", 5.0)
        one.silent_until_s = time.monotonic() + seconds

    def _freeze(self, values: Mapping[str, Any]) -> None:
        until_s = time.monotonic() + _number(values, "seconds", 5.0)
        if "symbol" in values:
            one = self._known(values)
            one.frozen_until_s = until_s
            self._faults.note("freeze", one.native)
        elif "connection" in values:
            client = self._client(values)
            client.frozen_until_s = until_s
            self._faults.note("freeze", connection=client.number)
        else:
            self._faults.frozen_until_s = until_s
            for client in self._venue.stream.clients:
                client.frozen_until_s = until_s
            self._faults.note("freeze")

    def _half_open(self, values: Mapping[str, Any]) -> None:
        client = self._client(values)
        client.hang()
        self._faults.note("half_open", connection=client.number)

    def _skew(self, values: Mapping[str, Any]) -> None:
        given = values.get("seconds", 0)
        below = str(given).strip().startswith("-")
        seconds = _number({"seconds": str(given).strip().removeprefix("-")}, "seconds", 0.0)
        self._faults.skew_us = int(seconds * 1_000_000) * (-1 if below else 1)
        self._faults.note("skew")

    def _restart(self, values: Mapping[str, Any]) -> None:
        one = self._known(values)
        self._venue.wire.restart(one)
        self._faults.note("restart", one.native, seq=one.last_u)

    def _maintenance(self, values: Mapping[str, Any]) -> None:
        until_s = time.monotonic() + _number(values, "seconds", 5.0)
        self._faults.maintenance_until_s = self._venue.stream.refusing_until_s = until_s
        self._faults.note("maintenance")
        if (frame := self._venue.wire.farewell()) is not None:
            self._venue.stream.broadcast(frame)
        self._begin(self._venue.stream.cut(1001))

    def _close(self, values: Mapping[str, Any]) -> None:
        code = _count(values, "code", 1000)
        if not (1000 <= code <= 1015 or 3000 <= code <= 4999):
            raise ControlError(f"code must be 1000 to 1015 or 3000 to 4999, not {code}")
        if values.get("all"):
            self._faults.note(f"close {code}")
            self._begin(self._venue.stream.cut(code))
            return
        client = self._client(values)
        self._faults.note(f"close {code}", connection=client.number)
        self._begin(client.close(code))

    def _cut(self, _: Mapping[str, Any]) -> None:
        self._begin(self._venue.stream.cut())

    def _calm(self, _: Mapping[str, Any]) -> None:
        self._faults.calm()
        self._venue.stream.refusing_until_s = 0.0
        for one in self._venue.instruments.values():
            one.frozen_until_s = one.silent_until_s = 0.0
        for client in self._venue.stream.clients:
            client.frozen_until_s, client.dribble_frames = 0.0, 0

    def _script(self, values: Mapping[str, Any]) -> None:
        seed = _count(values, "seed", 1)
        script = FaultScript(seed, _number(values, "seconds", 60.0), _number(values, "every", 2.0))
        self._begin(script.run(self._venue))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _client(self, values: Mapping[str, Any]) -> Client:
        clients = list(self._venue.stream.clients)
        if "connection" in values and values["connection"] != "any":
            number = _count(values, "connection")
            clients = [client for client in clients if client.number == number]
        if not clients:
            raise ControlError("there is no such connection")
        return self._venue.random.choice(clients)

    def _known(self, values: Mapping[str, Any]) -> SyntheticInstrument:
        native = _text(values, "symbol")
        if native not in self._venue.instruments:
            raise ControlError(f"{native} is not listed")
        return self._venue.instruments[native]

    def _send_bad(self, count: int, which: int) -> None:
        native = next(iter(self._venue.instruments), "BTCUSDT")
        for _ in range(count):
            self._venue.stream.broadcast(self._venue.wire.bad_frames(native)[which])


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
