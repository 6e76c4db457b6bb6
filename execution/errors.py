"""What can go wrong between us and a venue that trades.

ExecutionError
├── AccountError   an account cannot be used as configured: no keys, not armed, unknown venue
├── Fenced         another gateway took over this account: this one must not write any more
├── Halted         the gateway stopped itself; the text says on which count
└── VenueError     a call to the venue
    ├── Refused    the venue said no: the order does not exist, and never will
    ├── Throttled  the venue did not look at the call (429, 418); ``retry_after_s`` says how long it wants silence
    ├── NotFound   the venue knows no such order now: it may be over, or not yet be visible
    └── Unclear    it may have arrived (a time-out, a cut line, a 5xx): never to be sent again
"""


class ExecutionError(Exception):
    """Root of this room's errors."""


class AccountError(ExecutionError):
    """The account cannot be used; the text says what to change."""


class Fenced(ExecutionError):
    """A gateway with a higher writer epoch works on this account."""


class Halted(ExecutionError):
    """The gateway does not send until someone resumes it."""


class VenueError(ExecutionError):
    """A call to the venue did not succeed."""


class Refused(VenueError):
    """The venue's clear no."""


class Throttled(VenueError):
    """Too many calls; nothing was done."""

    def __init__(self, text: str, retry_after_s: float) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class NotFound(VenueError):
    """No such order now."""


class Unclear(VenueError):
    """Nobody knows whether the venue acted."""
