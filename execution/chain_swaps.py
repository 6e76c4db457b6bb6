"""Swaps through the exchanges' own routers, and what a receipt's logs say was moved.

Sources: UniswapV2Router02 (swapExactTokensForTokens, swapTokensForExactTokens), V3's SwapRouter (exactInputSingle,
exactOutputSingle, both with a deadline). A sale gives exactly its base and asks for a least quote, a purchase takes
exactly its base and asks for a greatest quote: so base amounts are the order's own, and a router that cannot keep the
limit reverts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from execution.chain_rpc import call_data

TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""Topic of Transfer(address,address,uint256)."""
V2_EXACT_IN, V2_EXACT_OUT = "38ed1739", "8803dbee"
V3_EXACT_IN, V3_EXACT_OUT = "414bf389", "db3e2198"
V2_TYPES = ["uint256", "uint256", "address[]", "address", "uint256"]
V3_TYPES = ["(address,address,uint24,address,uint256,uint256,uint256,uint160)"]
TOKEN0, TOKEN1, FEE, FACTORY = "0dfe1681", "d21220a7", "ddca3f43", "c45a0155"
DECIMALS, BALANCE_OF = "313ce567", "70a08231"


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What a pool's contract says of itself; ``fee`` is V3's, -1 for V2."""

    address: str
    protocol: str
    token0: str
    token1: str
    fee: int
    factory: str


@dataclass(frozen=True, slots=True)
class SwapOrder:
    """An order in wei: exactly ``base``, and ``bound`` the least or greatest quote."""

    side: str
    base_token: str
    quote_token: str
    base: int
    bound: int


def swap_data(pool: PoolFacts, order: SwapOrder, to: str, deadline_s: int) -> bytes:
    """Call data for the pool's router."""
    sells = order.side == "SELL"
    path = [order.base_token, order.quote_token] if sells else [order.quote_token, order.base_token]
    if pool.protocol == "uniswap-v2":
        return call_data(V2_EXACT_IN if sells else V2_EXACT_OUT, V2_TYPES, order.base, order.bound, path, to, deadline_s)
    single = (*path, pool.fee, to, deadline_s, order.base, order.bound, 0)
    return call_data(V3_EXACT_IN if sells else V3_EXACT_OUT, V3_TYPES, single)


def moved(receipt: Mapping[str, Any], token: str, address: str) -> int:
    """The net amount of a token that came to the address in this transaction; negative: that left it."""
    total = 0
    for log in receipt["logs"]:
        if log["address"].lower() != token or len(log["topics"]) != 3 or log["topics"][0] != TRANSFER:
            continue
        amount = int(log["data"], 16)
        total += amount if _address(log["topics"][2]) == address else 0
        total -= amount if _address(log["topics"][1]) == address else 0
    return total


def _address(topic: str) -> str:
    return "0x" + topic[-40:].lower()
