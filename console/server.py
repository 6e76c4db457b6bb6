"""The console's web server: one page, its files, and one stream of server-sent events for each browser. Read-only.

==================  ================================================================================
``/``               the page
``/stream``         server-sent events: what changed since the last frame (``?watch=venue|symbol``, up to 4)
``/healthz``        alive
``/readyz``         200 while derived topics are being read, else 503 with the reason
``/metrics``        Prometheus
==================  ================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from bus.connection import require_broker
from bus.errors import BusError
from config.access import is_loopback
from config.settings import Settings
from console.errors import BadRequest, ConsoleError
from console.health import Health
from console.metrics import ConsoleMetrics, Counts, Gauges
from console.mirror import Mirror, Taken
from console.processors import Processors
from console.reader import Reader
from console.security import Guard, add_headers, read_token

log = logging.getLogger(__name__)

EXIT_OK, EXIT_NO_BROKER, EXIT_CONFIG = 0, 2, 64
WATCH_MAX = 4
KEY_MAX = 200
SEND_TIMEOUT_S = 15.0
STATIC = Path(str(resources.files("console").joinpath("static")))


class Client:
    """What one browser has already."""

    def __init__(self, watch: list[str]) -> None:
        self.watch = watch
        self.rows = self.instruments = self.timeline = self.health = 0
        self.logs: dict[str, int] = {}
        self.books: dict[str, int] = {}
        self.trades: dict[str, int] = {}


class Console:
    """The server and all that hangs on it."""

    def __init__(self, settings: Settings) -> None:
        own = settings.console
        self.settings = settings
        self.counts = Counts()
        self.mirror = Mirror(self.counts)
        p = settings.processor
        self.processors = Processors(
            own.views_urls or (f"http://{p.web_host}:{p.web_port}",), own.metrics_urls, self.counts,
            read_token(p.web_token_file, "processor.web_token_file"),
        )  # fmt: skip
        self.reader = Reader(settings, self._hand_over, self.counts)
        self.health = Health(self.mirror, self.processors, self.reader)
        token = read_token(own.token_file)
        if not token and not is_loopback(own.web_host):
            raise ConsoleError(
                f"console.web_host {own.web_host} can be reached from other machines: set console.token_file, "
                "or listen on 127.0.0.1"
            )
        self.guard = Guard(own.web_host, token, self.counts)
        self.clients = 0
        self.metrics = ConsoleMetrics(
            self.counts,
            Gauges(
                clients=lambda: self.clients, books=lambda: len(self.mirror.books),
                watched=lambda: len(self.processors.watched), lag=lambda: self.reader.lag,
            ),
        )  # fmt: skip
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen and begin to read; gives the address. Raises OSError when the port is taken."""
        self._loop = asyncio.get_running_loop()
        app = web.Application(middlewares=[self.guard.middleware], client_max_size=4096)
        app.on_response_prepare.append(add_headers)
        app.add_routes([
            web.get("/", self._page), web.get("/stream", self._stream), web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz), web.get("/metrics", self._metrics),
            web.get("/login", self.guard.login), web.post("/login", self.guard.login),
            web.static("/static", STATIC),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await self._runner.setup()
        own = self.settings.console
        await web.TCPSite(self._runner, own.web_host, own.web_port).start()
        await self.processors.start()
        self.reader.start()
        self._tasks = [
            asyncio.create_task(self.processors.ask(lambda key: key in self.mirror.books)),
            asyncio.create_task(self.health.run()),
        ]
        return f"http://{own.web_host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every stream and stop reading."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.reader.stop)
        await self.processors.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    # From the reader's thread.

    def _hand_over(self, batch: list[Taken], topics: dict[str, int], venues: dict[str, int]) -> None:
        assert self._loop is not None
        done = asyncio.run_coroutine_threadsafe(self._take(batch, topics, venues), self._loop)
        with contextlib.suppress(TimeoutError):
            done.result(30)

    async def _take(self, batch: list[Taken], topics: dict[str, int], venues: dict[str, int]) -> None:
        for into, more in ((self.mirror.records, topics), (self.mirror.by_venue, venues)):
            for name, count in more.items():
                into[name] = into.get(name, 0) + count
        # A long first batch must not keep the browsers waiting.
        for start in range(0, len(batch), 500):
            self.mirror.take(batch[start : start + 500])
            await asyncio.sleep(0)

    # What browsers ask.

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _healthz(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok", "books": len(self.mirror.books), "clients": self.clients})

    async def _readyz(self, _: web.Request) -> web.StreamResponse:
        ready = self.reader.reading and not self.reader.failed
        reason = self.reader.failed or ("" if ready else "the topics are not open yet")
        return web.json_response({"ready": ready, "reason": reason}, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self.metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        try:
            client = Client(watch_of(request))
        except BadRequest as error:
            self.counts.refused_requests += 1
            return web.json_response({"error": str(error)}, status=400)
        if self.clients >= self.settings.console.clients_max:
            self.counts.refused_clients += 1
            text = f"{self.clients} browsers look already; console.clients_max allows no more"
            return web.json_response({"error": text}, status=503)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        self.clients += 1
        try:
            await response.prepare(request)
            while not self._stopping.is_set():
                frame = b"data: " + msgspec.json.encode(self.frame(client)) + b"\n\n"
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await response.write(frame)
                self.counts.frames += 1
                self.counts.frame_bytes += len(frame)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.console.interval_ms / 1000):
                        await self._stopping.wait()
        except TimeoutError:
            self.counts.slow_readers += 1
            if request.transport is not None:
                request.transport.abort()
        except (ConnectionError, OSError):
            pass  # it went away
        finally:
            self.clients -= 1
        return response

    def frame(self, client: Client) -> dict[str, Any]:
        """What changed since this browser's last frame; the client remembers that it has it now."""
        mirror = self.mirror
        out: dict[str, Any] = {"now": time.time_ns() // 1_000_000}
        for name, source in (
            ("instruments", mirror.instruments), ("rows", mirror.rows), ("timeline", mirror.timeline),
            ("health", self.health.samples),
        ):  # fmt: skip
            if found := source.since(getattr(client, name)):
                out[name] = found
            setattr(client, name, source.version)
        for topic, source in mirror.logs.items():
            if found := source.since(client.logs.get(topic, 0)):
                out.setdefault("logs", {})[topic] = found
            client.logs[topic] = source.version
        for key in client.watch:
            if (watched := self.processors.want(key)) is not None:
                have = client.books.get(key)
                if have != watched.version:
                    book: dict[str, Any] = {"view": watched.view}
                    if have is None:
                        book["samples"] = list(watched.samples)
                    out.setdefault("books", {})[key] = book
                    client.books[key] = watched.version
            known = mirror.books.get(key)
            if known is not None and client.trades.get(key) != known.trades_seen:
                out.setdefault("trades", {})[key] = mirror.trades(key)
                client.trades[key] = known.trades_seen
        return out


def watch_of(request: web.Request) -> list[str]:
    """The keys of ``?watch=…``. Raises BadRequest."""
    if unknown := set(request.query) - {"watch"}:
        raise BadRequest(f"no parameter {sorted(unknown)[0][:40]!r}; there is: watch=venue|symbol")
    keys = list(dict.fromkeys(request.query.getall("watch", [])))
    if len(keys) > WATCH_MAX:
        raise BadRequest(f"watch at most {WATCH_MAX} books")
    for key in keys:
        if "|" not in key or len(key) > KEY_MAX or not key.isprintable():
            raise BadRequest(f"watch is venue|symbol, not {key[:60]!r}")
    return keys


def main(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; gives the exit code (0 stopped, 2 no broker, 64 settings)."""
    import uvloop

    async def run() -> None:
        console = Console(settings)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            print(f"console {await console.start()}", file=sys.stderr, flush=True)
            await stop.wait()
        finally:
            await console.stop()

    try:
        require_broker(settings)
        uvloop.run(run())
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_BROKER
    except (ConsoleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG
    return EXIT_OK
