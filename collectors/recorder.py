"""Records what a venue sends, as a capture in format H: a line ``RECV_NS JSON`` for each frame and each snapshot."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from collectors.discovery import Discovery, load_listings
from collectors.errors import CollectorError, MalformedFrame, RestError, VenueUnreachable
from collectors.events import Answer, BookDelta, Reply
from collectors.metrics import Counts
from collectors.pool import ConnectionPool
from collectors.rest import RestClient
from collectors.venue import ALL_CHANNELS, Listing, Parser, Venue, adapter
from config.settings import Settings

TRIES = 5


class _Tape:
    """Stands where the pipeline stands in a collector: writes every frame, and asks for a snapshot after the first delta."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.frames = 0
        self.workers: dict[str, _Follower] = {}

    def receiver(
        self,
        parse: Parser,
        on_reply: Callable[[Reply], None],
        on_broken: Callable[[str], None],
        on_answer: Callable[[bytes], None],
    ) -> Callable[[bytes, int], None]:
        def receive(frame: bytes, ts_ns: int) -> None:
            try:
                events = parse(frame)
            except MalformedFrame:
                events = ()  # recorded all the same: that is what a capture is for
            for event in events:
                if isinstance(event, Reply):
                    on_reply(event)
                    return
                if isinstance(event, Answer):
                    on_answer(event.frame)
                    return
                if isinstance(event, BookDelta) and (follower := self.workers.get(event.native)) is not None:
                    follower.seen.set()
            self.write(frame, ts_ns)

        return receive

    def write(self, frame: bytes, ts_ns: int) -> None:
        """One line; the body is put on one line when the venue broke it."""
        self.out.write(b"%d %s\n" % (ts_ns, frame.replace(b"\r", b"").replace(b"\n", b"")))
        self.frames += 1


class _Follower:
    """Answers the pool in a worker's place."""

    def __init__(self) -> None:
        self.seen = asyncio.Event()

    def on_subscribed(self) -> None:
        """Nothing to do: the snapshot follows the first delta."""

    def on_stream_lost(self, reason: str) -> None:
        """A capture with a hole is of no use as one stream."""
        self.seen.clear()

    def refused(self, reason: str) -> None:
        """The venue does not know it."""


async def record(
    settings: Settings, name: str, symbols: Sequence[str], out: Path, seconds: float, say: Callable[[str], None]
) -> int:
    """Record these instruments until ``seconds`` are over (0: until cancelled); gives the number of lines.

    Raises CollectorError (VenueUnreachable, unknown symbols).
    """
    own = settings.venue(name)
    venue = adapter(own.adapter)(channels=ALL_CHANNELS)
    counts = Counts()
    rest = RestClient(
        own.rest_url or venue.rest_url, counts,
        weight_per_minute=own.rest_weight_per_minute or venue.limits.rest_weight_per_minute,
        concurrency=venue.limits.rest_concurrency, headers=venue.headers,
    )  # fmt: skip
    opener = gzip.open if out.suffix == ".gz" else open
    async with rest:
        natives = await _natives(venue, rest, name, symbols)
        with cast(BinaryIO, opener(out, "wb")) as file:
            tape = _Tape(file)
            tape.workers = {native: _Follower() for native in natives}
            pool = ConnectionPool(
                name, venue, own.ws_url.rstrip("/"), tape, counts, silence_s=60, rest=rest,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
            pool.subscribe(natives)
            snapshots = [asyncio.create_task(_snapshot(venue, rest, tape, native, say)) for native in natives]
            try:
                started = time.monotonic()
                while not seconds or time.monotonic() - started < seconds:
                    await asyncio.sleep(min(1.0, seconds or 1.0))
                    if not pool.connected.is_set() and time.monotonic() - started > 20:
                        raise VenueUnreachable(f"{name}: no websocket connection to {pool.url} within 20 s")
                    say(f"{tape.frames} messages")
            except asyncio.CancelledError:
                pass  # Ctrl-C: what was recorded is whole lines
            finally:
                for task in snapshots:
                    task.cancel()
                await pool.close()
    return tape.frames


async def _natives(venue: Venue, rest: RestClient, name: str, symbols: Sequence[str]) -> list[str]:
    found: list[Listing] = []
    for attempt in range(TRIES):
        try:
            found = await load_listings(venue, rest)
            break
        except RestError as error:
            if attempt == TRIES - 1:
                raise VenueUnreachable(f"{name}: the venue could not be read after {TRIES} tries: {error}") from error
            await asyncio.sleep(0.5 * 2**attempt)
    listings = Discovery.by_symbol(found)
    if unknown := [symbol for symbol in symbols if symbol not in listings]:
        raise CollectorError(
            f"{name} has no instrument {', '.join(unknown)}; it has e.g. {', '.join(sorted(listings)[:5])}"
        )
    return [listings[symbol].native_id for symbol in symbols]


async def _snapshot(venue: Venue, rest: RestClient, tape: _Tape, native: str, say: Callable[[str], None]) -> None:
    await tape.workers[native].seen.wait()
    while True:
        try:
            body = await rest.call(venue.snapshot_request(native))
            # Not every venue's answer says whose it is, and several instruments may share a capture.
            if b'"symbol"' not in body[:200]:
                body = body.rstrip()[:-1] + b',"symbol":' + json.dumps(native).encode() + b"}"
            tape.write(body, time.time_ns())
            return
        except RestError as error:
            say(f"snapshot of {native}: {error}; trying again")
            await asyncio.sleep(1)
