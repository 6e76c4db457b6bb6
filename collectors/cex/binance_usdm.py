"""Binance USD-M futures. Source: Binance USDⓈ-M Futures, "Websocket Market Streams", "Important WebSocket Change Notice"
(books, trades and tickers on /public, liquidations on /market), "Exchange Information"."""

from __future__ import annotations

from dataclasses import replace

from collectors.cex.binance import decode_entry, plain
from collectors.cex.binance_futures import FORCED, BinanceFutures
from collectors.venue import LIQUIDATION, Limits, Listing, PredecessorChain, Venue
from market.instruments import future_symbol, perpetual_symbol

STATES = {"TRADING": "TRADING", "CLOSE": "DELISTED", "DELIVERED": "DELISTED"}
"""PENDING_TRADING, PRE_SETTLE, SETTLING, DELIVERING and whatever comes: HALTED."""


class BinanceUsdM(BinanceFutures):
    """Linear futures: ids are shared by all symbols, so events chain by ``pu``; never by U, which jumps."""

    id = "binance-usdm"
    rest_url = "https://fapi.binance.com"
    ws_url = "wss://fstream.binance.com"
    route = "/public/stream"
    limits = Limits(
        instruments_per_connection=60,  # 200 streams, up to three an instrument
        instruments_per_request=60,
        request_interval_s=0.15,  # ten frames a second
        connect_interval_s=1.6,  # 300 in five minutes: 187, and the burst
        connect_burst=100,
        rest_weight_per_minute=1800,  # of 2,400
        max_age_s=86_400,
    )
    prefix = "/fapi/v1"
    depth_stream = "depth@0ms"
    depth_limit = 1000
    depth_weight = 20
    info_weight = 1
    sync_rule = PredecessorChain()
    chain = "pu"

    def beside(self) -> Venue | None:
        return MarketRoute(channels=(LIQUIDATION,)) if LIQUIDATION in self.channels else None

    def listing(self, entry: bytes) -> Listing:
        e = decode_entry(entry)
        settle = e.marginAsset or e.quoteAsset
        perpetual = "PERPETUAL" in e.contractType
        expiry_us = None if perpetual else e.deliveryDate * 1000
        lot, notional = e.filter("LOT_SIZE"), e.filter("MIN_NOTIONAL")
        return Listing(
            native_id=e.symbol,
            symbol=(
                perpetual_symbol(e.baseAsset, e.quoteAsset, settle)
                if expiry_us is None
                else future_symbol(e.baseAsset, e.quoteAsset, settle, expiry_us)
            ),
            base=e.baseAsset,
            quote=e.quoteAsset,
            settle=settle,
            kind="PERPETUAL" if perpetual else "FUTURE",
            state=STATES.get(e.status or e.contractStatus, "HALTED"),
            inverse=settle == e.baseAsset,
            tick_size=plain(e.filter("PRICE_FILTER").tickSize),
            lot_size=plain(lot.stepSize),
            min_size=plain(lot.minQty) if lot.minQty else None,
            min_notional=plain(notional.notional) if notional.notional else None,
            contract_size=str(e.contractSize or 1),
            expiry_us=expiry_us,
        )


class MarketRoute(BinanceUsdM):
    """What USD-M sends on its /market route. A subscription on the wrong route is taken, and nothing comes."""

    route = "/market/stream"
    # One stream an instrument, and nothing on it while nobody is liquidated.
    limits = replace(BinanceUsdM.limits, instruments_per_connection=200, quiet=True)

    def kinds(self) -> list[str]:
        return [FORCED]

    def beside(self) -> Venue | None:
        return None
