"""A room's own small web server, read-only, on localhost by default: ``/metrics``, ``/healthz`` and ``/readyz``.

``/healthz`` is 200 while the process lives; ``/readyz`` is 503 with the reason until it does its work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from aiohttp import web


async def start_server(
    host: str, port: int, exposition: Callable[[], bytes], health: Callable[[], dict[str, Any]],
    waits_for: Callable[[], str],
) -> tuple[web.AppRunner, int]:  # fmt: skip
    """Start it and print its address; gives the runner (``await runner.cleanup()`` stops it) and the port.

    ``port`` 0 takes any that is free. ``waits_for`` gives the reason why the room is not ready, or nothing. Raises OSError
    when the port is taken.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response(health())

    async def readyz(_: web.Request) -> web.Response:
        reason = waits_for()
        return web.json_response({"ready": not reason, "reason": reason}, status=503 if reason else 200)

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    taken: int = runner.addresses[0][1]
    print(f"metrics http://{host}:{taken}/metrics", file=sys.stderr, flush=True)
    return runner, taken
