"""What a set of capture files holds, found by reading them once: the market, the instruments, whose each snapshot is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulator.capture_file import CaptureError, CaptureLine, read_capture

STREAM = re.compile(rb'^\{"stream":"([^"@]+)@([^"]+)"')
DIFF_DEPTH = re.compile(rb"depth(@\d+ms)?$")
"""The changes of a book. ``depth5`` to ``depth20`` are other streams: whole tops of books."""


@dataclass
class Survey:
    """One market's files, taken together as one stream."""

    adapter: str = ""
    depth_frames: Counter[str] = field(default_factory=Counter[str])
    decimals: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """native → the most digits after the point that a price and a size in its snapshots have."""
    owners: list[str] = field(default_factory=list[str])
    """Whose each snapshot is, in reading order."""


def is_snapshot(line: CaptureLine) -> bool:
    """Whether the line is the answer to a depth request; other REST answers may stand beside."""
    return line.kind == "rest" and b'"lastUpdateId"' in line.data[:200]


def survey(paths: Sequence[Path]) -> Survey:
    """Read all files. Raises CaptureError: not a Binance capture, of several markets, or a book that cannot start."""
    out = Survey()
    adapters: dict[str, Path] = {}
    unnamed: list[tuple[int, Path]] = []
    answers: list[dict[str, Any]] = []
    natives_of: dict[Path, dict[str, None]] = {path: {} for path in paths}
    for path in paths:
        natives = natives_of[path]
        for line in read_capture([path]):
            if line.kind == "frame":
                match = STREAM.match(line.data)
                if match is not None and DIFF_DEPTH.match(match[2]):
                    native = match[1].decode().upper()
                    natives[native] = None
                    out.depth_frames[native] += 1
                    adapters.setdefault(_adapter(line.data), path)
            elif is_snapshot(line):
                answer = _answer(path, line)
                answers.append(answer)
                out.owners.append(owner := _named(line, answer))
                if not owner:
                    unnamed.append((len(out.owners) - 1, path))
    if len(adapters) != 1:
        found = ", ".join(f"{name} ({path.name})" for name, path in adapters.items())
        raise CaptureError(
            f"one capture venue serves one market; these files are of: {found}" if found else
            f"no Binance depth frame in {', '.join(map(str, paths))}; only Binance's captures can be served"
        )  # fmt: skip
    out.adapter = next(iter(adapters))
    for number, path in unnamed:
        candidates = list(natives_of[path] or out.depth_frames)
        if len(candidates) != 1:
            raise CaptureError(f"{path}: a depth snapshot that does not say whose it is, of {', '.join(candidates)}")
        out.owners[number] = candidates[0]
    for native, answer in zip(out.owners, answers, strict=True):
        old = out.decimals.get(native, (0, 0))
        levels = [level for side in ("bids", "asks") for level in answer[side]]
        out.decimals[native] = (
            max(old[0], _decimals([level[0] for level in levels])),
            max(old[1], _decimals([level[1] for level in levels])),
        )
    if missing := [native for native in out.depth_frames if native not in out.decimals]:
        raise CaptureError(f"no depth snapshot of {', '.join(missing)}: the books cannot start")
    return out


def _adapter(frame: bytes) -> str:
    kind = "coinm" if b'"ps":' in frame else "usdm" if b'"pu":' in frame else "spot"
    return f"binance-{kind}"


def _answer(path: Path, line: CaptureLine) -> dict[str, Any]:
    try:
        answer = json.loads(line.data)
        if isinstance(answer["lastUpdateId"], int) and isinstance(answer["bids"], list) and isinstance(answer["asks"], list):
            return answer
    except (ValueError, KeyError, TypeError):
        pass
    raise CaptureError(f"{path}: a depth snapshot that cannot be read: {line.data[:60]!r}")


def _named(line: CaptureLine, answer: Mapping[str, Any]) -> str:
    return str(answer.get("symbol") or next(iter(parse_qs(urlsplit(line.url).query).get("symbol", ())), "")).upper()


def _decimals(texts: Sequence[str]) -> int:
    return max((len(text.partition(".")[2].rstrip("0")) for text in texts), default=0)
