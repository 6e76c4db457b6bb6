"""Plays every capture of a folder through its adapter, rule and workers, and prints what its oracle says, as a table.

    python -m tests.captures_table [FOLDER]

The oracle is the venue's own: its checksum where it sends one, Binance's best bid and offer after each event (the ticker
with the greatest id up to the event's), else the chain of its sequence numbers, each link judged by the book's rule.
``venue-mirror replay FILE …`` plays the same through Kafka and the processor.
"""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from collections import defaultdict
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.table import print_table
from collectors.metrics import Counts
from collectors.player import Player
from collectors.publisher import Publisher
from collectors.venue import ALL_CHANNELS, adapter, adapter_ids
from config.settings import load_settings
from simulator.capture_file import read_capture, with_answers

CAPTURES = Path(os.environ.get("VENUE_MIRROR_CAPTURES", Path(__file__).resolve().parents[2] / "shared" / "captures"))
BY_TICKER = ("binance-spot", "binance-usdm", "binance-coinm")
SNIFFED = 2000

Best = tuple[Decimal, ...]


class Noting(Publisher):
    """Writes nothing; notes each book's best bid and offer after each event, and what the venue's ticker said of it."""

    def __init__(self, venue: str) -> None:
        super().__init__(venue, lambda *_: None, Counts())
        self.mirrored: dict[str, list[tuple[int, Best]]] = defaultdict(list)
        self.told: dict[str, list[tuple[int, Best]]] = defaultdict(list)

    def book(self, worker: Any, kind: str, *args: Any, **kwargs: Any) -> bool:
        bid, ask = worker.local.book.bids.best(), worker.local.book.asks.best()
        if kind == "DELTA" and bid and ask:
            self.mirrored[worker.native].append((worker.last_seq, _exact(worker, (*bid, *ask))))
        return super().book(worker, kind, *args, **kwargs)

    def ticker(
        self, worker: Any, event: Any, bid_price: int, bid_size: int, ask_price: int, ask_size: int, ts_received_ns: int
    ) -> bool:
        self.told[worker.native].append((event.seq, _exact(worker, (bid_price, bid_size, ask_price, ask_size))))
        return super().ticker(worker, event, bid_price, bid_size, ask_price, ask_size, ts_received_ns)

    def agreement(self) -> tuple[int, int]:
        """(ok, bad) of all events."""
        ok = bad = 0
        for native, events in self.mirrored.items():
            told = sorted(self.told[native], key=lambda pair: pair[0])
            ids = [seq for seq, _ in told]
            for seq, best in events:
                if at := bisect_right(ids, seq):
                    ok, bad = (ok + 1, bad) if told[at - 1][1] == best else (ok, bad + 1)
        return ok, bad


def _exact(worker: Any, mantissas: tuple[int, ...]) -> Best:
    """Price, size, price, size: exponents become finer while a capture is played."""
    exponents = worker.local.exponents() * 2
    return tuple(Decimal(number).scaleb(exponent) for number, exponent in zip(mantissas, exponents, strict=True))


def row(path: Path) -> tuple[str, ...]:
    """The capture's line of the table."""
    frames = [line.data for line in islice(read_capture([path]), SNIFFED) if line.kind in ("frame", "rest")]
    found = [name for name in adapter_ids() if adapter(name).sniff(frames)]
    if not found:
        return (path.name, "–", "", "", "a retired protocol", "", "", "", "", "")
    publisher = Noting(found[0])
    lines = list(read_capture(with_answers(path)))
    player = Player(adapter(found[0])(channels=ALL_CHANNELS), lines, publisher, load_settings().collector)
    player.play()
    counts = player.counts
    if found[0] in BY_TICKER:
        oracle, (ok, bad) = "best bid and offer", publisher.agreement()
    elif counts.checksum_ok or counts.checksum_bad:
        oracle, ok, bad = "checksum", counts.checksum_ok, counts.checksum_bad
    else:
        oracle, ok, bad = "sequence", counts.book_events, counts.gaps
    live = player.pipeline.states().get("LIVE", 0)
    return (
        path.name, found[0], f"{counts.frames:,}", f"{counts.book_events:,}", oracle, f"{ok:,}", str(bad), str(counts.gaps),
        str(counts.dead_letters), f"{live} of {len(player.pipeline.workers)}",
    )  # fmt: skip


def main() -> int:
    """Print; 1 where an oracle disagrees."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CAPTURES
    files = sorted(path for path in folder.glob("*.gz") if not path.name.endswith(".http.txt.gz"))
    if not files:
        print(f"error: no capture in {folder}", file=sys.stderr)
        return 1
    rows = [row(path) for path in files]
    print_table(
        f"{len(rows)} captures",
        ("capture", "adapter", "frames", "updates", "oracle", "ok", "bad", "gaps", "dead letters", "LIVE at the end"), rows,
    )
    return int(any(one[6] not in ("", "0") for one in rows))


if __name__ == "__main__":
    raise SystemExit(main())
