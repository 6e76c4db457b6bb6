"""Kafka's classes, parsed once for all brokers of this machine: what Java calls class data sharing.

A broker that starts loads seven thousand classes, which is most of what its start costs. Java maps them into memory
ready-made from an archive, if it is given one that the same Java wrote for the same jars; any other it passes over. So
nothing depends on it, and it is only made where many brokers are started: by the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

START_S, DUMP_S = 90.0, 90.0


def path(java: str, jars: Path) -> Path:
    """Where the archive of this Java and these jars stands, or would."""
    own = Path(java).resolve()
    key = hashlib.sha256(f"{own} {own.stat().st_mtime_ns} {jars.resolve()}".encode()).hexdigest()[:12]
    return jars.parent / f"{jars.name}-classes-{key}.jsa"


def use(java: str, jars: Path) -> list[str]:
    """The options that give Java the archive; none while there is none."""
    archive = path(java, jars)
    return [f"-XX:SharedArchiveFile={archive}", "-Xlog:disable", "-Xlog:all=error:stderr"] if archive.is_file() else []


def make(java: str, jars: Path, command: Sequence[str], is_up: Callable[[], bool]) -> bool:
    """Write the archive by running a broker (``command`` starts it) until it is up; False where that was not possible.

    One process of this machine does it, the others go on without. Blocks for the life of the broker.
    """
    archive = path(java, jars)
    lock = archive.with_suffix(".lock")
    with contextlib.suppress(OSError):
        if time.time() - lock.stat().st_mtime > START_S + DUMP_S:
            lock.unlink()  # of a process that was killed
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError:  # another process makes it, or nobody may write here
        return False
    temporary = archive.with_suffix(f".{os.getpid()}")
    try:
        run = [command[0], f"-XX:ArchiveClassesAtExit={temporary}", *command[1:]]
        process = subprocess.Popen(
            run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_S
            while not is_up() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            process.wait(DUMP_S)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        if not temporary.is_file():
            return False
        temporary.rename(archive)
        return True
    finally:
        temporary.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
