"""Updates that reach a slow reader: a plain ccxt.pro ``watch_order_book`` loop against the tap, on the same local stream.

    python benchmarks/ccxt_tap.py [--seconds 15] [--rate 200] [--pause-ms 50]

A simulated OKX sends ``rate`` book updates a second; ccxt.pro, with nothing changed but its address, reads them. The
reader does something else for ``pause-ms`` after each book that it gets. What the venue sent is counted at the venue.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results import Aim, Results, json_option
from benchmarks.table import print_table
from collectors.ccxt_feed import tapped
from collectors.cex.ccxt_pro import ccxt_adapter
from simulator.synthetic import SyntheticVenue

SYMBOL = "BTC/USDT"


def _changes(result: Any) -> bool:
    """Whether this book has news for the tap; takes them."""
    tap = result.tap
    news = tap.whole or bool(tap.touched[0] or tap.touched[1])
    tap.clear()
    return news


async def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--pause-ms", type=float, default=50)
    json_option(parser)
    options = parser.parse_args()
    venue = SyntheticVenue("okx", instruments=1, rate=options.rate, levels=50)
    await venue.start()
    exchange = ccxt_adapter("okx")().exchange(venue.rest_url, venue.ws_url, {"fetchMarkets": {"types": ["spot"]}})
    told: list[int] = []
    """The nonce of each book of which the tap heard news; ccxt keeps the venue's seqId there."""
    plain_book, plain_client = exchange.order_book, exchange.client
    exchange.order_book = lambda snapshot=None, depth=None: tapped(plain_book(snapshot or {}, depth))

    def client(url: str) -> Any:
        made = plain_client(url)
        if "resolve" not in vars(made):
            resolve = made.resolve

            def heard(result: Any, message_hash: Any = None) -> Any:
                if hasattr(result, "tap") and _changes(result):
                    told.append(int(result["nonce"] or 0))
                return resolve(result, message_hash)

            made.resolve = heard
        return made

    exchange.client = client
    seen: list[int] = []
    await exchange.load_markets()
    await exchange.watch_order_book(SYMBOL)
    told.clear()
    before = int(venue.stats()["events"])
    loop = asyncio.get_running_loop()
    until = loop.time() + options.seconds
    while loop.time() < until:
        book = await exchange.watch_order_book(SYMBOL)
        seen.append(int(book["nonce"] or 0))
        await asyncio.sleep(options.pause_ms / 1000)
    venue.control("rate", rate=0)
    await asyncio.sleep(0.5)
    total = int(venue.stats()["events"]) - before
    await exchange.close()
    await venue.stop()
    version = __import__("ccxt").__version__
    print_table(
        f"ccxt {version}, {options.rate:g} updates a second, a reader that pauses {options.pause_ms:g} ms",
        ("how the stream is read", "updates that reached the reader", "share"),
        [
            ("sent by the venue", f"{total:,}", "100 %"),
            ("the tap", f"{len(told):,}", f"{len(told) / total:.1%}"),
            ("plain watch_order_book loop", f"{len(set(seen)):,}", f"{len(set(seen)) / total:.1%}"),
        ],
    )
    results = Results("ccxt_tap")
    results.add(
        "updates that reached the reader", 100 * len(told) / total, "%", theirs=100 * len(set(seen)) / total,
        alternative=f"ccxt {version}, a plain watch_order_book loop", better="higher", aim=Aim("≥", 100),
    )  # fmt: skip
    results.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
