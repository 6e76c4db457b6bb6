"""A collector's own small web server: ``/metrics`` and ``/healthz``, read-only, on localhost by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web


async def start_server(
    host: str, port: int, exposition: Callable[[], bytes], health: Callable[[], dict[str, Any]]
) -> tuple[web.AppRunner, int]:
    """Start it; gives the runner (``await runner.cleanup()`` stops it) and the port. Raises OSError when taken."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response(health())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, runner.addresses[0][1]
