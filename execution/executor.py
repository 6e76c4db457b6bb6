"""The executor as a process: intents in, verdicts, orders, fills, money out. One gateway for each of its accounts."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from bus.errors import QueueFull
from bus.log_reader import LogReader, LogRecord, read_all, start_positions
from bus.producer import Producer
from bus.tracing import current, following
from bus.tracing import start as start_tracing
from config.settings import Settings
from execution.config import AccountConfig, ExecutorConfig, account_of
from execution.desk import Desk
from execution.egress import Egress, EgressCaps, RateBudget
from execution.errors import AccountError, Fenced
from execution.gateway import Gateway
from execution.hedging import OVER, HedgeGroups
from execution.journal import KafkaJournal
from execution.orders import Order, order_id_of
from execution.paper import PaperAccount
from execution.risk import Verdict, judge
from market.live_book import LiveBook
from market.terms import TermsError, terms_of
from schemas.codec import codec
from schemas.errors import DecodeError
from schemas.topics import BOOK, CONTROL, FILL, INSTRUMENT, INTENT, LEDGER, LIMITS, ORDER, RISK, STATUS, TRADE

log = logging.getLogger(__name__)

Record = dict[str, Any]
BACK_MS = 3_600_000
BOOKS_BACK_MS = 130_000
PENDING_BATCHES = 64
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
        self.desk = Desk(self._send, self.clock.now_ns)
        self.gateways: dict[str, Gateway] = {}
        self.stop = asyncio.Event()
        self.dropped = 0
        self._producer = Producer(settings, queue_max=100_000, linger_ms=0)
        self._decode = {topic: codec(name).decode for topic, name in RECORDS.items()}
        self._encode = {name: codec(name).encode for name in (
            "RiskDecision", "OrderEvent", "Fill", "LedgerEntry", "Position", "Balance", "OrderIntent",
        )}  # fmt: skip
        self._groups = HedgeGroups(self.desk.terms, self.desk.books)
        self._venues = {name.partition(":")[0] for name in config.accounts}
        self._room = threading.Semaphore(PENDING_BATCHES)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._run = uuid.uuid4().hex[:8]
        self._past_intents: dict[str, Record] = {}
        self._past_accepted: set[str] = set()
        self.resolved = False

    def _send(self, topic: str, name: str, key: str, record: Record) -> None:
        while True:
            try:
                self._producer.send(topic, key, self._encode[name](record))
                return
            except QueueFull:
                # Orders' records are never dropped: the desk waits for Kafka, and sends nothing meanwhile.
                self._producer.poll(0.05)
                self._producer.raise_failures()

    # The past.

    def _load(self) -> dict[tuple[str, int], int]:
        now_ms = time.time_ns() // 1_000_000
        starts: dict[str, str | int] = {BOOK.name: now_ms - BOOKS_BACK_MS, STATUS.name: "beginning"}
        ends = {t.name: "end" for t in (TRADE, INSTRUMENT, LIMITS, CONTROL, RISK, ORDER, FILL)}
        positions = start_positions(self.settings, starts | ends | {INTENT.name: now_ms - BACK_MS})
        for topic in (INSTRUMENT, LIMITS, CONTROL):
            for record in read_all(self.settings, topic.name):
                self._take(record, live=False)
        for record in read_all(self.settings, LEDGER.name):
            entry = codec("LedgerEntry").decode(record.value or b"")
            self.desk.account(entry["account"]).take_entry(entry)
        for topic in (FILL, INTENT, RISK, ORDER):
            for record in read_all(self.settings, topic.name, "beginning" if topic is FILL else now_ms - BACK_MS):
                self._take(record, live=False)
        for accounts in self.desk.accounts.values():
            self.desk.refresh(accounts)
        return positions

    async def _open(self, name: str, config: AccountConfig) -> None:
        venue = name.partition(":")[0]
        paper_held = dict(self.desk.account(name).balances) or config.amounts()
        account = account_of(
            name, config, self.desk.books, self.desk.terms, paper_held, self._run,
            live=self.config.live, arm_file=self.config.arm_file,
        )  # fmt: skip
        caps = EgressCaps(config.orders_per_minute, config.notional_per_minute)
        budget = RateBudget(config.requests_per_minute, reserve=config.requests_per_minute // 5)
        gateway = Gateway(
            account, KafkaJournal(self.settings, name), self.desk, self.clock, Egress(caps), self._whole_notional, budget
        )
        self.gateways[name] = gateway
        await account.start()
        for scope in ("all", f"venue:{venue}", f"account:{name}"):
            if (known := self.desk.risk.control.get(scope)) is not None and known["state"] == "KILL":
                gateway.killed = known["reason"] or "killed"
        await gateway.start()
        # Journalled, and not published when the process died: consumers tell repeated fills from new ones.
        for fill in gateway.past_fills:
            if not self.desk.account(name).knows(fill):
                self.desk.fill(fill)
        gateway.past_fills.clear()
        for intent_id in sorted(self._past_accepted & self._past_intents.keys()):
            intent = self._past_intents[intent_id]
            if intent["account"] == name and intent["action"] == "PLACE" and order_id_of(intent_id) not in gateway.orders:
                # Nothing left, and nothing will: whoever waits for it (a hedge group, a strategy) must hear so.
                gone = Order(order_id_of(intent_id), intent, "EXPIRED", cause="accepted, never prepared")
                self.desk.order(gone, "NEW", self.clock.now_ns())
        if isinstance(account, PaperAccount) and self.desk.account(name).balances:
            account.held = dict(self.desk.account(name).balances)
        for order in gateway.unfinished():
            self.desk.reserve(order.intent, order.left)
        self.desk.reconciled(name, await account.balances())
        self._spawn(self._listen(name, gateway))
        self.desk.risk.accounts |= {name}
        self.say(f"{name}: ready, {len(gateway.unfinished())} orders open from before")

    def _whole_notional(self, intent: Record) -> int:
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
        reader = LogReader(self.settings, positions)
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
                if (key := self._take(record, live=True)) is not None:
                    changed[key] = None
            except (DecodeError, TermsError, KeyError, ValueError) as error:
                self.dropped += 1
                log.error("%s[%d]@%d cannot be used: %s", record.topic, record.partition, record.offset, error)
        for key in changed:
            for gateway in self.gateways.values():
                if isinstance(gateway.account, PaperAccount) and key.startswith(f"{gateway.account.venue}|"):
                    gateway.account.on_book(key)
        self._producer.poll(0)

    def _take(self, record: LogRecord, *, live: bool) -> str | None:
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
                desk.books.setdefault(terms.key, LiveBook(terms.venue, terms.symbol))
        elif topic == LIMITS.name:
            desk.risk.limits[value["scope"]] = dict(zip(value["names"], value["limits"], strict=True))
            desk.risk.limits_version = max(desk.risk.limits_version, value["version"])
        elif topic == CONTROL.name:
            self._control(value, live=live)
        elif topic == RISK.name:
            desk.decided(value)
            if not live and value["verdict"] == "ACCEPT":
                self._past_accepted.add(value["intent_id"])
            if value["verdict"] == "REFUSE":
                self._groups.refused(value["intent_id"], self.clock.now_ns())
        elif topic == ORDER.name:
            if value["state"] in OVER:
                self._groups.over(value["intent_id"], value["group_id"], self.clock.now_ns())
        elif topic == FILL.name:
            self._groups.fill(value, self.clock.now_ns())
            if not live and value["account"] in self.config.accounts:
                self.desk.account(value["account"]).take_fill(value)
        elif topic == INTENT.name:
            self._groups.intent(value)
            if live:
                with following("judge", record.context, {"intent.id": value["id"], "account": value["account"]}):
                    self._intent(record.value, value)
            else:
                self._past_intents[value["id"]] = value
        return None

    def _intent(self, raw: bytes, intent: Record) -> None:
        name = intent["account"]
        if name not in self.config.accounts or intent["id"] in self.desk.risk.judged:
            return
        self.desk.risk.now_ns = self.clock.now_ns()
        if intent["leg_mode"] in ("SEQUENTIAL", "HEDGE_OF"):
            verdict = Verdict("leg_mode", intent["leg_mode"], "SINGLE or SIMULTANEOUS", ())
        elif intent["mode"] not in ("LIVE", "PAPER") or (intent["mode"] == "PAPER") != self.config.accounts[name].paper:
            verdict = Verdict("mode", intent["mode"], "LIVE for real accounts, PAPER for paper", ())
        else:
            verdict = judge(intent, self.desk.risk)
        self.desk.judged(intent, verdict)
        if verdict.accepted:
            self._spawn(self._act(name, raw, intent))

    async def _act(self, name: str, raw: bytes, intent: Record) -> None:
        gateway = self.gateways[name]
        try:
            with following("place", current(), {"intent.id": intent["id"], "account": name}):
                if intent["action"] == "CANCEL":
                    await gateway.cancel(f"vm{intent['target_id']}")
                else:
                    await gateway.submit(raw, intent)
        except Fenced as error:
            self._fenced(name, error)

    # Stopping.

    def _control(self, control: Record, *, live: bool) -> None:
        known = self.desk.risk.control.get(control["scope"])
        if known is not None and known["version"] >= control["version"]:
            return
        self.desk.risk.control[control["scope"]] = control
        self.desk.risk.control_version = max(self.desk.risk.control_version, control["version"])
        if not live:
            return
        for name, gateway in self.gateways.items():
            if control["scope"] in ("all", f"venue:{name.partition(':')[0]}", f"account:{name}"):
                if control["state"] == "KILL":
                    gateway.killed = control["reason"] or "killed"  # at once, before any task runs
                    self._spawn(self._kill(name, gateway, control))
                else:
                    gateway.resume()
        if control["state"] == "KILL" and control["scope"].startswith("strategy:"):
            strategy = control["scope"].partition(":")[2]
            for gateway in self.gateways.values():
                for order in gateway.unfinished():
                    if order.intent["strategy"] == strategy:
                        self._spawn(gateway.cancel(order.order_id))

    async def _kill(self, name: str, gateway: Gateway, control: Record) -> None:
        began = time.monotonic()
        sure = await gateway.resolver.kill(control["reason"] or "killed")
        took = (time.monotonic() - began) * 1000
        self.say(f"{name}: killed by {control['by']}: {'no open orders' if sure else 'NOT SURE'} after {took:.0f} ms")

    # Running.

    async def run(self) -> None:
        """Load the past, open the accounts, trade until ``stop``. Raises AccountError, BusError."""
        loop = asyncio.get_running_loop()
        positions = await asyncio.to_thread(self._load)
        reader = threading.Thread(target=self._read, args=(loop, positions), daemon=True, name="executor-log")
        reader.start()
        try:
            for name, config in self.config.accounts.items():
                await self._open(name, config)
            self.resolved = True
            while not self.stop.is_set():
                await self._housekeeping()
        finally:
            self.stop.set()
            for gateway in self.gateways.values():
                await gateway.account.close()
                await gateway.journal.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.to_thread(reader.join, 3)
            self._producer.flush(10)

    async def _housekeeping(self) -> None:
        for turn in range(20):
            if self.stop.is_set():
                return
            await asyncio.sleep(0.25)
            self._producer.poll(0)
            self._hedge()
            if turn % 4 == 0:
                self.desk.equity()
        for name, gateway in self.gateways.items():
            try:
                await gateway.resolver.sweep()
                self.desk.reconciled(name, await gateway.account.balances())
                await gateway.account.keep_alive(60)
            except Fenced as error:
                self._fenced(name, error)
            except Exception as error:  # one account's trouble must not stop the others
                log.warning("%s: housekeeping failed: %s", name, error)

    def _hedge(self) -> None:
        orders, alarms = self._groups.due(self.clock.now_ns())
        for order in orders:
            if order["account"] in self.config.accounts:
                self._groups.intent(order)
                self._send(INTENT.name, "OrderIntent", order["account"], order)
        for text in alarms:
            self.desk.alarm(text)

    def _spawn(self, work: Any) -> None:
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
