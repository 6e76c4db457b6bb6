"""A quote from a pool's recorded state: anyone can check it against what the chain answered at that block."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


class QuoteError(Exception):
    """The state cannot be read, or the pool cannot answer; the text says which and why."""


def read_state(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON file (``-``: standard input). Raises QuoteError; numbers with a point are refused."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
        state = json.loads(text, parse_float=_no_floats)
    except OSError as error:
        raise QuoteError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise QuoteError(f"{path} is not a pool's JSON: {error}") from error
    if not isinstance(state, dict):
        raise QuoteError(f"{path} holds no dictionary of a pool's state")
    return state


def quote(path: Path, token_in: str, token_out: str, amount: str, exact_out: bool) -> dict[str, Any]:
    """The answer as a dictionary of texts and integers: amounts are texts, because JSON readers cut long numbers off.

    Raises QuoteError.
    """
    from market.pools.families import pool_of
    from market.pools.pool import PoolError

    try:
        size = int(amount, 16) if amount.lower().startswith("0x") else int(amount)
    except ValueError:
        raise QuoteError(f"--amount is a whole number of the token's smallest unit, not {amount[:60]!r}") from None
    try:
        pool = pool_of(read_state(path))
        answer = pool.quote(token_in, size, token_out or None, exact_out=exact_out)
    except PoolError as error:
        raise QuoteError(str(error)) from error
    return {
        "family": pool.family,
        "token_in": answer.token_in,
        "token_out": answer.token_out,
        "amount_in": str(answer.amount_in),
        "amount_out": str(answer.amount_out),
        "exact": "out" if exact_out else "in",
        "price_impact_ppm": answer.price_impact_ppm,
        "gas": answer.gas,
    }


def _no_floats(text: str) -> Any:
    raise ValueError(f"{text} is not a whole number")


def quote_command(
    state: Annotated[Path, typer.Option(help="JSON file with the pool's state; - reads it from standard input.")],
    token_in: Annotated[str, typer.Option(help="Token that goes in, as the state names it.")],
    amount: Annotated[str, typer.Option(help="Whole number of the smallest unit: what goes in, or with --exact-out out.")],
    token_out: Annotated[str, typer.Option(help="Token to buy; may be left out of a pool of two.")] = "",
    exact_out: Annotated[bool, typer.Option("--exact-out", help="--amount is what has to come out.")] = False,
) -> None:
    """Quote a pool from its recorded state, to the wei; prints one JSON line. Needs no chain and no Kafka."""
    try:
        print(json.dumps(quote(state, token_in, token_out, amount, exact_out)))
    except QuoteError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
