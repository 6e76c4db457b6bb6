"""The executor as a process: intents in, verdicts, orders, fills, money out. One gateway for each of its accounts."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from bus.errors import QueueFull
from bus.log_reader import LogReader, LogRecord
from bus.producer import Producer
from bus.status_page import start_server
from bus.tracing import current, following
from bus.tracing import start as start_tracing
from config.settings import Settings
from execution.config import ExecutorConfig
from execution.desk import Desk
from execution.errors import AccountError, Fenced
from execution.flatten import FLATTEN
from execution.gateway import Gateway
from execution.group_gate import GroupGate
from execution.hedging import HEDGE, OVER, HedgeGroups
from execution.make_way import MakeWay
from execution.metrics import ExecutorMetrics, Watched
from execution.orders import amends, order_id_of, places
from execution.paper import PaperAccount
from execution.past import Past
from execution.risk import Verdict, judge
from execution.stopping import Stopping, stopped
from market.live_book import LiveBook
from market.terms import TermsError, terms_of
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BOOK, CONTROL, FILL, INSTRUMENT, INTENT, LIMITS, ORDER, RESIDUAL, RISK, STATUS, TRADE

log = logging.getLogger(__name__)

Record = dict[str, Any]
PENDING_BATCHES = 64
HEDGE_EVERY_S = 0.05
SWEEP_EVERY_S = 5.0
SIGN_OF_LIFE_S = 600.0
DEAD_MAN_S = 60
RECORDS = {t.name: t.record for t in (INSTRUMENT, STATUS, BOOK, TRADE, LIMITS, CONTROL, INTENT, RISK, ORDER, FILL)}


class WallClock:
    """Time as it is."""

    def now_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Executor:
    """``await run()`` until ``stop`` is set. All state changes happen on the event loop; a thread only reads Kafka."""

    def __init__(self, settings: Settings, config: ExecutorConfig, say: Callable[[str], None]) -> None:
        self.settings, self.config, self.say = settings, config, say
        self.clock = WallClock()
        self.desk = Desk(self.send, self.clock.now_ns)
        self.gateways: dict[str, Gateway] = {}
        self.stop = asyncio.Event()
        self.dropped = 0
        self._producer = Producer(settings, queue_max=100_000, linger_ms=0)
        self._decode = {topic: codec(name).decode for topic, name in RECORDS.items()}
        self._encode = {name: codec(name).encode for name in (
            "RiskDecision", "OrderEvent", "Fill", "LedgerEntry", "Position", "Balance", "OrderIntent", "Residual", "Notice",
            "SignOfLife",
        )}  # fmt: skip
        self.groups = HedgeGroups(
            self.desk.terms, self.desk.books, self._unusable, self._incomplete, lambda account: account in config.accounts
        )
        self.past = Past(self)
        self.stopping = Stopping(self)
        self._gate = GroupGate(self.desk, self.clock.now_ns)
        self.way = MakeWay(self)
        self.desk.risk.priority, self.desk.freed = config.priority, self.way.look
        self._venues = config.venues()
        self.pools: dict[str, str] = {}
        """key → the venue's own name of it: a pool's address."""
        self._room = threading.Semaphore(PENDING_BATCHES)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.run_id = uuid.uuid4().hex[:8]
        self.metrics = ExecutorMetrics(Watched(
            self.gateways, self.desk.risk.control, self.groups.told, self.desk.accounts, lambda: self.dropped,
            lambda: self._producer.failed,
        ))  # fmt: skip
        self._equity_s = 0.0
        self.resolved = False

    def send(self, topic: str, name: str, key: str, record: Record) -> None:
        while True:
            try:
                self._producer.send(topic, key, self._encode[name](record))
                return
            except QueueFull:
                # Orders' records are never dropped: the desk waits for Kafka, and sends nothing meanwhile.
                self._producer.poll(0.05)
                self._producer.raise_failures()

    def whole_notional(self, intent: Record) -> int:
        terms = self.desk.terms[f"{intent['venue']}|{intent['symbol']}"]
        return -(-terms.notional(intent["price"], intent["size"]) // 10**-terms.notional_exp)

    async def _listen(self, name: str, gateway: Gateway) -> None:
        async for event in gateway.account.events():
            try:
                await gateway.heard(event)
            except Fenced as error:
                self._fenced(name, error)
                return

    def _fenced(self, name: str, error: Fenced) -> None:
        self.desk.alarm(f"{name}: {error}")
        self.desk.risk.accounts -= {name}
        self.gateways[name].killed = str(error)

    # The log.

    def _read(self, loop: asyncio.AbstractEventLoop, positions: dict[tuple[str, int], int]) -> None:
        reader = LogReader(self.settings, positions, market=True)
        try:
            while not self.stop.is_set():
                batch = reader.batch(500, 0.1)
                if batch:
                    self._room.acquire()  # the loop is behind: what is not read yet is safe in Kafka
                    loop.call_soon_threadsafe(self._batch, batch)
        finally:
            reader.close()

    def _batch(self, batch: list[LogRecord]) -> None:
        self._room.release()
        changed: dict[str, None] = {}
        for record in batch:
            try:
                if (key := self.take(record, live=True)) is not None:
                    changed[key] = None
            except (DecodeError, TermsError, KeyError, ValueError) as error:
                self.dropped += 1
                log.error("%s[%d]@%d cannot be used: %s", record.topic, record.partition, record.offset, error)
        for key in changed:
            for gateway in self.gateways.values():
                if isinstance(gateway.account, PaperAccount) and key.startswith(f"{gateway.account.venue}|"):
                    gateway.account.on_book(key)
        self._producer.poll(0)

    def take(self, record: LogRecord, *, live: bool) -> str | None:
        """Fold one record; gives the key of a book that changed."""
        topic, desk = record.topic, self.desk
        if record.value is None:
            return None
        if topic in (BOOK.name, STATUS.name, TRADE.name):
            key = (record.key or b"").decode()
            book = desk.books.get(key)
            if book is None:
                return None
            value = self._decode[topic](record.value)
            if topic == BOOK.name:
                return key if book.take(value, record.partition, record.offset) else None
            if topic == STATUS.name:
                book.take_status(value)
                return None
            for gateway in self.gateways.values():
                if isinstance(gateway.account, PaperAccount) and key.startswith(f"{gateway.account.venue}|"):
                    gateway.account.on_trade(key, value)
            return None
        value = self._decode[topic](record.value)
        if topic == INSTRUMENT.name:
            terms = terms_of(value, self.config.rates(value["venue"]))
            if terms.venue in self._venues or self.config.watches(terms.venue):
                desk.terms[terms.key] = terms
                self.pools[terms.key] = value["native_id"]
                desk.books.setdefault(terms.key, LiveBook(terms.venue, terms.symbol))
        elif topic == LIMITS.name:
            desk.risk.limits[value["scope"]] = dict(zip(value["names"], value["limits"], strict=True))
            desk.risk.limits_version = max(desk.risk.limits_version, value["version"])
        elif topic == CONTROL.name:
            self.stopping.take(value, live=live)
        elif topic == RISK.name:
            desk.decided(value)
            if value["verdict"] == "REFUSE":
                cause = f"{value['rule']}: {value['measured']} against {value['bound']}"
                self.groups.refused(value["intent_id"], self.clock.now_ns(), cause)
        elif topic == ORDER.name:
            self._gate.heard(value["intent_id"], value["state"])
            if value["state"] in OVER:
                self.groups.over(value["intent_id"], self.clock.now_ns())
        elif topic == FILL.name:
            self.groups.fill(value, self.clock.now_ns())
            if not live and value["account"] in self.config.accounts:
                self.desk.account(value["account"]).take_fill(value)
        elif topic == INTENT.name:
            self.groups.intent(value)
            if live:
                with following("judge", record.context, {"intent.id": value["id"], "account": value["account"]}):
                    self.intent(record.value, value)
        if not live:
            self.past.take(topic, value)
        return None

    def intent(self, raw: bytes, intent: Record) -> None:
        """Judge one intent that was read, and let it go where it may."""
        name, known = intent["account"], intent["id"] in self.desk.risk.judged or intent["id"] in self.way.waiting
        if known or name not in self.config.accounts or self.past.holds_back(raw, intent):
            return
        self.desk.risk.now_ns = self.clock.now_ns()
        verdict = self._never(intent)
        if verdict is None and GroupGate.concerns(intent):
            if (decided := self._gate.take(intent)) is None:
                return
            intent, verdict = decided
            raw = self._encode["OrderIntent"](intent)
        self.decided(raw, intent, verdict or judge(intent, self.desk.risk))

    def _never(self, intent: Record) -> Verdict | None:
        """Why an intent is not for the risk gate at all."""
        if intent["leg_mode"] == "SEQUENTIAL":
            return Verdict("leg_mode", intent["leg_mode"], "SINGLE, SIMULTANEOUS or HEDGE_OF", ())
        gateway = self.gateways.get(intent["account"])
        if amends(intent) and (intent["leg_mode"] == "HEDGE_OF" or (gateway is not None and not gateway.amends)):
            return Verdict("amend", f"{intent['leg_mode']} on {intent['account']}", "a leg of its own, that rests", ())
        if intent["mode"] not in ("LIVE", "PAPER") or (intent["mode"] == "PAPER") != self.config.play_money(intent["account"]):
            return Verdict("mode", intent["mode"], "LIVE for real accounts, PAPER for paper", ())
        if intent["strategy_version"] == HEDGE and (wrong := self.groups.closes(intent)):
            return Verdict("hedge", wrong, "closes what its group left over", ())
        if intent["strategy_version"] == FLATTEN and intent["id"] not in self.stopping.flattening:
            return Verdict("flatten", intent["id"], "an order of this executor's own", ())
        return None

    def judged_again(self, intent: Record) -> Verdict:
        """The verdict as of now on an intent that waited."""
        self.desk.risk.now_ns = self.clock.now_ns()
        return self._never(intent) or judge(intent, self.desk.risk)

    def decided(
        self, raw: bytes, intent: Record, verdict: Verdict, made_way: Sequence[str] = (), waited_us: int = 0
    ) -> None:
        """What follows from a verdict: it waits for own orders to make way, it leaves, or it never does."""
        if verdict.way:
            self.way.wait(raw, intent, verdict.way)
            return
        self.desk.judged(intent, verdict, made_way, waited_us)
        if intent["action"] == "CANCEL":
            self.way.withdraw(intent["target_id"])
        if verdict.accepted:
            self.spawn(self._act(intent["account"], raw, intent))
            return
        self._gate.over(intent["id"])
        if amends(intent) and "cancel_rate" in verdict.passed:
            why = f"its amend vm{intent['id']} was refused: {verdict.rule}"
            self.spawn(self.cancel(intent["account"], intent["target_id"], why))

    async def cancel(self, name: str, intent_id: str, why: str) -> None:
        """Cancel one of our own orders, whoever wanted it."""
        try:
            await self.gateways[name].cancel(order_id_of(intent_id), why)
        except Fenced as error:
            self._fenced(name, error)

    async def _act(self, name: str, raw: bytes, intent: Record) -> None:
        gateway = self.gateways[name]
        try:
            with following("place", current(), {"intent.id": intent["id"], "account": name}):
                if not places(intent):
                    await gateway.cancel(order_id_of(intent["target_id"]))
                else:
                    await gateway.submit(raw, intent)
        except Fenced as error:
            self._fenced(name, error)

    # Running.

    async def run(self) -> None:
        """Load the past, open the accounts, trade until ``stop``. Raises AccountError, BusError."""
        loop, own = asyncio.get_running_loop(), self.settings.execution
        page, _ = await start_server(
            own.metrics_host, own.metrics_port, self.metrics.exposition, lambda: {"accounts": list(self.gateways)},
            lambda: "" if self.resolved else "the past is not in order yet",
        )  # fmt: skip
        try:
            await self._trade(loop)
        finally:
            await page.cleanup()

    async def _trade(self, loop: asyncio.AbstractEventLoop) -> None:
        positions = await asyncio.to_thread(self.past.load)
        reader = threading.Thread(target=self._read, args=(loop, positions), daemon=True, name="executor-log")
        reader.start()
        try:
            for name, config in self.config.accounts.items():
                await self.past.open(name, config)
                self.spawn(self._listen(name, self.gateways[name]))
                self.spawn(self._tend(name, self.gateways[name]))
                self.stopping.opened(name)
            self.resolved = True
            while not self.stop.is_set():
                self._tick()
                await asyncio.sleep(HEDGE_EVERY_S)
        finally:
            self.stop.set()
            for task in list(self._tasks):
                task.cancel()
            for name, gateway in self.gateways.items():
                await gateway.account.close()
                await gateway.journal.close()
                self.desk.notice("STOPPED", name, f"{len(gateway.unfinished())} orders left open")
            await asyncio.to_thread(reader.join, 3)
            self._producer.flush(10)

    async def _tend(self, name: str, gateway: Gateway) -> None:
        """One account's sweeps, for ever; another's trouble or slowness is not its own."""
        alive = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                await gateway.resolver.sweep()
                self.desk.reconciled(name, await gateway.account.balances())
                await gateway.account.keep_alive(DEAD_MAN_S)
                self.desk.alive(name, self.run_id, len(gateway.unfinished()))
            except Fenced as error:
                self._fenced(name, error)
                return
            except Exception as error:  # what is wrong now may be right at the next sweep
                log.warning("%s: housekeeping failed: %s", name, error)
            if time.monotonic() - alive > SIGN_OF_LIFE_S:
                alive = time.monotonic()
                self.desk.notice("READY", name, f"{len(gateway.unfinished())} orders open")

    def _tick(self) -> None:
        self._producer.poll(0)
        try:
            self.way.look()
            self._hedge()
            if time.monotonic() - self._equity_s > 1:
                self._equity_s = time.monotonic()
                self.desk.equity()
        except Exception as error:  # orders go on being tended, whatever this cannot make sense of
            log.exception("the hedges")
            self.desk.alarm(f"hedges and equity: {type(error).__name__}: {error}")

    def _hedge(self) -> None:
        orders, news = self.groups.due(self.clock.now_ns())
        for order in orders:
            self.send(INTENT.name, "OrderIntent", order["account"], order)
        for residual in news:
            self.send(RESIDUAL.name, "Residual", residual["group_id"], residual)
            if residual["state"] == "UNHEDGED":
                left = ", ".join(f"{n} {a}" for n, a in zip(residual["amounts"], residual["assets"], strict=True))
                text = f"group {residual['group_id']} of {residual['strategy']} is not hedged: {left} left; {residual['cause']}"
                self.desk.alarm(text, residual["account"], residual["group_id"])

    def _unusable(self, intent: Record) -> str:
        """Why nothing may be sent where an intent goes to; a kill of its strategy does not count."""
        reason = stopped(self.desk.risk, intent["venue"], intent["account"])
        gateway = self.gateways.get(intent["account"])
        return reason or (gateway.egress.halted or gateway.killed if gateway is not None else "")

    def _incomplete(self, intent_id: str) -> bool:
        """Whether a venue told of fills of this intent that have not come yet."""
        order_id = order_id_of(intent_id)
        return any((order := g.orders.get(order_id)) is not None and order.fills_missing for g in self.gateways.values())

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an error that nobody foresaw", exc_info=error)
            self.desk.alarm(f"{type(error).__name__}: {error}")


def run_process(settings: Settings, config: ExecutorConfig, say: Callable[[str], None]) -> int:
    """Run until SIGTERM or SIGINT; gives the exit code. Raises AccountError, BusError."""

    async def run() -> None:
        start_tracing(settings, "executor")
        executor = Executor(settings, config, say)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, executor.stop.set)
        await executor.run()

    asyncio.run(run())
    return 0


__all__ = ["AccountError", "Executor", "run_process"]
