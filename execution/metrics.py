"""Every number that an executor shows, declared once, and how Prometheus reads it.

Counters are those of gateway_counts.py. Nothing is kept for the sake of a scrape: each reads what the executor knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from execution.accounting import Accounts
from execution.gateway import Gateway
from execution.gateway_counts import GatewayCounts
from execution.hedging import Record

GROUP_STATES = ("HEDGING", "UNHEDGED", "DUST")
"""What a hedge group may have left over; CLOSED ones left nothing."""


@dataclass(frozen=True)
class Watched:
    """What is measured at the moment of a scrape; the executor's own objects, never copies."""

    gateways: Mapping[str, Gateway]
    control: Mapping[str, Record]
    """scope → newest Control."""
    groups: Mapping[str, Record]
    """hedge group → its newest Residual."""
    accounts: Mapping[str, Accounts]
    unusable_records: Callable[[], int] = int
    failed_deliveries: Callable[[], int] = int


class ExecutorMetrics:
    """A Prometheus collector over one executor."""

    def __init__(self, watched: Watched) -> None:
        self._of = watched

    def collect(self) -> Iterable[Metric]:
        """The metric families, as prometheus_client asks for them."""
        yield from self._counters()
        yield from self._accounts()
        groups = GaugeMetricFamily("executor_hedge_groups", "Hedge groups that left something over", labels=["state"])
        states = Counter(record["state"] for record in self._of.groups.values())
        for state in GROUP_STATES:
            groups.add_metric([state], states[state])
        yield groups
        stopped = GaugeMetricFamily("executor_stopped", "1: nothing may leave within this scope", labels=["scope", "state"])
        for scope, control in self._of.control.items():
            stopped.add_metric([scope, control["state"]], control["state"] != "RUN")
        yield stopped
        for name, text, value in (
            ("unusable_records", "Records of the log that could not be used", self._of.unusable_records()),
            ("failed_deliveries", "Records that Kafka did not take", self._of.failed_deliveries()),
        ):
            yield GaugeMetricFamily(f"executor_{name}", text, value=value)

    def _counters(self) -> Iterable[Metric]:
        for item in fields(GatewayCounts):
            family = CounterMetricFamily(f"executor_{item.name}", item.metadata["help"], labels=["account"])
            for name, gateway in self._of.gateways.items():
                family.add_metric([name], getattr(gateway.counts, item.name))
            yield family

    def _accounts(self) -> Iterable[Metric]:
        orders = GaugeMetricFamily("executor_orders", "Orders that are not over, by state", labels=["account", "state"])
        unknown = GaugeMetricFamily("executor_unknown_orders", "Orders whose fate is not known", labels=["account"])
        ready = GaugeMetricFamily("executor_ready", "1: the past is in order, the account trades", labels=["account"])
        breaks = GaugeMetricFamily("executor_balance_breaks", "Assets whose ledger and venue differ", labels=["account"])
        for name, gateway in self._of.gateways.items():
            states = Counter(order.state for order in gateway.unfinished())
            for state, number in states.items():
                orders.add_metric([name, state], number)
            unknown.add_metric([name], states["UNKNOWN"])
            ready.add_metric([name], gateway.ready)
            known = self._of.accounts.get(name)
            breaks.add_metric([name], list(known.states.values()).count("BREAK") if known else 0)
        yield from (orders, unknown, ready, breaks)

    def exposition(self) -> bytes:
        """The text of ``/metrics``."""
        registry = CollectorRegistry()
        registry.register(self)  # pyright: ignore[reportArgumentType]
        return generate_latest(registry)
