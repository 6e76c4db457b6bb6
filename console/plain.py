"""Records as a person reads them: exact decimal texts instead of mantissas and exponents. Integers all the way."""

from __future__ import annotations

from typing import Any

from market.decimals import format_decimal
from schemas.codec import Record

SAFE = (1 << 53) - 1
"""The largest integer that a browser's number holds exactly; greater ones travel as text."""
ITEMS_MAX = 25
BYTES_MAX = 40


def text(mantissa: int, exponent: int) -> str:
    """A decimal text with all digits of its exponent, so that columns stand below each other."""
    return format_decimal(mantissa, exponent, strip=False)


def side(bbo: Record, name: str) -> list[str] | None:
    """The best level of a side of a Bbo as [price, size]; None: the side is empty."""
    if not bbo[f"{name}_size"]:
        return None
    return [text(bbo[f"{name}_price"], bbo["price_exp"]), format_decimal(bbo[f"{name}_size"], bbo["size_exp"])]


def micro_price(bbo: Record) -> dict[str, Any]:
    """Mid (one digit more than the price has), micro-price (two more, rounded down), imbalance in per mille.

    micro = (bid × ask_size + ask × bid_size) / (bid_size + ask_size); imbalance = (bid_size − ask_size) / their sum.
    Empty when a side is.
    """
    bid, bid_size, ask, ask_size = bbo["bid_price"], bbo["bid_size"], bbo["ask_price"], bbo["ask_size"]
    total = bid_size + ask_size
    if not bid_size or not ask_size:
        return {}
    exponent = bbo["price_exp"]
    return {
        "mid": text((bid + ask) * 5, exponent - 1),
        "micro": text((bid * ask_size + ask * bid_size) * 100 // total, exponent - 2),
        "imb": (bid_size - ask_size) * 1000 // total,
    }


def plain(record: Record) -> dict[str, Any]:
    """Any record as JSON can carry it and a person can read it.

    A field with an exponent of its own (``amount`` and ``amount_exp``, ``leg_prices`` and ``leg_price_exps``), of its
    kind (``bid_price`` and ``price_exp``, ``filled`` and ``size_exp``) or of the record (``exp``) becomes a decimal
    text; exponents vanish; bytes become hex; long arrays are cut.
    """
    exponents = {name.removesuffix("_exp"): value for name, value in record.items() if name.endswith("_exp")}
    out: dict[str, Any] = {}
    for name, value in record.items():
        each = record.get(f"{name.removesuffix('s')}_exps")
        if isinstance(value, list) and isinstance(each, list) and len(each) == len(value):
            out[name] = [_value(item, exponent) for item, exponent in zip(value, each, strict=True)]
        elif not name.endswith(("_exp", "_exps")) and name != "exp":
            own = record.get("exp") if name in OF_THE_RECORD else _exponent(name, exponents)
            out[name] = _value(value, own)
    return out


KINDS = {"filled": "size"}
OF_THE_RECORD = ("ledger", "venue_total", "venue_free")


def _exponent(name: str, exponents: dict[str, Any]) -> int | None:
    last = KINDS.get(name, name.rpartition("_")[2])
    for kind in (name, last, last.removesuffix("s")):
        if kind in exponents:
            return exponents[kind]
    return None


def _value(value: Any, exponent: int | None) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        if exponent is not None:
            return format_decimal(value, exponent)
        return value if -SAFE <= value <= SAFE else str(value)
    if isinstance(value, bytes):
        return value[:BYTES_MAX].hex() + ("…" if len(value) > BYTES_MAX else "")
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list):
        return [_value(item, exponent) for item in value[:ITEMS_MAX]] + (["…"] if len(value) > ITEMS_MAX else [])
    return str(value)
