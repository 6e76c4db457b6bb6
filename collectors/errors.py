"""What can go wrong in a collector.

CollectorError
├── MalformedFrame    bytes from a venue that make no sense; the only error an adapter's parser raises
├── UnknownVenue      no adapter of that name
├── VenueUnreachable  the venue does not answer, after bounded retries
└── RestError         a REST call was refused or failed; RateLimited when the venue said to slow down
"""


class CollectorError(Exception):
    """Root of this room's errors."""


class MalformedFrame(CollectorError, ValueError):
    """A frame or REST answer is not what the venue documents; the text says where."""


class UnknownVenue(CollectorError):
    """No adapter has this id; the text lists those that exist."""


class VenueUnreachable(CollectorError):
    """The venue did not answer within the time given; the text names the URL."""


class RestError(CollectorError):
    """A REST call failed: no connection, a time-out, or a status other than 200."""


class RateLimited(RestError):
    """The venue answered 429 or 418; ``retry_after_s`` says how long it wants silence."""

    def __init__(self, text: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s
