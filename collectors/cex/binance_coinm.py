"""Binance COIN-M futures. Source: Binance COIN-M Futures, "Websocket Market Streams" (one address for every stream), "Exchange
Information"."""

from __future__ import annotations

from collectors.cex.binance_futures import FORCED
from collectors.cex.binance_usdm import BinanceUsdM
from collectors.venue import LIQUIDATION, Limits, Venue


class BinanceCoinM(BinanceUsdM):
    """Inverse futures: the frames and the chain of USD-M; sizes are contracts worth ``contract_size`` of the quote."""

    id = "binance-coinm"
    rest_url = "https://dapi.binance.com"
    ws_url = "wss://dstream.binance.com"
    route = "/stream"
    limits = Limits(
        instruments_per_connection=50,  # 200 streams, up to four an instrument
        instruments_per_request=50,
        request_interval_s=0.15,
        connect_interval_s=1.6,
        connect_burst=100,
        rest_weight_per_minute=1800,
        max_age_s=86_400,
    )
    prefix = "/dapi/v1"
    chain = "ps"
    interest_unit = "CONTRACT"

    def kinds(self) -> list[str]:
        return [*super().kinds(), *([FORCED] if LIQUIDATION in self.channels else [])]

    def beside(self) -> Venue | None:
        return None
