"""Reading the processors' web views and the collectors' metrics over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp

from config.access import AccessError, read_token
from config.settings import Settings

TIMEOUT = aiohttp.ClientTimeout(total=30)
LIMITED_TRIES = 10
"""A processor that says 429 is asked again when it said, this often."""
LIMITED_MAX_S = 10


class ViewError(Exception):
    """A view did not answer, or said no; the text says what to do."""


class Views:
    """A client of one processor's web server. Use as an async context manager.

    The token goes to that processor alone, whatever other addresses are asked with get_url and metrics.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def of(cls, settings: Settings, url: str = "") -> Views:
        """With the token of the settings, of the processor that they name or of another; raises ViewError."""
        p = settings.processor
        try:
            return cls(url or f"http://{p.web_host}:{p.web_port}", read_token(p.web_token_file, "processor.web_token_file"))
        except AccessError as error:
            raise ViewError(str(error)) from None

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
        try:
            status, body = await self._request(method, url)
            if status != 200:
                raise ViewError(f"{url}: {status} {body.decode('utf-8', 'replace')[:300]}{_hint(status)}")
            return json.loads(body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ViewError(
                f"{url} does not answer ({type(error).__name__}); is a processor running there? "
                "Start one with: venue-mirror process, or name its address with --url"
            ) from error

    async def _request(self, method: str, url: str) -> tuple[int, bytes]:
        """Status and body. Raises aiohttp.ClientError, TimeoutError."""
        assert self._session is not None
        headers = self._headers if url.startswith(self.url + "/") else {}
        for left in reversed(range(LIMITED_TRIES)):
            async with self._session.request(method, url, headers=headers) as response:
                if response.status != 429 or not left:
                    return response.status, await response.read()
                told = response.headers.get("Retry-After", "")
            await asyncio.sleep(min(LIMITED_MAX_S, int(told)) if told.isdecimal() else 1)
        raise AssertionError("the last try returns")

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
        asked = url or self.url + "/metrics"
        try:
            status, body = await self._request("GET", asked)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ViewError(f"{asked}: no metrics ({type(error).__name__})") from error
        if status != 200:
            raise ViewError(f"{asked}: no metrics ({status}){_hint(status)}")
        return parse_metrics(body.decode("utf-8", "replace"))


def _hint(status: int) -> str:
    return "; set processor.web_token_file to the processor's own" if status == 401 else ""


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
