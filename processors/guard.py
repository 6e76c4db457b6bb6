"""Who may ask the web views, and how often: a bearer token, a bucket for each client address, headers on every answer.

``/healthz`` and ``/readyz`` stay open and uncounted: a probe that is refused would have the worker restarted. A request
that another worker passes on was counted where it came in; that worker signs it with the token, which itself never
travels between workers.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from config.access import AccessError, bearer, is_loopback, read_token, same
from config.settings import ProcessorSettings
from processors.asked import answer
from processors.metrics import Counts

PASSED = "X-Venue-Mirror-Passed"
OPEN_PATHS = ("/healthz", "/readyz")
HOP_S = 60
"""A signature holds this long: for one path, and for clocks that differ a little."""
BURST_S = 2.0
"""A client that was quiet may ask for this many seconds at once."""
ADDRESSES_MAX = 4096
OTHERS = "others"
"""The bucket that clients share for whom there is no room."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Limiter:
    """Token buckets by client address, at most ADDRESSES_MAX of them whoever asks."""

    def __init__(self, rate_per_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate_per_s
        self._most = max(1.0, rate_per_s * BURST_S)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What is left and since when, who asked last at the end."""

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, address: str) -> float:
        """0 when this client may ask now, which counts; else the seconds until it may."""
        if not self._rate:
            return 0.0
        now_s, key = self._now(), self._place(network(address))
        left, since_s = self._buckets.pop(key, (self._most, now_s))
        left = min(self._most, left + (now_s - since_s) * self._rate)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now_s)
        return 0.0 if allowed else (1 - left) / self._rate

    def _place(self, key: str) -> str:
        """The key of its bucket. A bucket that has filled up again is as good as none, and gives way to a new one."""
        if key in self._buckets or len(self._buckets) < ADDRESSES_MAX:
            return key
        oldest, (left, since_s) = next(iter(self._buckets.items()))
        if left + (self._now() - since_s) * self._rate < self._most:
            return OTHERS
        del self._buckets[oldest]
        return key


def network(address: str) -> str:
    """The address as it is counted: of IPv6 the /64, which one client has for itself."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(ip, IPv6Address):
        return str(ip)
    return str(ip.ipv4_mapped) if ip.ipv4_mapped is not None else ip.packed[:8].hex()


def views_token(settings: ProcessorSettings) -> str:
    """The token that the views ask for, empty: none. Raises AccessError, also where one is missing."""
    token = read_token(settings.web_token_file, "processor.web_token_file")
    if not token and not settings.web_open and not is_loopback(settings.web_host):
        raise AccessError(
            f"processor.web_host {settings.web_host} can be reached from other machines: set processor.web_token_file, "
            "or listen on 127.0.0.1, or set processor.web_open where something in front of the views asks who is there"
        )
    return token


class Guard:
    """The middleware of the views' web server. Raises AccessError when the settings do not allow to serve."""

    def __init__(self, settings: ProcessorSettings, counts: Counts) -> None:
        self._token = views_token(settings)
        self._limiter = Limiter(settings.web_rate_per_s)
        self._counts = counts

    @property
    def asks_for_a_token(self) -> bool:
        """Whether the views are for those alone who have the token."""
        return bool(self._token)

    def install(self, app: web.Application) -> None:
        """Before the server starts."""
        app.middlewares.append(self.middleware)
        app.on_response_prepare.append(_add_headers)

    def hop(self, path: str) -> dict[str, str]:
        """Headers of a request for this path and query that is passed on to another worker."""
        when = str(int(time.time()))
        return {PASSED: f"{when}.{self._sign(when, path)}" if self._token else "1"}

    def _sign(self, when: str, path: str) -> str:
        return hmac.new(self._token.encode(), f"{PASSED} {when} {path}".encode(), hashlib.sha256).hexdigest()

    def _is_hop(self, request: web.Request) -> bool:
        """Whether a worker that has the token has passed this request on just now."""
        when, _, signed = request.headers.get(PASSED, "").partition(".")
        if not self._token or not (when.isascii() and when.isdigit() and len(when) <= 12):
            return False
        path = request.raw_path.encode("utf-8", "replace").decode()
        return abs(time.time() - int(when)) <= HOP_S and same(signed, self._sign(when, path))

    def _knows(self, request: web.Request) -> bool:
        return not self._token or same(bearer(request.headers.get("Authorization", "")), self._token)

    @property
    def middleware(self) -> Middleware:
        """For ``web.Application(middlewares=[…])``."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path in OPEN_PATHS or self._is_hop(request):
                return await handler(request)
            # Before the token is looked at: guessing is counted too.
            if wait_s := self._limiter.wait_s(request.remote or ""):
                self._counts.requests_limited += 1
                return _refuse(429, "too many requests from this address; ask again", "Retry-After", math.ceil(wait_s))
            if not self._knows(request):
                self._counts.requests_refused += 1
                return _refuse(401, "a token is needed: Authorization: Bearer …", "WWW-Authenticate", "Bearer")
            return await handler(request)

        return guard


def _refuse(status: int, reason: str, header: str, value: Any) -> web.Response:
    response = answer({"error": reason}, status)
    response.headers[header] = str(value)
    return response


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)
