"""Asks a venue again and again for what no stream says: whole answers at their pace, and one instrument after another.

A round of all instruments takes its time: its calls go out one by one and spend at most ROUNDS_SHARE of the venue's
weight, so that snapshots never wait for more than one of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from collectors.errors import MalformedFrame, RestError
from collectors.pipeline import Pipeline
from collectors.rest import WINDOW_S, RestClient
from collectors.venue import Poll, RestRequest, Round, Venue

log = logging.getLogger(__name__)

ROUNDS_SHARE = 0.2
"""Of the weight that REST calls may take in a minute."""
NOBODY_S = 1.0
"""Between two looks for instruments while there is none."""


class Poller:
    """A venue's polls and rounds in one process."""

    def __init__(self, name: str, venue: Venue, rest: RestClient, pipeline: Pipeline) -> None:
        self._name = name
        self._venue = venue
        self._rest = rest
        self._pipeline = pipeline

    def jobs(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run, each until cancelled."""
        rounds = self._venue.rounds()
        return [*map(self._repeat, self._venue.polls()), *(self._go_round(one, len(rounds)) for one in rounds)]

    async def _repeat(self, poll: Poll) -> None:
        while True:
            await self._ask(poll.request)
            await asyncio.sleep(poll.every_s)

    async def _go_round(self, one: Round, rounds: int) -> None:
        while True:
            async for native, share in self._turns():
                request = one.request(native)
                await self._ask(request)
                weight_per_s = self._rest.limit.weight / WINDOW_S * ROUNDS_SHARE / rounds
                await asyncio.sleep(max(one.every_s * share, request.weight / weight_per_s))

    async def _turns(self) -> AsyncIterator[tuple[str, float]]:
        """Each instrument that is followed once, those that go meanwhile left out, with its share of the round."""
        natives = sorted(self._pipeline.workers)
        for native in natives:
            if native in self._pipeline.workers:
                yield native, 1 / len(natives)
        if not self._pipeline.workers:
            await asyncio.sleep(NOBODY_S)

    async def _ask(self, request: RestRequest) -> None:
        counts, body = self._pipeline.counts, b""
        try:
            body = await self._rest.call(request)
            counts.polls += 1
            now_ns = time.time_ns()
            for event in self._venue.parse_poll(request, body):
                self._pipeline.route_polled(event, now_ns)
        except RestError as error:
            log.info("%s: %s", self._name, error)
        except MalformedFrame as error:
            self._pipeline.publisher.dead_letter(body, str(error), time.time_ns())
