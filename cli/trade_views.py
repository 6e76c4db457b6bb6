"""Orders, fills, positions, balances and profit, read from the log; and single records written to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from bus.errors import BusError
from bus.log_reader import LogReader, read_all, start_positions
from config.settings import Settings
from market.decimals import format_decimal
from schemas.codec import codec
from schemas.topics import TOPICS

Record = dict[str, Any]
BACK_MS = 24 * 3_600_000


def records(settings: Settings, topic: str, start: str | int = "beginning") -> list[Record]:
    """All records of a topic, decoded, oldest first."""
    decode = codec(TOPICS[topic].record).decode
    return [decode(r.value) for r in read_all(settings, topic, start) if r.value is not None]


def newest_by(settings: Settings, topic: str, field: str) -> list[Record]:
    """The newest record of each value of a field, in the order in which the values first came."""
    newest: dict[str, Record] = {}
    for record in records(settings, topic):
        newest[record[field]] = record
    return list(newest.values())


def write(settings: Settings, topic: str, record: str, key: str, value: Record) -> int:
    """Write one record and wait until it is durable; gives its offset. Raises BusError."""
    from confluent_kafka import Producer

    from bus.connection import client_config

    result: list[Any] = []
    producer = Producer({**client_config(settings), "acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"})
    producer.produce(topic, codec(record).encode(value), key, on_delivery=lambda error, message: result.append((error, message)))
    producer.flush(30)
    if not result or result[0][0] is not None:
        raise BusError(f"{topic} was not written: {result[0][0] if result else 'no answer within 30 s'}")
    return result[0][1].offset()


def _order(r: Record) -> Record:
    return {
        "order": r["order_id"], "account": r["account"], "symbol": r["symbol"], "side": r["side"], "state": r["state"],
        "price": _d(r["price"], r["price_exp"]), "size": _d(r["size"], r["size_exp"]),
        "filled": _d(r["filled"], r["size_exp"]), "strategy": r["strategy"], "cause": r["cause"], "intent": r["intent_id"],
    }  # fmt: skip


def _fill(r: Record) -> Record:
    return {
        "trade": r["trade_id"], "account": r["account"], "symbol": r["symbol"], "side": r["side"],
        "price": _d(r["price"], r["price_exp"]), "size": _d(r["size"], r["size_exp"]),
        "fee": f"{_d(r['fee'], r['fee_exp'])} {r['fee_asset']}", "maker": r["maker"], "order": r["order_id"],
    }  # fmt: skip


def _opportunity(r: Record) -> Record:
    return {
        "id": r["id"], "strategy": r["strategy"], "group": r["group"],
        "edge": f"{_d(r['edge'], r['edge_exp'])} {r['edge_asset']}", "reason": r["reason"],
    }  # fmt: skip


def _position(r: Record) -> Record:
    return {
        "account": r["account"], "symbol": r["symbol"], "size": _d(r["size"], r["size_exp"]),
        "cost": _d(r["cost"], r["cost_exp"]), "realized": f"{_d(r['realized'], r['realized_exp'])} {r['quote']}",
        "fills": r["fills"],
    }  # fmt: skip


def _balance(r: Record) -> Record:
    return {
        "account": r["account"], "asset": r["asset"], "ledger": _d(r["ledger"], r["exp"]),
        "venue": _d(r["venue_total"], r["exp"]), "state": r["state"],
    }  # fmt: skip


def _residual(r: Record) -> Record:
    left = ", ".join(f"{amount} {asset}" for amount, asset in zip(r["amounts"], r["assets"], strict=True))
    return {
        "group": r["group_id"], "strategy": r["strategy"], "account": r["account"], "state": r["state"], "left": left,
        "tries": r["tries"], "cause": r["cause"],
    }  # fmt: skip


def _notice(r: Record) -> Record:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(r["ts_ns"] // 1_000_000_000))
    took = f"{r['took_us'] / 1000:.1f} ms" if r["took_us"] else ""
    return {"at": at, "kind": r["kind"], "account": r["account"], "text": r["text"], "group": r["group_id"], "took": took}


VIEWS: dict[str, tuple[str, Callable[[Record], Record], Callable[[Record], Any] | None]] = {
    "opps": ("derived.opportunity", _opportunity, None),
    "orders": ("orders.event", _order, lambda r: r["order_id"]),
    "fills": ("orders.fill", _fill, lambda r: (r["account"], r["symbol"], r["trade_id"], r["side"])),
    "positions": ("orders.position", _position, lambda r: (r["account"], r["symbol"])),
    "balances": ("orders.balance", _balance, lambda r: (r["account"], r["asset"])),
    "residuals": ("orders.residual", _residual, lambda r: r["group_id"]),
    "notices": ("orders.notice", _notice, None),
}
"""name → (topic, row, what makes a row the same thing as an older one)."""


def rows(settings: Settings, name: str) -> list[Record]:
    """The rows of a view, oldest first."""
    if name == "pnl":
        return _pnl(settings)
    topic, row, same = VIEWS[name]
    start = time.time_ns() // 1_000_000 - BACK_MS if same is None else "beginning"
    newest: dict[Any, Record] = {}
    for number, record in enumerate(records(settings, topic, start)):
        newest[number if same is None else same(record)] = row(record)
    return [row for row in newest.values() if row.get("state") != "CLOSED"]


def _pnl(settings: Settings) -> list[Record]:
    """Realised profit by positions; fees, funding and trades by the ledger's kinds."""
    sums: dict[tuple[str, str, str], int] = {}
    for r in {r["id"]: r for r in records(settings, "orders.ledger")}.values():
        key = (r["account"], r["asset"], r["kind"])
        sums[key] = sums.get(key, 0) + r["amount"] * 10 ** (r["amount_exp"] + 18)
    out = [
        {"account": a, "asset": asset, "what": kind.lower(), "amount": _d(total, -18)}
        for (a, asset, kind), total in sorted(sums.items())
    ]
    for r in records(settings, "orders.position"):
        out = [o for o in out if o["what"] != f"realised {r['symbol']}" or o["account"] != r["account"]]
        realized = _d(r["realized"], r["realized_exp"])
        out.append({"account": r["account"], "asset": r["quote"], "what": f"realised {r['symbol']}", "amount": realized})
    return out


