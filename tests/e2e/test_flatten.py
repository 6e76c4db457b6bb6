"""A kill that flattens, as a command on a real Kafka: what the strategy had bought and sold is closed, and verified."""

from __future__ import annotations

import threading
import time
from decimal import Decimal

import pytest

from tests.e2e.test_trading import LIMITS, Floor, floor

pytestmark = pytest.mark.broker
__all__ = ["floor"]


def positions(floor: Floor) -> dict[str, Decimal]:
    """Signed size by account, where it is not nothing."""
    newest = {r["account"]: Decimal(r["size"]).scaleb(r["size_exp"]) for r in floor.mine("orders.position")}
    return {account: size for account, size in newest.items() if size}


def test_a_kill_with_flatten_leaves_no_order_and_no_position(floor: Floor) -> None:
    strategy, accounts = floor.files()
    told = floor.cli("limits", "set", "global", *(f"{k}={v}" for k, v in LIMITS.items()), "--reason", "test")
    assert told.returncode == 0, told.stderr
    assert floor.cli("resume", "--all", "--reason", "test").returncode == 0
    floor.start("execute", str(accounts))
    floor.start("trade", str(strategy), "--mode", "paper")
    deadline = time.monotonic() + 240
    while len(positions(floor)) < 2 and time.monotonic() < deadline:
        floor.play(2)
    held = positions(floor)
    assert len(held) == 2, floor.told()

    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            floor.play(0.5)

    market = threading.Thread(target=go_on)
    market.start()
    try:
        killed = floor.cli("kill", "--all", "--flatten", "--reason", "enough")
    finally:
        over.set()
        market.join()
    assert killed.returncode == 0, killed.stdout + killed.stderr + floor.told()
    assert positions(floor) == {}, floor.told()
    closing = [i for i in floor.mine("orders.intent") if i["strategy_version"] == "flatten"]
    assert closing
    assert all(i["reduce_only"] and i["time_in_force"] == "IOC" for i in closing)
    states = {e["order_id"]: e["state"] for e in floor.mine("orders.event")}
    assert set(states.values()) <= {"FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED"}, states
