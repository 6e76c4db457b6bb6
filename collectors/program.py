"""The collector as a program: signals, tracing, and exit codes that say what was missing."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

from bus.connection import require_broker
from bus.errors import BusError
from bus.tracing import start as start_tracing
from collectors.collector import Collector
from collectors.errors import CollectorError, VenueUnreachable
from collectors.selection import Selector
from collectors.venue import adapter
from config.settings import Settings

EXIT_OK, EXIT_ERROR, EXIT_NO_BROKER, EXIT_NO_VENUE = 0, 1, 2, 3


def main(settings: Settings, name: str, read_settings: Callable[[], Settings] | None = None) -> int:
    """Run until SIGTERM or SIGINT; gives the process's exit code (0 stopped, 2 no broker, 3 no venue, 1 other).

    Raises UnknownVenue before anything starts.
    """
    import uvloop

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Collector(settings, name, read_settings).run(stop)

    own = settings.venue(name)
    venue = adapter(own.adapter)()
    if Selector(own).needs_volumes and not venue.volumes_requests():
        print(f"error: {name} tells no volumes; select by quotes, bases, kinds, allow or deny instead", file=sys.stderr)
        return EXIT_ERROR
    try:
        require_broker(settings)
        start_tracing(settings, "collector")
        uvloop.run(run())
    except BusError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_BROKER
    except VenueUnreachable as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_NO_VENUE
    except CollectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    return EXIT_OK
