"""Three Kafka brokers on this machine, replication 3, two in sync, each on an address of its own behind a network of ours.

Each member is controller and broker. It listens on 127.0.1.N; nobody calls it there. Clients reach member N through the
link ``client>N`` on 127.0.10.N, and member M through the links ``M>N`` (replication) and ``M>N quorum`` on 127.0.1M.N:
each virtual machine has a hosts file of its own, in which the others' names lead into its links.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bus.broker import EmbeddedBroker, Member
from cli.stack import free_port
from config.settings import BrokerSettings, Settings
from tests.chaos.network import Network

MEMBERS = (1, 2, 3)
READY_S = 400.0
DISK_MB = 240
"""The size of the small disk on which the member that may run full keeps its log."""
FULL_LEFT_KB = 256

PROPERTIES = """\
node.id={n}
listeners=CLIENT://127.0.1.{n}:{client},REPLICATION://127.0.1.{n}:{replication},CONTROLLER://127.0.1.{n}:{quorum}
advertised.listeners=CLIENT://127.0.10.{n}:{client},REPLICATION://kafka-{n}:{replication},CONTROLLER://kafka-{n}:{quorum}
inter.broker.listener.name=REPLICATION
listener.security.protocol.map=CLIENT:PLAINTEXT,REPLICATION:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.bootstrap.servers=
controller.quorum.voters=1@kafka-1:{quorum},2@kafka-2:{quorum},3@kafka-3:{quorum}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
initial.broker.registration.timeout.ms=240000
replica.lag.time.max.ms=8000
replica.socket.timeout.ms=6000
broker.session.timeout.ms=9000
broker.heartbeat.interval.ms=1000
unclean.leader.election.enable=false
log.segment.bytes=16777216
log.index.size.max.bytes=262144
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.io.buffer.size=262144
num.io.threads=3
num.network.threads=2
"""


class Cluster:
    """The members, started, broken and healed by number."""

    def __init__(self, work: Path, heap_mb: int = 192, say: Callable[[str], None] = lambda _: None) -> None:
        self._work, self._say = work, say
        self._ports = {name: free_port() for name in ("client", "replication", "quorum")}
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "_")
        self.brokers = {n: self._broker(n, cluster_id, heap_mb) for n in MEMBERS}
        self.network = Network([
            {"name": name, "listen": [host, self._ports[port]], "target": [f"127.0.1.{n}", self._ports[port]]}
            for n in MEMBERS
            for name, host, port in [
                (f"client>{n}", f"127.0.10.{n}", "client"),
                *((f"{m}>{n}", f"127.0.1{m}.{n}", "replication") for m in MEMBERS if m != n),
                *((f"{m}>{n} quorum", f"127.0.1{m}.{n}", "quorum") for m in MEMBERS if m != n),
            ]
        ])  # fmt: skip
        self._small_disk: Path | None = None
        self.stopped: set[int] = set()

    @property
    def bootstrap(self) -> str:
        """For clients."""
        return ",".join(f"127.0.10.{n}:{self._ports['client']}" for n in MEMBERS)

    def _broker(self, n: int, cluster_id: str, heap_mb: int) -> EmbeddedBroker:
        data_dir = self._work / f"kafka-{n}"
        data_dir.mkdir(parents=True)
        hosts = data_dir / "hosts"
        hosts.write_text("".join(f"127.0.1{n if m != n else ''}.{m} kafka-{m}\n" for m in MEMBERS) + "127.0.0.1 localhost\n")
        return EmbeddedBroker(
            BrokerSettings(data_dir=data_dir, port=self._ports["client"], heap_mb=heap_mb, start_timeout_s=READY_S),
            member=Member(
                PROPERTIES.format(n=n, **self._ports), cluster_id, f"127.0.1.{n}",
                (f"-Djdk.net.hosts.file={hosts}", "-XX:+UseSerialGC", "-XX:-UseG1GC", "-XX:TieredStopAtLevel=1"),
            ),
        )  # fmt: skip

    async def start(self, small_disk: bool = False) -> None:
        """The network, then all members, until all are in the cluster. ``small_disk``: member 3's log lies on one."""
        await self.network.start()
        if small_disk:
            self._mount()
        started = time.monotonic()
        await asyncio.to_thread(self.brokers[1].launch)
        for n in (2, 3):
            self._formatted_as_the_first(n)
        await asyncio.gather(*(asyncio.to_thread(self.brokers[n].launch) for n in (2, 3)))
        await self.until_joined()
        self._say(f"kafka: three brokers after {time.monotonic() - started:.1f} s at {self.bootstrap}")

    def _formatted_as_the_first(self, n: int) -> None:
        """What the storage tool would write, without another virtual machine for it."""
        first, own = self.brokers[1].dir / "logs", self.brokers[n].dir / "logs"
        own.mkdir(exist_ok=True)
        shutil.copy(first / "bootstrap.checkpoint", own)
        directory = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        changed = {"node.id": str(n), "directory.id": directory}
        lines = [line.partition("=") for line in (first / "meta.properties").read_text("utf-8").splitlines()]
        text = "".join(f"{name}{equals}{changed.get(name, value)}\n" for name, equals, value in lines)
        (own / "meta.properties").write_text(text, "utf-8")

    def _mount(self) -> None:
        logs = self.brokers[3].dir / "logs"
        logs.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "venue-mirror-drill", str(logs)]
        if shutil.which("mount") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            self._small_disk = logs

    @property
    def has_small_disk(self) -> bool:
        """Whether a disk can be filled: it needs the right to mount one."""
        return self._small_disk is not None

    def fill_disk(self) -> None:
        """Leave almost nothing on member 3's disk."""
        assert self._small_disk is not None
        left = shutil.disk_usage(self._small_disk).free - FULL_LEFT_KB * 1024
        with (self._small_disk / "ballast").open("wb") as out, contextlib.suppress(OSError):
            while left > 0:
                left -= out.write(bytes(min(1 << 20, left)))

    def free_disk(self) -> None:
        """Take away what filled it."""
        assert self._small_disk is not None
        (self._small_disk / "ballast").unlink(missing_ok=True)

    def alive(self, n: int) -> bool:
        """Whether the member's process is there."""
        return self.brokers[n].status() is not None

    async def kill(self, n: int) -> None:
        """As a crash would."""
        await asyncio.to_thread(self.brokers[n].kill)

    async def shut_down(self, n: int) -> None:
        """Cleanly."""
        await asyncio.to_thread(self.brokers[n].stop, 60)

    async def restart(self, n: int) -> None:
        """Start a member that ended."""
        if not self.alive(n):
            await asyncio.to_thread(self.brokers[n].launch)

    def pause(self, n: int) -> None:
        """SIGSTOP: to the others, a broker whose disk does not answer."""
        self._signal(n, signal.SIGSTOP)
        self.stopped.add(n)

    def go_on(self, n: int) -> None:
        """SIGCONT."""
        self._signal(n, signal.SIGCONT)
        self.stopped.discard(n)

    def _signal(self, n: int, what: signal.Signals) -> None:
        if (status := self.brokers[n].status()) is not None:
            os.kill(status.pid, what)

    def peers(self, n: int) -> list[str]:
        """The links between a member and the other two, both ways, replication and quorum."""
        return [name for name in self.network.names if not name.startswith("client") and str(n) in name]

    def links(self, n: int) -> list[str]:
        """All links of a member."""
        return [*self.peers(n), f"client>{n}"]

    def settings(self, settings: Settings) -> Settings:
        """The same, for this cluster."""
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": self.bootstrap, "replication_factor": 3})
        return settings.model_copy(update={"kafka": kafka})

    # What the cluster says of itself.

    def _topics(self) -> Any:
        from confluent_kafka.admin import AdminClient

        conf: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "log_level": 0, "error_cb": _ignore}
        return AdminClient(conf).list_topics(timeout=5)

    def leaders(self, topic: str) -> dict[int, int]:
        """partition → the member that leads it. Blocks; raises KafkaException."""
        return {p: partition.leader for p, partition in self._topics().topics[topic].partitions.items()}

    def behind(self) -> list[str]:
        """Partitions that are not in sync everywhere; blocks; raises KafkaException."""
        told = self._topics()
        if len(told.brokers) < len(MEMBERS):
            return [f"only {sorted(told.brokers)} are there"]
        return [
            f"{name}[{p}] {partition.isrs} of {partition.replicas}"
            for name, topic in told.topics.items()
            for p, partition in topic.partitions.items()
            if len(partition.isrs) < len(partition.replicas)
        ]

    async def until_joined(self) -> None:
        """Wait until all members are there and every partition is in sync on all of them."""
        from confluent_kafka import KafkaException

        deadline = time.monotonic() + READY_S
        problem: object = "nothing was asked"
        while time.monotonic() < deadline:
            for n in MEMBERS:
                if not self.alive(n):
                    problem = f"member {n} ended"
                    self._say(f"kafka: {problem}, started again")
                    await self.restart(n)
            try:
                behind = await asyncio.to_thread(self.behind)
                if not behind:
                    return
                problem = behind[:5]
            except KafkaException as error:
                problem = error
            await asyncio.sleep(0.3)
        tails = "\n".join(_tail(self.brokers[n].dir / "broker.log") for n in MEMBERS)
        raise AssertionError(f"the cluster was not whole within {READY_S:g} s: {problem}\n{tails}")

    async def stop(self) -> None:
        """End all of it."""
        for n in MEMBERS:
            with contextlib.suppress(ProcessLookupError):
                self.go_on(n)
        await asyncio.gather(*(asyncio.to_thread(self.brokers[n].kill) for n in MEMBERS))
        await self.network.stop()
        if self._small_disk is not None:
            # Lazily: a member that was just killed may still be writing to it.
            subprocess.run(["umount", "--lazy", str(self._small_disk)], capture_output=True, check=False)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-8:]) if log.exists() else ""


def _ignore(_: object) -> None:
    """A member that is down is what is asked about."""
