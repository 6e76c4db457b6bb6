"""The chains and protocols that are known by name. A chain's settings may replace each of these.

Sources: the chains' own documentation pages on block times and finality; the protocols' pages on deployments.
Addresses are checked once more at the start: an address without code, or another chain id, is a clear error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collectors.dex.balancer import BalancerV2
from collectors.dex.curve import CurveStable
from collectors.dex.curve_crypto import CurveCrypto
from collectors.dex.protocol import Protocol
from collectors.dex.slipstream import Slipstream
from collectors.dex.solidly import Solidly
from collectors.dex.uniswap_v2 import UniswapV2
from collectors.dex.uniswap_v3 import UniswapV3
from collectors.dex.uniswap_v4 import UniswapV4
from config.chains import ChainSettings, FactorySettings, RouterSettings, TokenSettings

PROTOCOLS: dict[str, type[Protocol]] = {
    p.name: p
    for p in (UniswapV2, UniswapV3, UniswapV4, Solidly, Slipstream, BalancerV2, CurveStable, CurveCrypto)
}
USD = ("USDC", "USDT", "DAI")


@dataclass(frozen=True)
class ChainPreset:
    """What is known of a chain."""

    chain_id: int
    block_time_ms: int
    native: str
    final_depth: int
    """Where its nodes have no finality tags."""
    tokens: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Address → (asset, decimals). The wrapped coin keeps a name of its own."""
    factories: tuple[FactorySettings, ...] = ()
    quotes: tuple[str, ...] = USD
    finality: str = "tags"
    routers: tuple[str, ...] = ()
    """Contracts whose calls the pending view reads."""


def _factory(protocol: str, address: str, venue: str = "", **options: int) -> FactorySettings:
    return FactorySettings.model_validate(
        {"protocol": protocol, "address": address, "venue": venue, "options": options}
    )


