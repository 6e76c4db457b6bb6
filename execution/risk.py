"""The risk gate: one pure function from an intent and what is known to a verdict. No limit, no price, no account: refused.

An amend is a cancel, and then an order that is judged as if the old one were gone, smaller by what that one filled. Where
this is refused, the cancel still counts.

The checks run in the order of CHECKS and stop at the first that refuses. Each names what it measured and the bound it
held that against, as exact texts. Limits come from the topic orders.limits; of all scopes that speak of an intent
(global, its account, its strategy) the strictest counts. Orders that only reduce a position are exempt from the size
caps, not from the price collars. Cancels always pass, within their own share of the rate.

Where nothing but resting orders of our own is in an intent's way, and these must give way to it, the verdict names them
(``Verdict.way``): it is no acceptance. Once they are over at the venue the same function is asked again (make_way.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from execution.flatten import FLATTEN
from execution.hedging import HEDGE
from execution.orders import amends
from execution.risk_state import (
    MINUTE_NS,
    MS,
    UNIT_EXP,
    Missing,
    OpenOrder,
    Record,
    RiskState,
    amount_limit,
    base_units,
    book_of,
    int_limit,
    key_of,
    terms_of_intent,
    units_text,
    value_units,
)
from market.decimals import format_decimal
from market.terms import Terms

BPS = 10_000
AT_ONCE = ("IOC", "FOK")


@dataclass(frozen=True, slots=True)
class Verdict:
    """ACCEPT when ``rule`` is empty."""

    rule: str
    measured: str
    bound: str
    passed: tuple[str, ...]
    way: tuple[str, ...] = ()
    """Intent ids of own resting orders that must be cancelled, and over, before this is judged again."""

    @property
    def accepted(self) -> bool:
        return not self.rule


Found = tuple[str, str] | None
"""(measured, bound) of a refusal; None: passed."""
Check = Callable[[Record, RiskState], Found]


def judge(intent: Record, state: RiskState) -> Verdict:
    """The verdict. Pure: neither the intent nor the state is changed. Never raises: what goes wrong inside is a refusal."""
    passed: list[str] = []
    checks = CANCEL_CHECKS if intent["action"] == "CANCEL" else CHECKS
    if amending := amends(intent):
        checks = (*CANCEL_CHECKS, ("amend", amend), *(pair for pair in CHECKS if pair not in CANCEL_CHECKS))
    for name, check in checks:
        try:
            found = check(intent, state)
            if amending and found is None and name == "amend":
                intent, state = in_its_stead(intent, state)
        except Missing as missing:
            found = (str(missing), "known")
        except Exception as error:  # a gate that cannot tell must stay shut
            found = (f"{type(error).__name__}: {error}", "no error")
        if found is not None:
            return Verdict(name, found[0], found[1], tuple(passed))
        passed.append(name)
    if intent["action"] != "CANCEL" and (way := crossing(intent, state)):
        # An amend waits for nothing but its old order: what is in its way besides is for a new intent to move.
        if amending:
            return Verdict("self_trade", *_met(way[0]), tuple(passed))
        rules = tuple(name for name in passed if name != "self_trade")
        return Verdict("self_trade", *_met(way[0]), rules, tuple(o.intent_id for o in way))
    return Verdict("", "", "", tuple(passed))


def amend(intent: Record, s: RiskState) -> Found:
    old = s.open.get(intent["target_id"])
    if old is None or old.waits:
        return f"{intent['target_id']} is not open", "an order that is out"
    return None if old.account == intent["account"] and old.key == key_of(intent) else (old.key, key_of(intent))


def in_its_stead(intent: Record, s: RiskState) -> tuple[Record, RiskState]:
    """An amend as the order that it places, and the state without the one that is gone by then."""
    old = s.open[intent["target_id"]]
    placed = intent | {"action": "PLACE", "size": intent["size"] - old.filled}
    return placed, replace(s, open={name: order for name, order in s.open.items() if name != old.intent_id})


def control(intent: Record, s: RiskState) -> Found:
    for scope in ("all", f"venue:{intent['venue']}", f"account:{intent['account']}", f"strategy:{intent['strategy']}"):
        known = s.control.get(scope)
        if known is None and scope == "all":
            return "no control record for all", "RUN"
        # A killed strategy decides nothing more; what its fills left half done is closed all the same.
        if intent["strategy_version"] == HEDGE and scope.startswith("strategy:"):
            continue
        # A kill that flattens lets its own orders through, and the reduce-only rule holds them.
        if intent["strategy_version"] == FLATTEN and intent["reduce_only"] and known is not None and known.get("flatten"):
            continue
        if known is not None and known["state"] != "RUN":
            return f"{scope} is {known['state']}: {known['reason']}", "RUN"
    return None


def account(intent: Record, s: RiskState) -> Found:
    return None if intent["account"] in s.accounts else (f"{intent['account']} is not ready here", "an account of this process")


def intent_age(intent: Record, s: RiskState) -> Found:
    if s.now_ns > intent["valid_until_ns"]:
        return f"{(s.now_ns - intent['valid_until_ns']) // 1000} us past its validity", "0"
    age, most = s.now_ns - intent["created_ns"], int_limit("max_intent_age_ms", intent, s) * MS
    # A second ahead is two clocks; more is an intent from nowhere.
    return None if -1000 * MS <= age <= most else (f"{age // 1000} us old", f"{most // 1000} us")


def duplicate(intent: Record, s: RiskState) -> Found:
    return (intent["id"], "an id that is new") if intent["id"] in s.judged else None


def economics(intent: Record) -> tuple[str, ...]:
    """What makes two orders the same thing, whatever their ids."""
    return tuple(str(intent[k]) for k in ("account", "symbol", "side", "price", "price_exp", "size", "size_exp", "strategy"))


def economic_duplicate(intent: Record, s: RiskState) -> Found:
    last = s.accepted.get(economics(intent))
    window = int_limit("duplicate_window_ms", intent, s) * MS
    if last is not None and s.now_ns - last < window:
        return f"the same order {(s.now_ns - last) // 1000} us ago", f"{window // 1000} us"
    return None


def instrument(intent: Record, s: RiskState) -> Found:
    terms = terms_of_intent(intent, s)
    if (intent["price_exp"], intent["size_exp"]) != (terms.price_exp, terms.size_exp):
        return f"exponents {intent['price_exp']}, {intent['size_exp']}", f"{terms.price_exp}, {terms.size_exp}"
    refused = terms.tradable(intent["price"], intent["size"])
    return (refused, "tradable") if refused else None


def book_live(intent: Record, s: RiskState) -> Found:
    book = book_of(intent, s)
    if not book.live:
        return book.state if book.state != "LIVE" else "LIVE, but empty or crossed", "LIVE"
    age, most = s.now_ns - book.ts_received_ns, int_limit("max_book_age_ms", intent, s) * MS
    if age > most:
        return f"{age // 1000} us old", f"{most // 1000} us"
    for key, epoch, at in zip(intent["input_keys"], intent["input_epochs"], intent["input_states"], strict=True):
        now = s.books.get(key)
        if at != "LIVE" or now is None or not now.live:
            return f"{key} was {at} and is {now.state if now else 'not known'}", "LIVE"
        if now.epoch != epoch:
            return f"{key} was of epoch {epoch}, and is of {now.epoch}", "the same epoch"
    return None


def _beyond(intent: Record, terms: Terms, mid2: int, exponent: int, bps: int) -> bool:
    """Whether a price is worse than a mid (given twice, at ``exponent``) by more than so many basis points."""
    shift = terms.price_exp - min(exponent, terms.price_exp)
    price2 = 2 * intent["price"] * 10**shift
    mid2 *= 10 ** (exponent - min(exponent, terms.price_exp))
    return price2 * BPS > mid2 * (BPS + bps) if intent["side"] == "BUY" else price2 * BPS < mid2 * (BPS - bps)


def price_collar(intent: Record, s: RiskState) -> Found:
    terms, book = terms_of_intent(intent, s), book_of(intent, s)
    bps = int_limit("price_collar_bps", intent, s)
    if _beyond(intent, terms, book.mid2(), book.book.price_exp, bps):
        price, mid = format_decimal(intent["price"], terms.price_exp), format_decimal(book.mid2() * 5, book.book.price_exp - 1)
        return f"{intent['side']} at {price}, mid {mid}", f"{bps} bps"
    return None


def median_collar(intent: Record, s: RiskState) -> Found:
    terms, bps = terms_of_intent(intent, s), int_limit("median_collar_bps", intent, s)
    mids: list[int] = []
    for key, other in s.terms.items():
        book = s.books.get(key)
        if (other.base, other.quote) == (terms.base, terms.quote) and book is not None and book.live:
            mids.append(book.mid2() * 10 ** (book.book.price_exp - UNIT_EXP))
    if not mids:
        raise Missing("no live book of this pair anywhere")
    median = sorted(mids)[(len(mids) - 1) // 2 if intent["side"] == "BUY" else len(mids) // 2]
    if _beyond(intent, terms, median, UNIT_EXP, bps):
        price = format_decimal(intent["price"], terms.price_exp)
        return f"{price}, median {units_text(median // 2)} of {len(mids)}", f"{bps} bps"
    return None


def _worst(intent: Record, s: RiskState, key: str, name: str) -> tuple[int, int]:
    """(position now, worst position after this order and all that may still trade), signed base at UNIT_EXP."""
    terms = s.terms[key]
    now = s.positions.get((name, key), 0)
    up = down = 0
    for order in s.open.values():
        if order.key == key and order.account == name:
            size = base_units(terms, order.left)
            up, down = (up + size, down) if order.side == "BUY" else (up, down + size)
    if key == key_of(intent) and name == intent["account"]:
        size = base_units(terms, intent["size"])
        up, down = (up + size, down) if intent["side"] == "BUY" else (up, down + size)
    high, low = now + up, now - down
    return now, high if abs(high) >= abs(low) else low


def reduces(intent: Record, s: RiskState) -> bool:
    """Whether this order can only make its position smaller, whatever else trades; spot sales of what is held included."""
    terms, key = terms_of_intent(intent, s), key_of(intent)
    now = s.positions.get((intent["account"], key), 0)
    size = base_units(terms, intent["size"]) + sum(
        base_units(terms, o.left) for o in s.open.values()
        if o.key == key and o.account == intent["account"] and o.side == intent["side"]
    )  # fmt: skip
    return (now >= size) if intent["side"] == "SELL" else (-now >= size)


def order_size(intent: Record, s: RiskState) -> Found:
    if intent["reduce_only"] and not reduces(intent, s):
        return "reduce-only, and would not only reduce", "a smaller position"
    worth = value_units(terms_of_intent(intent, s), intent["price"], intent["size"])
    most = amount_limit("max_order_notional", intent, s)
    return None if worth <= most or reduces(intent, s) else (units_text(worth), units_text(most))


def balance(intent: Record, s: RiskState) -> Found:
    """Spot: what the order takes, after what open orders may take (UNKNOWN ones too), must be there."""
    terms = terms_of_intent(intent, s)
    if terms.kind != "SPOT":
        return None
    if terms.taker_fee is None:
        raise Missing("the fee is not known")
    asset = terms.quote if intent["side"] == "BUY" else terms.base
    free = s.balances.get((intent["account"], asset))
    if free is None:
        raise Missing(f"no balance of {asset}")
    reserved = 0
    for o in s.open.values():
        other = s.terms[o.key]
        if o.account == intent["account"] and other.kind == "SPOT" and (other.quote if o.side == "BUY" else other.base) == asset:
            reserved += value_units(other, o.price, o.left) if o.side == "BUY" else base_units(other, o.left)
    buys = intent["side"] == "BUY"
    worth = value_units(terms, intent["price"], intent["size"]) if buys else base_units(terms, intent["size"])
    if reserved + worth <= free:
        return None
    return f"{units_text(worth)} {asset} beside {units_text(reserved)} reserved", units_text(free)


def _mid_value(s: RiskState, key: str, units: int) -> int:
    """What a signed base amount is worth at the mid, absolute, in quote at UNIT_EXP. Raises Missing without a price."""
    terms, book = s.terms[key], s.books.get(key)
    if not units:
        return 0
    if terms.inverse:
        return abs(units)
    if book is None or not book.live:
        raise Missing(f"no live price of {key}, in which a position is held")
    return abs(units) * book.mid2() // (2 * 10**-book.book.price_exp)


def position(intent: Record, s: RiskState) -> Found:
    key = key_of(intent)
    _, worst = _worst(intent, s, key, intent["account"])
    worth, most = _mid_value(s, key, worst), amount_limit("max_position_notional", intent, s)
    return None if worth <= most or reduces(intent, s) else (units_text(worth), units_text(most))


def _exposures(intent: Record, s: RiskState) -> dict[str, int]:
    """key@account → worst worth, over all that is held or may trade, this order included."""
    pairs = {(o.account, o.key) for o in s.open.values()} | set(s.positions) | {(intent["account"], key_of(intent))}
    return {f"{key}@{name}": _mid_value(s, key, _worst(intent, s, key, name)[1]) for name, key in sorted(pairs)}


def asset_exposure(intent: Record, s: RiskState) -> Found:
    terms, total = terms_of_intent(intent, s), 0
    for name, worth in _exposures(intent, s).items():
        if s.terms[name.partition("@")[0]].base == terms.base:
            total += worth
    most = amount_limit("max_asset_notional", intent, s)
    return None if total <= most or reduces(intent, s) else (f"{terms.base}: {units_text(total)}", units_text(most))


def total_exposure(intent: Record, s: RiskState) -> Found:
    terms, total = terms_of_intent(intent, s), 0
    for name, worth in _exposures(intent, s).items():
        if s.terms[name.partition("@")[0]].quote == terms.quote:
            total += worth
    most = amount_limit("max_total_notional", intent, s)
    return None if total <= most or reduces(intent, s) else (units_text(total), units_text(most))


def open_orders(intent: Record, s: RiskState) -> Found:
    count = sum(o.account == intent["account"] for o in s.open.values()) + 1
    most = int_limit("max_open_orders", intent, s)
    return None if count <= most else (str(count), str(most))


def crossing(intent: Record, s: RiskState) -> list[OpenOrder]:
    """Own orders that this one would trade with if both were at the venue; UNKNOWN ones and such as wait included."""
    buys, key = intent["side"] == "BUY", key_of(intent)
    return [
        o for o in s.open.values()
        if o.account == intent["account"] and o.key == key and o.side != intent["side"]
        and (intent["price"] >= o.price if buys else intent["price"] <= o.price)
    ]  # fmt: skip


def closes(intent: Record) -> bool:
    """Whether an intent closes what is open already: nothing else goes before it."""
    return intent["strategy_version"] in (HEDGE, FLATTEN)


def gives_way(order: OpenOrder, intent: Record, s: RiskState) -> bool:
    """Whether an own order that is in an intent's way is cancelled for it.

    What closes goes first, then the strategy of the higher priority; among equals what takes goes before what rests.
    Nothing gives way that is over in a moment (IOC, FOK), that waits itself, or that is a leg of the same group.
    """
    if order.time_in_force in AT_ONCE or order.waits or (order.group_id and order.group_id == intent["group_id"]):
        return False
    mine = closes(intent), s.priority.get(intent["strategy"], 0)
    its = order.closes, s.priority.get(order.strategy, 0)
    return mine > its or (mine == its and intent["time_in_force"] != "POST_ONLY")


def _met(order: OpenOrder) -> tuple[str, str]:
    return f"would trade with our own {order.intent_id} of {order.strategy}", "no order of ours in the way"


def self_trade(intent: Record, s: RiskState) -> Found:
    met = crossing(intent, s)
    for order in met:
        if not gives_way(order, intent, s):
            return _met(order)
    if more := sum(not order.canceling for order in met):
        count = sum(s.now_ns - t < MINUTE_NS for t in s.cancels_ns.get(intent["account"], ())) + more
        if count > (most := int_limit("max_cancels_per_minute", intent, s)):
            return f"{_met(met[0])[0]}, and {count} cancels a minute", str(most)
    return None


def rate(intent: Record, s: RiskState) -> Found:
    count = sum(s.now_ns - t < MINUTE_NS for t in s.sent_ns.get(intent["account"], ())) + 1
    most = int_limit("max_orders_per_minute", intent, s)
    return None if count <= most else (f"{count} a minute", str(most))


def cancel_rate(intent: Record, s: RiskState) -> Found:
    count = sum(s.now_ns - t < MINUTE_NS for t in s.cancels_ns.get(intent["account"], ())) + 1
    most = int_limit("max_cancels_per_minute", intent, s)
    return None if count <= most else (f"{count} a minute", str(most))


def drawdown(intent: Record, s: RiskState) -> Found:
    below, most = s.drawdown.get(terms_of_intent(intent, s).quote, 0), amount_limit("max_drawdown", intent, s)
    return None if below <= most or reduces(intent, s) else (units_text(below), units_text(most))


def leg_budget(intent: Record, s: RiskState) -> Found:
    """A group's legs together, at their limits: what is lost at worst when only some of them trade."""
    if not intent["group_id"]:
        return None
    total = value_units(terms_of_intent(intent, s), intent["price"], intent["size"])
    total += sum(value_units(s.terms[o.key], o.price, o.left) for o in s.open.values() if o.group_id == intent["group_id"])
    most = amount_limit("max_group_notional", intent, s)
    return None if total <= most or reduces(intent, s) else (units_text(total), units_text(most))


CHECKS: tuple[tuple[str, Check], ...] = (
    ("control", control), ("account", account), ("intent_age", intent_age), ("duplicate", duplicate),
    ("economic_duplicate", economic_duplicate), ("instrument", instrument), ("book_live", book_live),
    ("price_collar", price_collar), ("median_collar", median_collar), ("order_size", order_size), ("balance", balance),
    ("position", position), ("asset_exposure", asset_exposure), ("total_exposure", total_exposure),
    ("open_orders", open_orders), ("self_trade", self_trade), ("rate", rate), ("drawdown", drawdown),
    ("leg_budget", leg_budget),
)  # fmt: skip
CANCEL_CHECKS: tuple[tuple[str, Check], ...] = (("duplicate", duplicate), ("cancel_rate", cancel_rate))
