"""Who may look, and what a browser may do with what it gets: host check, token, headers.

On a loopback address only names of this machine are answered, so that a page of another site cannot read the console
through a name that it points at 127.0.0.1. With ``console.token_file`` everything but the login needs the token.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from config.access import AccessError, is_loopback, same
from config.access import read_token as read
from console.errors import ConsoleError
from console.metrics import Counts

COOKIE = "venue-mirror-console"
OPEN_PATHS = ("/login", "/static/style.css", "/healthz", "/readyz")
LOOPBACK = ("localhost", "127.0.0.1", "::1")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

LOGIN = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>venue-mirror</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="stylesheet" href="/static/style.css">
<main class="login"><h1>venue-mirror</h1><form method="post" action="/login">
<label>Token <input type="password" name="token" autocomplete="current-password" autofocus></label>
<button>Look</button></form></main></html>
"""


def read_token(path: Path | None, setting: str = "console.token_file") -> str:
    """The token of the file, empty without one. Raises ConsoleError naming the file, never what is in it."""
    try:
        return read(path, setting)
    except AccessError as error:
        raise ConsoleError(str(error)) from None


class Guard:
    """The middleware."""

    def __init__(self, host: str, token: str, counts: Counts) -> None:
        self._loopback = is_loopback(host)
        self._host = host
        self._token = token
        # What the browser keeps is not the token itself.
        self._cookie = hmac.new(token.encode(), b"console", hashlib.sha256).hexdigest() if token else ""
        self._counts = counts

    def allowed_host(self, name: str) -> bool:
        """Whether a Host header is one that a person of this machine would have typed."""
        host = name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
        return not self._loopback or host.strip("[]") in (*LOOPBACK, self._host)

    def knows(self, request: web.Request) -> bool:
        """Whether the request has the token: as a cookie, or as ``Authorization: Bearer``."""
        if not self._token:
            return True
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return same(given, self._token) or same(request.cookies.get(COOKIE, ""), self._cookie)

    async def login(self, request: web.Request) -> web.StreamResponse:
        """``GET /login`` asks for the token, ``POST /login`` takes it."""
        if request.method == "GET":
            return web.Response(text=LOGIN, content_type="text/html")
        try:
            given = str((await request.post()).get("token", "")).strip()
        except (ValueError, LookupError):  # a body that is no form, or no text in the charset that it names
            given = ""
        if not self._token or not same(given, self._token):
            self._counts.refused_requests += 1
            return web.Response(text=LOGIN, content_type="text/html", status=401)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", secure=request.secure, max_age=43_200)
        return response

    @property
    def middleware(self) -> Middleware:
        """For ``web.Application(middlewares=[…])``."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.allowed_host(request.headers.get("Host", "")):
                self._counts.refused_requests += 1
                return web.json_response({"error": "this host name is not the console's"}, status=421)
            if request.path not in OPEN_PATHS and not self.knows(request):
                self._counts.refused_requests += 1
                if "text/html" in request.headers.get("Accept", ""):
                    return web.Response(status=303, headers={"Location": "/login"})
                return web.json_response({"error": "a token is needed: Authorization: Bearer …"}, status=401)
            return await handler(request)

        return guard


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """For ``app.on_response_prepare``."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.pop("Server", None)
