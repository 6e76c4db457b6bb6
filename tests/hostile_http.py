"""Requests that no friend sends: paths that climb, bytes that are no text, headers and methods out of order."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

CLIMBS = (
    "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "..%252f..%252fetc%252fpasswd",
    "....//....//etc/passwd", "..%c0%af..%c0%afetc/passwd", "%2fetc%2fpasswd", "..\\..\\..\\etc\\passwd",
    "static/../../server.py",
    "static/%2e%2e/%2e%2e/config/settings.py", "static/..;/..;/pyproject.toml", "file:///etc/passwd", "//etc/passwd",
)  # fmt: skip
PIECES = (
    "books", "bbo", "cross", "bars", "instruments", "status", "stream", "stream/books", "static", "metrics", "healthz", "login",
    "..", "%00", "%0d%0aSet-Cookie:%20x=y", "%ff%fe", "%F0%9F%92%A9", "%", "%zz", "%2e", "{venue}", "{{7*7}}", "${jndi:x}", "'--",
    "<script>alert(1)</script>", "BTC%2FUSDT", "A" * 300, "-1", "0x10", "NaN", "1e309", "9" * 40, "true", "[]", "*", ";", "",
)  # fmt: skip
NAMES = ("depth", "venue", "symbol", "watch", "limit", "interval", "state", "base", "quote", "__proto__", "x" * 200, "%00", "")
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "G\u00cbT", "get")
HEADERS = (
    "Host: evil.example", "Authorization: Bearer \xff\xfe", "Authorization: Bearer " + "x" * 3000,
    "Cookie: venue-mirror-console=\xff",
    "Cookie: ;;;=;", "Range: bytes=0-,5-1,-1", "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity, chunked", "Accept: text/html", "X-Forwarded-For: 1",
    "Expect: 100-continue", "Upgrade: websocket",
    "If-Modified-Since: \u00ff", "Content-Type: multipart/form-data; boundary=", "X: " + "y" * 9000, ": nameless", "no colon",
)  # fmt: skip
LEAK = re.compile(rb"Traceback|File \"|root:.*:0:0|\[build-system\]|from __future__|aiohttp\.|/site-packages/")


def requests(seed: int, count: int) -> Iterator[bytes]:
    """As many requests as bytes, always the same for a seed."""
    rnd = random.Random(seed)
    for climb in CLIMBS:
        for prefix in ("/", "/static/", "/books/"):
            yield f"GET {prefix}{climb} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode("latin-1", "replace")
    for _ in range(count):
        path = "/" + "/".join(rnd.choice(PIECES) for _ in range(rnd.randint(0, 4)))
        if rnd.random() < 0.6:
            path += "?" + "&".join(f"{rnd.choice(NAMES)}={rnd.choice(PIECES)}" for _ in range(rnd.randint(1, 4)))
        headers = ["Host: 127.0.0.1"] if rnd.random() < 0.9 else []
        headers += [rnd.choice(HEADERS) for _ in range(rnd.choice((0, 0, 0, 1, 2)))]
        text = f"{rnd.choice(METHODS)} {path} HTTP/1.1\r\n" + "".join(f"{h}\r\n" for h in headers) + "Connection: close\r\n\r\n"
        body = text.encode("latin-1", "replace")
        if rnd.random() < 0.1:
            at = rnd.randrange(len(body))
            body = body[:at] + rnd.randbytes(rnd.randint(1, 20)) + body[at:]
        yield body + (rnd.randbytes(200) if b"POST" in body[:5] else b"")


def whole(got: bytes) -> bool:
    """Whether an answer is here to its end: what was asked may promise a body that never comes, and the line stays open."""
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return bool(end) and (length is not None and len(body) >= int(length[1]))


async def answer(url: str, request: bytes, timeout_s: float = 2) -> tuple[int, bytes]:
    """(status, everything that came); status 0: the line was closed without a word. A stream is left after its first bytes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    got = b""
    try:
        writer.write(request)
        async with asyncio.timeout(timeout_s):
            while chunk := await reader.read(65_536):
                got += chunk
                if whole(got) or b"text/event-stream" in got or len(got) > 4_000_000:
                    break
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", got)
    return int(found[1]) if found else 0, got


async def attack(url: str, *, seed: int, count: int, headers: dict[str, str] | None = None) -> dict[int, int]:
    """Send them all; gives how often each status came.

    Raises AssertionError for a failure inside (5xx but 503), for what should not be shown, and for a header of ``headers``
    that is missing where the program itself answered.
    """
    seen: dict[int, int] = {}
    for request in requests(seed, count):
        status, got = await answer(url, request)
        shown = request[:300]
        assert status < 500 or status == 503, f"{status} to {shown!r}: {got[:600]!r}"
        assert not LEAK.search(got), f"{shown!r} shows {LEAK.search(got)!r}"
        comes_back = b"Set-Cookie: x=y" in got or (b"<script>alert" in got and b"Content-Type: text/html" in got)
        assert not comes_back, f"{shown!r} comes back: {got[:600]!r}"
        if headers and status not in (0, 400):  # a request that is no HTTP at all is refused by the server below
            for name, value in headers.items():
                assert f"{name}: {value}".encode() in got, f"no {name} in the answer to {shown!r}: {got[:600]!r}"
        seen[status] = seen.get(status, 0) + 1
    return seen
