"""Venue checksums, proven on what the venues really sent: every one of them must agree."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from market.checksums import interleaved_crc32, kraken_v1_crc32, kraken_v2_crc32
from simulator.capture_file import read_capture


class TextBook:
    """A book that keeps the venue's own texts, as checksums want them."""

    def __init__(self) -> None:
        self.bids: dict[Decimal, tuple[str, str]] = {}
        self.asks: dict[Decimal, tuple[str, str]] = {}

    def set(self, side: dict[Decimal, tuple[str, str]], levels: list[list[str]]) -> None:
        for price, size, *_ in levels:
            if Decimal(size):
                side[Decimal(price)] = (price, size)
            else:
                side.pop(Decimal(price), None)

    def sorted(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        return [self.bids[p] for p in sorted(self.bids, reverse=True)], [self.asks[p] for p in sorted(self.asks)]

    def cut(self, depth: int) -> None:
        for price in sorted(self.bids)[:-depth]:
            del self.bids[price]
        for price in sorted(self.asks)[depth:]:
            del self.asks[price]


def frames(path: Path) -> Iterator[Any]:
    return (json.loads(line.data) for line in read_capture([path]) if line.kind == "frame")


def interleaved_counts(path: Path) -> tuple[int, int]:
    """(agreeing, checked) over the `books` channel of OKX or Bitget."""
    books: dict[str, TextBook] = defaultdict(TextBook)
    good = checked = 0
    for frame in frames(path):
        if frame.get("arg", {}).get("channel") != "books" or "data" not in frame:
            continue
        native = frame["arg"]["instId"]
        if frame["action"] == "snapshot":
            books[native] = TextBook()
        book = books[native]
        for data in frame["data"]:
            book.set(book.bids, data["bids"])
            book.set(book.asks, data["asks"])
            checked += 1
            good += interleaved_crc32(*book.sorted()) == data["checksum"]
    return good, checked


def test_okx_agrees_on_every_message(captures: Path) -> None:
    assert interleaved_counts(captures / "okx_v5_20220513.txt.gz") == (290, 290)


def test_bitget_agrees_on_every_message(captures: Path) -> None:
    assert interleaved_counts(captures / "bitget_spot_v1_20220407.txt.gz") == (443, 443)


def test_kraken_v1_agrees_on_every_message(captures: Path) -> None:
    books: dict[str, TextBook] = defaultdict(TextBook)
    good = checked = 0
    for frame in frames(captures / "kraken_v1_20210417.txt.gz"):
        if not isinstance(frame, list):
            continue
        *parts, _channel, pair = frame[1:]
        book = books[pair]
        for part in parts:
            for key in ("b", "bs"):
                book.set(book.bids, part.get(key, []))
            for key in ("a", "as"):
                book.set(book.asks, part.get(key, []))
        # Only after the whole message, and after the cut: no delete comes for what falls out of the depth.
        book.cut(1000)
        if (wanted := parts[-1].get("c")) is not None:
            checked += 1
            good += kraken_v1_crc32(*book.sorted()) == int(wanted)
    assert (good, checked) == (4269, 4269)


def test_the_venues_text_counts_not_its_value() -> None:
    assert interleaved_crc32([["0.5410", "1"]], []) != interleaved_crc32([["0.541", "1"]], [])


def test_when_one_side_runs_out_the_other_goes_on_alone() -> None:
    text = "3:1:4:2:5:9"
    value = crc32(text.encode())
    signed = value - (1 << 32) if value >> 31 else value
    assert interleaved_crc32([["3", "1"]], [["4", "2"], ["5", "9"]]) == signed


def test_only_the_first_levels_count() -> None:
    levels = [[str(n), "1"] for n in range(1, 40)]
    assert interleaved_crc32(levels, []) == interleaved_crc32(levels[:25], [])
    assert kraken_v1_crc32([], levels) == kraken_v1_crc32([], levels[:10])


@pytest.mark.parametrize("depth", [1, 5, 100])
def test_another_depth_may_be_asked_for(depth: int) -> None:
    levels = [[str(n), "1"] for n in range(1, 40)]
    assert interleaved_crc32(levels, [], depth) == interleaved_crc32(levels[:depth], [], 1000)


def test_kraken_v2_is_v1s_rule_on_integers() -> None:
    asks = [("45285.2", "0.00100000"), ("45286.4", "1.54582015")]
    bids = [("45283.5", "0.10000000"), ("0.5", "20.00000000")]

    def scaled(levels: list[tuple[str, str]]) -> list[tuple[int, int]]:
        return [(int(Decimal(p).scaleb(1)), int(Decimal(s).scaleb(8))) for p, s in levels]

    text = "452852100000" "452864154582015" "45283510000000" "52000000000"
    assert kraken_v2_crc32(scaled(bids), scaled(asks)) == kraken_v1_crc32(bids, asks) == crc32(text.encode())
