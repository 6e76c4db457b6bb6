"""An address on a chain that trades through the real routers: it simulates, signs, sends and reads; it decides nothing.

A real address needs ``--live``, an arm file with the line ``CHAIN ACCOUNT CHAIN_ID``, and its key from a file that only
the owner can read. Without them only a sandbox runs: an account named CHAIN:sandbox on a node that itself says chain id
31337, which is what development chains say. Allowances for the routers are given by the owner, never from here. Amounts
are the tokens' smallest units; pools are Uniswap V2's and V3's and their unchanged forks'.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from web3 import Web3

from execution.account import Amounts, Capabilities, FillReport, OrderReport, OrderRequest, VenueAccount
from execution.chain_nonce import Fees, NonceOwner, fees_for
from execution.chain_rpc import Node, call_data, words
from execution.chain_swaps import (
    BALANCE_OF,
    DECIMALS,
    FACTORY,
    FEE,
    TOKEN0,
    TOKEN1,
    PoolFacts,
    SwapOrder,
    moved,
    swap_data,
)
from execution.errors import AccountError, NotFound, Refused, VenueError
from market.decimals import fit_long, format_decimal

Record = dict[str, Any]
SANDBOX_CHAIN_ID = 31337
NATIVE_DECIMALS = 18
TRANSFER_GAS = 21_000
PRICE_DIGITS = 15


class ChainOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section ``[accounts."CHAIN:NAME".chain]``."""

    rpc_url: str
    chain_id: int
    key_file: str
    """One line: the private key in hexadecimal; readable by the owner only."""
    venues: tuple[str, ...]
    """Venues of market.* whose pools it may trade with."""
    tokens: dict[str, str]
    """asset → token address: all that it holds beside the chain's own coin."""
    routers: dict[str, str]
    """uniswap-v2, uniswap-v3 → router address."""
    native: str = "ETH"
    """What the ledger calls the coin that gas is paid in; another name than any token's asset."""
    relay_url: str = ""
    """Signed transactions go there alone (a private relay)."""
    tip_wei: int = 1_000_000_000
    max_fee_wei: int = 500_000_000_000
    """Cap of what a unit of gas may cost, replacements included."""
    confirmations: int = 1
    """Blocks, its own included, until a transaction is booked."""
    final_depth: int = 32
    """Blocks above it after which it counts as final."""
    bump_blocks: int = 3
    """Blocks without it until it is replaced by one that pays more."""
    poll_ms: int = 500


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Signed, and known by its hash before it leaves. ``cancel``: moves nothing, only takes the nonce."""

    raw: bytes
    hash: str
    nonce: int
    fees: Fees
    cancel: bool
    to: str
    data: bytes
    gas: int


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The newest block, and how many transactions of ours are in the chain at it, and where it is final."""

    number: int
    base_fee: int
    count: int
    final_count: int
    time_s: int


