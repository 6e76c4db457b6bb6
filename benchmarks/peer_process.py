"""The other libraries' environment, and one running benchmarks/peers.py to talk to.

They are installed for the benchmark only, into .venv-bench beside the project; BENCH_PEERS_PYTHON names another interpreter
that has them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "cryptofeed==2.4.1", "ccxt==4.5.90", "aiokafka==0.14.0", "orjson", "uvloop", "quixstreams==3.28.1", "fastavro",
    "cavro==1.0.0", "msgspec", "pydantic",
)  # fmt: skip
"""cryptofeed 2.4.1 is the newest for Python 3.11; orjson is what ccxt prefers, aiokafka what cryptofeed's backend needs,
fastavro, cavro, msgspec and pydantic our own codec beside quixstreams."""


class PeerError(Exception):
    """A library did not handle the capture; the text is its own."""


def interpreter(log: Callable[[str], None]) -> Path:
    """A Python that has the libraries; makes .venv-bench the first time. Raises PeerError when that fails."""
    if named := os.environ.get("BENCH_PEERS_PYTHON", "").strip():
        return Path(named)
    folder = ROOT / ".venv-bench"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    wanted = "\n".join(PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        log(f"installing {', '.join(PACKAGES)} into {folder.name}, for the benchmark only")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        for command in ([sys.executable, "-m", "venv", folder], pip):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise PeerError(f"{folder.name} could not be made: {done.stderr.strip()[-500:]}")
        stamp.write_text(wanted)
    return python


class Peer:
    """One library over one capture. Closing ends its process."""

    def __init__(
        self, python: Path, library: str, venue: str, natives: Sequence[str], frames: int, paths: Sequence[Path]
    ) -> None:
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("peers.py"), library, venue, json.dumps(natives), str(frames), *paths],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip
        try:
            self.version: str = self._read()["version"]
        except PeerError:
            self.__exit__()
            raise

    def ask(self, *command: object) -> dict[str, Any]:
        """One command of peers.py. Raises PeerError with the library's own error."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(" ".join(map(str, command)) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerError(f"it ended: {error}") from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"it ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
