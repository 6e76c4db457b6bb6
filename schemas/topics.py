"""The topic catalogue: the only place that says which topics exist, what they carry and how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR_MS = 3_600_000
MARKET_PARTITIONS = 12
"""Partitions of every topic keyed by venue|symbol. They are co-partitioned: one instrument has one number everywhere."""


def durable(replicas: int) -> dict[str, str]:
    """The setting by which a record of so many replicas is on two brokers before it counts as taken."""
    return {"min.insync.replicas": "2"} if replicas >= 3 else {}


@dataclass(frozen=True)
class Topic:
    """One Kafka topic: its name, the record it carries, what its key means, and its broker settings."""

    name: str
    record: str
    key: str
    partitions: int = MARKET_PARTITIONS
    cleanup: str = "delete"
    retention_ms: int = 6 * HOUR_MS
    extra: dict[str, str] = field(default_factory=dict[str, str])
    grows: bool = True
    """Whether its partitions may be raised later. Not where readers need the order of a key's records over its life."""

    @property
    def config(self) -> dict[str, str]:
        """Broker-side settings, as `topics apply` writes them."""
        config = {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention_ms)}
        return config | self.extra

    def config_on(self, replicas: int) -> dict[str, str]:
        """The same for so many replicas: of three or more, two must have a record before it counts as taken.

        With Kafka's own default of one, ``acks=all`` means the leader alone whenever its followers have fallen behind,
        and what it acknowledged is lost with it.
        """
        return self.config | durable(replicas)


LARGE_RECORDS = {"max.message.bytes": str(16 * 1024 * 1024)}
"""Books can be deep (46,000 levels at Coinbase): a key frame is several megabytes."""

INSTRUMENT = Topic("market.instrument", "Instrument", "venue|symbol", cleanup="compact", retention_ms=-1)
BOOK = Topic("market.book", "BookEvent", "venue|symbol", extra=LARGE_RECORDS)
STATUS = Topic("market.status", "BookStatus", "venue|symbol", cleanup="compact", retention_ms=-1)
TRADE = Topic("market.trade", "Trade", "venue|symbol", retention_ms=24 * HOUR_MS)
TICKER = Topic("market.ticker", "Ticker", "venue|symbol")
FUNDING = Topic("market.funding", "FundingRate", "venue|symbol", retention_ms=7 * 24 * HOUR_MS)
MARK_PRICE = Topic("market.mark_price", "MarkPrice", "venue|symbol", retention_ms=24 * HOUR_MS)
OPEN_INTEREST = Topic("market.open_interest", "OpenInterest", "venue|symbol", retention_ms=7 * 24 * HOUR_MS)
LIQUIDATION = Topic("market.liquidation", "Liquidation", "venue|symbol", retention_ms=7 * 24 * HOUR_MS)
BBO = Topic("derived.bbo", "Bbo", "venue|symbol", retention_ms=HOUR_MS)
BBO_BY_GROUP = Topic("derived.bbo_by_group", "Bbo", "symbol", retention_ms=HOUR_MS)
"""The same records keyed by the symbol alone, so that one worker sees all venues of an instrument."""
DEPTH = Topic("derived.depth", "Depth", "venue|symbol", retention_ms=HOUR_MS)
MICROSTRUCTURE = Topic("derived.microstructure", "Microstructure", "venue|symbol", retention_ms=HOUR_MS)
CROSS = Topic("derived.cross", "Cross", "symbol", retention_ms=HOUR_MS)
BAR = Topic("derived.bar", "Bar", "venue|symbol", retention_ms=7 * 24 * HOUR_MS)
PROOF = Topic("derived.proof", "BookProof", "venue|symbol", retention_ms=24 * HOUR_MS)
OPPORTUNITY = Topic("derived.opportunity", "Opportunity", "instrument group", partitions=1, retention_ms=3 * 24 * HOUR_MS)


def _orders(name: str, record: str, key: str = "account", cleanup: str = "delete") -> Topic:
    """Kept for ever, in one partition: that gives orders one order. Accounts are few and their records small."""
    return Topic(name, record, key, partitions=1, cleanup=cleanup, retention_ms=-1)


INTENT = _orders("orders.intent", "OrderIntent")
SHADOW = Topic("orders.shadow", "OrderIntent", "account", partitions=1, retention_ms=3 * 24 * HOUR_MS)
RISK = _orders("orders.risk", "RiskDecision")
JOURNAL = _orders("orders.journal", "JournalRecord")
ORDER = _orders("orders.event", "OrderEvent")
FILL = _orders("orders.fill", "Fill")
LEDGER = _orders("orders.ledger", "LedgerEntry", "account|asset")
POSITION = _orders("orders.position", "Position", "account|symbol", cleanup="compact")
BALANCE = _orders("orders.balance", "Balance", "account|asset", cleanup="compact")
RESIDUAL = _orders("orders.residual", "Residual", "group_id", cleanup="compact")
NOTICE = _orders("orders.notice", "Notice")
ALIVE = _orders("orders.alive", "SignOfLife", cleanup="compact")
LIMITS = _orders("orders.limits", "Limits", "scope")
"""Few and small; kept whole, so that every version that a verdict names can be shown."""
CONTROL = _orders("orders.control", "Control", "scope")
TRACE = Topic("strategy.trace", "StrategyTrace", "strategy", partitions=1, retention_ms=24 * HOUR_MS)
STRATEGY_STATE = Topic(
    "strategy.state", "StrategyState", "strategy", partitions=1, retention_ms=24 * HOUR_MS, extra=LARGE_RECORDS
)
CHAIN_BLOCK = Topic("chain.block", "ChainBlock", "chain", partitions=1, retention_ms=24 * HOUR_MS)
CHAIN_POOL = Topic("chain.pool", "ChainPool", "chain|pool", retention_ms=24 * HOUR_MS, extra=LARGE_RECORDS, grows=False)
CHAIN_PENDING = Topic("chain.pending", "ChainPending", "chain|transaction hash", retention_ms=6 * HOUR_MS)
DEAD_LETTER = Topic("dead.letter", "DeadLetter", "source topic", partitions=1, retention_ms=7 * 24 * HOUR_MS)

TOPICS: dict[str, Topic] = {t.name: t for t in tuple(globals().values()) if isinstance(t, Topic)}


def market_key(venue: str, symbol: str) -> str:
    """The key of every record about one instrument."""
    return f"{venue}|{symbol}"
