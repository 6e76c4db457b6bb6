"""Grafana's dashboards, generated: ``python -m deploy.dashboards`` writes deploy/helm/venue-mirror/files/dashboards/*.json.

A panel is a title, a unit and its queries. Tests hold every metric named here against what the rooms expose.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "helm" / "venue-mirror" / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """One plot, or one number with ``kind="stat"``: queries by legend."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    red_above: float | None = None
    """stat: red from here on"""


def rate(metric: str, by: str = "venue") -> str:
    """A counter's increase a second, by label."""
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))" if by else f"sum(rate({metric}[$__rate_interval]))"


def grown(metric: str, by: str = "venue") -> str:
    """A counter's increase over the interval shown, by label."""
    return f"sum by ({by}) (increase({metric}[$__rate_interval]))" if by else f"sum(increase({metric}[$__rate_interval]))"


DASHBOARDS: dict[str, list[Panel]] = {
    "mirror": [
        Panel("Books LIVE", "short", {"LIVE": 'sum(collector_books{state="LIVE"})'}, "stat"),
        Panel("Books not LIVE", "short", {"not LIVE": 'sum(collector_books{state!~"LIVE|DELISTED|HALTED"}) or vector(0)'},
              "stat", red_above=1),
        Panel("Key frames that disagreed, 24 h", "short", {"bad": "sum(increase(processor_keyframes_bad_total[24h]))"},
              "stat", red_above=1),
        Panel("Book events a second", "short", {"events": rate("processor_events_total", "")}, "stat"),
        Panel("Books by state", "short", {"{{state}}": "sum by (state) (collector_books)"}),
        Panel("Exact: key frames equal to the mirror", "percentunit", {
            "exact": "sum(rate(processor_keyframes_ok_total[$__rate_interval])) / (sum(rate(processor_keyframes_ok_total"
                     "[$__rate_interval])) + sum(rate(processor_keyframes_bad_total[$__rate_interval])))",
        }),
        Panel("Gaps and resyncs", "short", {
            "gaps {{venue}}": grown("collector_gaps_total"), "resyncs {{venue}}": grown("collector_resyncs_total"),
        }),
        Panel("Records behind, by partition", "short", {"{{partition}}": "sum by (partition) (processor_lag)"}),
        Panel("Dead letters", "short", {
            "collector {{venue}}": grown("collector_dead_letters_total"),
            "processor": grown("processor_dead_letters_total", ""),
        }),
        Panel("Dropped because Kafka was behind", "short", {
            "collector {{venue}}": grown("collector_dropped_total"), "processor": grown("processor_dropped_total", ""),
        }),
    ],
    "collectors": [
        Panel("Frames a second", "short", {"{{venue}}": rate("collector_frames_total")}),
        Panel("Bytes a second from venues", "Bps", {"{{venue}}": rate("collector_frame_bytes_total")}),
        Panel("Book events a second", "short", {"{{venue}}": rate("collector_book_events_total")}),
        Panel("Books by venue and state", "short", {"{{venue}} {{state}}": "sum by (venue, state) (collector_books)"}),
        Panel("Checksums", "short", {
            "equal {{venue}}": rate("collector_checksum_ok_total"), "not {{venue}}": rate("collector_checksum_bad_total"),
        }),
        Panel("Connections", "short", {"{{venue}}": "sum by (venue) (collector_connections)"}),
        Panel("Reconnects and failed connections", "short", {
            "reconnects {{venue}}": grown("collector_reconnects_total"),
            "failed {{venue}}": grown("collector_connection_errors_total"),
        }),
        Panel("Stale, crossed, overflown", "short", {
            "stale {{venue}}": grown("collector_stale_total"), "crossed {{venue}}": grown("collector_crossed_total"),
            "overflown {{venue}}": grown("collector_pending_overflows_total"),
        }),
        Panel("REST: errors and refusals", "short", {
            "errors {{venue}}": grown("collector_rest_errors_total"),
            "429 {{venue}}": grown("collector_rest_throttled_total"),
        }),
        Panel("Records waiting for Kafka", "short", {"{{venue}}": "sum by (venue) (collector_producer_queue)"}),
        Panel("Books given up because Kafka was behind", "short", {"{{venue}}": grown("collector_congestions_total")}),
        Panel("Listed, changed, delisted", "short", {"{{venue}}": grown("collector_instruments_changed_total")}),
        Panel("Key frames' share of levels", "percentunit", {
            "{{venue}}": "sum by (venue) (rate(collector_keyframe_levels_total[$__rate_interval])) / "
                         "sum by (venue) (rate(collector_levels_total[$__rate_interval]))",
        }),
        Panel("Unforeseen errors", "short", {"{{venue}}": grown("collector_internal_errors_total")}),
    ],
    "chains": [
        Panel("Height of the mirror", "short", {"{{chain}}": "chain_head_number", "final {{chain}}": "chain_final_number"}),
        Panel("Blocks behind finality", "short", {"{{chain}}": "chain_head_number - chain_final_number"}),
        Panel("Blocks a second", "short", {"{{chain}}": rate("chain_blocks_total", "chain")}),
        Panel("Logs and pool events a second", "short", {
            "logs {{chain}}": rate("chain_logs_total", "chain"), "events {{chain}}": rate("chain_events_total", "chain"),
        }),
        Panel("Reorganisations and blocks retracted", "short", {
            "reorganisations {{chain}}": grown("chain_reorgs_total", "chain"),
            "blocks {{chain}}": grown("chain_retracted_blocks_total", "chain"),
            "deep {{chain}}": grown("chain_deep_reorgs_total", "chain"),
        }),
        Panel("Pools and LIVE books", "short", {"pools {{chain}}": "chain_pools", "LIVE {{chain}}": "chain_books_live"}),
        Panel("Compared with the chain itself", "short", {
            "pools {{chain}}": grown("chain_proofs_total", "chain"),
            "quotes {{chain}}": grown("chain_proof_quotes_total", "chain"),
            "not equal {{chain}}": grown("chain_mismatches_total", "chain"),
        }),
        Panel("Nodes: requests, errors, answers that cannot be true", "short", {
            "requests {{chain}}": rate("chain_requests_total", "chain"),
            "errors {{chain}}": rate("chain_node_errors_total", "chain"),
            "untrue {{chain}}": grown("chain_bad_answers_total", "chain"),
        }),
        Panel("Stale heads, websockets opened again", "short", {
            "stale {{chain}}": grown("chain_stale_total", "chain"),
            "opened again {{chain}}": grown("chain_ws_reconnects_total", "chain"),
        }),
        Panel("Pools read by calls", "short", {
            "new {{chain}}": grown("chain_snapshots_total", "chain"), "again {{chain}}": grown("chain_resyncs_total", "chain"),
        }),
    ],
    "processors": [
        Panel("Events a second, by worker", "short", {"{{instance}}": rate("processor_events_total", "instance")}),
        Panel("Records behind", "short", {"{{instance}} {{partition}}": "processor_lag"}),
        Panel("Books by state", "short", {"{{state}}": "sum by (state) (processor_books)"}),
        Panel("Partitions held", "short", {"{{instance}}": "processor_partitions"}),
        Panel("Best bids and offers written a second", "short", {"{{instance}}": rate("processor_bbo_total", "instance")}),
        Panel("Key frames", "short", {
            "equal": rate("processor_keyframes_ok_total", ""), "not equal": rate("processor_keyframes_bad_total", ""),
        }),
        Panel("Read again, fenced, waiting for a snapshot", "short", {
            "read again": rate("processor_replayed_total", ""), "fenced": rate("processor_fenced_total", ""),
            "waiting": rate("processor_unsynced_total", ""),
        }),
        Panel("Gaps", "short", {"{{instance}}": grown("processor_gaps_total", "instance")}),
        Panel("Checkpoints and commits a second", "short", {
            "books written {{instance}}": rate("processor_checkpoints_total", "instance"),
            "commits {{instance}}": rate("processor_commits_total", "instance"),
        }),
        Panel("Rebalances", "short", {"{{instance}}": grown("processor_rebalances_total", "instance")}),
        Panel("Events in a batch", "short", {
            "{{instance}}": "sum by (instance) (rate(processor_events_total[$__rate_interval])) / "
                            "sum by (instance) (rate(processor_batches_total[$__rate_interval]))",
        }),
        Panel("Not delivered, dropped, unreadable", "short", {
            "not delivered {{instance}}": "processor_failed_deliveries",
            "dropped {{instance}}": grown("processor_dropped_total", "instance"),
            "unreadable {{instance}}": grown("processor_dead_letters_total", "instance"),
        }),
    ],
    "execution": [
        Panel("Orders whose fate is not known", "short", {"unknown": "sum(executor_unknown_orders) or vector(0)"}, "stat",
              red_above=1),
        Panel("Scopes that are stopped", "short", {"stopped": "sum(executor_stopped) or vector(0)"}, "stat", red_above=1),
        Panel("Hedge groups given up", "short", {"UNHEDGED": 'sum(executor_hedge_groups{state="UNHEDGED"}) or vector(0)'},
              "stat", red_above=1),
        Panel("Balances that differ", "short", {"BREAK": "sum(executor_balance_breaks) or vector(0)"}, "stat", red_above=1),
        Panel("Orders sent and executions a second", "short", {
            "sent {{account}}": rate("executor_sent_total", "account"),
            "fills {{account}}": rate("executor_fills_total", "account"),
        }),
        Panel("Orders that are not over", "short", {"{{account}} {{state}}": "sum by (account, state) (executor_orders)"}),
        Panel("Hedge groups that left something over", "short", {"{{state}}": "sum by (state) (executor_hedge_groups)"}),
        Panel("In doubt, never existed, found open", "short", {
            "in doubt {{account}}": grown("executor_unknown_total", "account"),
            "never existed {{account}}": grown("executor_never_existed_total", "account"),
            "found open {{account}}": grown("executor_zombies_total", "account"),
        }),
        Panel("Executions late, told again, not ours", "short", {
            "late {{account}}": grown("executor_late_fills_total", "account"),
            "again {{account}}": grown("executor_fills_again_total", "account"),
            "not ours {{account}}": grown("executor_foreign_fills_total", "account"),
        }),
        Panel("Alarms, expired before they were sent", "short", {
            "alarms {{account}}": grown("executor_alarms_total", "account"),
            "expired {{account}}": grown("executor_expired_total", "account"),
        }),
    ],
    "archive": [
        Panel("Lost for ever", "short", {"records": "sum(archiver_lost_total) or vector(0)"}, "stat", red_above=1),
        Panel("Free on its disk", "bytes", {"{{instance}}": "archiver_disk_free_bytes"}, "stat"),
        Panel("Records written a second", "short", {"{{instance}}": rate("archiver_records_total", "instance")}),
        Panel("Files written", "short", {"{{instance}}": grown("archiver_files_total", "instance")}),
        Panel("Records behind", "short", {
            "not read {{instance}}": "archiver_lag", "in no file {{instance}}": "archiver_waiting",
        }),
        Panel("Behind the log", "s", {"{{instance}}": "archiver_behind_seconds"}),
    ],
    "console": [
        Panel("Browsers", "short", {"{{instance}}": "console_clients"}),
        Panel("Records read a second", "short", {"{{instance}}": rate("console_records_total", "instance")}),
        Panel("Passed over for a newer one, a second", "short", {"{{instance}}": rate("console_conflated_total", "instance")}),
        Panel("Bytes a second to browsers", "Bps", {"{{instance}}": rate("console_frame_bytes_total", "instance")}),
        Panel("Records behind", "short", {"{{instance}}": "console_lag"}),
        Panel("Slow, refused", "short", {
            "slow {{instance}}": grown("console_slow_readers_total", "instance"),
            "too many {{instance}}": grown("console_refused_clients_total", "instance"),
            "refused {{instance}}": grown("console_refused_requests_total", "instance"),
        }),
    ],
}  # fmt: skip