def table(title: str, found: list[Record]) -> None:
    """Print rows."""
    if not found:
        print(f"no {title}")
        return
    shown = Table(title=title)
    for column in found[0]:
        shown.add_column(column)
    for row in found:
        shown.add_row(*(str(v) for v in row.values()))
    Console().print(shown)


def follow(settings: Settings, name: str, as_json: bool) -> None:
    """Print new rows as they come, until Ctrl-C."""
    topic, row, _ = VIEWS[name]
    decode = codec(TOPICS[topic].record).decode
    reader = LogReader(settings, start_positions(settings, {topic: "end"}))
    try:
        while True:
            for record in reader.batch(100, 0.5):
                made = row(decode(record.value or b""))
                print(json.dumps(made) if as_json else "  ".join(str(v) for v in made.values()), flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()


def _d(mantissa: int, exponent: int) -> str:
    return format_decimal(mantissa, exponent)


def status_rows(settings: Settings) -> dict[str, list[Record]]:
    """How things stand, by part: control, accounts, open orders, balances that differ, residuals, alarms of a day."""
    from cli.trade_control import running
    from execution.hedging import OVER

    notices = records(settings, "orders.notice")
    now = time.time_ns()
    unfinished = [r for r in rows(settings, "orders") if r["state"] not in OVER]
    alarms = [_notice(r) for r in notices if r["kind"] == "ALARM" and now - r["ts_ns"] < BACK_MS * 1_000_000]
    return {
        "control": [
            {"scope": r["scope"], "state": r["state"], "version": r["version"], "by": r["by"], "reason": r["reason"]}
            for r in newest_by(settings, "orders.control", "scope")
        ],
        "accounts": [
            {"account": a, "last sign of life": f"{(now - at) / 1e9:.0f} s ago", "orders open": sum(
                r["account"] == a for r in unfinished)} for a, at in sorted(running(notices).items())
        ],
        "open orders": unfinished,
        "positions": [r for r in rows(settings, "positions") if r["size"] != "0"],
        "balances that differ": [r for r in rows(settings, "balances") if r["state"] != "OK"],
        "residuals": rows(settings, "residuals"),
        "alarms of the last 24 hours": alarms[-20:],
    }  # fmt: skip
