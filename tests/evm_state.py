"""Pools' states read from the chain by calls: the test's own idea of what is there, without any of the collector."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.evm import Evm
from simulator.evm_dex import Dex
from simulator.npm import NpmError, node_modules


def require_npm(*packages: tuple[str, ...]) -> None:
    """Skip the test where npm cannot be reached."""
    try:
        for group in packages or (None,):
            node_modules(*([group] if group else []))
    except NpmError as error:
        pytest.skip(f"no EVM: {error}")


def v2_state(evm: Evm, pair: str, block: Any = "latest") -> dict[str, Any]:
    """A V2 pair."""
    reserve0, reserve1, _ = evm.read(pair, "getReserves()", ["uint112", "uint112", "uint32"], block=block)
    return {
        "family": "uniswap_v2",
        "token0": evm.read(pair, "token0()", ["address"], block=block).lower(),
        "token1": evm.read(pair, "token1()", ["address"], block=block).lower(),
        "reserve0": reserve0,
        "reserve1": reserve1,
        "fee_num": 3,
        "fee_den": 1000,
    }


def v3_state(evm: Evm, pool: str, block: Any = "latest") -> dict[str, Any]:
    """A V3 pool with every initialised tick, found by walking the whole bitmap."""
    spacing = evm.read(pool, "tickSpacing()", ["int24"], block=block)
    slot0 = evm.read(
        pool, "slot0()", ["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"], block=block
    )
    ticks = {}
    reach = 887272 // spacing >> 8
    for word in range(-reach - 1, reach + 1):
        bitmap = evm.read(pool, "tickBitmap(int16)", ["uint256"], word, block=block)
        for bit in range(256):
            if bitmap >> bit & 1:
                tick = (word * 256 + bit) * spacing
                gross, net = evm.read(pool, "ticks(int24)", ["uint128", "int128"], tick, block=block)
                ticks[str(tick)] = {"gross": gross, "net": net}
    return {
        "family": "uniswap_v3",
        "token0": evm.read(pool, "token0()", ["address"], block=block).lower(),
        "token1": evm.read(pool, "token1()", ["address"], block=block).lower(),
        "fee": evm.read(pool, "fee()", ["uint24"], block=block),
        "tick_spacing": spacing,
        "sqrt_price_x96": slot0[0],
        "tick": slot0[1],
        "liquidity": evm.read(pool, "liquidity()", ["uint128"], block=block),
        "ticks": dict(sorted(ticks.items(), key=lambda item: int(item[0]))),
    }


def v4_state(evm: Evm, dex: Dex, key: tuple[Any, ...], block: Any = "latest") -> dict[str, Any]:
    """A V4 pool through StateView."""
    pool_id = pool_id_of(key)
    view, spacing = dex.v4_view, key[3]
    raw = bytes.fromhex(pool_id[2:])
    price, tick, protocol_fee, fee = evm.read(
        view, "getSlot0(bytes32)", ["uint160", "int24", "uint24", "uint24"], raw, block=block
    )
    ticks = {}
    reach = 887272 // spacing >> 8
    for word in range(-reach - 1, reach + 1):
        bitmap = evm.read(view, "getTickBitmap(bytes32,int16)", ["uint256"], raw, word, block=block)
        for bit in range(256):
            if bitmap >> bit & 1:
                index = (word * 256 + bit) * spacing
                gross, net = evm.read(
                    view, "getTickLiquidity(bytes32,int24)", ["uint128", "int128"], raw, index, block=block
                )
                ticks[str(index)] = {"gross": gross, "net": net}
    return {
        "family": "uniswap_v4",
        "token0": key[0],
        "token1": key[1],
        "fee": fee,
        "tick_spacing": spacing,
        "sqrt_price_x96": price,
        "tick": tick,
        "liquidity": evm.read(view, "getLiquidity(bytes32)", ["uint128"], raw, block=block),
        "ticks": dict(sorted(ticks.items(), key=lambda item: int(item[0]))),
        "protocol_fee": protocol_fee,
        "hooks": key[4],
        "pool_id": pool_id,
    }


def pool_id_of(key: tuple[Any, ...]) -> str:
    """The hash of a V4 pool's key."""
    from web3 import Web3

    types = ["address", "address", "uint24", "int24", "address"]
    return "0x" + bytes(Web3.keccak(Web3().codec.encode(types, list(key)))).hex()
