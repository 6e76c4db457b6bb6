"""Binance spot. Source: Binance Spot API, "WebSocket Streams", "General endpoints", "Filters", "Limits"."""

from __future__ import annotations

from collectors.cex.binance import BinanceVenue, decode_entry, plain
from collectors.venue import Limits, Listing, RangeChain
from market.instruments import spot_symbol


class BinanceSpot(BinanceVenue):
    """Spot: ids are gapless for each symbol, so events chain by ``U == last u + 1``."""

    id = "binance-spot"
    rest_url = "https://api.binance.com"
    ws_url = "wss://stream.binance.com:9443"
    limits = Limits(
        instruments_per_connection=300,  # 1,024 streams, up to three an instrument
        instruments_per_request=100,
        request_interval_s=0.3,  # five frames a second; a sixth closes the connection
        connect_interval_s=1.6,  # 300 in five minutes: 187, and the burst
        connect_burst=100,
        rest_weight_per_minute=4500,  # of 6,000: others may share the address
        max_age_s=86_400,
    )
    prefix = "/api/v3"
    depth_stream = "depth@100ms"
    depth_limit = 1000  # 5,000 would cost five times the weight: hours for all pairs
    depth_weight = 50
    info_weight = 20
    sync_rule = RangeChain()
    chain = "U"

    def listing(self, entry: bytes) -> Listing:
        e = decode_entry(entry)
        lot, notional = e.filter("LOT_SIZE"), e.filter("NOTIONAL")
        if notional.minNotional is None:
            notional = e.filter("MIN_NOTIONAL")
        return Listing(
            native_id=e.symbol,
            symbol=spot_symbol(e.baseAsset, e.quoteAsset),
            base=e.baseAsset,
            quote=e.quoteAsset,
            kind="SPOT",
            # BREAK is what a delisted pair says for ever, and a halted one for hours: it never reads as DELISTED.
            state="TRADING" if e.status == "TRADING" else "HALTED",
            tick_size=plain(e.filter("PRICE_FILTER").tickSize),
            lot_size=plain(lot.stepSize),
            min_size=plain(lot.minQty) if lot.minQty else None,
            min_notional=plain(notional.minNotional) if notional.minNotional else None,
        )
