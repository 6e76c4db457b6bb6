"""Which worker holds a key, and its answer. A request is passed on once at most, so no two workers play ping-pong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
from yarl import URL

from processors.guard import PASSED, Guard

if TYPE_CHECKING:
    from processors.app import Processor

TIMEOUT = aiohttp.ClientTimeout(total=3)


class NotReady(Exception):
    """Nobody can answer at this moment; the text says why. Becomes a 503."""


class Elsewhere(Exception):
    """Another worker has answered: its status, its JSON, and when to ask again."""

    def __init__(self, status: int, text: str, retry_after: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.headers = {"Retry-After": retry_after} if retry_after else {}


class Router:
    """Finds the holder of a key by the assignment that Faust's group shares."""

    def __init__(self, app: Any, table: Any, processor: Processor, guard: Guard) -> None:
        self._guard = guard
        self._app = app
        self._table = table
        self._processor = processor

    def owner(self, key: str) -> str | None:
        """The address of the worker that holds this key; None: this one. Raises NotReady."""
        partition = self._processor.partition_of(key)
        if self._processor.ready and partition in self._processor.books.by_partition:
            return None
        for address, topics in self._holders().items():
            if any(partition in partitions for partitions in topics.values()):
                return None if address == self._processor.url else address
        raise NotReady("this worker has no partitions yet; ask again")

    def _holders(self) -> dict[str, Any]:
        """{address: {changelog topic: partitions}} of the table, as the group's leader has handed them out."""
        try:
            known = self._app.router.table_metadata(self._table.name)
        except Exception:  # no assignment is known yet
            return {}
        return {_address(url): topics for url, topics in known.items()}

    async def require(self, key: str, request: Any) -> None:
        """Return when this worker holds the key; raises Elsewhere with the holder's answer, or NotReady."""
        other = self.owner(key)
        if other is None:
            return
        if PASSED in request.headers:
            raise NotReady("the partitions are being handed out anew; ask again")
        raise await self._get(f"{other}{request.path_qs}")

    async def _get(self, asked: str) -> Elsewhere:
        """What another worker answers. Raises NotReady when it says nothing, or does not know this worker."""
        url = URL(asked)
        headers = self._guard.hop(url.raw_path_qs)
        try:
            async with self._app.http_client.get(url, headers=headers, timeout=TIMEOUT, allow_redirects=False) as response:
                found = Elsewhere(response.status, await response.text(), response.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:  # the last: this worker stops
            text = f"the worker that holds this key does not answer ({type(error).__name__}); ask again"
            raise NotReady(text) from None
        if found.status == 401:
            raise NotReady("the worker that holds this key refuses this one: another processor.web_token_file, or another time")
        return found

    async def add_others(self, path: str, request: Any, own: dict[str, Any]) -> dict[str, Any]:
        """The same view of all workers put together: numbers by state added, lists joined, who is silent named."""
        if PASSED in request.headers:
            return own
        workers, silent = [self._processor.url], []
        states, books = dict(own["states"]), list(own["books"])
        others = sorted(set(self._holders()) - {self._processor.url})
        answers = await asyncio.gather(*(self._json(f"{other}{request.path_qs}") for other in others))
        for other, answer in zip(others, answers, strict=True):
            if answer is None:
                silent.append(other)
                continue
            workers.append(other)
            for state, count in answer["states"].items():
                states[state] = states.get(state, 0) + count
            books += answer["books"]
        return {"states": states, "books": books, "workers": workers, "silent": silent}

    async def _json(self, url: str) -> dict[str, Any] | None:
        try:
            found = await self._get(url)
            return msgspec.json.decode(found.text) if found.status == 200 else None
        except (NotReady, msgspec.DecodeError):
            return None


def _address(url: Any) -> str:
    text = str(url).rstrip("/")
    return text if "://" in text else f"http://{text}"
