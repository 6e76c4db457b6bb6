"""Whether a collector does its work yet, for whoever starts and replaces it: what it waits for, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collectors.ownership import DISCOVERY_PARTITION

if TYPE_CHECKING:
    from collectors.collector import Collector
    from collectors.dex.collector import ChainCollector


def waits_for(collector: Collector) -> str:
    """What a venue's collector waits for; empty: it is ready. Single books may still be out of step: their state says so."""
    if not collector.partitions:
        return "Kafka has handed out no partitions to this collector"
    if DISCOVERY_PARTITION in collector.partitions and not collector.counts.discoveries:
        return "the venue's instruments have not been loaded"
    if not collector.known:
        return "no instrument of the venue is known"
    if collector.pipeline.workers and not collector.pool.brings_books():
        return "no connection that books come by is open"
    return ""


def chain_waits_for(collector: ChainCollector) -> str:
    """The same for a chain's, which has no partitions, and polls where no websocket is open."""
    if not collector.started:
        return "the pools have not been read"
    if collector.follower.stale:
        return "no new head has come for three block times"
    return ""
