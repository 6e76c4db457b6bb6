"""Starts the rooms of one machine as separate processes, watches them, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.settings import Settings

STOP_S = 20
SECTIONS = ("kafka", "broker", "collector", "processor", "execution", "console", "history", "tracing", "venues", "chains")


class StackError(Exception):
    """A process did not start or ended by itself; the text holds the end of its output."""


def free_port() -> int:
    """A TCP port on localhost that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(settings: Settings) -> dict[str, str]:
    """The settings as environment variables for a child process; no secret is in them, only names of files."""
    out = {name: value for name, value in os.environ.items() if not name.startswith("VENUE_MIRROR_")}
    for name in ("VENUE_MIRROR_CACHE", "VENUE_MIRROR_LOG"):
        if name in os.environ:
            out[name] = os.environ[name]
    dumped = settings.model_dump(mode="json")
    import json

    for section in SECTIONS:
        out[f"VENUE_MIRROR_{section.upper()}"] = json.dumps(dumped[section])
    return out


@dataclass
class Child:
    """One process of the stack."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    expected_code: int = 0
    lines: list[str] = field(default_factory=list[str])

    def tail(self, count: int = 12) -> str:
        """The end of what it wrote."""
        try:
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])
        except OSError:
            return ""


class Stack:
    """Children of this process, each with its log file in ``log_dir``. Use as an async context manager."""

    def __init__(self, settings: Settings, log_dir: Path) -> None:
        self.settings = settings
        self.log_dir = log_dir
        self.children: list[Child] = []

    async def start(self, name: str, *arguments: str, settings: Settings | None = None) -> Child:
        """Start ``venue-mirror <arguments>``; its output goes to ``<log_dir>/<name>.log``."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        log = self.log_dir / f"{name}.log"
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "cli.main", *arguments,
                stdout=out, stderr=out, stdin=asyncio.subprocess.DEVNULL,
                env=environment(settings or self.settings), start_new_session=True,
            )  # fmt: skip
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raise StackError when a child has ended by itself."""
        for child in self.children:
            code = child.process.returncode
            if code is not None:
                raise StackError(f"{child.name} ended with code {code}:\n{child.tail()}")

    async def until(self, what: str, ready: Callable[[], Any], timeout_s: float, pause_s: float = 0.1) -> Any:
        """Wait until ``ready()`` (plain or async) gives something true; StackError when a child ends or time is over."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            result = ready()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                tails = "\n".join(f"--- {c.name}\n{c.tail()}" for c in self.children)
                raise StackError(f"{what}: not within {timeout_s:g} s\n{tails}")
            await asyncio.sleep(pause_s)

    async def stop(self, child: Child) -> int:
        """Stop one child with SIGTERM, with SIGKILL after STOP_S; gives its exit code."""
        if child in self.children:
            self.children.remove(child)
        if child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_S):
                    await child.process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()
                await child.process.wait()
        return child.process.returncode or 0

    async def __aenter__(self) -> Stack:
        return self

    async def __aexit__(self, *_: object) -> None:
        for child in list(reversed(self.children)):
            await self.stop(child)


@contextlib.asynccontextmanager
async def private_broker(
    settings: Settings, log: Callable[[str], None], data_dir: Path | None = None
) -> AsyncIterator[Settings]:
    """Settings that name a broker: the configured one, or an embedded one of our own that ends with the block."""
    from bus.broker import EmbeddedBroker
    from bus.connection import configured_bootstrap, require_broker
    from bus.topics import apply

    if address := configured_bootstrap(settings):
        await asyncio.to_thread(require_broker, settings)
        log(f"kafka: using {address}")
        await asyncio.to_thread(apply, settings)
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="venue-mirror-") as temporary:
        own = settings.broker.model_copy(
            update={"data_dir": (data_dir or Path(temporary)) / "kafka", "port": free_port()}
        )
        broker = EmbeddedBroker(own, log)
        address = await asyncio.to_thread(broker.start)
        try:
            kafka = settings.kafka.model_copy(update={"bootstrap_servers": address})
            settings = settings.model_copy(update={"broker": own, "kafka": kafka})
            await asyncio.to_thread(apply, settings)
            yield settings
        finally:
            await asyncio.to_thread(broker.stop)
