"""Several processors on one machine: started, watched, started again when they die, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

STOP_S = 30.0
BACKOFF_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before a worker is started again, by how often it has died lately."""
STEADY_S = 60.0
"""A worker that ran this long has not died lately."""
LEAVE_S = 5.0
"""For taking leave of Kafka, after the last checkpoint."""
NOT_RESTARTED = (2, 64)
"""Exit codes that trying again does not change: no broker at the start, wrong settings."""


def process(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with the settings; the environment overrides it.")
    ] = None,
    web_port: Annotated[int | None, typer.Option(help="Port of the web views; each process needs its own.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes, on the ports from --web-port on.")] = 1,
) -> None:
    """Run one processor: books from market.book, web views, derived topics. Start more to share the partitions."""
    from cli.main import log_to_stderr, say, settings_of

    log_to_stderr()
    settings = settings_of(config, **({"processor": {"web_port": web_port}} if web_port else {}))
    if workers > 1:
        raise typer.Exit(run_workers(workers, settings.processor.web_port, str(config) if config else None, say))
    from processors.app import main as run

    _end(run(settings))


def _end(code: int) -> None:
    """End with this code even where Faust's consumer thread does not: it takes leave of a Kafka that may be gone for good."""
    from mode.threads import WorkerThread

    deadline_s = time.monotonic() + LEAVE_S
    for thread in [thread for thread in threading.enumerate() if isinstance(thread, WorkerThread)]:
        thread.join(max(0.0, deadline_s - time.monotonic()))
        if thread.is_alive():
            print(f"Kafka does not answer: gone without leaving the group (exit code {code})", file=sys.stderr, flush=True)
            os._exit(code)
    raise typer.Exit(code)


class Worker:
    """One process and its recent deaths."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = command
        self.environment = dict(environment)
        self.deaths = 0
        self.due_s = 0.0
        self.started_s = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it now."""
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(self.command, env=self.environment)


def run_workers(count: int, base_port: int, config: str | None, say: Callable[[str], None]) -> int:
    """Run ``count`` processors on the ports from ``base_port`` on until SIGTERM or SIGINT.

    A worker that dies is started again; the others take its partitions meanwhile. Gives 0 when stopped, or the code of
    a worker whose trouble a restart would not cure.
    """
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    workers: list[Worker] = []
    for number in range(count):
        command = [sys.executable, "-m", "cli.main", "process", "--web-port", str(base_port + number)]
        if config is not None:
            command += ["--config", config]
        workers.append(Worker(f"worker {number + 1}", command, os.environ))
    code = 0
    for worker in workers:
        worker.start()
    while not stopping:
        time.sleep(0.1)
        for worker in workers:
            if worker.process is None:
                if time.monotonic() >= worker.due_s:
                    worker.start()
                continue
            ended = worker.process.poll()
            if ended is None:
                continue
            if ended in NOT_RESTARTED:
                code, stopping = ended, True
                break
            ran_s = time.monotonic() - worker.started_s
            worker.deaths = 0 if ran_s > STEADY_S else worker.deaths + 1
            pause_s = BACKOFF_S[min(worker.deaths, len(BACKOFF_S)) - 1] if worker.deaths else BACKOFF_S[0]
            say(f"{worker.name} ended with code {ended} after {ran_s:.0f} s; started again in {pause_s:g} s")
            worker.process, worker.due_s = None, time.monotonic() + pause_s
    _stop_all(workers)
    return code


def _stop_all(workers: list[Worker]) -> None:
    running = [w.process for w in workers if w.process is not None and w.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
