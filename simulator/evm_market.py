"""Life on a local chain at real prices: pools of known assets, trades of sizes that people trade, for the demo.

The fuzzer's traffic (``evm_traffic``) looks for edges with amounts of any size; this one looks like a market, so that
pools and exchanges quote the same assets at about the same price.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import isqrt
from typing import Any

from market.pools.tick_math import tick_at_sqrt_ratio
from simulator.common_price import PARTS, CommonPrice
from simulator.evm import Evm
from simulator.evm_dex import V3_SPACING, Action, Dex, Token, ordered
from simulator.evm_traffic import Traffic, TrafficPool, pool_id_of

QUOTE = "USDT"
WRAPPED = {"ETH": ("WETH", 18), "BTC": ("WBTC", 8), QUOTE: (QUOTE, 6)}
"""Asset → its token's symbol and decimals here."""
DEPTH = 2_000_000
"""What stands on each side of a pool, in whole units of the quote."""
TRADE_LOG10 = (1.0, 4.5)
"""A trade's worth: ten to the power of something between these."""
BACK = 0.7
"""Share of the trades that go against what was traded before: prices wander, and come back."""
SUPPLY_DIGITS = 10
"""An account holds ten to the power of this of each token, in whole units."""
WIDE = 100
"""Half the width of the first position, in tick spacings."""


