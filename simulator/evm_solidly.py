"""Solidly's exchange (as Aerodrome has it) on a local chain, compiled from the sources that a package ships."""

from __future__ import annotations

from bus.broker import cache_dir
from simulator.evm import Evm, encode
from simulator.evm_dex import FOREVER, MAX_UINT, Action, Dex, Token
from simulator.npm import SOLIDLY_PACKAGES, node_modules
from simulator.solc import compiled

SOURCES = (
    "contracts/Pool.sol", "contracts/factories/PoolFactory.sol", "contracts/Router.sol",
    "contracts/factories/FactoryRegistry.sol",
)  # fmt: skip
ANYBODY = "0x" + "0" * 39 + "1"
"""Stands for contracts that the router's constructor wants and swaps never call."""


class Solidly:
    """The factory of both curves and its router. Blocks for some seconds the first time: it is compiled."""

    def __init__(self, evm: Evm, dex: Dex) -> None:
        self.evm = evm
        self.dex = dex
        modules = node_modules(SOLIDLY_PACKAGES)
        root = modules / "sphere-mezo-solidity-files" / "domains" / "aerodrome"
        made = compiled(modules, root, list(SOURCES), cache_dir() / "solidly-0.8.24")
        self.factory = evm.deploy(made["PoolFactory"], ["address"], [evm.deploy(made["Pool"])])
        registry = evm.deploy(made["FactoryRegistry"], ["address"] * 4, [self.factory, ANYBODY, ANYBODY, ANYBODY])
        self.router = evm.deploy(
            made["Router"], ["address"] * 5, [ANYBODY, registry, self.factory, ANYBODY, dex.weth]
        )

    def create(self, a: Token, b: Token, *, stable: bool) -> str:
        """A new pool; gives its address. The router may take both tokens from now on."""
        self.evm.transact(self.factory, encode("createPool(address,address,bool)", a.address, b.address, stable))
        signature = "getPool(address,address,bool)"
        pool = self.evm.read(self.factory, signature, ["address"], a.address, b.address, stable).lower()
        for spent in (a.address, b.address, pool):
            self.evm.send(spent, encode("approve(address,uint256)", self.router, MAX_UINT))
        self.evm.mine()
        return pool

    def add(self, a: Token, b: Token, amount_a: int, amount_b: int, *, stable: bool) -> Action:
        """Add liquidity at the pool's own ratio."""
        signature = "addLiquidity(address,address,bool,uint256,uint256,uint256,uint256,address,uint256)"
        return self.router, encode(
            signature, a.address, b.address, stable, amount_a, amount_b, 0, 0, self.dex.owner, FOREVER
        )

    def remove(self, a: Token, b: Token, amount: int, *, stable: bool) -> Action:
        """Take liquidity out."""
        signature = "removeLiquidity(address,address,bool,uint256,uint256,uint256,address,uint256)"
        return self.router, encode(signature, a.address, b.address, stable, amount, 0, 0, self.dex.owner, FOREVER)

    def swap(self, a: Token, b: Token, amount: int, *, stable: bool) -> Action:
        """Exactly ``amount`` of a for b."""
        signature = "swapExactTokensForTokens(uint256,uint256,(address,address,bool,address)[],address,uint256)"
        route = (a.address, b.address, stable, self.factory)
        return self.router, encode(signature, amount, 0, [route], self.dex.owner, FOREVER)

    def donate(self, pool: str, token: Token, amount: int) -> list[Action]:
        """Give tokens to the pool and let it take them into its reserves."""
        return [(token.address, encode("transfer(address,uint256)", pool, amount)), (pool, encode("sync()"))]

    def set_fee(self, fee: int, *, stable: bool) -> Action:
        """Change the fee of every pool of a kind, in ten-thousandths; no event of a pool tells of it."""
        return self.factory, encode("setFee(bool,uint256)", stable, fee)
