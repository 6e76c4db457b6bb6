"""Tokens and the names that pools get from them: the asset map, decimals and symbols read from the chain.

A token in the asset map bears its asset's name. Any other bears its own symbol and the head of its address
(``USDC~a0b86991``): anyone may call a token USDC, and a bridged one is another asset until the map says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from collectors.dex.blocks import selector
from collectors.dex.nodes import Nodes
from collectors.dex.protocol import call
from config.chains import TokenSettings

DECIMALS, SYMBOL = selector("decimals()"), selector("symbol()")
NATIVE = "0x" + "0" * 40
"""Uniswap V4 names the chain's own coin by the zero address."""
SYMBOL_MAX = 24
_UNSAFE = re.compile(r"[^0-9A-Za-z.+$_]")


@dataclass(frozen=True, slots=True)
class Token:
    """An ERC-20 (or the chain's own coin)."""

    address: str
    asset: str
    decimals: int
    known: bool
    """It is in the asset map."""
    readable: bool = True
    """False: it did not say its decimals, so that no price can be written."""


class Tokens:
    """Every token that was met; ``load`` asks the chain once for each."""

    def __init__(self, known: Mapping[str, TokenSettings], quotes: Sequence[str], native: str) -> None:
        self._tokens = {
            a.lower(): Token(a.lower(), t.asset, t.decimals, known=True) for a, t in known.items()
        }
        self._tokens.setdefault(NATIVE, Token(NATIVE, native, 18, known=True))
        self._rank = {asset: n for n, asset in enumerate(quotes)}

    def __getitem__(self, address: str) -> Token:
        return self._tokens[address]

    def __contains__(self, address: str) -> bool:
        return address in self._tokens

    def is_known(self, address: str) -> bool:
        """Whether the asset map names it."""
        token = self._tokens.get(address)
        return token is not None and token.known

    async def load(self, nodes: Nodes, addresses: Iterable[str], block_hash: str) -> None:
        """Read decimals and symbols of those that are new, at this block. Raises ChainError."""
        new = [a for a in dict.fromkeys(addresses) if a not in self._tokens]
        if not new:
            return
        calls = [(a, call(s)) for a in new for s in (DECIMALS, SYMBOL)]
        answers = await nodes.calls(calls, block_hash, reverts=True)
        for n, address in enumerate(new):
            self._tokens[address] = self._token(address, answers[2 * n], answers[2 * n + 1])

    def base_quote(self, token0: str, token1: str) -> tuple[int, int]:
        """(index of the base, index of the quote): the stronger of the configured quotes, else token1."""
        rank = [self._rank.get(self._tokens[t].asset, len(self._rank)) for t in (token0, token1)]
        return (1, 0) if rank[0] < rank[1] else (0, 1)

    @staticmethod
    def _token(address: str, decimals: str | None, symbol: str | None) -> Token:
        raw = bytes.fromhex(decimals[2:]) if decimals else b""
        number = int.from_bytes(raw[:32], "big") if len(raw) >= 32 else -1
        readable = 0 <= number <= 36
        name = f"{text_of(symbol)}~{address[2:10]}"
        return Token(address, name, number if readable else 0, known=False, readable=readable)


def text_of(answer: str | None) -> str:
    """A contract's symbol (a string, or bytes32 of the old tokens), cut down to signs that names may hold."""
    raw = bytes.fromhex(answer[2:]) if answer else b""
    if len(raw) >= 96 and int.from_bytes(raw[:32], "big") == 32:
        raw = raw[64 : 64 + min(int.from_bytes(raw[32:64], "big"), SYMBOL_MAX * 4)]
    text = raw.rstrip(b"\0").decode("utf-8", "replace")
    return _UNSAFE.sub("", text)[:SYMBOL_MAX] or "TOKEN"