class Market(Traffic):
    """``prices`` says what one whole unit of each asset (of WRAPPED) is worth in QUOTE.

    With ``common`` they are where the path of common_price.py began, and trades go towards where it is now.
    """

    def __init__(
        self, evm: Evm, dex: Dex, seed: int, prices: Mapping[str, Decimal], *, reorg_share: float, reorg_depth: int,
        common: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(evm, dex, seed, reorg_share=reorg_share, reorg_depth=reorg_depth)
        self.assets: dict[str, str] = {}
        """Token address → asset."""
        self._prices = {**prices, QUOTE: Decimal(1)}
        self._flows: dict[str, Decimal] = {}
        self._common = {asset: CommonPrice(common, asset) for asset in prices} if common else {}

    def start(self, v2: int = 2, v3: int = 3, v4: int = 1) -> None:
        """So many pools of each protocol; the assets take turns, the fees too."""
        tokens = {asset: self._token(*WRAPPED[asset]) for asset in self._prices}
        self.assets = {token.address: asset for asset, token in tokens.items()}
        quote = tokens[QUOTE]
        bases = [token for asset, token in tokens.items() if asset != QUOTE]
        for n in range(v2):
            self._create("v2", bases[n % len(bases)], quote)
        for n in range(v3):
            self._create("v3", bases[n % len(bases)], quote, fee=(500, 3000, 10000)[n // len(bases) % 3])
        for n in range(v4):
            self._create("v4", bases[n % len(bases)], quote, fee=(3000, 500)[n // len(bases) % 2], spacing=60)

    def _token(self, symbol: str, decimals: int) -> Token:
        return self.dex.token(symbol, decimals, supply=10 ** (decimals + SUPPLY_DIGITS))

    # What one change is.

    def _units(self, token: Token, worth: Decimal) -> int:
        """Smallest units of a token that are worth so much."""
        return max(1, int(worth / self._prices[self.assets[token.address]] * 10**token.decimals))

    def _worth(self, share: Decimal = Decimal(1)) -> Decimal:
        return Decimal(str(round(10 ** self.rng.uniform(*TRADE_LOG10), 2))) * share

    def _trade(self, p: TrafficPool) -> tuple[Token, Token, int]:
        """(token sold, token bought, amount)."""
        flow = self._flows.get(p.ident, Decimal(0))
        dear = self._dear(p) if self._common else flow < 0
        sell_a = self.rng.random() < (BACK if dear else 1 - BACK)
        worth = self._worth()
        self._flows[p.ident] = flow + (worth if sell_a else -worth)
        a, b = (p.a, p.b) if sell_a else (p.b, p.a)
        return a, b, self._units(a, worth)

    def _dear(self, p: TrafficPool) -> bool:
        """Whether the pool pays more for its base than the common price."""

        def read(to: str, signature: str, *arguments: Any) -> tuple[int, int]:
            return self.evm.read(to, signature, ["uint256", "uint256"], *arguments)

        if p.kind == "v2":
            reserve0, reserve1 = read(p.ident, "getReserves()")
            price = Fraction(reserve1, reserve0)
        elif p.kind == "v3":
            price = Fraction(read(p.ident, "slot0()")[0] ** 2, 1 << 192)
        else:
            price = Fraction(read(self.dex.v4_view, "getSlot0(bytes32)", bytes.fromhex(p.ident[2:]))[0] ** 2, 1 << 192)
        if ordered(p.a, p.b)[0] != p.a.address:
            price = 1 / price
        asset = self.assets[p.a.address]
        fair = Fraction(self._prices[asset]) * self._common[asset].parts() / PARTS
        return price > fair * Fraction(10) ** (p.b.decimals - p.a.decimals)

    def _v2(self, p: TrafficPool) -> list[Action]:
        roll = self.rng.random()
        if roll < 0.75:
            return [self.dex.v2_swap(*self._trade(p))]
        worth = self._worth()
        if roll < 0.9:
            return [self.dex.v2_add(p.a, p.b, self._units(p.a, worth), self._units(p.b, worth))]
        both = isqrt(self._units(p.a, worth) * self._units(p.b, worth))
        return self.dex.v2_remove(p.ident, p.a, p.b, both)

    def _v3(self, p: TrafficPool) -> list[Action]:
        roll = self.rng.random()
        if roll < 0.75:
            a, b, amount = self._trade(p)
            return [self.dex.v3_swap(a, b, p.fee, amount)]
        if roll < 0.9:
            lower, upper = self._range(p)
            return [self._mint(p, lower, upper, self._worth())]
        return [self.dex.v3_burn(self.rng.randint(1, 60), self.rng.randrange(1, 10 ** self.rng.randint(6, 12)))]

    def _v4(self, p: TrafficPool) -> list[Action]:
        roll = self.rng.random()
        if roll < 0.75:
            a, _, amount = self._trade(p)
            return [self.dex.v4_swap(p.key, a.address == p.key[0], amount)]
        lower, upper = self._range(p)
        liquidity = isqrt(self._units(p.a, self._worth()) * self._units(p.b, self._worth()))
        return [self.dex.v4_modify(p.key, lower, upper, liquidity if roll < 0.9 else -liquidity)]

    def _range(self, p: TrafficPool) -> tuple[int, int]:
        centre, width = p.centre // p.spacing + self.rng.randint(-8, 8), self.rng.choice((1, 2, 4, 20))
        return (centre - width) * p.spacing, (centre + width) * p.spacing

    def _mint(self, p: TrafficPool, lower: int, upper: int, worth: Decimal) -> Action:
        amounts = {t.address: self._units(t, worth) for t in (p.a, p.b)}
        x, y = ordered(p.a, p.b)
        return self.dex.v3_mint(p.a, p.b, p.fee, lower, upper, amounts[x], amounts[y])

    def _create(self, kind: str, a: Token, b: Token, fee: int = 0, spacing: int = 0) -> None:
        depth = Decimal(DEPTH)
        amounts = {t.address: self._units(t, depth) for t in (a, b)}
        x, y = ordered(a, b)
        price = isqrt((amounts[y] << 192) // amounts[x])
        if kind == "v2":
            pool = TrafficPool(kind, self.dex.v2_create(a, b), a, b)
            self.pools.append(pool)
            self.evm.transact(*self.dex.v2_add(a, b, amounts[a.address], amounts[b.address]))
            return
        spacing = spacing or V3_SPACING[fee]
        centre = tick_at_sqrt_ratio(price) // spacing * spacing
        lower, upper = centre - WIDE * spacing, centre + WIDE * spacing
        if kind == "v3":
            pool = TrafficPool(kind, self.dex.v3_create(a, b, fee, price), a, b, fee, spacing, centre=centre)
            self.evm.transact(*self._mint(pool, lower, upper, depth))
        else:
            key = self.dex.v4_key(a, b, fee, spacing)
            self.dex.v4_create(key, price)
            self.evm.transact(*self.dex.v4_modify(key, lower, upper, 4 * isqrt(amounts[x] * amounts[y])))
            pool = TrafficPool(kind, pool_id_of(key), a, b, fee, spacing, key, centre)
        self.pools.append(pool)
