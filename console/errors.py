"""What can go wrong between the mirror and the person who looks at it.

ConsoleError
└── BadRequest  a parameter of a request that makes no sense; the text says what would
"""


class ConsoleError(Exception):
    """Root of this room's errors."""


class BadRequest(ConsoleError):
    """The browser asked for something that is not there or not allowed."""