PRESETS: dict[str, ChainPreset] = {
    "ethereum": ChainPreset(
        1, 12_000, "ETH", 64,
        {
            "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2": ("WETH", 18),
            "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48": ("USDC", 6),
            "0xdac17f958d2ee523a2206206994597c13d831ec7": ("USDT", 6),
            "0x6b175474e89094c44da98b954eedeac495271d0f": ("DAI", 18),
            "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599": ("WBTC", 8),
        },
        (
            _factory("uniswap-v2", "0x5c69bee701ef814a2b6a3edd4b1652cb9cc5aa6f"),
            _factory("uniswap-v2", "0xc0aee478e3658e2610c5f7a4a2e1777ce9e4f2ac", "sushiswap-v2-ethereum"),
            _factory("uniswap-v3", "0x1f98431c8ad98523631ae4a59f267346ea31f984"),
            _factory("uniswap-v4", "0x000000000004444c5dc75cb358380d2e3de08a90"),
            _factory("balancer-v2", "0xba12222222228d8ba445958a75a0704d566bf2c8"),
            _factory("curve-stable", "0x6a8cbed756804b16e05e741edabd5cb544ae21bf"),
            _factory("curve-crypto", "0xf18056bbd320e96a48e3fbf8bc061322531aac99"),
            _factory("curve-crypto", "0x98ee851a00abee0d95d08cf4ca2bdce32aeaaf7f", "curve-twocrypto-ethereum"),
            _factory("curve-crypto", "0x0c0e5f2ff0ff18a3be9b835635039256dc4b4963", "curve-tricrypto-ethereum"),
        ),
        routers=(
            "0x7a250d5630b4cf539739df2c5dacb4c659f2488d",  # Uniswap V2Router02
            "0xd9e1ce17f2641f24ae83637ab66a2cca9c378b9f",  # SushiSwap's
            "0xe592427a0aece92de3edee1f18e0157c05861564",  # Uniswap SwapRouter
            "0x68b3465833fb72a70ecdf485e0e4c7bd8665fc45",  # SwapRouter02
            "0x66a9893cc07d91d95644aedd05d03f95e1dba8af",  # UniversalRouter
        ),
    ),
    "bnb": ChainPreset(
        56, 750, "BNB", 15,
        {
            "0xbb4cdb9cbd36b01bd1cbaebf2de08d9173bc095c": ("WBNB", 18),
            "0x55d398326f99059ff775485246999027b3197955": ("USDT", 18),
            "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d": ("USDC", 18),
        },
        (
            _factory("uniswap-v2", "0xca143ce32fe78f1f7019d7d551a6402fc5350c73", "pancakeswap-v2-bnb",
                     fee_num=25, fee_den=10_000),
            _factory("uniswap-v3", "0x0bfbcf9fa4f9c56b0f40a671ad40e0805a091865", "pancakeswap-v3-bnb"),
        ),
        ("USDT", "USDC"),
    ),
    "base": ChainPreset(
        8453, 2_000, "ETH", 600,
        {
            "0x4200000000000000000000000000000000000006": ("WETH", 18),
            "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913": ("USDC", 6),
        },
        (
            _factory("uniswap-v3", "0x33128a8fc17869897dce68ed026d694621f6fdfd"),
            _factory("uniswap-v4", "0x498581ff718922c3f8e6a244956af099b2652b2b"),
            _factory("solidly", "0x420dd381b31aef6683db6b902084cb0ffece40da", "aerodrome-base"),
            _factory("curve-stable", "0xd2002373543ce3527023c75e7518c274a51ce712"),
            _factory("slipstream", "0x5e7bb104d84c7cb9b682aac2f3d509f5f406809a", "aerodrome-slipstream-base"),
        ),
    ),
    "arbitrum": ChainPreset(
        42161, 250, "ETH", 2400,
        {
            "0x82af49447d8a07e3bd95bd0d56f35241523fbab1": ("WETH", 18),
            "0xaf88d065e77c8cc2239327c5edb3a432268e5831": ("USDC", 6),
            "0xfd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9": ("USDT", 6),
        },
        (
            _factory("uniswap-v3", "0x1f98431c8ad98523631ae4a59f267346ea31f984"),
            _factory("curve-stable", "0x9af14d26075f142eb3f292d5065eb3faa646167b"),
        ),
    ),
    "polygon": ChainPreset(
        137, 2_000, "POL", 256,
        {
            "0x0d500b1d8e8ef31e21c99d1db9a6444d3adf1270": ("WPOL", 18),
            "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359": ("USDC", 6),
            "0xc2132d05d31c914a87c6611c10748aeb04b58e8f": ("USDT", 6),
            "0x7ceb23fd6bc0add59e62ac25578270cff1b9f619": ("WETH", 18),
        },
        (
            _factory("uniswap-v3", "0x1f98431c8ad98523631ae4a59f267346ea31f984"),
            _factory("curve-stable", "0x1764ee18e8b3cca4787249ceb249356192594585"),
        ),
    ),
    "optimism": ChainPreset(
        10, 2_000, "ETH", 600,
        {
            "0x4200000000000000000000000000000000000006": ("WETH", 18),
            "0x0b2c639c533813f4aa9d7837caf62653d097ff85": ("USDC", 6),
        },
        (
            _factory("uniswap-v3", "0x1f98431c8ad98523631ae4a59f267346ea31f984"),
            _factory("solidly", "0xf1046053aa5682b4f9a81b5481394da16be5ff5a", "velodrome-optimism"),
            _factory("slipstream", "0xcc0bddb707055e04e497ab22a59c2af4391cd12f", "velodrome-slipstream-optimism"),
            _factory("curve-stable", "0x5eee3091f747e60a045a2e715a4c71e600e31f6e"),
        ),
    ),
    "avalanche": ChainPreset(
        43114, 1_500, "AVAX", 1,
        {
            "0xb31f66aa3c1e785363f0875a1b74e27b85fd66c7": ("WAVAX", 18),
            "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e": ("USDC", 6),
            "0x9702230a8ea53601f5cd2dc00fdbc13d4df4a8c7": ("USDT", 6),
        },
        (_factory("uniswap-v3", "0x740b1c1de25031c31ff4fc9a62f554a55cdc1bad"),),
    ),
}  # fmt: skip
LOCAL = ChainPreset(0, 1_000, "ETH", 0)
"""For a chain that is not known by name: everything has to be in the settings."""


def with_preset(name: str, own: ChainSettings) -> tuple[ChainSettings, ChainPreset]:
    """The settings with every empty value taken from the preset, and the preset."""
    preset = PRESETS.get(own.preset or name, LOCAL)
    known = {a: TokenSettings(asset=asset, decimals=d) for a, (asset, d) in preset.tokens.items()}
    filled = own.model_copy(
        update={
            "chain_id": own.chain_id or preset.chain_id,
            "block_time_ms": own.block_time_ms or preset.block_time_ms,
            "finality": own.finality or preset.finality,
            "final_depth": own.final_depth or preset.final_depth,
            "factories": own.factories or preset.factories,
            "tokens": known | {a.lower(): t for a, t in own.tokens.items()},
            "quotes": own.quotes or preset.quotes,
            "routers": own.routers or tuple(RouterSettings.model_validate({"address": a}) for a in preset.routers),
        }
    )
    return filled, preset


def protocols_of(name: str, settings: ChainSettings) -> list[tuple[Protocol, int]]:
    """Each factory's protocol and its start block."""
    out: list[tuple[Protocol, int]] = []
    for factory in settings.factories:
        kind = PROTOCOLS[factory.protocol]
        venue = factory.venue or f"{factory.protocol}-{name}"
        out.append((kind(factory.address, venue, quoter=factory.quoter, **factory.options), factory.start_block))
    return out
