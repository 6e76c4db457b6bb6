"""A real EVM on this machine: anvil, mining only on command, with reorgs on command.

Started with ``--no-mining``, because anvil's reorg racing with its own mining corrupts the chain. Memory grows with
the chain: use one for each test.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from web3 import Web3

from simulator.npm import NpmError, node_modules

START_TIMEOUT_S = 20
GAS_LIMIT = 60_000_000
TX_GAS = 12_000_000

_abi = Web3().codec


class EvmError(Exception):
    """anvil did not start, or answered with an error; the text says which call."""


class Evm:
    """One anvil process. Use as a context manager; every method blocks. Raises EvmError."""

    def __init__(self, *, slots_in_an_epoch: int = 1, block_gas: int = GAS_LIMIT * 20, accounts: int = 4) -> None:
        self.port = _free_port()
        self._accounts = accounts
        self._arguments = [
            "--port", str(self.port), "--no-mining", "--slots-in-an-epoch", str(slots_in_an_epoch),
            "--gas-limit", str(block_gas), "--accounts", str(accounts), "--code-size-limit", "200000",
            "--order", "fifo", "--base-fee", "0", "--silent",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._id = 0
        self.accounts: list[str] = []

    @property
    def http_url(self) -> str:
        """JSON-RPC over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """JSON-RPC over a websocket."""
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start anvil and wait until it answers."""
        binary = anvil_binary(node_modules())
        self._process = subprocess.Popen(
            [str(binary), *self._arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.accounts = self.rpc("eth_accounts")
                return self
            except (EvmError, OSError):
                if self._process.poll() is not None:
                    err = self._process.stderr.read().decode("utf-8", "replace") if self._process.stderr else ""
                    raise EvmError(f"anvil ended with code {self._process.returncode}: {err[-800:]}") from None
                if time.monotonic() > deadline:
                    raise EvmError(f"anvil did not answer within {START_TIMEOUT_S} s") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stderr:
                self._process.stderr.close()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # JSON-RPC.

    def rpc(self, method: str, *params: Any) -> Any:
        """One call's result."""
        return self.batch([(method, list(params))])[0]

    def batch(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Results of many calls in one request, in their order."""
        if not calls:
            return []
        body = [{"jsonrpc": "2.0", "id": n, "method": m, "params": p} for n, (m, p) in enumerate(calls)]
        answers = {a["id"]: a for a in self._post(body)}
        out: list[Any] = []
        for n, (method, _) in enumerate(calls):
            if "error" in answers[n]:
                raise EvmError(f"{method}: {answers[n]['error']}")
            out.append(answers[n]["result"])
        return out

    def _post(self, body: Any) -> Any:
        text = json.dumps(body)
        for attempt in (1, 2):
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                self._connection.request("POST", "/", text, {"Content-Type": "application/json"})
                return json.loads(self._connection.getresponse().read())
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()
                self._connection = None
                if attempt == 2:
                    raise EvmError("anvil closed the connection") from None
        return None

    # The chain.

    def mine(self, blocks: int = 1) -> None:
        """Mine what waits, then empty blocks."""
        self.batch([("evm_mine", [])] * blocks)

    def head(self) -> dict[str, Any]:
        """The latest block's header."""
        return self.rpc("eth_getBlockByNumber", "latest", False)

    def reorg(self, depth: int, transactions: Sequence[tuple[dict[str, Any], int]] = ()) -> None:
        """Replace the last ``depth`` blocks by new ones; each transaction goes into the block of its offset."""
        self.rpc("anvil_reorg", depth, [[tx, offset] for tx, offset in transactions])

    def transaction(self, to: str | None, data: bytes, *, value: int = 0, sender: int = 0) -> dict[str, Any]:
        """A transaction as anvil takes it; ``sender`` counts its accounts."""
        tx = {
            "from": self.accounts[sender], "data": "0x" + data.hex(), "value": hex(value), "gas": hex(TX_GAS),
            "maxFeePerGas": hex(10**9), "maxPriorityFeePerGas": "0x0",
        }  # fmt: skip
        return tx | ({"to": to} if to else {})

    def send(self, to: str | None, data: bytes, *, value: int = 0, sender: int = 0) -> str:
        """Queue a transaction; gives its hash. Mined at the next mine()."""
        return self.rpc("eth_sendTransaction", self.transaction(to, data, value=value, sender=sender))

    def transact(self, to: str | None, data: bytes, *, value: int = 0, sender: int = 0) -> dict[str, Any]:
        """Send, mine, and give the receipt; raises EvmError when it was reverted."""
        tx = self.send(to, data, value=value, sender=sender)
        self.mine()
        receipt = self.rpc("eth_getTransactionReceipt", tx)
        if receipt is None or receipt["status"] != "0x1":
            raise EvmError(f"the transaction to {to} was reverted: {data[:4].hex()}")
        return receipt

    def deploy(self, artifact: Path, types: Sequence[str] = (), arguments: Sequence[Any] = ()) -> str:
        """Deploy an artifact's bytecode; gives the address, lower case."""
        code = bytecode(artifact) + _abi.encode(list(types), list(arguments))
        return self.transact(None, code)["contractAddress"].lower()

    def call(self, to: str, data: bytes, block: Any = "latest", *, sender: int = 0) -> bytes:
        """eth_call; raises EvmError when it reverts."""
        answer = self.rpc("eth_call", {"to": to, "data": "0x" + data.hex(), "from": self.accounts[sender]}, block)
        return bytes.fromhex(answer[2:])

    def read(self, to: str, signature: str, returns: Sequence[str], *arguments: Any, block: Any = "latest") -> Any:
        """A view's answer, decoded: one value, or a tuple of several."""
        values = decode(returns, self.call(to, encode(signature, *arguments), block))
        return values[0] if len(values) == 1 else values


MNEMONIC = "test test test test test test test test test test test junk"
"""Of anvil's accounts, the same on every development chain: their keys are no secrets."""


def private_key(number: int) -> str:
    """The key of anvil's account of this number."""
    from eth_account import Account

    Account.enable_unaudited_hdwallet_features()
    return Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{number}").key.to_0x_hex()


def encode(signature: str, *arguments: Any) -> bytes:
    """Call data: ``encode("transfer(address,uint256)", to, 5)``; structs are written as tuples."""
    inner = signature[signature.index("(") + 1 : -1]
    return bytes(Web3.keccak(text=signature))[:4] + _abi.encode(split_types(inner), list(arguments))


def decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Values of ABI data."""
    return _abi.decode(list(types), data)


def split_types(text: str) -> list[str]:
    """The types between a signature's outer brackets, structs kept whole."""
    out, depth, start = [], 0, 0
    for n, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and not depth:
            out.append(text[start:n])
            start = n + 1
    return [*out, text[start:]] if text else []


def bytecode(artifact: Path) -> bytes:
    """The creation code of an artifact of truffle, hardhat or foundry."""
    content = json.loads(artifact.read_text("utf-8"))
    code = content.get("bytecode") or content.get("evm", {}).get("bytecode") or content.get("creationCode")
    if isinstance(code, dict):
        code = code["object"]
    if not isinstance(code, str):
        raise EvmError(f"{artifact.name} holds no bytecode")
    return bytes.fromhex(code.removeprefix("0x"))


def anvil_binary(modules: Path) -> Path:
    """The binary for this machine, out of the package's platform parts."""
    found = sorted(modules.glob("@foundry-rs/anvil-*/bin/anvil*"))
    if not found:
        raise NpmError("the anvil package holds no binary for this machine")
    return found[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
