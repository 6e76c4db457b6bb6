"""What a benchmark measured, as rows that a program can read: ``--json FILE`` of every benchmark.

The file is a JSON list of objects, one a row: ``benchmark`` and ``row`` (names), ``ours`` and ``theirs`` (numbers in
``unit``; ``theirs`` null where nothing is compared), ``ratio`` (how many times better ours is: above 1 we are ahead; null
without an alternative), ``alternative`` (its name and version), ``aim`` (in words, empty where there is none) and ``met``
(null without an aim).
"""

from __future__ import annotations

import argparse
import json
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Sign = Literal["≤", "≥"]
SIGNS: dict[str, Callable[[float, float], bool]] = {"≤": operator.le, "≥": operator.ge}


@dataclass(frozen=True)
class Aim:
    """What is aimed at: of our own figure in its unit, or of the ratio to the alternative."""

    sign: Sign
    value: float
    of: Literal["ours", "ratio"] = "ours"

    def text(self, unit: str) -> str:
        """In words: ``≤ 3 ms``, ``≥ 15 ×``."""
        return f"{self.sign} {self.value:,g} {'×' if self.of == 'ratio' else unit}"


@dataclass(frozen=True)
class Row:
    """One object of the file; the module says what each field holds."""

    benchmark: str
    row: str
    ours: float
    theirs: float | None
    ratio: float | None
    unit: str
    alternative: str
    aim: str
    met: bool | None


class Results:
    """The rows of one benchmark."""

    def __init__(self, benchmark: str) -> None:
        self.benchmark = benchmark
        self.rows: list[Row] = []

    def add(
        self, row: str, ours: float, unit: str, *, theirs: float | None = None, alternative: str = "",
        better: Literal["lower", "higher"] = "lower", aim: Aim | None = None,
    ) -> Row:  # fmt: skip
        """Note one figure, of which lower or higher is ``better``; gives the row, its ratio and whether its aim is met."""
        ratio = None
        if theirs is not None and ours and theirs:
            ratio = theirs / ours if better == "lower" else ours / theirs
        met = None
        if aim is not None:
            judged = ours if aim.of == "ours" else ratio
            met = judged is not None and SIGNS[aim.sign](judged, aim.value)
        made = Row(self.benchmark, row, ours, theirs, ratio, unit, alternative, aim.text(unit) if aim else "", met)
        self.rows.append(made)
        return made

    def write(self, path: Path | None) -> None:
        """Write the file, where one was asked for."""
        if path is not None:
            path.write_text(json.dumps([asdict(row) for row in self.rows], ensure_ascii=False, indent=1) + "\n", "utf-8")


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json FILE``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, as benchmarks/results.py says")
