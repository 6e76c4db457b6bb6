"""The embedded broker: Apache Kafka itself (KRaft, one JVM) from its published jars, fetched once through Maven.

For one machine: demo, tests, first steps. It listens on localhost only. A cluster is named by
KAFKA_BOOTSTRAP_SERVERS instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bus import class_archive
from bus.errors import BrokerStartError
from config.settings import BrokerSettings

KAFKA_VERSION = "4.3.1"
JARS = f"kafka-{KAFKA_VERSION}-2"
"""The folder of the cache; another one whenever kafka-pom.xml names other jars."""
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
STATE_FILE = "broker.json"
SMALL_HEAP_MB = 256
STARTING_S = 2.0
"""For so long at most a process that has just been started may have no command line."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=4
log.segment.bytes=134217728
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
"""


@dataclass(frozen=True)
class Secured:
    """What makes an embedded broker ask who is there: for tests and drills of TLS, SASL and ACLs."""

    properties: str
    """Lines added to server.properties, of which later ones win; {port} and {controller_port} are filled in."""
    client: Mapping[str, str]
    """librdkafka's settings of a user who may ask whether it is ready."""
    format_arguments: tuple[str, ...] = ()
    """For the storage tool, e.g. the first user: --add-scram SCRAM-SHA-512=[name=…,password=…]."""


@dataclass(frozen=True)
class Member:
    """What makes an embedded broker one of several: for drills on a cluster."""

    properties: str
    """Lines added to server.properties, of which later ones win; they name its own listeners and the voters."""
    cluster_id: str
    """The same for all; 22 characters of URL-safe Base64."""
    host: str
    """The address on which it listens to clients, at the settings' port."""
    java: tuple[str, ...] = ()
    """More options of its virtual machine."""


@dataclass(frozen=True)
class BrokerStatus:
    """A running embedded broker."""

    pid: int
    bootstrap: str
    version: str
    data_dir: str
    started_s: float


