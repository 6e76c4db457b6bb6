"""What a transaction to a known router means to swap, from its call data alone. Does no I/O.

Sources: Uniswap's contracts as published: V2Router02, SwapRouter, SwapRouter02 (the same calls, without a deadline),
UniversalRouter (``Commands.sol``: 0x00 V3 exact in, 0x01 V3 exact out, 0x08 V2 exact in, 0x09 V2 exact out, 0x10 actions of
V4Router: ``IV4Router.sol``, ``Actions.sol``). A V3 path is token, fee of three bytes, token, …; for exact out it begins with the
token that is bought. V4's path names the keys of its pools, whose hashes are the pools' ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from collectors.dex.blocks import keccak, selector
from collectors.dex.errors import BadAnswer
from market.pools.uniswap_v4 import DYNAMIC_FEE

POOLS_OWN_FEE = -1
NO_DEADLINE = -1
CALLS_MAX = 16
"""Swaps of one transaction that are looked at."""
HALF = 1 << 255
"""SwapRouter02 and UniversalRouter: an amount with this bit alone means what the router holds."""


@dataclass(frozen=True, slots=True)
class IntendedSwap:
    """One swap that a transaction means to make. Amounts are smallest units; 0: what the router holds then."""

    method: str
    exact_out: bool
    tokens: tuple[str, ...]
    fees: tuple[int, ...]
    """Of each hop, millionths; POOLS_OWN_FEE: V2's, and what a hook of V4 decides."""
    amount: int
    limit: int
    deadline_s: int = NO_DEADLINE
    pool_ids: tuple[str, ...] = ()
    """Of each hop, where the call names the pool itself, as V4's do."""


Decoder = Callable[[str, bytes, int], list[IntendedSwap]]
"""(method, arguments, value in wei) → swaps."""


def intended(data: str, value_wei: int) -> list[IntendedSwap]:
    """The swaps that these call data mean, first one first; empty for a call that is no swap. Raises BadAnswer."""
    return _decoded(bytes.fromhex(data[2:]), value_wei, 0)[:CALLS_MAX]


def _decoded(raw: bytes, value_wei: int, depth: int) -> list[IntendedSwap]:
    found = DECODERS.get(raw[:4])
    try:
        if found is not None:
            method, decoder = found
            return decoder(method, raw[4:], value_wei)
        if (types := MULTICALLS.get(raw[:4])) is not None and depth == 0:
            *first, calls = decode(types, raw[4:])
            deadline_s = first[0] if types[0] == "uint256" else NO_DEADLINE
            swaps: list[IntendedSwap] = []
            for call in calls[:CALLS_MAX]:
                if len(swaps) < CALLS_MAX:  # inner calls hold several each, and may be the same bytes again and again
                    swaps += _decoded(call, value_wei, 1)
            return [replace(s, deadline_s=deadline_s) if s.deadline_s == NO_DEADLINE else s for s in swaps]
    except (DecodingError, ValueError, OverflowError) as error:
        raise BadAnswer(f"call data of {raw[:4].hex()} that cannot be read: {error}") from error
    return []


def v3_path(path: bytes) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """(tokens, fees) of a packed path. Raises BadAnswer."""
    if len(path) < 43 or (len(path) - 20) % 23:
        raise BadAnswer(f"a path of {len(path)} bytes")
    tokens = tuple("0x" + path[n : n + 20].hex() for n in range(0, len(path), 23))
    return tokens, tuple(int.from_bytes(path[n : n + 3], "big") for n in range(20, len(path) - 20, 23))


# Uniswap V2's router. The native coin is paid as the transaction's value.

V2 = ["uint256", "uint256", "address[]", "address", "uint256"]


def _v2(*, exact_out: bool) -> Decoder:
    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        del value_wei
        amount, limit, path, _, deadline = decode(V2, raw)
        return [_v2_swap(method, exact_out, path, amount, limit, deadline)]

    return read


def _v2_eth(*, exact_out: bool) -> Decoder:
    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        first, path, _, deadline = decode(["uint256", *V2[2:]], raw)
        amount, limit = (first, value_wei) if exact_out else (value_wei, first)
        return [_v2_swap(method, exact_out, path, amount, limit, deadline)]

    return read


