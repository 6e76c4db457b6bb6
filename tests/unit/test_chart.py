"""The Helm chart: rendered as a cluster would have it, and held against the cluster's schemas and against the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bus.broker import cache_dir
from config.settings import Settings, load_settings
from deploy import acls
from schemas.topics import TOPICS
from tests.unit.test_deploy import CHART, ROOT, run, tool

EVERYTHING = (
    "monitoring.serviceMonitor=true,monitoring.rules=true,monitoring.dashboards=true,strimzi.enabled=true,"
    "processor.autoscale.enabled=true,strategies[0].name=x,gateways[0].account=p,gateways[0].keysSecret=k,"
    "archiver.enabled=true,archiver.claim=archive,chains[0].chain=base,chains[0].endpointsSecret=base-endpoints,"
    "kafka.securityProtocol=SASL_SSL,kafka.caSecret=ca,"
    + ",".join(f"kafka.userSecrets.{room}=user-{room}" for room in acls.WRITES)
)
LISTS = ("strategies[0].toml=kind", "gateways[0].toml=accounts")


def render(*values: str, token: str = "console-token", views: str = "views-token") -> subprocess.CompletedProcess[str]:
    helm = tool("helm", "install it with deploy/install-test-tools.sh (needs Go)")
    tokens = f"console.tokenSecret={token}", f"processor.tokenSecret={views}"
    options = [part for value in (*tokens, *values) for part in ("--set", value)]
    return run(helm, "template", "vm", CHART, "--kube-version", "1.31.0", *options)


def resources(*values: str) -> list[dict]:
    done = render(*values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.mark.parametrize("values", [(), (EVERYTHING, *LISTS)], ids=["as it comes", "everything"])
def test_kubernetes_takes_what_the_chart_makes(values: tuple[str, ...], tmp_path: Path):
    validate = tool("kubernetes-validate", "pip install kubernetes-validate")
    own = [one for one in resources(*values) if "." not in one["apiVersion"].split("/")[0] or ".k8s.io" in one["apiVersion"]]
    assert len(own) >= 15
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(own))
    done = run(validate, "-k", "1.31", "--strict", tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def pods(found: list[dict]) -> dict[str, dict]:
    return {
        one["metadata"]["name"]: one["spec"]["template"] for one in found if one["kind"] in ("Deployment", "StatefulSet", "Job")
    }


def test_every_pod_is_nobodys_and_can_write_nothing_but_tmp():
    found = pods(resources(EVERYTHING, *LISTS))
    assert len(found) == 9
    for name, template in found.items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]
        [container] = spec["containers"]
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") or mount["mountPath"] in ("/tmp", "/archive"), f"{name} may write {mount['mountPath']}"


def test_only_the_gateway_holds_keys_and_each_room_its_own_kafka_user():
    for name, template in pods(resources(EVERYTHING, *LISTS)).items():
        secrets = {v["secret"]["secretName"] for v in template["spec"]["volumes"] if "secret" in v}
        room = template["metadata"]["labels"]["app.kubernetes.io/component"]
        room = "collector" if room == "chain" else room
        assert {s for s in secrets if s.startswith("user-")} == {f"user-{room}"}
        assert ("k" in secrets) == (room == "gateway"), name
        environment = {e["name"]: e.get("value", "") for e in template["spec"]["containers"][0]["env"]}
        assert environment["VENUE_MIRROR_KAFKA__SASL_USERNAME"] == acls.user(room)
        assert environment["VENUE_MIRROR_KAFKA__SASL_PASSWORD_FILE"].startswith("/etc/venue-mirror/")


def test_the_settings_in_the_chart_hold(tmp_path: Path):
    for values in ((), (EVERYTHING, *LISTS)):
        [one] = [r for r in resources(*values) if r["metadata"]["name"] == "vm-settings"]
        (tmp_path / "settings.toml").write_text(one["data"]["settings.toml"])
        loaded = load_settings(tmp_path / "settings.toml")
        assert loaded.kafka.market_partitions == 48 and "binance-spot" in loaded.venues


def settings_in(values: tuple[str, ...], folder: Path) -> Settings:
    [one] = [r for r in resources(*values) if r["metadata"]["name"] == "vm-settings"]
    (folder / "settings.toml").write_text(one["data"]["settings.toml"])
    return load_settings(folder / "settings.toml")


def mounts_of(template: dict, secret: str) -> list[str]:
    """Where a pod sees this secret."""
    names = {v["name"] for v in template["spec"]["volumes"] if v.get("secret", {}).get("secretName") == secret}
    return [m["mountPath"] for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] in names]


def test_the_views_token_reaches_who_asks_for_it_and_who_sends_it_and_nobody_else(tmp_path: Path):
    found = resources(EVERYTHING, *LISTS)
    own = settings_in((EVERYTHING, *LISTS), tmp_path).processor
    assert own.web_token_file is not None and not own.web_open
    for name, template in pods(found).items():
        where = [str(own.web_token_file.parent)] if name in ("vm-processor", "vm-console") else []
        assert mounts_of(template, "views-token") == where, name
    [monitor] = [r for r in found if r["kind"] == "PodMonitor" and r["metadata"]["name"] == "vm-processor"]
    assert monitor["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"] == {"name": "views-token", "key": "token"}


def test_without_a_token_the_views_are_open_only_where_it_is_said(tmp_path: Path):
    done = render(views="")
    assert done.returncode != 0 and "processor.tokenSecret" in done.stderr
    values = (EVERYTHING, *LISTS, "processor.tokenSecret=", "processor.open=true")
    own = settings_in(values, tmp_path).processor
    assert own.web_token_file is None and own.web_open
    found = resources(*values)
    assert not any(mounts_of(template, "views-token") for template in pods(found).values())
    [monitor] = [r for r in found if r["kind"] == "PodMonitor" and r["metadata"]["name"] == "vm-processor"]
    assert "authorization" not in monitor["spec"]["podMetricsEndpoints"][0]


def test_traces_go_where_the_values_say_and_the_policy_lets_them(tmp_path: Path):
    pytest.importorskip("opentelemetry")
    url = "http://otel.monitoring:4318/v1/traces"
    values = (EVERYTHING, *LISTS, f"tracing.endpoint={url}", "tracing.share=0.01", "tracing.headersSecret=otel")
    own = settings_in(values, tmp_path).tracing
    assert (own.endpoint, own.share) == (url, 0.01)
    found = resources(*values)
    for name, template in pods(found).items():
        environment = {e["name"]: e for e in template["spec"]["containers"][0]["env"]}
        sends = name.startswith(("vm-collector-", "vm-processor", "vm-strategy-", "vm-gateway-"))
        assert ("OTEL_EXPORTER_OTLP_HEADERS" in environment) == sends, name
        if sends:
            assert environment["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"] == {"name": "otel", "key": "headers"}

    def ports(rendered: list[dict]) -> list[int]:
        [policy] = [r for r in rendered if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "vm-default"]
        return [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]

    assert 4318 in ports(found)
    plain = resources(EVERYTHING, *LISTS)
    assert 4318 not in ports(plain) and not settings_in((EVERYTHING, *LISTS), tmp_path).tracing.endpoint
    assert "OTEL_EXPORTER" not in str(plain)


def test_nothing_real_is_sent_unless_it_is_said():
    command = pods(resources(EVERYTHING, *LISTS))["vm-gateway-p"]["spec"]["containers"][0]["args"]
    assert command == ["execute", "/etc/venue-mirror/room/room.toml"]
    live = pods(resources(EVERYTHING, *LISTS, "gateways[0].live=true"))["vm-gateway-p"]["spec"]["containers"][0]["args"]
    assert live[2:] == ["--live", "--arm", "/etc/venue-mirror/keys/arm"]
    for name, template in pods(resources(EVERYTHING, *LISTS)).items():
        [room, *rest] = template["spec"]["containers"][0]["args"]
        options = {word for word in [*rest, *(live[2:] if room == "execute" else ())] if word.startswith("--")}
        done = run(sys.executable, "-m", "cli.main", room, "--help")
        assert done.returncode == 0 and all(option in done.stdout for option in options), f"{name}: {room} {options}"


def test_the_endpoints_of_a_chain_come_from_its_secret_and_reach_its_settings(monkeypatch: pytest.MonkeyPatch):
    container = pods(resources(EVERYTHING, *LISTS))["vm-chain-base"]["spec"]["containers"][0]
    assert container["args"] == ["collect-chain", "base"]
    for variable in container["env"]:
        if variable["name"].startswith("VENUE_MIRROR_CHAINS"):
            monkeypatch.setenv(variable["name"], variable["value"].replace("$(RPC_HTTP)", "http://a").replace("$(RPC_WS)", "ws://b"))
    chain = load_settings(None).chains["base"]
    assert (chain.http_urls, chain.ws_urls) == (("http://a",), ("ws://b",))


def test_a_room_with_a_page_is_probed_for_life_and_for_readiness():
    for name, template in pods(resources(EVERYTHING, *LISTS)).items():
        [container] = template["spec"]["containers"]
        if "ports" in container:
            paths = {probe: container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
            assert paths == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}, name
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    urls = {name: service["environment"].get("HEALTH_URL", "") for name, service in services.items() if "environment" in service}
    assert {name for name, url in urls.items() if url.endswith("/readyz")} == {
        "collector-binance-spot", "collector-binance-usdm", "processor-1", "processor-2", "console",
    }  # fmt: skip


def test_policies_pick_pods_that_exist_and_services_ports_that_they_have():
    found = resources(EVERYTHING, *LISTS)
    labels = {name: template["metadata"]["labels"] for name, template in pods(found).items()}

    def picked(selector: dict) -> list[str]:
        return [name for name, own in labels.items() if selector.items() <= own.items()]

    for one in found:
        if one["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "PodMonitor"):
            spec = one["spec"]
            assert picked((spec.get("podSelector") or spec["selector"])["matchLabels"]), one["metadata"]["name"]
        if one["kind"] == "Service":
            [name] = picked(one["spec"]["selector"])
            ports = {p["name"] for p in pods(found)[name]["spec"]["containers"][0]["ports"]}
            assert {p["targetPort"] for p in one["spec"]["ports"]} <= ports


def test_strimzi_gets_every_topic_and_every_room_s_rights():
    found = resources(EVERYTHING, *LISTS)
    topics = {one["spec"]["topicName"]: one["spec"] for one in found if one["kind"] == "KafkaTopic"}
    assert set(topics) == set(TOPICS)
    assert topics["market.book"]["partitions"] == 48 and topics["dead.letter"]["partitions"] == 1
    assert topics["market.instrument"]["config"]["cleanup.policy"] == "compact"
    assert {one["config"]["min.insync.replicas"] for one in topics.values()} == {"2"}, "what is acknowledged is on two brokers"
    assert {one["metadata"]["name"] for one in found if one["kind"] == "KafkaUser"} == {acls.user(room) for room in acls.WRITES}


def strict(schema: dict) -> dict:
    """A resource's schema in which a field that nobody knows is an error, as the API server's strict check has it."""
    out = {k: strict(v) if isinstance(v, dict) else v for k, v in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        out["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    return out


def definitions() -> dict[tuple[str, str], dict]:
    """(apiVersion, kind) → schema, of Strimzi's and KEDA's resources; skips where they were not fetched."""
    folders = sorted(cache_dir().glob("crds-*"))
    if not folders:
        pytest.skip("no schemas of Strimzi and KEDA: deploy/fetch-crds.sh fetches them (needs Maven, Java, Go)")
    out: dict[tuple[str, str], dict] = {}
    for file in folders[-1].glob("*.yaml"):
        spec = yaml.safe_load(file.read_text("utf-8"))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
            out[(f"{spec['group']}/{version['name']}", spec["names"]["kind"])] = schema
    return out


def test_strimzi_and_keda_take_what_the_chart_makes():
    from jsonschema import Draft202012Validator

    schemas, seen = definitions(), set[str]()
    for one in resources(EVERYTHING, *LISTS):
        if "strimzi.io" in one["apiVersion"] or "keda.sh" in one["apiVersion"]:
            found = list(Draft202012Validator(schemas[(one["apiVersion"], one["kind"])]).iter_errors(one))
            assert not found, f"{one['kind']} {one['metadata']['name']}: {[(e.json_path, e.message[:200]) for e in found]}"
            seen.add(one["kind"])
    assert seen == {"KafkaTopic", "KafkaUser", "ScaledObject"}


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("KafkaTopic", lambda one: one["spec"].update(partition=1)),
        ("KafkaTopic", lambda one: one["spec"].update(partitions="twelve")),
        ("KafkaUser", lambda one: one["spec"]["authentication"].update(type="password")),
        ("ScaledObject", lambda one: one["spec"].pop("scaleTargetRef")),
        ("ScaledObject", lambda one: one["spec"].update(maxReplicas=3)),
    ],
)
def test_a_resource_that_the_cluster_would_refuse_is_found(kind: str, broken):
    from jsonschema import Draft202012Validator

    schemas = definitions()
    one = next(r for r in resources(EVERYTHING, *LISTS) if r["kind"] == kind)
    broken(one)
    assert list(Draft202012Validator(schemas[(one["apiVersion"], kind)]).iter_errors(one))


@pytest.mark.parametrize(
    ("values", "token", "says"),
    [
        ((), "", "console.tokenSecret"),
        (("chains[0].chain=base",), "t", "endpointsSecret"),
        (("gateways[0].account=p,gateways[0].toml=x,gateways[0].live=true",), "t", "keysSecret"),
        (("strategies[0].name=s",), "t", "toml holds its file"),
        (("archiver.enabled=true",), "t", "name a claim"),
        (("processor.replicas=49",), "t", "would stand idle"),
        (("collectors[0].venue=okx,collectors[0].replicas=48",), "t", "fewer than kafka.marketPartitions"),
    ],
)
def test_the_chart_refuses_what_cannot_work(values: tuple[str, ...], token: str, says: str):
    done = render(*values, token=token)
    assert done.returncode != 0 and says in done.stderr


def test_no_secret_is_written_down_in_what_is_deployed():
    for file in (ROOT / "deploy").rglob("*"):
        if file.is_file() and file.suffix in (".yaml", ".toml", ".tpl", ".json", ".py", ".sh", ""):
            for line in file.read_text("utf-8").splitlines():
                assert not re.search(r"(password|secret|token)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{12,}['\"]?\s*$", line, re.I), (
                    f"{file.name}: {line}"
                )
