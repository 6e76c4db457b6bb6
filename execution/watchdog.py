"""A dead man's switch where the venue has none: an executor that is silent for too long has its resting orders cancelled.

After each sweep of an account an executor writes a SignOfLife to orders.alive. This process, better on another machine,
only reads those; when an account's stay away it cancels what rests there with our mark, looks until nothing of it is
open, and alarms. It goes on looking while the silence lasts: an order may still have been on its way. It places nothing,
and kills nothing: an executor that comes back finds its orders cancelled, as it would at a venue with a switch.

Silence is silence, whatever its cause. Where Kafka cannot be reached from here the orders are cancelled too: nobody
could tell whether anybody still looks after them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bus.errors import BusError
from bus.log_reader import LogReader, start_positions
from bus.producer import Producer
from config.settings import Settings
from execution.account import VenueAccount
from execution.config import ExecutorConfig, account_of
from execution.errors import AccountError, NotFound, Throttled, VenueError
from execution.orders import OURS
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import ALIVE, NOTICE

log = logging.getLogger(__name__)

Record = dict[str, Any]
AFTER_S = 60.0
LEAST_S = 15.0
"""Three of an executor's sweeps: less would take a slow answer for a death."""
LOOK_S = 1.0
AGAIN_S = 15.0
"""Between two looks at a venue while the silence lasts."""
SURE_S = 30.0
"""How long one round tries to see that nothing is open."""


@dataclass
class Watched:
    """One account: when it was last heard of (our monotonic clock), and when it was last looked at in its silence."""

    account: VenueAccount
    heard_s: float
    looked_s: float = -1.0
    """Negative: it is not silent."""


