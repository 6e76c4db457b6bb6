"""A market maker and an arbitrage on one account, as processes on a real Kafka: they never meet, and none waits for ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.test_trading import LIMITS, Floor, floor

pytestmark = pytest.mark.broker
__all__ = ["floor"]

OVER = {"FILLED", "CANCELED", "REJECTED", "EXPIRED", "NEVER_EXISTED"}
FEES = 'maker_bps = "10"\ntaker_bps = "10"\n'


def lives(floor: Floor) -> list[dict[str, Any]]:
    """Each order that left, with the time from before its socket write until its end was known."""
    out: dict[str, dict[str, Any]] = {}
    for e in floor.mine("orders.event"):
        one = out.setdefault(e["order_id"], e | {"from_ns": e["ts_ns"], "to_ns": 1 << 62})
        if e["state"] == "SENDING":
            one |= {"from_ns": e["ts_ns"], "left": True}
        if e["state"] in OVER:
            one["to_ns"] = min(one["to_ns"], e["ts_ns"])
    return [one for one in out.values() if "left" in one]


def history(floor: Floor, *orders: dict[str, Any]) -> str:
    """What was written of these orders, in order of time."""
    ids = {o["order_id"] for o in orders}
    events = sorted((e for e in floor.mine("orders.event") if e["order_id"] in ids), key=lambda e: e["ts_ns"])
    return "\n".join(f"{e['ts_ns'] // 1000} {e['order_id']} {e['state']} {e['cause']}" for e in events)


def met(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two orders were out at the same time at prices that meet."""
    if a["account"] != b["account"] or a["side"] != "BUY" or b["side"] != "SELL" or a["price"] < b["price"]:
        return False
    return a["from_ns"] < b["to_ns"] and b["from_ns"] < a["to_ns"]


@pytest.mark.parametrize("amend", [False, True], ids=["cancels", "amends"])
def test_a_maker_and_a_taker_share_an_account(floor: Floor, amend: bool) -> None:
    strategy, accounts = floor.files()
    maker = floor.work / "mm.toml"
    name = f"mm-{floor.unique}"
    # Quotes a long way inside of the books' own spread, and rarely moved: the arbitrage always finds them in its way.
    maker.write_text(
        f'kind = "market_making"\nname = "{name}"\n[fees.{floor.venues[0]}]\n{FEES}[parameters]\n'
        f'venues = ["{floor.venues[0]}"]\nsymbols = ["BTC/USDT"]\nsize = "0.01"\nmax_inventory = "5"\na = "1"\nk = "50"\n'
        'sigma = "0.001"\ngamma = "0.0001"\nmin_requote_ms = 100\nrequote_ticks = 100\nvalid_ms = 1500\n'
        f"amend = {str(amend).lower()}\n"
    )
    told = floor.cli("limits", "set", "global", *(f"{k}={v}" for k, v in LIMITS.items()), "--reason", "test")
    assert told.returncode == 0, told.stderr
    assert floor.cli("resume", "--all", "--reason", "test").returncode == 0
    floor.start("execute", str(accounts))
    floor.start("trade", str(maker), "--mode", "paper")
    floor.start("trade", str(strategy), "--mode", "paper")

    def made_way() -> list[dict[str, Any]]:
        return [r for r in floor.mine("orders.risk") if r["made_way"] and r["verdict"] == "ACCEPT"]

    deadline = time.monotonic() + 180
    while len(made_way()) < 20 and time.monotonic() < deadline:
        floor.play(3)
    ways = made_way()
    assert len(ways) >= 20, floor.told()
    time.sleep(2)
    # Trading goes on, and a topic's partitions are read one after the other: an order may be seen in one of them before the
    # earlier end of another is seen in the next. Whatever came before it stands in what is read after it was seen.
    seen = {o["order_id"] for o in lives(floor)}
    later = lives(floor)
    orders = [o for o in later if o["order_id"] in seen]
    buys, sells = ([o for o in orders if o["side"] == side] for side in ("BUY", "SELL"))
    assert not [(a["order_id"], b["order_id"]) for a in buys for b in sells if met(a, b)], "never both out at prices that meet"
    verdicts = {r["intent_id"]: r for r in floor.mine("orders.risk")}
    decided = {i["id"]: i for i in floor.mine("orders.intent")}
    for who in (name, floor.strategy):
        ids = [i for i, intent in decided.items() if intent["strategy"] == who and intent["action"] == "PLACE" and i in verdicts]
        accepted = [i for i in ids if verdicts[i]["verdict"] == "ACCEPT"]
        assert len(accepted) >= 5, f"{who}: {len(accepted)} of {len(ids)}\n{floor.told()}"
        filled = [f for f in floor.fills().values() if f["strategy"] == who]
        assert filled or who == name, floor.told()
    # The maker quotes again after it gave way.
    first = min(w["ts_ns"] for w in ways)
    assert any(o["strategy"] == name and o["from_ns"] > first for o in orders), floor.told()
    # An amend's order leaves only after the end of the one that it replaces.
    by_intent, replaced = ({o["intent_id"]: o for o in some} for some in (orders, later))
    pairs = [(replaced.get(i["target_id"]), by_intent[i["id"]]) for i in decided.values() if i["amend"] and i["id"] in by_intent]
    assert bool(pairs) == amend, floor.told()
    early = [(old, new) for old, new in pairs if old is not None and old["to_ns"] > new["from_ns"]]
    assert not early, history(floor, *early[0])
    # Both sides of the story are told, where the one that was in the way did not end by itself meanwhile.
    causes = {e["intent_id"]: e["cause"] for e in floor.mine("orders.event") if e["state"] == "CANCELED"}
    way = next(w for w in ways if causes.get(w["made_way"][0], "").startswith("makes way"))
    why = floor.cli("why", f"vm{way['intent_id']}")
    assert f"vm{way['made_way'][0]} made way" in why.stdout, why.stdout
    why = floor.cli("why", f"vm{way['made_way'][0]}")
    assert "CANCELED makes way for vm" in why.stdout, why.stdout