def dashboard(name: str, panels: list[Panel]) -> dict[str, Any]:
    """Grafana's JSON of one dashboard: numbers in a first row, plots in two columns below."""
    out: list[dict[str, Any]] = []
    stats = [p for p in panels if p.kind == "stat"]
    plots = [p for p in panels if p.kind != "stat"]
    for i, panel in enumerate(stats):
        width = 24 // len(stats)
        out.append(_panel(panel, len(out) + 1, {"x": i * width, "y": 0, "w": width, "h": 4}))
    for i, panel in enumerate(plots):
        out.append(_panel(panel, len(out) + 1, {"x": 12 * (i % 2), "y": 4 * bool(stats) + 8 * (i // 2), "w": 12, "h": 8}))
    source = {
        "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus",
        "current": {"text": "Prometheus", "value": "prometheus"},
    }  # fmt: skip
    return {
        "uid": f"venue-mirror-{name}", "title": f"venue-mirror · {name}", "tags": ["venue-mirror"], "timezone": "browser",
        "schemaVersion": 39, "editable": False, "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]}, "panels": out,
    }  # fmt: skip


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    custom = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"} if panel.kind == "timeseries" else {}
    return {
        "id": number, "type": panel.kind, "title": panel.title, "gridPos": place, "datasource": SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + i), "expr": query, "legendFormat": legend, "datasource": SOURCE}
            for i, (legend, query) in enumerate(panel.queries.items())
        ],
    }  # fmt: skip


def files() -> dict[str, str]:
    """The text of each file by its name."""
    return {
        f"{name}.json": json.dumps(dashboard(name, panels), indent=1, ensure_ascii=False) + "\n"
        for name, panels in DASHBOARDS.items()
    }


def main() -> int:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text, "utf-8")
        print(FOLDER / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
