"""Venue checksums of an order book, as pure functions.

Each takes the levels best first and gives the number that the venue sends; comparing is the caller's part. The venues
hash their own text, so where a function takes texts, pass what the venue wrote: ``0.5410`` is not ``0.541``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from zlib import crc32

TextLevels = Sequence[Sequence[str]]
"""Levels best first, each starting with the venue's own price text and size text."""

INTERLEAVED_DEPTH = 25
KRAKEN_DEPTH = 10


def interleaved_crc32(bids: TextLevels, asks: TextLevels, depth: int = INTERLEAVED_DEPTH) -> int:
    """The checksum of OKX v5 and Bitget: a signed 32-bit CRC32 over ``depth`` levels a side.

    ``bid1price:bid1size:ask1price:ask1size:bid2price:…``; when one side runs out the other goes on alone.
    Source: OKX API v5, "Order book channel", section "Checksum"; Bitget uses the same rule.
    """
    return interleaved_crc32_of([f"{b[0]}:{b[1]}" for b in bids[:depth]], [f"{a[0]}:{a[1]}" for a in asks[:depth]])


def interleaved_crc32_of(bids: list[str], asks: list[str]) -> int:
    """The same from the levels' own texts, ``price:size`` each, cut to the depth already."""
    both = min(len(bids), len(asks))
    parts = [""] * (2 * both)
    parts[::2], parts[1::2] = bids[:both], asks[:both]
    value = crc32(":".join(parts + bids[both:] + asks[both:]).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def kraken_v1_crc32(bids: TextLevels, asks: TextLevels) -> int:
    """The checksum of Kraken's websocket v1 books: an unsigned CRC32 over the best 10 asks, then the best 10 bids.

    Of each level the price text and the size text, without the point and leading zeros, with no separator. Check after
    a whole message is applied and the book is cut to the subscribed depth: Kraken sends no delete for what falls out.
    Source: Kraken WebSockets v1, "Book checksum".
    """
    levels = chain(asks[:KRAKEN_DEPTH], bids[:KRAKEN_DEPTH])
    return crc32("".join(_kraken_text(text) for level in levels for text in level[:2]).encode())


def kraken_v2_crc32(bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]]) -> int:
    """The checksum of Kraken's websocket v2 books, from (price, size) mantissas best first.

    v2 sends JSON numbers, so the text is rebuilt with the pair's own precision: pass mantissas at exponents
    ``-price_precision`` and ``-qty_precision`` of the ``instrument`` channel. Written without point and leading zeros,
    such a number is its mantissa. Source: Kraken WebSockets v2, "Book checksum".
    """
    levels = chain(asks[:KRAKEN_DEPTH], bids[:KRAKEN_DEPTH])
    return crc32("".join(f"{price}{size}" for price, size in levels).encode())


def _kraken_text(text: str) -> str:
    return text.replace(".", "", 1).lstrip("0")
