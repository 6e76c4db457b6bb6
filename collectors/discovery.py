"""Which instruments a venue has: loads them, compares with what market.instrument says, writes what changed."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from collectors.errors import CollectorError
from collectors.metrics import Counts
from collectors.publisher import Publisher
from collectors.rest import RestClient
from collectors.venue import Listing, RestRequest, Venue

log = logging.getLogger(__name__)

Instrument = dict[str, Any]
"""An Instrument record."""

SUSPICIOUS_SHARE = 0.5
"""When more than this share of the instruments vanishes at once, the venue has to say so twice."""
SUSPICIOUS_COUNT = 10


class Discovery:
    """Writes listings, changes, halts and delistings of one venue. One process of the group runs it."""

    def __init__(
        self,
        load: Callable[[], Awaitable[list[Listing]]],
        publisher: Publisher,
        counts: Counts,
        known: Mapping[str, Instrument],
        symbols: tuple[str, ...] = (),
    ) -> None:
        self._load = load
        self._publisher = publisher
        self._counts = counts
        self._known = known
        self.symbols = frozenset(symbols)
        """Unified symbols to write; none: all."""
        self._suspected: frozenset[str] = frozenset()

    async def once(self) -> None:
        """Load, compare, write. Raises CollectorError when the venue's answer cannot be had or read."""
        listings = self.by_symbol(await self._load())
        if not listings:
            raise CollectorError(f"{self._publisher.venue}: the venue lists no instrument that can be read")
        self._counts.discoveries += 1
        if self.symbols:
            self._warn_unknown(listings)
            listings = {s: one for s, one in listings.items() if s in self.symbols}
        now_ns = time.time_ns()
        for symbol, listing in listings.items():
            before = self._known.get(symbol)
            if before is None or differs(listing, before):
                self._publisher.instrument(listing, listing.state, now_ns)
        self._delist(listings, now_ns)

    @staticmethod
    def by_symbol(listings: list[Listing]) -> dict[str, Listing]:
        """One listing for each unified symbol; of two with the same name, the one that trades."""
        out: dict[str, Listing] = {}
        for listing in listings:
            other = out.get(listing.symbol)
            if other is None or (other.state != "TRADING" and listing.state == "TRADING"):
                out[listing.symbol] = listing
        return out

    def _delist(self, listings: Mapping[str, Listing], now_ns: int) -> None:
        mine = {s: r for s, r in self._known.items() if not self.symbols or s in self.symbols}
        listed = [s for s, r in mine.items() if r["state"] != "DELISTED"]
        gone = frozenset(s for s in listed if s not in listings)
        if len(gone) > SUSPICIOUS_COUNT and len(gone) > SUSPICIOUS_SHARE * len(listed) and gone != self._suspected:
            log.error("%s: %d of %d instruments vanished; not believed until said again",
                      self._publisher.venue, len(gone), len(listed))  # fmt: skip
            self._suspected = gone
            return
        self._suspected = frozenset()
        for symbol in sorted(gone):
            self._publisher.instrument(listing_of(mine[symbol]), "DELISTED", now_ns)

    def _warn_unknown(self, listings: Mapping[str, Listing]) -> None:
        unknown = sorted(self.symbols - listings.keys())
        for symbol in unknown:
            near = difflib.get_close_matches(symbol, listings, 3, 0.4)
            hint = f"; similar: {', '.join(near)}" if near else ""
            log.error("%s has no instrument %s%s", self._publisher.venue, symbol, hint)
        if len(unknown) == len(self.symbols):
            examples = ", ".join(sorted(listings)[:5])
            raise CollectorError(
                f"{self._publisher.venue} lists none of {', '.join(unknown)}; write unified symbols such as {examples}"
            )


PAGES_MAX = 100


async def load_listings(venue: Venue, rest: RestClient) -> list[Listing]:
    """Every instrument that the venue lists, over all its calls and pages. Raises RestError, MalformedFrame."""
    listings: list[Listing] = []
    for first in venue.instruments_requests():
        request: RestRequest | None = first
        for _ in range(PAGES_MAX):
            if request is None:
                break
            body = await rest.call(request)
            listings += venue.parse_instruments(body)
            request = venue.next_instruments_request(request, body)
    return listings


def listing_of(record: Instrument) -> Listing:
    """The venue's part of an Instrument record."""
    return Listing(**{name: record[name] for name in Listing.__dataclass_fields__})


def differs(listing: Listing, record: Instrument) -> bool:
    """Whether the venue says something else than the record."""
    return listing_of(record) != listing
