"""What a request asks for, checked before anything is looked up, and the JSON that answers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

SLICE_S = 0.002
"""A long list is made in pieces of this length; the stream goes on between them."""

T = TypeVar("T")
R = TypeVar("R")
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """The request cannot be answered: ``status`` and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def answer(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=_encode(value), status=status, content_type="application/json", charset="utf-8")


def refusal(error: Exception, status: int) -> web.Response:
    """Why there is no answer."""
    return answer({"error": str(error)}, status)


def only(request: Any, names: tuple[str, ...]) -> None:
    """Refuse a query that asks for anything but these, or for one of them twice: a misspelt filter must not pass."""
    if not request.query_string:
        return
    for name in request.query:
        if name not in names:
            known = f"there is {', '.join(names)}" if names else "there are none here"
            raise Refused(400, f"no parameter is called {name[:20]!r}; {known}")
        if len(request.query.getall(name)) > 1:
            raise Refused(400, f"{name} is given more than once")


def whole(request: Any, name: str, default: int | None, most: int) -> int | None:
    """A whole number of the query from 1 to ``most``; raises Refused."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and 0 < int(text) <= most):
        raise Refused(400, f"{name} is a whole number from 1 to {most}, not {text[:20]!r}")
    return int(text)


def choice(request: Any, name: str, choices: Any) -> str | None:
    """One of these words, or None when it is not asked for; raises Refused."""
    text = request.query.get(name)
    if text is not None and text not in choices:
        raise Refused(400, f"{name} is one of {', '.join(choices)}, not {text[:20]!r}")
    return text


def word(request: Any, name: str) -> str | None:
    """A text that is not empty, or None when it is not asked for; raises Refused."""
    text = request.query.get(name)
    if text is not None and not text:
        raise Refused(400, f"{name} is empty")
    return text


async def listed(items: Iterable[T], row: Callable[[T], R]) -> list[R]:
    """``row`` of each item, with the event loop's other work in between."""
    out: list[R] = []
    started = time.perf_counter()
    for item in items:
        out.append(row(item))
        if time.perf_counter() - started > SLICE_S:
            await asyncio.sleep(0)
            started = time.perf_counter()
    return out
