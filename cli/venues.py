"""Which venues can be collected, what each gives, and what proves a book of it: read from the adapters themselves."""

from __future__ import annotations

import importlib
import re

from rich.console import Console
from rich.table import Table

from collectors.cex.ccxt_pro import ccxt_ids
from collectors.venue import ALL_CHANNELS, Venue, adapter, adapter_ids


def proof_of(kind: type[Venue]) -> str:
    """What the adapter's module, or one that it builds on, says behind ``Proof:``."""
    for base in kind.__mro__:
        text = importlib.import_module(base.__module__).__doc__ or ""
        if (found := re.search(r"Proof: (.+?)(?=\n\n|\Z|\s[A-Z][a-z]+: )", text, re.DOTALL)) is not None:
            return " ".join(found[1].split()).rstrip(".")
    return ""


def rows() -> list[tuple[str, str, str]]:
    """(id, channels, proof) of every venue."""
    out: list[tuple[str, str, str]] = []
    for name in adapter_ids():
        kind = adapter(name)
        channels = ", ".join(channel.replace("_", " ") for channel in ALL_CHANNELS if channel in kind.offers)
        out.append((name, channels, proof_of(kind)))
    return out


def markdown_table() -> str:
    """The table as ADDING_A_VENUE.md holds it."""
    lines = ["| venue | channels | proof of a book (evidence) |", "|---|---|---|"]
    lines += [f"| `{name}` | {channels} | {proof} |" for name, channels, proof in rows()]
    return "\n".join(lines) + "\n"


def show(*, markdown: bool, endpoints: bool) -> None:
    """Print it."""
    if markdown:
        print(markdown_table(), end="")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("venue", "channels", "proof", *(("REST", "websocket") if endpoints else ())):
        table.add_column(head, overflow="fold")
    for name, channels, proof in rows():
        kind = adapter(name)
        table.add_row(name, channels, proof, *((kind.rest_url, kind.ws_url) if endpoints else ()))
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    generic = [name for name in ccxt_ids() if name not in adapter_ids()]
    console.print(
        f"\nBy ccxt.pro, without a file of their own ({len(generic)}): books and trades, exact=false, no proof of ours. "
        "The others can be had this way too, as ccxt:NAME.\n" + ", ".join(generic),
        highlight=False,
    )