def _v2_swap(
    method: str, exact_out: bool, path: tuple[str, ...], amount: int, limit: int, deadline: int
) -> IntendedSwap:  # fmt: skip
    if len(path) < 2:
        raise BadAnswer(f"{method}: a path of {len(path)} tokens")
    tokens = tuple(t.lower() for t in path)
    return IntendedSwap(method, exact_out, tokens, (POOLS_OWN_FEE,) * (len(tokens) - 1), amount, limit, deadline)


def _v2_short(*, exact_out: bool) -> Decoder:
    """SwapRouter02's own form of V2 swaps: no deadline."""

    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        del value_wei
        amount, limit, path, _ = decode(V2[:4], raw)
        return [_v2_swap(method, exact_out, path, amount % HALF, limit, NO_DEADLINE)]

    return read


# Uniswap V3's routers: structs, with and without a deadline.


def _v3_single(types: str, *, exact_out: bool) -> Decoder:
    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        del value_wei
        ((token_in, token_out, fee, _, *rest),) = decode([types], raw)
        deadline = rest.pop(0) if len(rest) == 4 else NO_DEADLINE
        tokens = (token_in.lower(), token_out.lower())
        return [IntendedSwap(method, exact_out, tokens, (fee,), rest[0] % HALF, rest[1], deadline)]

    return read


def _v3_path(types: str, *, exact_out: bool) -> Decoder:
    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        del value_wei
        ((path, _, *rest),) = decode([types], raw)
        deadline = rest.pop(0) if len(rest) == 3 else NO_DEADLINE
        tokens, fees = v3_path(path)
        if exact_out:
            tokens, fees = tokens[::-1], fees[::-1]
        return [IntendedSwap(method, exact_out, tokens, fees, rest[0] % HALF, rest[1], deadline)]

    return read


# The universal router: a list of commands.

COMMANDS: dict[int, tuple[str, bool, bool]] = {
    0x00: ("V3_SWAP_EXACT_IN", True, False),
    0x01: ("V3_SWAP_EXACT_OUT", True, True),
    0x08: ("V2_SWAP_EXACT_IN", False, False),
    0x09: ("V2_SWAP_EXACT_OUT", False, True),
}
"""Command → (its name, whether of V3, whether exact out)."""


V4_SWAP = 0x10
"""Its input: actions, a byte each, and what each is given."""


def _universal(*, with_deadline: bool) -> Decoder:
    def read(method: str, raw: bytes, value_wei: int) -> list[IntendedSwap]:
        del method, value_wei
        commands, inputs, *rest = decode(["bytes", "bytes[]", *(["uint256"] if with_deadline else [])], raw)
        return list(islice(_commands(commands, inputs, rest[0] if rest else NO_DEADLINE), CALLS_MAX))

    return read


def _commands(commands: bytes, inputs: tuple[bytes, ...], deadline: int) -> Iterator[IntendedSwap]:
    for command, given in zip(commands[:CALLS_MAX], inputs, strict=False):
        command &= 0x3F
        if command == V4_SWAP:
            yield from _v4_actions(given, deadline)
        found = COMMANDS.get(command)
        if found is None:
            continue
        name, of_v3, exact_out = found
        _, amount, limit, path, _ = decode(["address", "uint256", "uint256", "bytes" if of_v3 else "address[]", "bool"], given)
        if of_v3:
            tokens, fees = v3_path(path)
            if exact_out:
                tokens, fees = tokens[::-1], fees[::-1]
            yield IntendedSwap(name, exact_out, tokens, fees, amount % HALF, limit, deadline)
        else:
            yield _v2_swap(name, exact_out, path, amount % HALF, limit, deadline)


# V4's router: actions inside of a command.

KEY = "(address,address,uint24,int24,address)"
HOPS = "(address,uint24,int24,address,bytes)[]"
ONE_POOL, SEVERAL_POOLS = f"({KEY},bool,uint128,uint128,bytes)", f"(address,{HOPS},uint128,uint128)"
V4_ACTIONS: dict[int, tuple[str, str, bool]] = {
    0x06: ("V4_SWAP_EXACT_IN_SINGLE", ONE_POOL, False),
    0x07: ("V4_SWAP_EXACT_IN", SEVERAL_POOLS, False),
    0x08: ("V4_SWAP_EXACT_OUT_SINGLE", ONE_POOL, True),
    0x09: ("V4_SWAP_EXACT_OUT", SEVERAL_POOLS, True),
}
"""Action → (its name, what it is given, whether exact out)."""
ACTION_MAX = 4096
"""Bytes that one action is given: twenty pools in a row. Offsets may point at one pool a thousand times over."""


