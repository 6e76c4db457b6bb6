"""Every number that a chain's collector counts, declared once. Names: ``chain_<field>_total``, with the label chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def _counter(text: str) -> int:
    return field(default=0, metadata={"help": text})


@dataclass(slots=True)
class ChainCounts:
    """The counters of one chain's collector."""

    blocks: int = _counter("Blocks applied")
    logs: int = _counter("Logs in applied blocks, of any contract")
    events: int = _counter("Pool events applied and written to chain.pool")
    reorgs: int = _counter("Reorganisations followed")
    retracted_blocks: int = _counter("Blocks retracted")
    retracts: int = _counter("Pool events retracted")
    finals: int = _counter("Blocks announced as FINAL")
    deep_reorgs: int = _counter("Reorganisations below what was final or remembered: everything was read anew")
    heads: int = _counter("Heads reported by endpoints")
    heads_ignored: int = _counter("Heads that were known, old or not confirmed by their node")
    bad_answers: int = _counter("Answers of nodes that could not be true")
    requests: int = _counter("HTTP requests sent to nodes")
    node_errors: int = _counter("Requests that failed")
    ws_reconnects: int = _counter("Websockets opened again")
    stale: int = _counter("Times that no new head came for three block times")
    pools_created: int = _counter("Pools discovered")
    pools_unwanted: int = _counter("Pools that the settings leave out")
    serial_holes: int = _counter("Pairs that the factory counted and that were not seen")
    snapshots: int = _counter("Pools read by calls")
    resyncs: int = _counter("Pools read by calls because their state was not to be trusted")
    rereads: int = _counter("Pools read by calls because an event, or time, changed what no event says")
    dead_letters: int = _counter("Events that could not be read")
    beats: int = _counter("Heartbeats: deltas without levels, where nothing else was written")
    book_events: int = _counter("Snapshots, deltas and key frames written to market.book")
    statuses: int = _counter("Changes of state written to market.status")
    proofs: int = _counter("Pools compared with the chain")
    proof_quotes: int = _counter("Quotes compared with the chain's own answer")
    mismatches: int = _counter("Comparisons in which the mirror and the chain differed")
    transfers_tried: int = _counter("Transfers of tokens simulated")
    transfers_refused: int = _counter("Tokens found to refuse transfers or to take a fee of them")
    transfers_unjudged: int = _counter("Transfers that no node could simulate")
    pending_seen: int = _counter("Pending transactions heard of")
    pending_swaps: int = _counter("Pending transactions to known routers that mean to swap")
    pending_unreadable: int = _counter("Calls to known routers whose arguments could not be read")
    pending_forgotten: int = _counter("Pending swaps no longer watched because too many are pending")
    pending_unasked: int = _counter("Pending transactions whose bodies were not asked for because too many came at once")
    pending_unwritten: int = _counter("Records of chain.pending not written because Kafka was behind")
    waits: int = _counter("Times that the chain had to wait for Kafka")


class ChainMetrics:
    """A Prometheus collector over one chain's counts."""

    def __init__(self, chain: str, counts: ChainCounts, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self.chain = chain
        self.counts = counts
        self.gauges = gauges
        """Name → (help, what reads it)."""
        self.started_s = time.time()

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        for item in fields(self.counts):
            family = CounterMetricFamily(f"chain_{item.name}", item.metadata["help"], labels=["chain"])
            family.add_metric([self.chain], getattr(self.counts, item.name), created=self.started_s)
            yield family
        for name, (text, read) in self.gauges.items():
            gauge = GaugeMetricFamily(f"chain_{name}", text, labels=["chain"])
            gauge.add_metric([self.chain], read())
            yield gauge
        c = self.counts
        gauge = GaugeMetricFamily("mirror_exact_ratio", "Comparisons with the chain that agreed", labels=["venue"])
        gauge.add_metric([self.chain], (c.proofs - c.mismatches) / c.proofs if c.proofs else 1.0)
        yield gauge

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
