"""The rooms of a cluster drill as processes of their own, and who starts them again when they end, as a supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cli.stack import Child, Stack
from config.settings import Settings

AGAIN_S = 0.5


@dataclass
class Room:
    """One process: how it is started, and what became of it."""

    name: str
    arguments: tuple[str, ...]
    settings: Settings
    child: Child | None = None
    lives: int = 0
    ended: Counter[int] = field(default_factory=Counter[int])
    """Exit codes with which it ended without being told to."""
    expected: bool = False
    """We have ended it, or are about to."""
    held: bool = False
    """It is to stay away until it is let go."""

    @property
    def pid(self) -> int:
        """Of the process that runs; 0: none does."""
        return self.child.process.pid if self.child is not None and self.child.process.returncode is None else 0


class Rooms:
    """All rooms. Use as an async context manager: what runs is stopped at the end."""

    def __init__(self, settings: Settings, logs: Path, say: Callable[[str], None]) -> None:
        self._stack = Stack(settings, logs)
        self._say = say
        self.rooms: dict[str, Room] = {}
        self._task: asyncio.Task[None] | None = None
        self.stopped: set[str] = set()

    async def start(self, name: str, *arguments: str, settings: Settings) -> None:
        """Start a room; from now on it is started again whenever it ends."""
        self.rooms[name] = room = Room(name, arguments, settings)
        await self._start(room)

    async def _start(self, room: Room) -> None:
        room.lives += 1
        room.expected = False
        room.child = await self._stack.start(f"{room.name}-{room.lives}", *room.arguments, settings=room.settings)
        self._stack.children.remove(room.child)

    async def _supervise(self) -> None:
        while True:
            for room in list(self.rooms.values()):
                if room.child is not None and not room.pid and not room.held:
                    if not room.expected:
                        code = room.child.process.returncode or 0
                        room.ended[code] += 1
                        self._say(f"{room.name} ended by itself with code {code}: {room.child.tail(1)[:200]}")
                    await self._start(room)
            await asyncio.sleep(AGAIN_S)

    async def kill(self, name: str) -> None:
        """kill -9."""
        await self._end(name, signal.SIGKILL)

    async def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL when that takes longer than a supervisor waits."""
        await self._end(name, signal.SIGTERM)

    async def hold(self, name: str) -> None:
        """SIGTERM, and no new start until it is let go."""
        self.rooms[name].held = True
        await self.stop(name)

    def let_go(self) -> None:
        """Those that were held are started again."""
        for room in self.rooms.values():
            room.held = False

    def reconfigure(self, change: Callable[[Settings], Settings]) -> None:
        """Change the settings with which each room starts from now on."""
        for room in self.rooms.values():
            room.settings = change(room.settings)

    async def _end(self, name: str, number: signal.Signals) -> None:
        room = self.rooms[name]
        if (child := room.child) is None or not room.pid:
            return
        room.expected = True
        child.process.send_signal(number)
        try:
            await asyncio.wait_for(child.process.wait(), 30)
        except TimeoutError:
            self._say(f"{name} did not end within 30 s of SIGTERM")
            child.process.kill()
            await child.process.wait()

    async def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so long."""
        if pid := self.rooms[name].pid:
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(seconds)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def memory_mb(self) -> dict[str, int]:
        """Resident memory of each process that runs."""
        return {room.name: resident_mb(room.pid) for room in self.rooms.values() if room.pid}

    async def until_up(self, timeout_s: float = 60) -> None:
        """Wait until every room has a process."""
        deadline = time.monotonic() + timeout_s
        while not all(room.pid for room in self.rooms.values()):
            if time.monotonic() > deadline:
                raise AssertionError("not every room runs: " + ", ".join(r.name for r in self.rooms.values() if not r.pid))
            await asyncio.sleep(0.1)

    async def __aenter__(self) -> Rooms:
        self._task = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        running = [room.child for room in self.rooms.values() if room.child is not None and room.pid]
        for child in running:
            child.process.send_signal(signal.SIGCONT)
        await asyncio.gather(*(self._stack.stop(child) for child in running), return_exceptions=True)
        for child in running:
            if child.process.returncode is None:
                child.process.kill()
                await child.process.wait()


def resident_mb(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone or nobody tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) // 1024
    return 0
