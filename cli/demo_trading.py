"""Trading in a demo: arbitrage between its exchanges and against its chain's pools, with play money, and what it came to.

Exchanges are traded with on paper, pools by real swaps on the local chain. Nothing here can reach anything real: the
executor runs without ``--live``, a sandbox account works on a development chain alone, and the Kafka is the demo's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from bus.consumer import TailReader
from cli.demo_chain import DemoChain
from cli.stack import Child, Stack
from cli.trade_views import write
from cli.trade_why import explain
from cli.views import Views
from config.settings import Settings
from execution.accounting import EXP, amount
from execution.hedging import OVER
from execution.orders import ORPHANED
from market.decimals import format_decimal, rescale
from schemas.codec import codec
from schemas.topics import BALANCE, FILL, INTENT, LEDGER, ORDER, POSITION, RESIDUAL, TOPICS
from simulator.evm_market import QUOTE
from simulator.evm_trader import NATIVE

Record = dict[str, Any]
Say = Callable[[str], None]

LIMITS = {
    "max_intent_age_ms": "20000", "max_book_age_ms": "600000", "price_collar_bps": "1000", "median_collar_bps": "1000",
    "max_order_notional": "20000", "max_position_notional": "10000000", "max_asset_notional": "20000000",
    "max_total_notional": "40000000", "max_open_orders": "50", "max_orders_per_minute": "2000",
    "max_cancels_per_minute": "500", "max_drawdown": "10000000", "max_group_notional": "50000", "duplicate_window_ms": "10",
}  # fmt: skip
BASES, POOLED = ("BTC", "SOL", "XRP"), "ETH"
"""What is traded between exchanges, and against pools: on one account no order of one may wait for the other's."""
HELD = {QUOTE: "10000000", "BTC": "20000", "ETH": "2000", "SOL": "1000000", "XRP": "1000000"}
"""What each account on paper begins with."""
FEES = 'maker_bps = "1"\ntaker_bps = "1"\n'
COIN = "ETH"
"""What the chain's own coin is worth as much as."""
SETTLE_S = 120.0
READY_S = 120.0
AT_LEAST_S = 8.0
"""How long is traded, however slow the start was."""
FETCH_BYTES = 65_536
"""What executor and strategies wait up to 100 ms for: on a machine with everything Kafka has enough to do."""
WHY_FILLS, WHY_WIDTH = 3, 160


