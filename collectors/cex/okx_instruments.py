"""OKX's instruments: of four types, in one form.

Source: OKX API v5, "Get instruments".
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from collectors.cex.wire_json import BAD, millis_us, plain, plain_or_none, product
from collectors.venue import Listing
from market.instruments import future_symbol, option_symbol, perpetual_symbol, spot_symbol


class _Entry(Struct):
    instId: str  # noqa: N815
    instType: str  # noqa: N815
    tickSz: str  # noqa: N815
    lotSz: str  # noqa: N815
    minSz: str = ""  # noqa: N815
    state: str = ""
    baseCcy: str = ""  # noqa: N815
    quoteCcy: str = ""  # noqa: N815
    settleCcy: str = ""  # noqa: N815
    uly: str = ""
    ctVal: str = ""  # noqa: N815
    ctMult: str = ""  # noqa: N815
    ctType: str = ""  # noqa: N815
    expTime: str = ""  # noqa: N815
    stk: str = ""
    optType: str = ""  # noqa: N815


_decode_entry = msgspec.json.Decoder(_Entry).decode

STATES = {"live": "TRADING", "expired": "DELISTED"}
"""suspend, preopen, test, rebase, post_only and whatever comes: HALTED."""


def listing(entry: msgspec.Raw) -> Listing | None:
    """One entry of the instruments; None: it cannot be read or named."""
    try:
        e = _decode_entry(entry)
        spot = e.instType == "SPOT"
        base, quote = (e.baseCcy, e.quoteCcy) if spot else e.uly.split("-")[:2]
        expiry_us = None if spot or e.instType == "SWAP" else millis_us(e.expTime)
        if spot:
            kind, symbol = "SPOT", spot_symbol(base, quote)
        elif expiry_us is None:
            kind, symbol = "PERPETUAL", perpetual_symbol(base, quote, e.settleCcy)
        elif e.optType:
            right = "C" if e.optType == "C" else "P"
            kind, symbol = "OPTION", option_symbol(base, quote, e.settleCcy, expiry_us, e.stk, right)
        else:
            kind, symbol = "FUTURE", future_symbol(base, quote, e.settleCcy, expiry_us)
        return Listing(
            native_id=e.instId,
            symbol=symbol,
            base=base,
            quote=quote,
            kind=kind,
            tick_size=plain(e.tickSz),
            lot_size=plain(e.lotSz),
            state=STATES.get(e.state, "HALTED"),
            settle=None if spot else e.settleCcy,
            # An option settles in its base asset too, but is worth base: only the venue's word counts.
            inverse=e.ctType == "inverse",
            min_size=plain_or_none(e.minSz),
            contract_size=None if spot else product(e.ctVal, e.ctMult or "1"),
            expiry_us=expiry_us,
        )
    except BAD:
        return None
