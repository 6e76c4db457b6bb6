"""Strategies and orders as processes on a real Kafka: an arbitrage on paper, explained, decided again, killed, restarted."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bus.topics import apply
from cli.trade_views import newest_by, records
from config.settings import Settings
from schemas.codec import codec
from schemas.topics import BOOK, TOPICS
from strategies.registry import load_config
from strategies.runner import Runner
from tests.conftest import ROOT, program
from tests.trading_world import instrument

pytestmark = pytest.mark.broker

LIMITS = {
    "max_intent_age_ms": "2000", "max_book_age_ms": "60000", "price_collar_bps": "500", "median_collar_bps": "500",
    "max_order_notional": "200000", "max_position_notional": "400000", "max_asset_notional": "800000",
    "max_total_notional": "2000000", "max_open_orders": "50", "max_orders_per_minute": "2000",
    "max_cancels_per_minute": "500", "max_drawdown": "100000", "max_group_notional": "400000", "duplicate_window_ms": "10",
}  # fmt: skip


DECISIONS = 1000


def signed(fill: dict[str, Any]) -> Decimal:
    return Decimal(fill["size"]).scaleb(fill["size_exp"]) * (1 if fill["side"] == "BUY" else -1)


class Floor:
    """Two mirrored venues made by hand, and the processes that trade on them."""

    def __init__(self, settings: Settings, work: Path, unique: str, run_cli: Callable[..., Any]) -> None:
        from bus.producer import Producer

        self.settings, self.work, self.unique, self._cli = settings, work, unique, run_cli
        self.venues = (f"a-{unique}", f"b-{unique}")
        self.strategy = f"xv-{unique}"
        self.env = {"KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers}
        self.producer = Producer(settings, linger_ms=0)
        self.processes: list[subprocess.Popen[str]] = []
        self.index: dict[str, int] = {}
        self.ahead_ns = 0
        """How far the books' clock is ahead of this machine's."""
        self.rnd = random.Random(1)
        symbol = self.symbol = "BTC/USDT"
        now = time.time_ns()
        for venue in self.venues:
            self._put("market.instrument", venue, instrument(venue, symbol, ts_ns=now))
            self._put("market.status", venue, {
                "venue": venue, "symbol": symbol, "state": "LIVE", "reason": "", "epoch": 1, "since_ns": now, "owner": "",
            })  # fmt: skip
            self.book(venue, 5_000_000)
        self.producer.flush()

    def _put(self, topic: str, venue: str, value: dict[str, Any]) -> None:
        self.producer.send(topic, f"{venue}|{self.symbol}", codec(TOPICS[topic].record).encode(value))

    def book(self, venue: str, mid: int) -> None:
        """A whole book around a mid: each comes as a new SNAPSHOT would inside of its epoch, as a DELTA of all levels."""
        index = self.index[venue] = self.index.get(venue, -1) + 1
        bids, asks = ([(mid + s * (100 + 100 * i), self.rnd.randint(100, 900)) for i in range(5)] for s in (-1, 1))
        old = getattr(self, f"_old_{venue}", ([], []))
        setattr(self, f"_old_{venue}", (bids, asks))
        gone = [[(p, 0) for p, _ in was if p not in dict(now)] for was, now in zip(old, (bids, asks), strict=True)]
        self._event(venue, "DELTA" if index else "SNAPSHOT", gone[0] + bids, gone[1] + asks)
        if index % 10 == 9:
            self._event(venue, "KEYFRAME", bids, asks)

    def balance(self, venue: str, asset: str, units: int) -> None:
        """What an account is said to hold."""
        self.producer.send("orders.balance", f"{venue}:paper|{asset}", codec("Balance").encode({
            "account": f"{venue}:paper", "asset": asset, "ledger": units, "venue_total": units, "venue_free": units,
            "exp": 0, "state": "OK", "ts_ns": time.time_ns(),
        }))  # fmt: skip

    def _event(self, venue: str, kind: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]]) -> None:
        index = self.index[venue]
        self._put(BOOK.name, venue, {
            "venue": venue, "symbol": self.symbol, "kind": kind, "epoch": 1, "index": index,
            "venue_seq": index, "venue_prev_seq": index - 1, "ts_venue_us": 0, "ts_received_ns": time.time_ns() + self.ahead_ns,
            "price_exp": -2, "size_exp": -3, "bid_prices": [p for p, _ in bids], "bid_sizes": [s for _, s in bids],
            "ask_prices": [p for p, _ in asks], "ask_sizes": [s for _, s in asks], "venue_checksum": None,
        })  # fmt: skip

    def play(self, seconds: float, rate: float = 40) -> None:
        """Books that wander apart, for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for venue in self.venues:
                self.book(venue, 5_000_000 + self.rnd.randint(-300, 300) * 100)
            self.producer.poll(0)
            time.sleep(1 / rate)
        self.producer.flush()

    def files(self) -> tuple[Path, Path]:
        """(strategy file, accounts file)."""
        strategy, accounts = self.work / "xv.toml", self.work / "accounts.toml"
        strategy.write_text(
            f'kind = "cross_venue"\nname = "{self.strategy}"\n[parameters]\nvenues = {json.dumps(self.venues)}\n'
            'max_notional = "20000"\nhaircut_bps = "0"\ncooldown_ms = 20\nvalid_ms = 1500\n'
        )
        accounts.write_text("".join(
            f'[accounts."{v}:paper"]\nadapter = "paper"\nnotional_per_minute = 50000000\nlatency_ms = 2\n'
            f'[accounts."{v}:paper".balances]\nUSDT = "1000000"\nBTC = "20"\n' for v in self.venues
        ))  # fmt: skip
        return strategy, accounts

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a process of the program and wait for the line that says that it runs."""
        log = (self.work / f"{arguments[0]}-{len(self.processes)}.log").open("w+")
        process = subprocess.Popen(
            [*program(), *arguments], cwd=self.work, env={**os.environ, "PYTHONPATH": str(ROOT), **self.env}, stderr=log,
            stdout=log, text=True,
        )  # fmt: skip
        self.processes.append(process)
        wanted = 2 if arguments[0] == "execute" else 1
        deadline = time.monotonic() + 240
        while (text := Path(log.name).read_text()).count(": ready") + text.count("runs PAPER") < wanted:
            assert process.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.1)
        return process

    def cli(self, *arguments: str) -> Any:
        """Run a command to its end."""
        return self._cli(*arguments, env=self.env, timeout_s=240)

    def mine(self, topic: str) -> list[dict[str, Any]]:
        """Records of this test's accounts."""
        return [r for r in records(self.settings, topic) if r.get("account", "").partition(":")[0] in self.venues]

    def fills(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Each execution once."""
        return {(f["account"], f["trade_id"], f["side"]): f for f in self.mine("orders.fill")}

    def left_over(self) -> dict[str, Decimal]:
        """What the fills of each group left of the base."""
        out: dict[str, Decimal] = {}
        for f in self.fills().values():
            out[f["group_id"]] = out.get(f["group_id"], Decimal(0)) + signed(f)
        return {group: total for group, total in out.items() if total}

    def page(self, path: str) -> str:
        """What the newest executor's own page says."""
        log = max(self.work.glob("execute-*.log"), key=lambda file: int(file.stem.rpartition("-")[2]))
        [url] = re.findall(r"^metrics (http://127\.0\.0\.1:\d+)/metrics$", log.read_text(), re.MULTILINE)
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            return answer.read().decode()

    def told(self) -> str:
        """What the processes wrote, and the intents that nobody closed."""
        logs = "\n".join(f"{p.name}: {p.read_text()[-2000:]}" for p in sorted(self.work.glob("*.log")))
        states = {e["intent_id"]: e["state"] for e in self.mine("orders.event")}
        verdicts = {r["intent_id"]: (r["verdict"], r["rule"]) for r in self.mine("orders.risk")}
        last = [(i["id"], verdicts.get(i["id"]), states.get(i["id"]), i["created_ns"]) for i in self.mine("orders.intent")]
        return f"{logs}\nnow {time.time_ns()}\n" + "\n".join(map(str, last[-20:]))

    def stop(self) -> None:
        """End what was started."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def floor(
    kafka: str, settings: Callable[..., Settings], tmp_path: Path, unique: str, run_cli: Callable[..., Any]
) -> Iterator[Floor]:
    own = settings(kafka={"bootstrap_servers": kafka})
    apply(own)
    made = Floor(own, tmp_path, unique, run_cli)
    yield made
    made.stop()


def test_an_arbitrage_on_paper_from_book_to_money(floor: Floor) -> None:
    strategy, accounts = floor.files()
    told = floor.cli("limits", "set", "global", *(f"{k}={v}" for k, v in LIMITS.items()), "--reason", "test")
    assert told.returncode == 0, told.stderr
    assert floor.cli("resume", "--all", "--reason", "test").returncode == 0
    executor = floor.start("execute", str(accounts))
    trader = floor.start("trade", str(strategy), "--mode", "paper")
    deadline = time.monotonic() + 180
    while len(floor.mine("orders.fill")) < 4 and time.monotonic() < deadline:
        floor.play(3)
    time.sleep(3)
    intents, fills = floor.mine("orders.intent"), floor.mine("orders.fill")
    decisions = {r["intent_id"]: r for r in floor.mine("orders.risk")}
    assert len(intents) >= 4
    assert {i["id"] for i in intents} <= set(decisions), "every intent has its verdict"
    assert fills, [(d["rule"], d["measured"], d["bound"]) for d in decisions.values()][:5]

    # kill -9 of both in mid-stream; they come back and go on.
    trader.kill()
    floor.play(1)
    executor.send_signal(signal.SIGKILL)
    executor.wait()
    trader.wait()
    floor.start("execute", str(accounts))
    floor.start("trade", str(strategy), "--mode", "paper")
    before, deadline = len(floor.mine("orders.fill")), time.monotonic() + 180
    while len(floor.mine("orders.fill")) == before and time.monotonic() < deadline:
        floor.play(3)
    assert len(floor.mine("orders.fill")) > before, "both go on where they were"
    killed = floor.cli("kill", "--strategy", floor.strategy, "--reason", "enough")
    assert killed.returncode == 0, killed.stdout + killed.stderr
    assert re.search(r"KILL, version \d+, offset \d+", killed.stdout.splitlines()[0])
    assert killed.stdout.count(": KILLED, none of its orders is open") == 2, killed.stdout
    assert json.loads(floor.page("/readyz"))["ready"]
    shown = floor.page("/metrics")
    assert f'executor_stopped{{scope="strategy:{floor.strategy}",state="KILL"}} 1.0' in shown
    assert f'executor_ready{{account="{floor.venues[0]}:paper"}} 1.0' in shown
    assert f'executor_unknown_orders{{account="{floor.venues[0]}:paper"}} 0.0' in shown
    killed_ns = time.time_ns()
    later, deadline = list[dict[str, Any]](), time.monotonic() + 180
    while not later and time.monotonic() < deadline:
        floor.play(2)
        later = [d for d in floor.mine("orders.risk") if d["ts_ns"] > killed_ns + 1_000_000_000]
    hedges = {i["id"] for i in floor.mine("orders.intent") if i["strategy_version"] == "hedge"}
    later = [d for d in later if d["intent_id"] not in hedges]
    assert later, floor.told()
    assert {(d["verdict"], d["rule"]) for d in later} == {("REFUSE", "control")}

    # What groups left over is closed although the strategy is killed, or stands in a record that says how much it is.
    groups = {i["group_id"] for i in floor.mine("orders.intent")}
    residuals, deadline = dict[str, dict[str, Any]](), time.monotonic() + 240
    while time.monotonic() < deadline:
        floor.play(1)
        residuals = {r["group_id"]: r for r in records(floor.settings, "orders.residual") if r["group_id"] in groups}
        if floor.left_over() == {g: t for g, r in residuals.items() if (t := sum(map(Decimal, r["amounts"])))} and not any(
            r["state"] == "HEDGING" for r in residuals.values()
        ):
            break
    shown = {g: sum(map(Decimal, r["amounts"])) for g, r in residuals.items() if r["state"] != "CLOSED"}
    assert floor.left_over() == shown, f"{residuals}\n{floor.told()}"
    assert all(r["state"] in ("CLOSED", "DUST", "UNHEDGED") for r in residuals.values()), residuals
    assert all(r["assets"] == ["BTC"] for g, r in residuals.items() if g in shown)
    alarmed = {n["group_id"] for n in records(floor.settings, "orders.notice") if n["kind"] == "ALARM"}
    assert {g for g, r in residuals.items() if r["state"] == "UNHEDGED"} == alarmed & groups

    # The ledger against the account's own balances; positions against fills.
    totals, venue = dict[tuple[str, str], Decimal](), dict[tuple[str, str], Decimal]()
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        totals = dict[tuple[str, str], Decimal]()
        for entry in {r["id"]: r for r in floor.mine("orders.ledger")}.values():
            key = (entry["account"], entry["asset"])
            totals[key] = totals.get(key, Decimal(0)) + Decimal(entry["amount"]).scaleb(entry["amount_exp"])
        state = {(r["account"], r["asset"]): r for r in floor.mine("orders.balance")}
        venue = {k: Decimal(r["venue_total"]).scaleb(r["exp"]) for k, r in state.items() if r["state"] == "OK"}
        if venue == totals:
            break
        time.sleep(0.5)
    assert len(totals) == 4
    assert venue == totals
    moved: dict[str, Decimal] = {}
    unique = floor.fills()
    for f in unique.values():
        moved[f["account"]] = moved.get(f["account"], Decimal(0)) + signed(f)
    positions = {r["account"]: r for r in floor.mine("orders.position")}
    assert {a: Decimal(p["size"]).scaleb(p["size_exp"]) for a, p in positions.items()} == moved
    assert sum(moved.values()) == sum(shown.values()), "what one side bought the other sold, but for what is said"
    placed = [r["order_id"] for r in floor.mine("orders.journal") if r["step"] == "PREPARED"]
    assert len(placed) == len(set(placed)), "no order was sent twice"

    # Why, and again.
    decided = {i["id"] for i in floor.mine("orders.intent") if i["strategy_version"] != "hedge"}
    order_id = next(f["order_id"] for f in unique.values() if f["intent_id"] in decided)
    why = floor.cli("why", order_id)
    assert why.returncode == 0, why.stderr
    for word in ("intent ", "opportunity ", "risk ACCEPT", "PREPARED → SENDING", "fill ", "  ask", "  bid"):
        assert word in why.stdout, why.stdout
    again = floor.cli("rerun", order_id[2:])
    assert again.returncode == 0, again.stdout + again.stderr
    everything = floor.cli("rerun", "ALL", "--strategy", floor.strategy)
    assert everything.returncode == 0, everything.stdout + everything.stderr
    changed = floor.work / "changed.py"
    changed.write_text(
        "from strategies.cross_venue import CrossVenue\n\n\nclass Changed(CrossVenue):\n    version = '2'\n\n"
        "    def _cap(self, walk, bt, st):\n        return super()._cap(walk, bt, st) // 2\n"
    )
    differs = floor.cli("rerun", order_id[2:], "--code", str(changed))
    assert differs.returncode == 1
    assert "differs" in differs.stdout or "something else" in differs.stdout
    changed.write_text("from strategies.cross_venue import CrossVenue\n\n\nclass Same(CrossVenue):\n    version = '3'\n")
    assert floor.cli("rerun", order_id[2:], "--code", str(changed)).returncode == 0
    for view in ("opps", "orders", "fills", "positions", "balances", "notices", "pnl", "status"):
        shown = floor.cli(view, "--json")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout.splitlines()[0])
    assert newest_by(floor.settings, "orders.limits", "scope")[0]["names"] == sorted(LIMITS)


def test_a_thousand_decisions_are_made_again_byte_for_byte(floor: Floor) -> None:
    strategy, _ = floor.files()
    strategy.write_text(strategy.read_text() + "max_age_ms = 100000000\nadverse_bps_per_s = '0'\n")
    for venue in floor.venues:
        floor.balance(venue, "USDT", 100_000_000)
        floor.balance(venue, "BTC", 1_000)
    floor.producer.flush()
    runner = Runner(floor.settings, load_config(strategy), "PAPER", snapshot_s=1)
    runner.start()
    deadline = time.monotonic() + 180
    while runner.loop.counts.intents < DECISIONS and time.monotonic() < deadline:
        # No gateway answers: an intent counts as lost after eleven seconds of the books' clock.
        floor.ahead_ns += 12_000_000_000
        for venue in floor.venues:
            floor.book(venue, 5_000_000 + floor.rnd.randint(-300, 300) * 100)
        floor.producer.flush()
        runner.step()
    runner.close()
    intents = [i for i in records(floor.settings, "orders.intent") if i["strategy"] == floor.strategy]
    again = floor.cli("rerun", "ALL", "--strategy", floor.strategy)
    assert again.returncode == 0, again.stdout + again.stderr
    found = re.fullmatch(r"(\d+) of (\d+) recorded intents were decided again, byte for byte; 0 others\n", again.stdout)
    assert found, again.stdout
    assert int(found[1]) == int(found[2]) == len(intents) >= DECISIONS
    for intent in floor.rnd.sample(intents, 2):
        one = floor.cli("rerun", intent["id"])
        assert one.returncode == 0, one.stdout + one.stderr
        assert "byte for byte the same" in one.stdout
    other = floor.work / "other.py"
    other.write_text(
        "from strategies.cross_venue import CrossVenue\n\n\nclass Other(CrossVenue):\n    version = '2'\n\n"
        "    def _cap(self, walk, bt, st):\n        return super()._cap(walk, bt, st) // 2\n"
    )
    differs = floor.cli("rerun", "ALL", "--strategy", floor.strategy, "--code", str(other))
    assert differs.returncode == 1
    found = re.match(r"(\d+) of (\d+) recorded intents", differs.stdout)
    assert found, differs.stdout
    assert int(found[1]) < int(found[2]) == len(intents)


def test_wrong_files_and_missing_things_are_said(floor: Floor) -> None:
    bad = floor.work / "bad.toml"
    bad.write_text('kind = "nothing"\nname = "x"\n')
    told = floor.cli("trade", str(bad))
    assert told.returncode == 64
    assert "cross_venue" in told.stderr
    bad.write_text('kind = "cross_venue"\nname = "x"\n[parameters]\nmax_notional = 5.5\n')
    assert "max_notional" in floor.cli("trade", str(bad)).stderr
    bad.write_text('[accounts."a:main"]\nadapter = "paper"\nnotional_per_minute = 1\n')
    assert floor.cli("execute", str(bad)).returncode == 64
    assert floor.cli("kill").returncode == 64
    assert floor.cli("limits", "set", "global", "max_dreams=1", "--reason", "x").returncode == 64
    assert floor.cli("why", "nobody").returncode == 1
    assert floor.cli("resume", "--all").returncode == 2