def pool_id(one: str, other: str, fee: int, spacing: int, hooks: str) -> str:
    """The id of the V4 pool of these two currencies, in either order: the hash of its key."""
    low, high = sorted((one.lower(), other.lower()))
    return "0x" + keccak(encode([KEY], [(low, high, fee, spacing, hooks)])).hex()


def _v4_actions(given: bytes, deadline: int) -> Iterator[IntendedSwap]:
    actions, arguments = decode(["bytes", "bytes[]"], given)
    for action, raw in zip(actions[:CALLS_MAX], arguments, strict=False):
        found = V4_ACTIONS.get(action)
        if found is None:
            continue
        name, types, exact_out = found
        if len(raw) > ACTION_MAX:
            raise BadAnswer(f"{name}: {len(raw)} bytes, more than any swap needs")
        if types is ONE_POOL:
            (((zero, one, *terms), zero_for_one, amount, limit, _),) = decode([types], raw)
            tokens, hops = ((zero, one) if zero_for_one else (one, zero)), [terms]
        else:
            # For exact out the named currency is the one that is bought, and each key names the one that is paid for it.
            ((named, path, amount, limit),) = decode([types], raw)
            between = [hop[0] for hop in path]
            tokens, hops = (*between, named) if exact_out else (named, *between), [hop[1:4] for hop in path]
        if not hops:
            raise BadAnswer(f"{name}: a path of no pools")
        ids = tuple(pool_id(*pair, *terms) for pair, terms in zip(pairwise(tokens), hops, strict=True))
        fees = tuple(POOLS_OWN_FEE if fee & DYNAMIC_FEE else fee for fee, _, _ in hops)
        yield IntendedSwap(name, exact_out, tuple(t.lower() for t in tokens), fees, amount, limit, deadline, ids)


SINGLE = "(address,address,uint24,address,uint256,uint256,uint256,uint160)"
SINGLE_02 = "(address,address,uint24,address,uint256,uint256,uint160)"
PATH, PATH_02 = "(bytes,address,uint256,uint256,uint256)", "(bytes,address,uint256,uint256)"
V2_CALL, V2_ETH_CALL, V2_SHORT = (f"({','.join(t)})" for t in (V2, ["uint256", *V2[2:]], V2[:4]))

SIGNATURES: tuple[tuple[str, Decoder], ...] = (
    *((f"{name}{V2_CALL}", _v2(exact_out=out)) for name, out in (
        ("swapExactTokensForTokens", False), ("swapExactTokensForETH", False), ("swapTokensForExactTokens", True),
        ("swapTokensForExactETH", True), ("swapExactTokensForTokensSupportingFeeOnTransferTokens", False),
        ("swapExactTokensForETHSupportingFeeOnTransferTokens", False),
    )),
    *((f"{name}{V2_ETH_CALL}", _v2_eth(exact_out=out)) for name, out in (
        ("swapExactETHForTokens", False), ("swapETHForExactTokens", True),
        ("swapExactETHForTokensSupportingFeeOnTransferTokens", False),
    )),
    (f"swapExactTokensForTokens{V2_SHORT}", _v2_short(exact_out=False)),
    (f"swapTokensForExactTokens{V2_SHORT}", _v2_short(exact_out=True)),
    *((f"exactInputSingle({t})", _v3_single(t, exact_out=False)) for t in (SINGLE, SINGLE_02)),
    *((f"exactOutputSingle({t})", _v3_single(t, exact_out=True)) for t in (SINGLE, SINGLE_02)),
    *((f"exactInput({t})", _v3_path(t, exact_out=False)) for t in (PATH, PATH_02)),
    *((f"exactOutput({t})", _v3_path(t, exact_out=True)) for t in (PATH, PATH_02)),
    ("execute(bytes,bytes[],uint256)", _universal(with_deadline=True)),
    ("execute(bytes,bytes[])", _universal(with_deadline=False)),
)  # fmt: skip

DECODERS: dict[bytes, tuple[str, Decoder]] = {
    bytes.fromhex(selector(text)[2:]): (text.partition("(")[0], decoder) for text, decoder in SIGNATURES
}
"""First four bytes of call data → (the call's name, what reads its arguments)."""
MULTICALLS: dict[bytes, list[Any]] = {
    bytes.fromhex(selector(f"multicall({','.join(types)})")[2:]): types
    for types in (["bytes[]"], ["uint256", "bytes[]"], ["bytes32", "bytes[]"])
}