class Watchdog:
    """``await run()`` until ``stop`` is set. ``monotonic`` may be a test's own clock."""

    def __init__(
        self, settings: Settings, accounts: Mapping[str, VenueAccount], say: Callable[[str], None], after_s: float = AFTER_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.settings, self.say, self.after_s, self._now = settings, say, after_s, monotonic
        self.watched = {name: Watched(account, monotonic()) for name, account in accounts.items()}
        self.stop = asyncio.Event()
        self.signs = 0
        """Signs of life taken so far, of accounts that are watched."""
        self._decode = codec(ALIVE.record).decode
        self._encode = codec(NOTICE.record).encode

    def take(self, raw: bytes) -> None:
        """One SignOfLife. What is as old as the silence itself was held up on the way, and says nothing of now."""
        sign = self._decode(raw)
        one = self.watched.get(sign["account"])
        if one is None or time.time_ns() - sign["ts_ns"] > self.after_s * 1e9:
            return
        self.signs += 1
        one.heard_s = self._now()
        if one.looked_s >= 0:
            one.looked_s = -1.0
            self.say(f"{sign['account']}: is heard of again")

    async def check(self) -> None:
        """Act on every account that is silent now. Raises nothing that a venue may do."""
        due = [
            (name, one) for name, one in self.watched.items()
            if self._now() - one.heard_s > self.after_s and (one.looked_s < 0 or self._now() - one.looked_s > AGAIN_S)
        ]  # fmt: skip
        await asyncio.gather(*(self._silence(name, one) for name, one in due))

    async def _silence(self, name: str, one: Watched) -> None:
        first = one.looked_s < 0
        one.looked_s = self._now()
        found, left = await cancel_ours(one.account)
        if first or found or left != 0:
            silent_s = int(self._now() - one.heard_s)
            end = "none of ours is now" if left == 0 else f"NOT SURE that none of ours is now ({left or 'unknown'})"
            await self._alarm(name, f"{name}: nobody looked after it for {silent_s} s: {found} orders were open, {end}")

    async def _alarm(self, name: str, text: str) -> None:
        """Say it, and write it where it can be written: Kafka may be what is missing."""
        log.error("ALARM %s", text)
        self.say(f"ALARM {text}")
        record = {
            "account": name, "kind": "ALARM", "text": text[:1000], "group_id": "", "control_version": 0, "took_us": 0,
            "ts_ns": time.time_ns(),
        }  # fmt: skip

        def write() -> None:
            producer = Producer(self.settings, linger_ms=0)
            producer.send(NOTICE.name, name, self._encode(record))
            if producer.flush(10):
                log.error("the alarm could not be written to Kafka")

        try:
            await asyncio.to_thread(write)
        except BusError as error:
            log.error("the alarm could not be written: %s", error)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow the signs; a Kafka that is away is silence, not an error."""
        while not self.stop.is_set():
            reader: LogReader | None = None
            try:
                reader = LogReader(self.settings, start_positions(self.settings, {ALIVE.name: "end"}))
                while not self.stop.is_set():
                    for record in reader.batch(100, 0.2):
                        if record.value is not None:
                            loop.call_soon_threadsafe(self._taken, record.value)
            except Exception as error:  # without this thread healthy accounts would seem silent
                log.warning("no signs of life can be read: %s: %s", type(error).__name__, error)
                time.sleep(1)
            finally:
                if reader is not None:
                    reader.close()

    def _taken(self, raw: bytes) -> None:
        try:
            self.take(raw)
        except DecodeError as error:
            log.error("a sign of life cannot be read: %s", error)

    async def run(self) -> None:
        """Watch until ``stop``."""
        thread = threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), daemon=True, name="signs-of-life")
        thread.start()
        while not self.stop.is_set():
            try:
                await self.check()
            except Exception as error:  # whatever it is, the next look must come
                log.exception("a look at silent accounts")
                self.say(f"ALARM {type(error).__name__}: {error}")
            await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(thread.join, 3)


async def cancel_ours(account: VenueAccount, sure_s: float = SURE_S) -> tuple[int, int | None]:
    """Cancel every open order with our mark until none is left; gives (orders that were open, how many are; None: unknown).

    After ``sure_s`` it looks one last time, and gives what it saw.
    """
    seen: set[str] = set()
    deadline = time.monotonic() + sure_s
    while True:
        last = time.monotonic() > deadline
        pause_s, left = 0.2, None
        try:
            ours = [order for order in await account.open_orders() if order.order_id.startswith(OURS)]
            seen |= {order.order_id for order in ours}
            left = len(ours)
            if last or not left:
                return len(seen), left
            for order in ours:
                try:
                    await account.cancel(order.order_id, order.venue_order_id, order.symbol)
                except NotFound:
                    continue
        except Throttled as error:
            pause_s = error.retry_after_s
        except VenueError as error:
            log.warning("%s: %s", account.account, error)
        if last:
            return len(seen), left
        await asyncio.sleep(pause_s)


def watchable(config: ExecutorConfig) -> dict[str, VenueAccount]:
    """The accounts whose orders would rest for ever: at venues without a switch of their own. Raises AccountError.

    On paper orders end with their process, a chain's orders do not rest.
    """
    out: dict[str, VenueAccount] = {}
    for name, own in config.accounts.items():
        if own.adapter == "ccxt":
            account = account_of(name, own, {}, {}, {}, "watchdog", pools={}, live=config.live, arm_file=config.arm_file)
            if not account.dead_man:
                out[name] = account
    if not out:
        raise AccountError("no account needs a watchdog: on paper, on a chain, or at venues that cancel by themselves")
    return out


def run_process(settings: Settings, config: ExecutorConfig, after_s: float, say: Callable[[str], None]) -> int:
    """Watch until SIGTERM or SIGINT; gives the exit code.

    Raises AccountError and BusError at its start alone: keys that do not work, or a topic that is not there, would make it
    a watchdog that cannot bite, or one that bites without a cause.
    """
    if after_s < LEAST_S:
        raise AccountError(f"--after {after_s:g}: an executor looks after its orders every few seconds; at least {LEAST_S:g}")

    async def run() -> None:
        accounts = watchable(config)
        try:
            await asyncio.to_thread(start_positions, settings, {ALIVE.name: "end"})
            for name, account in accounts.items():
                await account.connect()
                say(f"{name}: watched, orders are cancelled after {after_s:g} s of silence")
            dog = Watchdog(settings, accounts, say, after_s)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, dog.stop.set)
            await dog.run()
        finally:
            for account in accounts.values():
                await account.close()

    asyncio.run(run())
    return 0
