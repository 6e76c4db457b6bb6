"""A node's JSON-RPC as the chain account needs it: each failure becomes what it means for a transaction."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientError, ClientResponseError
from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from web3 import AsyncHTTPProvider
from web3.exceptions import Web3Exception

from execution.errors import Refused, Throttled, Unclear

TIMEOUT_S = 10.0
REVERTED = 3
"""The code with which nodes answer a call that reverts."""
ERROR_TEXT = bytes.fromhex("08c379a0")
"""Selector of Error(string)."""
KNOWN = ("already known", "already imported", "known transaction")
USED = ("nonce too low", "nonce is too low", "invalid nonce")
UNDERPRICED = ("underpriced", "fee too low", "max fee per gas less than block base fee")
LIMITED = (-32005, -32097, 429)


class NonceUsed(Refused):
    """Another transaction of this address was mined with this nonce, or this very one."""


class Underpriced(Refused):
    """The node holds another transaction of this nonce, and this one does not pay enough more."""


class Node:
    """One endpoint; ``relay_url`` takes the signed transactions instead of it, where it is given."""

    def __init__(self, url: str, relay_url: str = "") -> None:
        options: dict[str, Any] = {"timeout": TIMEOUT_S}
        self._node = AsyncHTTPProvider(url, options, exception_retry_configuration=None)
        self._relay = AsyncHTTPProvider(relay_url, options, exception_retry_configuration=None) if relay_url else self._node

    async def call(self, method: str, *params: Any) -> Any:
        """One call's result. Raises Refused (a revert with its reason inside), Throttled, Unclear."""
        return await self._ask(self._node, method, params)

    async def send(self, raw: bytes) -> None:
        """Hand a signed transaction over; one that is known already is fine. Raises NonceUsed, Underpriced and as call."""
        try:
            await self._ask(self._relay, "eth_sendRawTransaction", ("0x" + raw.hex(),))
        except Refused as error:
            text = str(error).lower()
            if any(word in text for word in KNOWN):
                return
            if any(word in text for word in USED):
                raise NonceUsed(str(error)) from error
            if any(word in text for word in UNDERPRICED):
                raise Underpriced(str(error)) from error
            raise

    async def close(self) -> None:
        """Close the connections."""
        for provider in {self._node, self._relay}:
            await provider.disconnect()

    async def _ask(self, provider: AsyncHTTPProvider, method: str, params: tuple[Any, ...]) -> Any:
        try:
            answer: Any = await provider.make_request(method, list(params))  # pyright: ignore[reportArgumentType]
        except ClientResponseError as error:
            if error.status == 429:
                raise Throttled(f"{method}: 429", 5.0) from error
            raise Unclear(f"{method}: HTTP {error.status}") from error
        except (ClientError, TimeoutError, OSError, Web3Exception, ValueError) as error:
            raise Unclear(f"{method}: {type(error).__name__}: {str(error)[:200]}") from error
        if "error" in answer:
            raise _meaning(method, answer["error"])
        return answer.get("result")


def _meaning(method: str, error: Any) -> Exception:
    code, text = error.get("code"), str(error.get("message", ""))[:300]
    if code == REVERTED or "revert" in text.lower():
        return Refused(f"reverted: {reason_of(error.get('data')) or text}")
    if code in LIMITED:
        return Throttled(f"{method}: {text}", 5.0)
    # -32603 is the node's own trouble; nobody knows what it did.
    return Unclear(f"{method}: {text}") if code == -32603 else Refused(text)


def reason_of(data: Any) -> str:
    """The text of Error(string), or the bare data of another error; empty for none."""
    if not isinstance(data, str) or len(data) < 10:
        return ""
    raw = bytes.fromhex(data[2:])
    if raw[:4] == ERROR_TEXT:
        try:
            return str(decode(["string"], raw[4:])[0])
        except DecodingError:
            pass
    return data[:74]


def call_data(selector: str, types: list[str], *arguments: Any) -> bytes:
    """Call data of a function by its four bytes' hexadecimal text."""
    return bytes.fromhex(selector) + encode(types, arguments)


def words(answer: str, types: list[str]) -> tuple[Any, ...]:
    """Values of a call's answer; raises Unclear for what does not decode (an address without code answers nothing)."""
    try:
        return tuple(decode(types, bytes.fromhex(answer[2:])))
    except (DecodingError, ValueError) as error:
        raise Unclear(f"the answer {answer[:70]!r} is not {', '.join(types)}") from error
