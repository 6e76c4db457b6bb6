"""Reading the processors' web views and the collectors' metrics over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import aiohttp

TIMEOUT = aiohttp.ClientTimeout(total=30)


class ViewError(Exception):
    """A view did not answer, or said no; the text says what to do."""


class Views:
    """A client of one processor's web server. Use as an async context manager."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Views:
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str) -> Any:
        """The JSON of a path below the address; raises ViewError."""
        return await self.get_url(self.url + path)

    async def get_url(self, url: str) -> Any:
        """The JSON of any address."""
        return await self._ask("GET", url)

    async def post_url(self, url: str) -> Any:
        """The JSON that an address answers to a POST without a body."""
        return await self._ask("POST", url)

    async def _ask(self, method: str, url: str) -> Any:
        assert self._session is not None
        try:
            async with self._session.request(method, url) as response:
                if response.status != 200:
                    text = (await response.text())[:300]
                    raise ViewError(f"{url}: {response.status} {text}")
                return await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ViewError(
                f"{url} does not answer ({type(error).__name__}); is a processor running there? "
                "Start one with: venue-mirror process, or name its address with --url"
            ) from error

    async def ready(self) -> bool:
        """Whether the processor says that it is ready."""
        assert self._session is not None
        try:
            async with self._session.get(self.url + "/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def books(self) -> list[dict[str, Any]]:
        """Every book of this processor with its state."""
        answer = await self.get("/books")
        return answer["books"] if isinstance(answer, dict) else answer

    async def book(self, venue: str, symbol: str, depth: int | None = None) -> dict[str, Any]:
        """One book; all of its levels without ``depth``."""
        query = "" if depth is None else f"?depth={depth}"
        return await self.get(f"/books/{quote(venue)}/{quote(symbol, safe='/:')}{query}")

    async def metrics(self, url: str | None = None) -> dict[str, float]:
        """A Prometheus page as {name: sum over its labels} and {name{labels}: value}."""
        assert self._session is not None
        try:
            async with self._session.get(url or self.url + "/metrics") as response:
                return parse_metrics(await response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ViewError(f"{url or self.url}: no metrics ({type(error).__name__})") from error


def parse_metrics(text: str) -> dict[str, float]:
    """Samples by full name, and summed by bare name."""
    from prometheus_client.parser import text_string_to_metric_families

    out: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            out[sample.name] = out.get(sample.name, 0.0) + sample.value
            if sample.labels:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                out[f"{sample.name}{{{labels}}}"] = sample.value
    return out
