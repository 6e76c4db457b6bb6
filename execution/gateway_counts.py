"""What a gateway counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class GatewayCounts:
    """One gateway's, since it was made."""

    sent: int = 0
    duplicates: int = 0
    """Intents that were known already."""
    expired: int = 0
    """Orders dropped just before the socket write."""
    unknown: int = 0
    never_existed: int = 0
    fills: int = 0
    fills_again: int = 0
    """Executions told a second time, by whatever way."""
    foreign_fills: int = 0
    """Executions of orders that are not ours: somebody else trades on this account."""
    late_fills: int = 0
    """Fills of orders that were over."""
    zombies: int = 0
    """Orders found open that should not be."""
    alarms: int = 0
