"""What a gateway counts, declared once; execution/metrics.py shows it as ``executor_<field>_total`` with the label account."""

from __future__ import annotations

from dataclasses import dataclass, field


def _counter(text: str) -> int:
    return field(default=0, metadata={"help": text})


@dataclass
class GatewayCounts:
    """One gateway's, since it was made."""

    sent: int = _counter("Orders sent to the venue")
    duplicates: int = _counter("Intents that were known already")
    expired: int = _counter("Orders dropped just before the socket write")
    unknown: int = _counter("Orders whose fate was not known for a while: a call to the venue had no answer")
    never_existed: int = _counter("Orders of which the venue knows nothing")
    fills: int = _counter("Executions")
    fills_again: int = _counter("Executions told a second time, by whatever way")
    foreign_fills: int = _counter("Executions of orders that are not ours: somebody else trades on this account")
    late_fills: int = _counter("Executions of orders that were over")
    zombies: int = _counter("Orders found open that should not be")
    alarms: int = _counter("Alarms of this account's gateway")