class ChainAccount(VenueAccount):
    """One address. ``pools``: ``venue|symbol`` → pool address, filled by the executor from market.instrument."""

    capabilities = Capabilities(request_expiry_ms=0)

    def __init__(
        self, name: str, options: ChainOptions, pools: Mapping[str, str], *, live: bool = False, arm_file: Path | None = None
    ) -> None:
        self.account, self.venue = name, name.partition(":")[0]
        self.options, self.pools = options, pools
        self.sandbox = name.partition(":")[2].partition("-")[0] == "sandbox"
        allowed(self, live, arm_file)
        self._signer = _signer(Path(options.key_file))
        self.address: str = self._signer.address.lower()
        self.nonces = NonceOwner(options.chain_id, self.address)
        self.node = Node(options.rpc_url, options.relay_url)
        self.tokens = {asset: address.lower() for asset, address in options.tokens.items()}
        self.decimals: dict[str, int] = {}
        self._facts: dict[str, PoolFacts] = {}

    async def start(self) -> None:
        try:
            chain_id = int(await self.node.call("eth_chainId"), 16)
            if chain_id != self.options.chain_id:
                raise AccountError(f"{self.account}: the node is on chain {chain_id}, the file says {self.options.chain_id}")
            for asset, token in self.tokens.items():
                (self.decimals[asset],) = await self._read(token, DECIMALS, ["uint8"])
        except VenueError as error:
            raise AccountError(f"{self.account}: {error}") from error
        self.nonces.claim()

    async def close(self) -> None:
        self.nonces.release()
        await self.node.close()

    # Before sending.

    async def planned(self, intent: Record, head: ChainHead, left_ns: int) -> tuple[str, bytes]:
        """(router, call data) of an intent: its price is the limit, what is left of its validity on the chain's own clock
        (or ours, where that is ahead) the deadline. Raises VenueError."""
        key = f"{intent['venue']}|{intent['symbol']}"
        pool = await self.facts(key)
        base_asset, _, quote_asset = intent["symbol"].partition("/")
        if missing := [a for a in (base_asset, quote_asset) if a not in self.tokens]:
            raise Refused(f"{', '.join(missing)} of {key} is not among the account's tokens")
        base, quote = self.tokens[base_asset], self.tokens[quote_asset]
        if {base, quote} != {pool.token0, pool.token1}:
            raise Refused(f"{key}: the pool {pool.address} trades {pool.token0} and {pool.token1}")
        amount = _wei(intent["size"], intent["size_exp"] + self.decimals[base_asset], up=False, exact=True)
        worth, exponent = intent["size"] * intent["price"], intent["size_exp"] + intent["price_exp"]
        sells = intent["side"] == "SELL"
        bound = _wei(worth, exponent + self.decimals[quote_asset], up=sells, exact=False)
        order = SwapOrder(intent["side"], base, quote, amount, bound)
        deadline_s = max(-(-intent["valid_until_ns"] // 1_000_000_000), head.time_s - (-left_ns // 1_000_000_000))
        return self.options.routers[pool.protocol], swap_data(pool, order, self.address, deadline_s)

    async def facts(self, key: str) -> PoolFacts:
        """What the pool's contract says; asked once. Raises Refused where our router would not trade with this very pool."""
        if (known := self._facts.get(key)) is not None:
            return known
        if key.partition("|")[0] not in self.options.venues or key not in self.pools:
            raise Refused(f"{key} is not a pool that {self.account} may trade with")
        at = self.pools[key].lower()
        (token0,), (token1,) = await self._read(at, TOKEN0, ["address"]), await self._read(at, TOKEN1, ["address"])
        (factory,) = await self._read(at, FACTORY, ["address"])
        try:
            (fee,) = await self._read(at, FEE, ["uint24"])
            protocol = "uniswap-v3"
        except Refused:
            fee, protocol = -1, "uniswap-v2"
        router = self.options.routers.get(protocol)
        if router is None:
            raise Refused(f"{key}: no router for {protocol} is set")
        (theirs,) = await self._read(router, FACTORY, ["address"])
        if theirs != factory:
            raise Refused(f"{key}: the pool is of factory {factory}, the router of {theirs}")
        found = self._facts[key] = PoolFacts(at, protocol, token0.lower(), token1.lower(), fee, factory)
        return found

    async def simulated(self, to: str, data: bytes) -> int:
        """Run the call on top of all that waits; gives the gas to send with it. Raises Refused with the revert's reason."""
        call = {"from": self.address, "to": to, "data": "0x" + data.hex()}
        await self.node.call("eth_call", call, "pending")
        return int(await self.node.call("eth_estimateGas", call, "pending"), 16) * 5 // 4

    async def head(self) -> ChainHead:
        """The newest block and our counts, read before any receipt is: so a count never knows more than the receipts."""
        block = await self.node.call("eth_getBlockByNumber", "latest", False)
        number = int(block["number"], 16)
        final = max(0, number - self.options.final_depth)
        counts = [
            int(await self.node.call("eth_getTransactionCount", self.address, hex(n)), 16) for n in (final, number)
        ]
        base_fee = int(block.get("baseFeePerGas") or "0x0", 16)
        return ChainHead(number, base_fee, counts[1], counts[0], int(block["timestamp"], 16))

    def fees(self, base_fee: int) -> Fees:
        """Fees of a first sending; raises Refused above the cap."""
        return fees_for(base_fee, self.options.tip_wei, self.options.max_fee_wei)

    def sign(self, to: str, data: bytes, gas: int, nonce: int, fees: Fees) -> SignedTransaction:
        """Sign; nothing leaves."""
        signed = self._signer.sign_transaction({
            "type": 2, "chainId": self.options.chain_id, "nonce": nonce, "to": Web3.to_checksum_address(to), "value": 0,
            "data": data, "gas": gas, "maxFeePerGas": fees.max_fee, "maxPriorityFeePerGas": fees.tip,
        })  # fmt: skip
        return self.read_signed(bytes(signed.raw_transaction))

    def cancelling(self, nonce: int, fees: Fees) -> SignedTransaction:
        """Nothing to ourselves, so that this nonce is used up."""
        return self.sign(self.address, b"", TRANSFER_GAS, nonce, fees)

    def read_signed(self, raw: bytes) -> SignedTransaction:
        """A signed transaction read back from its bytes."""
        tx: Any = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        to, data = "0x" + bytes(tx["to"]).hex(), bytes(tx["data"])
        fees = Fees(tx["maxFeePerGas"], tx["maxPriorityFeePerGas"])
        digest = "0x" + bytes(Web3.keccak(raw)).hex()
        return SignedTransaction(raw, digest, tx["nonce"], fees, to == self.address and not data, to, data, tx["gas"])

    # After sending.

    async def receipt(self, digest: str) -> Record | None:
        """The receipt, where the transaction is in the chain now."""
        found = await self.node.call("eth_getTransactionReceipt", digest)
        return found if found is not None and found.get("blockHash") else None

    async def waits(self, digest: str) -> bool:
        """Whether the node knows the transaction at all."""
        return await self.node.call("eth_getTransactionByHash", digest) is not None

    async def filled(self, intent: Record, receipt: Record, trade_id: str, order_id: str) -> FillReport:
        """What a mined transaction moved, to the wei, and its gas. A size of 0: it moved nothing (a revert, a cancel)."""
        base_asset, _, quote_asset = intent["symbol"].partition("/")
        base = moved(receipt, self.tokens[base_asset], self.address)
        quote = moved(receipt, self.tokens[quote_asset], self.address)
        block = await self.node.call("eth_getBlockByHash", receipt["blockHash"], False)
        gas = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        decimals, quote_decimals = self.decimals[base_asset], self.decimals[quote_asset]
        size, size_exp = _at(abs(base), -decimals, intent["size_exp"])
        price, price_exp = 0, intent["price_exp"]
        if base:
            scale = 10 ** max(0, PRICE_DIGITS + len(str(abs(base))) - len(str(abs(quote))))
            price, price_exp = abs(quote) * scale // abs(base), decimals - quote_decimals - len(str(scale)) + 1
        (fee,), fee_exp = fit_long([gas], -NATIVE_DECIMALS)
        return FillReport(
            trade_id, order_id, receipt["transactionHash"], intent["symbol"], intent["side"], price, price_exp, size, size_exp,
            fee, fee_exp, self.options.native, False, int(block["timestamp"] if block else "0x0", 16) * 1_000_000, "REST",
            format_decimal(abs(quote), -quote_decimals) if base else "",
        )  # fmt: skip

    async def balances(self) -> dict[str, Amounts]:
        """At the newest block whose transactions are booked."""
        number = int(await self.node.call("eth_blockNumber"), 16)
        at = hex(max(0, number - self.options.confirmations + 1))
        coin = int(await self.node.call("eth_getBalance", self.address, at), 16)
        out = {self.options.native: Amounts(coin, coin, -NATIVE_DECIMALS)}
        for asset, token in self.tokens.items():
            data = "0x" + call_data(BALANCE_OF, ["address"], self.address).hex()
            (held,) = words(await self.node.call("eth_call", {"to": token, "data": data}, at), ["uint256"])
            out[asset] = Amounts(held, held, -self.decimals[asset])
        return out

    async def events(self) -> AsyncIterator[OrderReport | FillReport | None]:
        """None at each poll: the gateway then looks at what it waits for."""
        while True:
            await asyncio.sleep(self.options.poll_ms / 1000)
            yield None

    async def _read(self, to: str, selector: str, returns: list[str]) -> tuple[Any, ...]:
        return words(await self.node.call("eth_call", {"to": to, "data": "0x" + selector}, "latest"), returns)

    # What a venue has and a chain has not: the gateway of a chain asks none of it.

    async def place(self, order: OrderRequest) -> OrderReport:
        raise Refused("a chain takes signed transactions, not orders")

    async def cancel(self, order_id: str, venue_order_id: str, symbol: str) -> OrderReport | None:
        raise NotFound(order_id)

    async def query(self, order_id: str, symbol: str) -> OrderReport:
        raise NotFound(order_id)

    async def open_orders(self) -> list[OrderReport]:
        return []

    async def fills(self, symbol: str, since_us: int) -> list[FillReport]:
        return []


def allowed(account: ChainAccount, live: bool, arm_file: Path | None) -> None:
    """Raise AccountError unless this account may run: a sandbox, or all that real money needs."""
    o = account.options
    if o.native in o.tokens:
        raise AccountError(f"{account.account}: {o.native} is a token and the chain's coin: call the coin something else")
    if account.sandbox:
        if o.chain_id != SANDBOX_CHAIN_ID:
            raise AccountError(f"{account.account}: a sandbox is on chain {SANDBOX_CHAIN_ID}, not {o.chain_id}")
        return
    if not live:
        raise AccountError(f"{account.account}: a chain's account trades with --live, or is called {account.venue}:sandbox")
    line = f"{account.venue} {account.account} {o.chain_id}"
    if arm_file is None:
        raise AccountError(f"real transactions need an arm file: one line '{line}', named with --arm")
    try:
        lines = {" ".join(one.split()) for one in arm_file.read_text("utf-8").splitlines()}
    except OSError as error:
        raise AccountError(f"the arm file {arm_file} cannot be read: {error.strerror}") from error
    if line not in lines:
        raise AccountError(f"{arm_file} does not arm '{line}'")


def _signer(path: Path) -> Any:
    try:
        if path.stat().st_mode & 0o077:
            raise AccountError(f"{path} can be read by others: chmod 600 {path}")
        return Account.from_key(path.read_text("utf-8").strip())
    except OSError as error:
        raise AccountError(f"the key file {path} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Never with the text: it would be the key.
        if isinstance(error, AccountError):
            raise
        raise AccountError(f"{path} holds no private key: one line of 64 hexadecimal digits") from None


def _wei(mantissa: int, shift: int, *, up: bool, exact: bool) -> int:
    """A decimal amount in smallest units."""
    if shift >= 0:
        return mantissa * 10**shift
    whole, rest = divmod(mantissa, 10**-shift)
    if rest and exact:
        raise Refused("the size is finer than the token's smallest unit")
    return whole + bool(rest and up)


def _at(amount: int, exponent: int, wanted: int) -> tuple[int, int]:
    """The amount at the wanted exponent where that is exact, else at its own."""
    scaled, rest = divmod(amount, 10 ** max(0, wanted - exponent))
    return (scaled, max(wanted, exponent)) if not rest else (amount, exponent)
