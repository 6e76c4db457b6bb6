"""Books from the web views, as tables on the terminal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.views import Views

STATE_STYLE = {"LIVE": "green", "SYNCING": "yellow", "RECOVERING": "yellow", "LAGGING": "yellow"}
"""Every other state is red: it must not be traded on and will not mend in a moment."""


def state_text(state: str) -> str:
    """The state in its colour."""
    return f"[{STATE_STYLE.get(state, 'red')}]{state}[/]"


def ladder(book: dict[str, Any]) -> Table:
    """Asks above bids, with bars for the sizes."""
    title = f"{book['venue']} {book['symbol']}  {state_text(book['state'])}"
    age = f"  age {book['age_ms']} ms" if book.get("age_ms") is not None else ""
    table = Table(title=title, caption=f"epoch {book['epoch']}  index {book['index']}  seq {book['venue_seq']}{age}")
    table.add_column("bid size", justify="right", style="green")
    table.add_column("price", justify="right")
    table.add_column("ask size", justify="right", style="red")
    table.add_column("", min_width=20)
    # A bar's length is for the eye only; the numbers beside it stay exact texts.
    largest = max((float(size) for _, size in [*book["bids"], *book["asks"]]), default=1.0) or 1.0
    for price, size in reversed(book["asks"]):
        table.add_row("", price, size, f"[red]{'▇' * round(20 * float(size) / largest)}[/]")
    table.add_section()
    for price, size in book["bids"]:
        table.add_row(size, price, "", f"[green]{'▇' * round(20 * float(size) / largest)}[/]")
    return table


async def show_book(client: Views, venue: str, symbol: str, depth: int, watch: bool, as_json: bool) -> None:
    """Print one book, or keep it on the screen. Raises ViewError."""
    async with client as views:
        book = await views.book(venue, symbol, depth)
        if as_json:
            print(json.dumps(book))
            while watch:
                await asyncio.sleep(0.25)
                print(json.dumps(await views.book(venue, symbol, depth)), flush=True)
            return
        if not watch:
            Console().print(ladder(book))
            return
        with Live(ladder(book), refresh_per_second=8) as live:
            while True:
                await asyncio.sleep(0.125)
                live.update(ladder(await views.book(venue, symbol, depth)))


async def show_books(client: Views, as_json: bool) -> None:
    """Print every book with its state. Raises ViewError."""
    async with client as views:
        books = await views.books()
    if as_json:
        print(json.dumps(books))
        return
    table = Table()
    for name in ("venue", "symbol", "state"):
        table.add_column(name)
    for name in ("bid", "ask", "seq", "index", "age ms"):
        table.add_column(name, justify="right")
    for b in sorted(books, key=lambda b: (b["venue"], b["symbol"])):
        bid, ask = ((b[side] or ["-"])[0] for side in ("bid", "ask"))
        table.add_row(
            b["venue"], b["symbol"], state_text(b["state"]), bid, ask, str(b["venue_seq"]), str(b["index"]),
            str(b["age_ms"]),
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(f"{len(books)} books")