class DemoTrading:
    """``begin``, then ``line`` for the screen, then ``conclude``, and ``close`` whatever happened."""

    def __init__(self, settings: Settings, stack: Stack, folder: Path, chain: DemoChain | None) -> None:
        self.settings, self.stack, self.folder, self.chain = settings, stack, folder, chain
        self.log = TradeLog(settings)
        kafka = settings.kafka.model_copy(update={"fetch_min_bytes": FETCH_BYTES})
        self._own = settings.model_copy(update={"kafka": kafka})
        self._traders: list[Child] = []
        self._starting: asyncio.Task[None] | None = None
        self._since_s = 0.0

    def begin(self, venues: Sequence[str], say: Say) -> None:
        """Limits, an executor, and the strategies that are possible, while the mirror starts."""
        self._starting = asyncio.create_task(self._start(venues, say))

    async def _start(self, venues: Sequence[str], say: Say) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_permit, self.settings)
        trader = self.chain.trader if self.chain else None
        fees = "".join(f'[fees."{venue}"]\n{FEES}' for venue in venues)
        accounts = self.folder / "accounts.toml"
        chain = (trader / "account.toml").read_text("utf-8") if trader else ""
        accounts.write_text(fees + "".join(map(_paper, venues)) + chain, "utf-8")
        names: Record = tomllib.loads(accounts.read_text("utf-8"))["accounts"]
        executor = await self.stack.start("executor", "execute", str(accounts), settings=self._own)
        strategies = {"cross-venue": _cross_venue(venues)}
        if trader is not None:
            strategies["cex-dex"] = _cex_dex(trader, venues[0], next(n for n, a in names.items() if a["adapter"] == "chain"))
        for name, text in strategies.items():
            path = self.folder / f"{name}.toml"
            path.write_text(text + fees, "utf-8")
            arguments = ("trade", str(path), "--mode", "paper")
            self._traders.append(await self.stack.start(f"trader-{name}", *arguments, settings=self._own))
        wanted = [(executor, ": ready", len(names)), *((child, "runs PAPER", 1) for child in self._traders)]

        def ready() -> bool:
            return all(c.log.read_text("utf-8", "replace").count(text) >= count for c, text, count in wanted)

        await self.stack.until("the executor and the strategies", ready, READY_S)
        self._since_s = time.monotonic()
        say(f"trading with play money: {', '.join(strategies)}")

    async def started(self) -> bool:
        """Whether all runs by now; raises what went wrong."""
        if self._starting is None or not self._starting.done():
            return False
        await self._starting
        return True

    async def line(self) -> str:
        """How much was traded so far."""
        if not await self.started():
            return "starting"
        await asyncio.to_thread(self.log.read)
        return f"orders {len(self.log.orders)}, fills {len(self.log.standing())}, swaps {self.log.swaps()}"

    async def conclude(self, views: Views, stop: asyncio.Event, say: Say) -> bool:
        """Stop deciding, wait until all is over and booked, print what it came to and why one order went out.

        Whether every ledger is what the account's venue itself says, and no group lost its hedge but by somebody's kill.
        """
        if self._starting is not None:
            await self._starting
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.01, self._since_s + AT_LEAST_S - time.monotonic())):
                await stop.wait()
        say("trading: stopping the strategies, and waiting until every order is over and every balance agrees")
        await asyncio.gather(*(self.stack.stop(child) for child in self._traders))
        if self.chain is not None:  # no reorganisation any more: what is mined becomes final
            await views.post_url(f"{self.chain.truth_url}/control/calm")
        why = asyncio.create_task(asyncio.to_thread(self._why))
        deadline, quiet, wrong = time.monotonic() + SETTLE_S, 0, list[str]()
        while time.monotonic() < deadline:
            await asyncio.to_thread(self.log.read)
            wrong = self.log.unfinished() or self.log.differing()
            quiet = 0 if wrong else quiet + 1
            if quiet == 2:  # nothing was on its way between two orders either
                break
            await asyncio.sleep(0.5)
        wrong += await self._differs_from_the_chain()
        log, mids = self.log, _mids(await views.books())
        profit = format_decimal(log.profit(mids) // 10 ** (-EXP - 2), -2)
        print(
            f"orders={len(log.orders)} fills={len(log.standing())} swaps={log.swaps()} pnl={profit}{QUOTE} "
            f"ledger_equal={'NO' if wrong else 'yes'} dust={log.ended('DUST')} unhedged={log.ended('UNHEDGED')}", flush=True,
        )  # fmt: skip
        wrong += (lost := log.unhedged())
        for text in (t for t in log.left_over() if t not in lost):
            say(text)
        for text in wrong[:20]:
            say(f"error: {text}")
        if told := await why:
            print(told, flush=True)
        return not wrong

    def _why(self) -> str:
        """Why one of the orders went out; empty where none traded."""
        log = TradeLog(self.settings)
        try:
            log.read()
        finally:
            log.close()
        if not (decided := log.decided()):
            return ""
        order_id = random.choice(decided)  # noqa: S311 - any will do
        return "\n".join([f"why {order_id}", *short(explain(self.settings, order_id))])

    async def _differs_from_the_chain(self) -> list[str]:
        """The ledger of each address, held against what the node itself says at its newest block."""
        from execution.chain_account import ChainAccount
        from execution.config import load_config

        out: list[str] = []
        for name, config in load_config(self.folder / "accounts.toml").accounts.items():
            if config.chain is None:
                continue
            account = ChainAccount(name, config.chain, {})
            try:
                await account.start()
                held = await account.balances()
            finally:
                await account.close()
            for asset, theirs in held.items():
                ours, whole = self.log.ledger(name).get(asset, 0), amount(theirs.total, theirs.exp)
                if ours != whole:
                    out.append(f"{name} {asset}: ledger {format_decimal(ours, EXP)}, the chain {format_decimal(whole, EXP)}")
        return out

    async def close(self) -> None:
        """Start nothing more, read nothing more."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(BaseException):
                await self._starting
        self.log.close()


class TradeLog:
    """Orders, fills and money of a demo, read from Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.orders: dict[str, Record] = {}
        """order id → its newest event."""
        self.fills: dict[tuple[str, str, str, str], Record] = {}
        self.entries: dict[str, Record] = {}
        self.balances: dict[tuple[str, str], Record] = {}
        self.positions: dict[tuple[str, str], Record] = {}
        self.residuals: dict[str, Record] = {}
        self.intents: dict[str, str] = {}
        """order id → version of the strategy that decided it."""
        self._tail: TailReader | None = None

    def read(self) -> None:
        """Take what is new. Raises BusError."""
        if self._tail is None:
            topics = (INTENT, ORDER, FILL, LEDGER, BALANCE, POSITION, RESIDUAL)
            self._tail = TailReader(self.settings, [t.name for t in topics])
        for message in self._tail.read_to_end():
            if message.value() is not None:
                self.take(message.topic(), codec(TOPICS[message.topic()].record).decode(message.value()))

    def take(self, topic: str, r: Record) -> None:
        """Fold one record."""
        if topic == INTENT.name:
            self.intents[f"vm{r['id']}"] = r["strategy_version"]
        elif topic == ORDER.name:
            self.orders[r["order_id"]] = r
        elif topic == FILL.name:
            self.fills[(r["account"], r["symbol"], r["trade_id"], r["side"])] = r
        elif topic == LEDGER.name:
            self.entries[r["id"]] = r
        elif topic == BALANCE.name:
            self.balances[(r["account"], r["asset"])] = r
        elif topic == POSITION.name:
            self.positions[(r["account"], r["symbol"])] = r
        else:
            self.residuals[r["group_id"]] = r

    def close(self) -> None:
        """Stop reading."""
        if self._tail is not None:
            self._tail.close()

    def standing(self) -> list[Record]:
        """Fills that moved something, less what reorganisations took back."""
        taken = {f["trade_id"] for f in self.fills.values() if f["trade_id"].endswith(ORPHANED)}
        return [f for f in self.fills.values() if f["size"] and not {f["trade_id"], f["trade_id"] + ORPHANED} & taken]

    def swaps(self) -> int:
        """Of those, the ones on a chain."""
        return sum(f["trade_id"].startswith("0x") for f in self.standing())

    def decided(self) -> list[str]:
        """Orders that a strategy decided and that traded."""
        traded = {f["order_id"] for f in self.standing()}
        return sorted(o for o in traded if self.intents.get(o, "hedge") != "hedge")

    def unfinished(self) -> list[str]:
        """Orders that are not over, for good on a chain, and groups that are being closed."""
        over = OVER - {"MINED"}
        out = [f"{o} on {r['account']} is {r['state']}" for o, r in self.orders.items() if r["state"] not in over]
        return out + [f"group {g} is {r['state']}" for g, r in self.residuals.items() if r["state"] == "HEDGING"]

    def ended(self, state: str) -> int:
        """How many hedge groups ended so."""
        return sum(r["state"] == state for r in self.residuals.values())

    def left_over(self, *, unexplained: bool = False) -> list[str]:
        """Each group that is not closed, with what it left over and why."""
        out: list[str] = []
        for group, r in sorted(self.residuals.items()):
            killed = r["cause"].startswith("stopped: ") and " is KILL: " in r["cause"]
            excused = killed or r["state"] == "DUST"
            if r["state"] in ("UNHEDGED", "DUST") and not (unexplained and excused):
                left = ", ".join(f"{n} {a}" for n, a in zip(r["amounts"], r["assets"], strict=True))
                out.append(f"group {group} of {r['strategy']} is {r['state']}: {left} left over; {r['cause']}")
        return out

    def unhedged(self) -> list[str]:
        """Of those, the ones that nothing excuses: DUST is less than any venue takes, and a kill is somebody's wish."""
        return self.left_over(unexplained=True)

    def ledger(self, account: str) -> dict[str, int]:
        """asset → the sum of its entries, at EXP."""
        out: dict[str, int] = {}
        for e in self.entries.values():
            if e["account"] == account:
                out[e["asset"]] = out.get(e["asset"], 0) + amount(e["amount"], e["amount_exp"])
        return out

    def differing(self) -> list[str]:
        """Balances that are not the venue's own, or not the sum of the entries, to the last unit that the record can say."""
        out: list[str] = []
        sums = {account: self.ledger(account) for account, _ in self.balances}
        for (account, asset), b in sorted(self.balances.items()):
            ours, said, theirs = sums[account].get(asset, 0), *(amount(b[n], b["exp"]) for n in ("ledger", "venue_total"))
            if b["state"] != "OK" or said != theirs or abs(ours - said) >= 10 ** (b["exp"] - EXP):
                texts = [format_decimal(v, EXP) for v in (ours, said, theirs)]
                out.append(f"{account} {asset}: entries {texts[0]}, ledger {texts[1]}, venue {texts[2]}, {b['state']}")
        return out

    def profit(self, mids: Mapping[tuple[str, str], int]) -> int:
        """What all accounts gained since they opened at the mids of now (twice, at EXP), fees and gas inside; at EXP."""
        gained: dict[str, int] = {}
        for e in self.entries.values():
            if e["kind"] != "OPENING":
                gained[e["asset"]] = gained.get(e["asset"], 0) + amount(e["amount"], e["amount_exp"])
        spot = {symbol.partition("/")[0]: mid for (_, symbol), mid in sorted(mids.items()) if symbol.endswith(f"/{QUOTE}")}
        total = gained.pop(QUOTE, 0)
        for asset, units in gained.items():
            total += units * spot.get(COIN if asset == NATIVE else asset, 0) // (2 * 10**-EXP)
        for (account, symbol), p in self.positions.items():
            if ":" in symbol and p["size"]:  # what is open of a perpetual is no entry yet
                size, cost = rescale(p["size"], p["size_exp"], EXP), amount(p["cost"], p["cost_exp"])
                total += size * mids.get((account.partition(":")[0], symbol), 0) // (2 * 10**-EXP) - cost
        return total


def _mids(books: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """Of each book with both sides: bid + ask, at EXP."""
    return {
        (b["venue"], b["symbol"]): int((Decimal(b["bid"][0]) + Decimal(b["ask"][0])).scaleb(-EXP))
        for b in books if b["bid"] and b["ask"]
    }  # fmt: skip


def short(told: str) -> list[str]:
    """The chain of causes without the books' levels, and with a few of its fills."""
    lines = [line for line in told.splitlines() if not line.endswith(("  ask", "  bid"))]
    fills = [number for number, line in enumerate(lines) if line.startswith("fill ")]
    if more := fills[WHY_FILLS:]:
        lines[more[0] : more[-1] + 1] = [f"… {len(more)} fills more"]
    return [line if len(line) <= WHY_WIDTH else line[: WHY_WIDTH - 1] + "…" for line in lines]


def _permit(settings: Settings) -> None:
    """The limits, and leave to trade: of play money, nothing else reads this Kafka."""
    now = time.time_ns()
    told = {"version": now // 1_000_000_000, "by": "demo", "reason": "play money", "ts_ns": now}
    names = sorted(LIMITS)
    limits = {"scope": "global", "names": names, "limits": [LIMITS[n] for n in names]}
    write(settings, "orders.limits", "Limits", "global", told | limits)
    write(settings, "orders.control", "Control", "all", told | {"scope": "all", "state": "RUN", "flatten": False})


def _paper(venue: str) -> str:
    held = "".join(f'{asset} = "{units}"\n' for asset, units in HELD.items())
    return (
        f'[accounts."{venue}:paper"]\nadapter = "paper"\nnotional_per_minute = 100000000\norders_per_minute = 6000\n'
        f'requests_per_minute = 60000\n[accounts."{venue}:paper".balances]\n{held}'
    )


def _cross_venue(venues: Sequence[str]) -> str:
    symbols = [f"{base}/{QUOTE}{ending}" for base in BASES for ending in ("", f":{QUOTE}")]
    return (
        f'kind = "cross_venue"\nname = "demo-cross-venue"\n[parameters]\nvenues = {json.dumps(list(venues))}\n'
        f'symbols = {json.dumps(symbols)}\nmax_notional = "2000"\ncooldown_ms = 2000\nvalid_ms = 2000\n'
    )


def _cex_dex(trader: Path, hedge_at: str, account: str) -> str:
    table = "[[parameters.pools]]"
    texts = (trader / "pools.toml").read_text("utf-8").split(table)[1:]
    pools = "".join(table + text for text in texts if f'|{POOLED}/{QUOTE}"' in text)
    listed: list[Record] = tomllib.loads(pools)["parameters"]["pools"]
    venues = dict.fromkeys(p["pool"].partition("|")[0] for p in listed)
    mapping = "".join(f'"{venue}" = "{account}"\n' for venue in venues)
    return (
        f'kind = "cex_dex"\nname = "demo-cex-dex"\n[accounts]\n{mapping}[parameters]\nnative = "{hedge_at}|{COIN}/{QUOTE}"\n'
        f'max_notional = "5000"\ncooldown_ms = 1000\nvalid_ms = 20000\nmax_head_age_ms = 10000\ndepth = 8\n{pools}\n'
    )