class EmbeddedBroker:
    """Starts, finds and stops the one broker of a data folder. ``log`` takes a line about what is being done."""

    def __init__(
        self, settings: BrokerSettings, log: Callable[[str], None] = lambda _: None, secured: Secured | None = None,
        member: Member | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self._secured = secured
        self._member = member
        self.dir = settings.data_dir.resolve()
        self._log = log

    def status(self) -> BrokerStatus | None:
        """The running broker of this folder, or None. Reads a file and looks at a process; does not connect."""
        try:
            state = BrokerStatus(**json.loads((self.dir / STATE_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return state if _is_ours(state.pid, self.dir) else None

    def start(self) -> str:
        """Fetch the jars if they are not cached, start the broker, wait until it takes connections; gives its address.

        Already running: its address, nothing else happens. Blocks up to ``start_timeout_s`` (plus the first download).
        Raises BrokerStartError.
        """
        if (running := self.status()) is not None:
            return running.bootstrap
        started = time.monotonic()
        process, bootstrap = self.launch()
        self._await_ready(process, bootstrap)
        self._log(f"kafka: ready after {time.monotonic() - started:.1f} s")
        return bootstrap

    def launch(self) -> tuple[subprocess.Popen[bytes], str]:
        """Start it without waiting: one of several is not ready before most of them run. Raises BrokerStartError."""
        java = _java()
        jars = self._jars()
        port = self.settings.port
        host = self._member.host if self._member else "127.0.0.1"
        if not _is_free(port, host):
            raise BrokerStartError(
                f"port {port} is taken by another program; name another one: VENUE_MIRROR_BROKER__PORT={port + 1}"
            )
        properties = self._prepare(java, jars)
        command = self._command(java, jars)
        self._log(f"kafka: starting Apache Kafka {KAFKA_VERSION} on {host}:{port}, data in {self.settings.data_dir}")
        with (self.dir / "broker.log").open("ab") as out:
            process = subprocess.Popen(
                [*command, "kafka.Kafka", str(properties)],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        bootstrap = f"{host}:{port}"
        state = BrokerStatus(process.pid, bootstrap, KAFKA_VERSION, str(self.dir), time.time())
        (self.dir / STATE_FILE).write_text(json.dumps(state.__dict__), "utf-8")
        return process, bootstrap

    def share_classes(self) -> None:
        """Make further starts on this machine cheaper, once: see class_archive. Blocks; uses this broker's folder and port."""
        java, jars, port = _java(), self._jars(), self.settings.port
        if class_archive.path(java, jars).exists():
            return
        self._log("kafka: preparing cheaper starts (once)")
        properties = self._prepare(java, jars)
        command = [*self._command(java, jars), "kafka.Kafka", str(properties)]
        class_archive.make(java, jars, command, lambda: not _is_free(port, "127.0.0.1"))
        shutil.rmtree(self.dir)

    def _command(self, java: str, jars: Path) -> list[str]:
        # The heap is whole from the start, as in Kafka's own scripts: once its pages are touched, what grows is a leak.
        # A small heap is a short life: one compiler and one collector of garbage have less to warm up.
        small = self.settings.heap_mb <= SMALL_HEAP_MB
        return [
            java, f"-Xmx{self.settings.heap_mb}m", f"-Xms{self.settings.heap_mb}m",
            *(("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1") if small else ("-XX:+UseG1GC",)),
            f"-Dvenue-mirror.data={self.dir}", "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._log_config()}", *class_archive.use(java, jars),
            *(self._member.java if self._member else ()), "-cp", f"{jars}{os.sep}*",
        ]  # fmt: skip

    def _prepare(self, java: str, jars: Path) -> Path:
        """Write the settings and format the storage, where that is not done; gives the settings' file."""
        port, controller_port = self.settings.port, _free_port()
        logs = self.dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        properties = self.dir / "server.properties"
        text = PROPERTIES + (self._secured.properties if self._secured else "")
        text = text.format(port=port, controller_port=controller_port, logs=logs)
        properties.touch(0o600)
        properties.write_text(text + (self._member.properties if self._member else ""), "utf-8")
        if not (logs / "meta.properties").exists():
            self._log("kafka: formatting its storage")
            # One in 64 ids begins with a dash, which the tool would take for an option of its own.
            cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
            more = self._secured.format_arguments if self._secured else ()
            cluster, alone = (self._member.cluster_id, ()) if self._member else (cluster, ("--standalone",))
            tool = [*self._command(java, jars), "kafka.tools.StorageTool", "format", *alone]
            self._format([*tool, f"--cluster-id={cluster}", "-c", str(properties), *more])
        return properties

    def stop(self, timeout_s: float = 30) -> bool:
        """Stop it cleanly, killing it after ``timeout_s``; False when none was running."""
        return self._end(signal.SIGTERM, timeout_s)

    def kill(self) -> bool:
        """Kill it at once, as a crash would (for drills); False when none was running."""
        return self._end(signal.SIGKILL, 10)

    def _end(self, first: signal.Signals, timeout_s: float) -> bool:
        state = self.status()
        if state is None:
            return False
        os.kill(state.pid, first)
        deadline = time.monotonic() + timeout_s
        while _is_ours(state.pid, self.dir):
            if time.monotonic() > deadline:
                os.kill(state.pid, signal.SIGKILL)
                deadline = time.monotonic() + 10
            _reap(state.pid)
            time.sleep(0.05)
        (self.dir / STATE_FILE).unlink(missing_ok=True)
        return True

    def _jars(self) -> Path:
        jars = cache_dir() / JARS
        if jars.is_dir():
            return jars
        maven = shutil.which("mvn")
        if maven is None:
            raise BrokerStartError(
                "Maven is needed once, to fetch Kafka's jars: install it (Debian: apt-get install maven; "
                "macOS: brew install maven), or set KAFKA_BOOTSTRAP_SERVERS to a broker that runs"
            )
        jars.parent.mkdir(parents=True, exist_ok=True)
        self._log(f"kafka: fetching Apache Kafka {KAFKA_VERSION} through Maven (44 MB, once)")
        # A folder of its own, renamed when complete: two processes may fetch at the same time.
        with tempfile.TemporaryDirectory(dir=jars.parent) as temporary:
            work = Path(temporary)
            pom = resources.files("bus").joinpath("kafka-pom.xml").read_text("utf-8")
            (work / "pom.xml").write_text(pom, "utf-8")
            result = subprocess.run(
                [
                    maven, "-q", "-B", PLUGIN, f"-Dkafka.version={KAFKA_VERSION}", "-DincludeScope=runtime",
                    f"-DoutputDirectory={work / 'jars'}",
                ],
                cwd=work, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if result.returncode or not list((work / "jars").glob("kafka_*.jar")):
                tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
                raise BrokerStartError(f"Maven could not fetch Kafka {KAFKA_VERSION}:\n{tail}")
            try:
                (work / "jars").rename(jars)
            except OSError:
                if not jars.is_dir():
                    raise
        return jars

    def _log_config(self) -> Path:
        path = self.dir / "log4j2.yaml"
        path.write_text(LOG4J, "utf-8")
        return path

    def _format(self, command: list[str]) -> None:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise BrokerStartError(f"kafka could not format {self.dir}:\n{(result.stdout + result.stderr)[-2000:]}")

    def _await_ready(self, process: subprocess.Popen[bytes], bootstrap: str) -> None:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        deadline = time.monotonic() + self.settings.start_timeout_s
        host, _, port = bootstrap.rpartition(":")
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise BrokerStartError(f"kafka ended with code {process.returncode}:\n{self._log_tail()}")
            if not _is_free(int(port), host):
                config: Any = {"bootstrap.servers": bootstrap, "log_level": 0, "error_cb": _ignore}
                config |= self._secured.client if self._secured else {}
                admin = AdminClient(config)
                try:
                    if admin.list_topics(timeout=2).brokers:
                        return
                except KafkaException:
                    pass
            time.sleep(0.1)
        self.kill()
        raise BrokerStartError(f"kafka was not ready after {self.settings.start_timeout_s:g} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        path = self.dir / "broker.log"
        lines = path.read_text("utf-8", "replace").splitlines()[-15:] if path.exists() else []
        return "\n".join([*lines, f"(log: {path})"])


LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout:
        pattern: "%d{ISO8601} %p %m (%c{1})%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: out
"""


def cache_dir() -> Path:
    """Where downloads are kept between runs: VENUE_MIRROR_CACHE, else the user's cache folder."""
    if own := os.environ.get("VENUE_MIRROR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "venue-mirror"


def _java() -> str:
    java = shutil.which("java")
    home = os.environ.get("JAVA_HOME")
    if java is None and home and (Path(home) / "bin" / "java").exists():
        java = str(Path(home) / "bin" / "java")
    if java is None:
        raise BrokerStartError(
            "Java 17 or newer is needed for the embedded broker: install it (Debian: apt-get install "
            "openjdk-17-jre-headless; macOS: brew install openjdk), or set KAFKA_BOOTSTRAP_SERVERS"
        )
    return java


def _is_ours(pid: int, data_dir: Path) -> bool:
    """Whether this process is the broker of that folder: a pid alone may by now belong to something else."""
    mark = f"-Dvenue-mirror.data={data_dir}"
    if Path("/proc/self").exists():
        return mark.encode() in _command(Path(f"/proc/{pid}")).split(b"\0")
    result = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return f" {mark} " in result.stdout


def _command(process: Path) -> bytes:
    """Its command line; nothing when it is gone. For a moment in its start a process has none: that is waited for."""
    deadline = time.monotonic() + STARTING_S
    try:
        while not (found := (process / "cmdline").read_bytes()) and time.monotonic() < deadline:
            if (process / "stat").read_text("utf-8").rpartition(")")[2].split()[0] in "ZX":
                break  # it has ended, and nobody has asked how yet
            time.sleep(0.001)
        return found
    except OSError:
        return b""


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by another process: that one's child
        os.waitpid(pid, os.WNOHANG)


def _ignore(_: object) -> None:
    """Nobody needs to be told that a broker which starts does not answer yet."""


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
