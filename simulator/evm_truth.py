"""What the chain itself says of a pool at one block: every part of its state, and its own quotes.

Read by calls only, with decoders of its own; shares nothing with the collectors.
"""

from __future__ import annotations

from typing import Any

from simulator.evm import Evm, EvmError, decode, encode
from simulator.evm_dex import V3_SPACING, Dex
from simulator.evm_traffic import TrafficPool

Slots = dict[str, int]
WORD_REACH = 4
"""Bitmap words to each side of zero that the traffic can reach."""


class Truth:
    """Asks at a block's hash, so that no reorganisation can mix two answers."""

    def __init__(self, evm: Evm, dex: Dex) -> None:
        self.evm = evm
        self.dex = dex
        self._factories: dict[str, str] = {}

    def state(self, pool: TrafficPool, block_hash: str) -> Slots:
        """The pool's slots, named as chain.pool names them."""
        if pool.kind == "v2":
            (answer,) = self._calls([(pool.ident, encode("getReserves()"))], block_hash)
            reserve0, reserve1, _ = decode(["uint112", "uint112", "uint32"], answer)
            return {"reserve0": reserve0, "reserve1": reserve1}
        if pool.kind == "solidly":
            reserves, fee = self._calls(
                [(pool.ident, encode("getReserves()")),
                 (self._solidly_factory(pool), encode("getFee(address,bool)", pool.ident, pool.stable))],
                block_hash,
            )  # fmt: skip
            reserve0, reserve1, _ = decode(["uint256", "uint256", "uint256"], reserves)
            return {"reserve0": reserve0, "reserve1": reserve1, "fee": decode(["uint256"], fee)[0]}
        if pool.kind == "v3":
            spacing, at = V3_SPACING[pool.fee], pool.ident
            slot0, liquidity = self._calls([(at, encode("slot0()")), (at, encode("liquidity()"))], block_hash)
            price, tick, *_ = decode(["uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"], slot0)
            out: Slots = {}
            words = self._calls([(at, encode("tickBitmap(int16)", w)) for w in self._words(spacing, pool.centre)], block_hash)
            ticks = self._ticks(words, spacing, pool.centre)
            net = self._calls([(at, encode("ticks(int24)", t)) for t in ticks], block_hash)
        else:
            spacing, at, raw = pool.spacing, self.dex.v4_view, bytes.fromhex(pool.ident[2:])
            slot0, liquidity = self._calls(
                [(at, encode("getSlot0(bytes32)", raw)), (at, encode("getLiquidity(bytes32)", raw))], block_hash
            )
            price, tick, protocol_fee, fee = decode(["uint160", "int24", "uint24", "uint24"], slot0)
            out = {"protocol_fee": protocol_fee, "fee": fee}
            words = self._calls(
                [(at, encode("getTickBitmap(bytes32,int16)", raw, w)) for w in self._words(spacing, pool.centre)], block_hash
            )
            ticks = self._ticks(words, spacing, pool.centre)
            net = self._calls([(at, encode("getTickLiquidity(bytes32,int24)", raw, t)) for t in ticks], block_hash)
        out |= {"sqrt_price_x96": price, "tick": tick, "liquidity": decode(["uint128"], liquidity)[0]}
        for index, answer in zip(ticks, net, strict=True):
            gross, signed_net = decode(["uint128", "int128"], answer[:64])
            out[f"tick:{index}"] = gross | (signed_net % (1 << 128)) << 128
        return out

    def quote(self, pool: TrafficPool, zero_for_one: bool, amount: int, exact_out: bool, block_hash: str) -> int | None:
        """The router's or quoter's answer; None where it reverts."""
        a, b = sorted((pool.a, pool.b), key=lambda t: int(t.address, 16))
        x, y = (a, b) if zero_for_one else (b, a)
        at = {"blockHash": block_hash}
        try:
            if pool.kind == "v2":
                name = "getAmountsIn" if exact_out else "getAmountsOut"
                data = encode(f"{name}(uint256,address[])", amount, [x.address, y.address])
                amounts = decode(["uint256[]"], self.evm.call(self.dex.v2_router, data, at))[0]
                return amounts[0] if exact_out else amounts[-1]
            if pool.kind == "solidly":
                if exact_out:
                    return None  # the contract has no such call
                data = encode("getAmountOut(uint256,address)", amount, x.address)
                return decode(["uint256"], self.evm.call(pool.ident, data, at))[0]
            if pool.kind == "v3":
                return self.dex.v3_quote(x, y, pool.fee, amount, exact_out=exact_out, block=at)
            return self.dex.v4_quote(pool.key, zero_for_one, amount, exact_out=exact_out, block=at)
        except EvmError:
            return None

    def _solidly_factory(self, pool: TrafficPool) -> str:
        if pool.ident not in self._factories:
            self._factories[pool.ident] = self.evm.read(pool.ident, "factory()", ["address"]).lower()
        return self._factories[pool.ident]

    def _words(self, spacing: int, centre: int) -> range:
        middle, reach = centre // spacing // 256, WORD_REACH if spacing < 200 else 2
        return range(middle - reach, middle + reach)

    def _ticks(self, words: list[bytes], spacing: int, centre: int) -> list[int]:
        out: list[int] = []
        for position, answer in zip(self._words(spacing, centre), words, strict=True):
            bitmap = int.from_bytes(answer, "big")
            out += [(position * 256 + bit) * spacing for bit in range(256) if bitmap >> bit & 1]
        return out

    def _calls(self, calls: list[tuple[str, bytes]], block_hash: str) -> list[bytes]:
        at: Any = {"blockHash": block_hash}
        answers = self.evm.batch([("eth_call", [{"to": to, "data": "0x" + data.hex()}, at]) for to, data in calls])
        return [bytes.fromhex(a[2:]) for a in answers]
