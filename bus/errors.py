"""What can go wrong between us and Kafka.

BusError
├── BrokerStartError   the embedded broker did not come up
├── BrokerUnreachable  nothing answers at the configured address
├── TopicMismatch      a topic on the broker differs from the catalogue in a way that we refuse to change
├── StillInUse         partitions cannot be raised while processes run or records wait
├── QueueFull          the bounded queue of records that wait for Kafka is full
└── DeliveryFailed     Kafka refused records for good
"""


class BusError(Exception):
    """Root of this room's errors."""


class BrokerStartError(BusError):
    """The embedded broker did not come up; the text says why and where its log is."""


class BrokerUnreachable(BusError):
    """No broker answers; the text names the address and what to do."""


class TopicMismatch(BusError):
    """A topic exists with fewer or more partitions than wanted, and repairing it would move keys."""


class StillInUse(BusError):
    """Partitions cannot be raised yet; the text names who runs, or how many records wait."""


class QueueFull(BusError):
    """The producer's queue is full: the caller decides what becomes of the record."""


class DeliveryFailed(BusError):
    """Records that Kafka did not take, after all retries; the text counts them and names the first error."""
