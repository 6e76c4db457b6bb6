"""REST calls to one venue: inside its weight limit, few at a time, patient when it says to slow down."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import aiohttp

from collectors.errors import RateLimited, RestError
from collectors.metrics import Counts
from collectors.venue import RestRequest

BODY_MAX = 64 * 1024 * 1024
WINDOW_S = 60.0
DEFAULT_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0


class WeightLimit:
    """At most ``weight`` in any minute: a sliding window, so that two bursts never meet in one of the venue's own."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self._spent: deque[tuple[float, int]] = deque()
        self._sum = 0
        self._lock = asyncio.Lock()
        self._closed_until = 0.0

    def pause(self, seconds: float) -> None:
        """Let nothing through for this long (the venue answered 429)."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    async def take(self, weight: int) -> None:
        """Wait until this much fits."""
        async with self._lock:
            while True:
                now = time.monotonic()
                while self._spent and self._spent[0][0] <= now - WINDOW_S:
                    self._sum -= self._spent.popleft()[1]
                if now < self._closed_until:
                    await asyncio.sleep(self._closed_until - now)
                elif self._sum and self._sum + weight > self.weight:
                    await asyncio.sleep(self._spent[0][0] + WINDOW_S - now + 0.001)
                else:
                    self._spent.append((now, weight))
                    self._sum += weight
                    return


class RestClient:
    """Calls below one address. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        counts: Counts,
        *,
        weight_per_minute: int,
        concurrency: int,
        timeout_s: float = 15,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.limit = WeightLimit(weight_per_minute)
        self._counts = counts
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._headers = {"User-Agent": "venue-mirror", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RestClient:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout, headers=self._headers, trust_env=True
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, request: RestRequest) -> bytes:
        """The answer's body; waits for its turn. Raises RestError, RateLimited when the venue wants silence."""
        assert self._session is not None, "use the client as a context manager"
        await self.limit.take(request.weight)
        async with self._slots:
            try:
                async with self._session.request(
                    request.method,
                    self.base_url + request.path,
                    data=request.body or None,
                    headers={"Content-Type": "application/json"} if request.body else None,
                ) as response:
                    body = await self._body(response)
                    if response.status in (418, 429):
                        self._counts.rest_throttled += 1
                        pause_s = _retry_after_s(response.headers.get("Retry-After", ""))
                        self.limit.pause(pause_s)
                        raise RateLimited(f"{request.path}: {response.status}, wait {pause_s:g} s", pause_s)
                    if response.status != 200:
                        text = body[:200].decode("utf-8", "replace")
                        raise RestError(f"{self.base_url}{request.path}: {response.status} {text}")
                    return body
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._counts.rest_errors += 1
                raise RestError(f"{self.base_url}{request.path}: {type(error).__name__}: {error}") from error
            except RestError:
                self._counts.rest_errors += 1
                raise

    @staticmethod
    async def _body(response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(1 << 18):
            body += chunk
            if len(body) > BODY_MAX:
                raise RestError(f"{response.url}: the answer is longer than {BODY_MAX} bytes")
        return bytes(body)


def _retry_after_s(text: str) -> float:
    try:
        return min(LONGEST_PAUSE_S, max(0.1, float(text)))
    except ValueError:
        return DEFAULT_PAUSE_S
