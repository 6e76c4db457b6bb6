"""JSON-RPC over HTTP to several endpoints: batches, a budget each, the next one where one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from collectors.dex.errors import AllNodesFailed, NodeError, UnknownBlock
from collectors.dex.metrics import ChainCounts

TIMEOUT_S = 15.0
COOL_OFF_S = 5.0
UNKNOWN_BLOCK_WORDS = ("unknown block", "header not found", "block not found", "not found", "cannot find block")

REVERTED = 3

Request = tuple[str, list[Any]]
"""(method, params)"""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_decode_many = msgspec.json.Decoder(list[_Answer]).decode
_decode_one = msgspec.json.Decoder(_Answer).decode


class Node:
    """One endpoint. ``requests_per_s`` of 0 means no limit."""

    def __init__(self, url: str, counts: ChainCounts, *, requests_per_s: float = 0, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self.counts = counts
        self.failures = 0
        self.cool_until_s = 0.0
        self._pause_s = 1 / requests_per_s if requests_per_s else 0.0
        self._next_s = 0.0
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def batch(
        self, session: aiohttp.ClientSession, requests: Sequence[Request], *, reverts: bool = False
    ) -> list[msgspec.Raw | None]:
        """Each request's result as raw JSON. Raises NodeError for the first one that failed.

        With ``reverts`` a call that the contract reverted is None instead.
        """
        await self._budget()
        many = len(requests) > 1
        body = [{"jsonrpc": "2.0", "id": n, "method": m, "params": p} for n, (m, p) in enumerate(requests)]
        self.counts.requests += 1
        try:
            async with session.post(
                self.url,
                data=msgspec.json.encode(body if many else body[0]),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
            ) as response:
                data = await response.read()
                if response.status != 200:
                    raise NodeError(f"{self.url}: HTTP {response.status}", response.status)
            answers = _decode_many(data) if many and data[:1] == b"[" else [_decode_one(data)]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NodeError(f"{self.url}: {type(error).__name__} {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # msgspec lets broken UTF-8 through as its own kind
            raise NodeError(f"{self.url}: not JSON-RPC: {error}") from error
        by_id = {a.id: a for a in answers}
        out: list[msgspec.Raw | None] = []
        for n in range(len(requests)):
            answer = by_id.get(n) or (answers[0] if len(answers) == 1 and answers[0].error else None)
            if answer is None:
                raise NodeError(f"{self.url}: no answer to request {n} of {len(requests)}")
            if answer.error is not None:
                if reverts and (answer.error.code == REVERTED or "revert" in answer.error.message.lower()):
                    out.append(None)
                    continue
                text = f"{self.url}: {requests[n][0]}: {answer.error.message} ({answer.error.code})"
                if any(w in answer.error.message.lower() for w in UNKNOWN_BLOCK_WORDS):
                    raise UnknownBlock(text, answer.error.code)
                raise NodeError(text, answer.error.code)
            out.append(answer.result)
        return out

    async def _budget(self) -> None:
        if not self._pause_s:
            return
        now = time.monotonic()
        self._next_s = max(self._next_s, now) + self._pause_s
        if self._next_s - self._pause_s > now:
            await asyncio.sleep(self._next_s - self._pause_s - now)


class Nodes:
    """All endpoints of a chain. Use as an async context manager."""

    def __init__(self, nodes: Sequence[Node], counts: ChainCounts, *, batch_max: int = 100) -> None:
        self.nodes = list(nodes)
        self.counts = counts
        self.batch_max = batch_max
        self._session: aiohttp.ClientSession | None = None
        self._turn = 0

    async def __aenter__(self) -> Nodes:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def order(self, *, rotate: bool = False) -> list[Node]:
        """The endpoints in the order to ask them: those that work first; ``rotate`` takes turns among them."""
        now = time.monotonic()
        if rotate:
            self._turn += 1
        turned = self.nodes[self._turn % len(self.nodes) :] + self.nodes[: self._turn % len(self.nodes)]
        return sorted(turned if rotate else self.nodes, key=lambda n: n.cool_until_s > now)

    async def one(self, node: Node, method: str, *params: Any, kind: Any = Any) -> Any:
        """One endpoint's answer, decoded as ``kind``. Raises NodeError."""
        assert self._session is not None
        try:
            (raw,) = await node.batch(self._session, [(method, list(params))])
            result = msgspec.json.decode(raw or b"null", type=kind)
        except UnknownBlock:
            raise
        except NodeError:
            self._failed(node)
            raise
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # msgspec lets broken UTF-8 through as its own kind
            self._failed(node)
            raise NodeError(f"{node.url}: {method}: {error}") from error
        node.failures = 0
        return result

    async def call(self, method: str, *params: Any, kind: Any = Any, rotate: bool = False) -> Any:
        """The first answer of any endpoint. Raises AllNodesFailed."""
        errors: list[str] = []
        for node in self.order(rotate=rotate):
            try:
                return await self.one(node, method, *params, kind=kind)
            except NodeError as error:
                errors.append(str(error))
        raise AllNodesFailed("; ".join(errors)[:1000])

    async def batch(self, requests: Sequence[Request], *, kind: Any = Any, reverts: bool = False) -> list[Any]:
        """Answers of many requests, in order, in requests of batch_max, each from any one endpoint.

        With ``reverts`` a call that the contract reverted is None. Raises AllNodesFailed.
        """
        out: list[Any] = []
        assert self._session is not None
        for start in range(0, len(requests), self.batch_max):
            part = requests[start : start + self.batch_max]
            errors: list[str] = []
            for node in self.order():
                try:
                    raws = await node.batch(self._session, part, reverts=reverts)
                    out += [None if raw is None else msgspec.json.decode(raw, type=kind) for raw in raws]
                    node.failures = 0
                    break
                except (NodeError, msgspec.DecodeError, UnicodeDecodeError) as error:
                    errors.append(str(error))
                    if not isinstance(error, UnknownBlock):
                        self._failed(node)
            else:
                raise AllNodesFailed("; ".join(errors)[:1000])
        return out

    async def calls(self, calls: Sequence[tuple[str, str]], block_hash: str, *, reverts: bool = False) -> list[Any]:
        """eth_call answers at one block, named by its hash (EIP-1898), so that a reorg cannot mix two."""
        at = {"blockHash": block_hash}
        requests: list[Request] = [("eth_call", [{"to": to, "data": data}, at]) for to, data in calls]
        return await self.batch(requests, kind=str, reverts=reverts)

    def _failed(self, node: Node) -> None:
        self.counts.node_errors += 1
        node.failures += 1
        node.cool_until_s = time.monotonic() + min(60.0, COOL_OFF_S * node.failures)
