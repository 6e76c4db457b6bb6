"""The real exchanges' contracts on a local chain: Uniswap V2, V3 and V4, as their authors built them.

Addresses are lower case. Every action is a transaction's (to, data), so that a fuzzer can queue it, mine it, or put it
into a reorg's new branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.evm import Evm, decode, encode
from simulator.npm import node_modules

Action = tuple[str, bytes]
"""(to, call data)"""

FOREVER = (1 << 64) - 1
MAX_UINT = (1 << 256) - 1
V3_SPACING = {500: 10, 3000: 60, 10000: 200}
NO_HOOKS = "0x" + "0" * 40
MINT_V3 = "mint((address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256))"
SWAP_V3 = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))"
KEY_V4 = "(address,address,uint24,int24,address)"


@dataclass
class Token:
    """An ERC-20."""

    address: str
    symbol: str
    decimals: int


class Dex:
    """Deploys everything at construction (about half a second)."""

    def __init__(self, evm: Evm) -> None:
        self.evm = evm
        self._modules = node_modules()
        owner = evm.accounts[0]
        self.owner = owner
        self.weth = self._deploy("canonical-weth/build/contracts/WETH9.json")
        self.v2_factory = self._deploy("@uniswap/v2-core/build/UniswapV2Factory.json", ["address"], [owner])
        self.v2_router = self._deploy(
            "@uniswap/v2-periphery/build/UniswapV2Router02.json", ["address"] * 2, [self.v2_factory, self.weth]
        )
        v3 = "@uniswap/v3-periphery/artifacts/contracts"
        self.v3_factory = self._deploy("@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json")
        pair = ([self.v3_factory, self.weth], ["address"] * 2)
        self.v3_router = self._deploy(f"{v3}/SwapRouter.sol/SwapRouter.json", pair[1], pair[0])
        self.v3_quoter = self._deploy(f"{v3}/lens/QuoterV2.sol/QuoterV2.json", pair[1], pair[0])
        self.v3_positions = self._deploy(
            f"{v3}/NonfungiblePositionManager.sol/NonfungiblePositionManager.json", ["address"] * 3, [*pair[0], owner]
        )
        core, periphery = "@uniswap/v4-core/out", "@uniswap/v4-periphery/foundry-out"
        self.v4_manager = self._deploy(f"{core}/PoolManager.sol/PoolManager.json", ["address"], [owner])
        self.v4_liquidity = self._deploy(
            f"{core}/PoolModifyLiquidityTest.sol/PoolModifyLiquidityTest.json", ["address"], [self.v4_manager]
        )
        self.v4_swapper = self._deploy(f"{core}/PoolSwapTest.sol/PoolSwapTest.json", ["address"], [self.v4_manager])
        self.v4_quoter = self._deploy(f"{periphery}/V4Quoter.sol/V4Quoter.json", ["address"], [self.v4_manager])
        self.v4_view = self._deploy(f"{periphery}/StateView.sol/StateView.json", ["address"], [self.v4_manager])
        self.tokens: list[Token] = []

    def artifact(self, name: str) -> Path:
        """A file of the packages."""
        return self._modules / name

    def token(self, symbol: str, decimals: int = 18, *, supply: int = 10**36) -> Token:
        """A new token, minted to every account and approved for every router."""
        address = self._deploy(
            "@uniswap/v4-core/out/mocks/MockERC20.sol/MockERC20.json", ["string", "string", "uint8"], [symbol, symbol, decimals]
        )
        spenders = (self.v2_router, self.v3_router, self.v3_positions, self.v4_liquidity, self.v4_swapper)
        for n, account in enumerate(self.evm.accounts):
            self.evm.send(address, encode("mint(address,uint256)", account, supply), sender=n)
            for spender in spenders:
                self.evm.send(address, encode("approve(address,uint256)", spender, MAX_UINT), sender=n)
        self.evm.mine()
        token = Token(address, symbol, decimals)
        self.tokens.append(token)
        return token

    # Uniswap V2.

    def v2_create(self, a: Token, b: Token) -> str:
        """A new pair; gives its address."""
        self.evm.transact(self.v2_factory, encode("createPair(address,address)", a.address, b.address))
        return self.evm.read(self.v2_factory, "getPair(address,address)", ["address"], a.address, b.address).lower()

    def v2_add(self, a: Token, b: Token, amount_a: int, amount_b: int) -> Action:
        """Add liquidity at the pool's own ratio."""
        signature = "addLiquidity(address,address,uint256,uint256,uint256,uint256,address,uint256)"
        return self.v2_router, encode(
            signature, a.address, b.address, amount_a, amount_b, 0, 0, self.owner, FOREVER
        )

    def v2_swap(self, a: Token, b: Token, amount: int) -> Action:
        """Exactly ``amount`` of a for b."""
        signature = "swapExactTokensForTokens(uint256,uint256,address[],address,uint256)"
        return self.v2_router, encode(signature, amount, 0, [a.address, b.address], self.owner, FOREVER)

    def v2_remove(self, pair: str, a: Token, b: Token, amount: int) -> list[Action]:
        """Take liquidity out."""
        signature = "removeLiquidity(address,address,uint256,uint256,uint256,address,uint256)"
        return [
            (pair, encode("approve(address,uint256)", self.v2_router, MAX_UINT)),
            (self.v2_router, encode(signature, a.address, b.address, amount, 0, 0, self.owner, FOREVER)),
        ]

    def v2_donate(self, pair: str, token: Token, amount: int) -> list[Action]:
        """Give tokens to the pair and let it take them into its reserves: no Swap, Mint or Burn tells of it."""
        return [(token.address, encode("transfer(address,uint256)", pair, amount)), (pair, encode("sync()"))]

    # Uniswap V3.

    def v3_create(self, a: Token, b: Token, fee: int, sqrt_price_x96: int) -> str:
        """A new pool at this price; gives its address."""
        x, y = ordered(a, b)
        self.evm.transact(self.v3_factory, encode("createPool(address,address,uint24)", x, y, fee))
        pool = self.evm.read(self.v3_factory, "getPool(address,address,uint24)", ["address"], x, y, fee).lower()
        self.evm.transact(pool, encode("initialize(uint160)", sqrt_price_x96))
        return pool

    def v3_mint(
        self, a: Token, b: Token, fee: int, lower: int, upper: int, amount: int, amount1: int | None = None
    ) -> Action:
        """A new position with at most ``amount`` of each token, or of token0 where ``amount1`` is given for the other."""
        x, y = ordered(a, b)
        most1 = amount if amount1 is None else amount1
        return self.v3_positions, encode(MINT_V3, (x, y, fee, lower, upper, amount, most1, 0, 0, self.owner, FOREVER))

    def v3_burn(self, position: int, liquidity: int) -> Action:
        """Take liquidity out of a position (0: collect what it has earned, a burn that changes nothing)."""
        return self.v3_positions, encode(
            "decreaseLiquidity((uint256,uint128,uint256,uint256,uint256))", (position, liquidity, 0, 0, FOREVER)
        )

    def v3_swap(self, a: Token, b: Token, fee: int, amount: int) -> Action:
        """Exactly ``amount`` of a for b."""
        return self.v3_router, encode(SWAP_V3, (a.address, b.address, fee, self.owner, FOREVER, amount, 0, 0))

    def v3_quote(self, a: Token, b: Token, fee: int, amount: int, *, exact_out: bool, block: Any = "latest") -> int:
        """QuoterV2's answer. Raises EvmError where it reverts."""
        name = "quoteExactOutputSingle" if exact_out else "quoteExactInputSingle"
        data = encode(f"{name}((address,address,uint256,uint24,uint160))", (a.address, b.address, amount, fee, 0))
        return decode(["uint256", "uint160", "uint32", "uint256"], self.evm.call(self.v3_quoter, data, block))[0]

    # Uniswap V4.

    def v4_key(self, a: Token, b: Token, fee: int, spacing: int, hooks: str = NO_HOOKS) -> tuple[Any, ...]:
        """A pool's key."""
        return (*ordered(a, b), fee, spacing, hooks)

    def v4_create(self, key: tuple[Any, ...], sqrt_price_x96: int) -> None:
        """Initialise the pool of this key."""
        self.evm.transact(self.v4_manager, encode(f"initialize({KEY_V4},uint160)", key, sqrt_price_x96))

    def v4_modify(self, key: tuple[Any, ...], lower: int, upper: int, liquidity: int) -> Action:
        """Add (or with a negative number take) liquidity."""
        signature = f"modifyLiquidity({KEY_V4},(int24,int24,int256,bytes32),bytes)"
        return self.v4_liquidity, encode(signature, key, (lower, upper, liquidity, b"\0" * 32), b"")

    def v4_swap(self, key: tuple[Any, ...], zero_for_one: bool, amount: int) -> Action:
        """Exactly ``amount`` in."""
        limit = 4295128740 if zero_for_one else 1461446703485210103287273052203988822378723970341
        signature = f"swap({KEY_V4},(bool,int256,uint160),(bool,bool),bytes)"
        return self.v4_swapper, encode(signature, key, (zero_for_one, -amount, limit), (False, False), b"")

    def v4_quote(
        self, key: tuple[Any, ...], zero_for_one: bool, amount: int, *, exact_out: bool, block: Any = "latest"
    ) -> int:
        """V4Quoter's answer. Raises EvmError where it reverts."""
        name = "quoteExactOutputSingle" if exact_out else "quoteExactInputSingle"
        data = encode(f"{name}(({KEY_V4},bool,uint128,bytes))", (key, zero_for_one, amount, b""))
        return decode(["uint256", "uint256"], self.evm.call(self.v4_quoter, data, block))[0]

    def _deploy(self, name: str, types: list[str] | None = None, arguments: list[Any] | None = None) -> str:
        return self.evm.deploy(self._modules / name, types or [], arguments or [])


def ordered(a: Token, b: Token) -> tuple[str, str]:
    """token0 and token1: the lower address first."""
    return (a.address, b.address) if int(a.address, 16) < int(b.address, 16) else (b.address, a.address)
