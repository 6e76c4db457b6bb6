"""One instrument of the synthetic venue: its order flow in integers, its truth in decimals, and its numbering."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.common_price import CommonPrice
from simulator.order_flow import Changes, OrderFlow
from simulator.truth import TruthBook

BASES = (  # noqa: SIM905 - a list of them would fill the page
    "BTC ETH SOL XRP BNB DOGE ADA TRX AVAX LINK DOT LTC BCH UNI ATOM XLM ETC FIL APT ARB OP INJ SUI TIA SEI NEAR ICP "
    "HBAR VET AAVE MKR RUNE GRT ALGO EGLD FTM SAND MANA AXS THETA XTZ EOS FLOW KAVA ZEC DASH COMP SNX CRV LDO RPL GMX "
    "DYDX ENS IMX STX MINA ROSE CHZ ONE"
).split()
TICKS = ((2, 5), (1, 3), (4, 2), (3, 1), (5, 0))
"""(decimals of a price, decimals of a size), in turn."""


@dataclass(frozen=True, slots=True)
class Name:
    """What an instrument is called and is."""

    native: str
    """The venue's own name."""
    base: str
    quote: str
    symbol: str
    """The unified one."""
    kind: str = "spot"
    """spot, linear or inverse."""


class SyntheticInstrument:
    """``truth`` is fed with the texts that go out, not with the flow's integers: a wrong text would show."""

    def __init__(
        self, number: int, name: Name, *, seed: int, levels: int, first_u: int, ts_us: int, remember: int, status: str,
        common: int = 0,
    ) -> None:  # fmt: skip
        self.number = number
        """In the order of listing."""
        self.name = name
        self.native, self.base, self.quote = name.native, name.base, name.quote
        self.stream = name.native.lower()
        self.price_decimals, self.size_decimals = TICKS[number % len(TICKS)]
        # The mid stands high enough for the deepest bid to be a price.
        mid = max(10_000, 8 * levels) + 997 * (number % 50)
        price = CommonPrice(common, name.base, seed)
        self.flow = OrderFlow(seed * 1_000_003 + number, mid, levels, (lambda: price.of(mid)) if common else None)
        self.status = status
        self.last_u = first_u
        self.trade_id = 0
        self.events = 0
        """Of this instrument."""
        self.silent_until_s = 0.0
        """Monotonic seconds; nothing is generated before."""
        self.frozen_until_s = 0.0
        """Monotonic seconds; the book goes on, but what it does before is told to nobody."""
        self.truth = TruthBook(remember)
        self.truth.load(
            first_u, self.texts(list(self.flow.bids.items())), self.texts(list(self.flow.asks.items())), ts_us
        )

    def price(self, ticks: int) -> str:
        """Ticks as the venue writes a price: all its decimals, zeros included."""
        return decimal_text(ticks, self.price_decimals)

    def size(self, lots: int) -> str:
        """Lots as the venue writes a size."""
        return decimal_text(lots, self.size_decimals)

    def texts(self, changes: Changes) -> list[tuple[str, str]]:
        """(price, size) texts; of several changes of one level only the last, as in a venue's event."""
        return [(self.price(p), self.size(s)) for p, s in dict(changes).items()]


def decimal_text(mantissa: int, decimals: int) -> str:
    """``mantissa`` × 10^-``decimals`` with exactly that many digits after the point; not negative."""
    if not decimals:
        return str(mantissa)
    digits = str(mantissa).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}"
