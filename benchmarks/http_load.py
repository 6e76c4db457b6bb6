"""An ordinary HTTP client in a process of its own: so many requests a second, whatever the answers take.

    python benchmarks/http_load.py RATE SECONDS URL...

The URLs take turns at random. A request begins at its time in the schedule even when earlier ones still wait, and its
latency counts from that time: a server that stands still is not asked less. Prints one JSON object: ``ms`` (sorted),
``statuses``, and ``errors``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import aiohttp

CONNECTIONS = 64


async def main(rate: float, seconds: float, urls: list[str]) -> None:
    """Ask, then print."""
    chance = random.Random(1)
    ms: list[float] = []
    statuses: dict[str, int] = {}
    errors: dict[str, int] = {}

    async def ask(session: aiohttp.ClientSession, url: str, due: float) -> None:
        try:
            async with session.get(url) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            name = type(error).__name__
            errors[name] = errors.get(name, 0) + 1
            return
        ms.append((time.perf_counter() - due) * 1000)
        statuses[str(response.status)] = statuses.get(str(response.status), 0) + 1

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        started = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = started + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(ask(session, chance.choice(urls), due))
    print(json.dumps({"ms": sorted(round(m, 3) for m in ms), "statuses": statuses, "errors": errors}))


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
