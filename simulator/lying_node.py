"""A proxy before a node that lies in the ways that real nodes do, on command.

Faults, by name, each with a probability: ``empty_logs`` (a block's logs before they are indexed), ``missing_logs``
(some of them), ``wrong_hash`` (a header or log of another block), ``duplicates`` (a log twice), ``removed`` (a log
marked as removed), ``range_error`` (a refusal), ``lag`` (an older head), ``null_block`` (a block that is not known
yet), ``late_heads`` (out of order), ``drop_heads``, ``error``, ``timeout_s`` (a black hole of so many seconds: set to
a number instead of a probability).
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections import Counter
from typing import Any

import aiohttp
from aiohttp import web

WRONG = "0x" + "ab" * 32


class LyingNode:
    """Serves JSON-RPC over HTTP and websocket on one port, from the node at these addresses."""

    def __init__(self, http_url: str, ws_url: str, seed: int = 0) -> None:
        self.faults: dict[str, float] = {}
        self.told: Counter[str] = Counter()
        """How often each lie was told."""
        self.port = 0
        self._http_url = http_url
        self._ws_url = ws_url
        self._random = random.Random(seed)  # noqa: S311 - a seed to repeat
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def http_url(self) -> str:
        """JSON-RPC over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """JSON-RPC over a websocket."""
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Listen on a free port of localhost."""
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=1 << 24)
        app.add_routes([web.post("/", self._post), web.get("/", self._websocket)])
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close everything."""
        await self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def cut(self) -> None:
        """Break every open websocket."""
        for socket in list(self._sockets):
            await socket.close()

    def _lies(self, fault: str) -> bool:
        if self._random.random() < self.faults.get(fault, 0.0):
            self.told[fault] += 1
            return True
        return False

    async def _post(self, request: web.Request) -> web.Response:
        asked: Any = await request.json()
        if hole_s := self.faults.get("timeout_s", 0.0):
            self.told["timeout_s"] += 1
            await asyncio.sleep(hole_s)
        if self._lies("error"):
            return web.json_response({"error": "internal"}, status=500)
        assert self._session is not None
        async with self._session.post(self._http_url, json=asked) as response:
            answers: Any = json.loads(await response.read())
        if isinstance(asked, list):
            by_id = {q["id"]: q for q in asked}
            answers = [await self._twist(by_id[a["id"]], a) for a in answers]
        else:
            answers = await self._twist(asked, answers)
        return web.json_response(answers)

    async def _twist(self, asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        method, result = asked["method"], answer.get("result")
        if method == "eth_getLogs":
            return self._twist_logs(asked, answer)
        if method in ("eth_getBlockByHash", "eth_getBlockByNumber") and result:
            if self._lies("null_block"):
                return answer | {"result": None}
            if self._lies("wrong_hash"):
                return answer | {"result": result | {"hash": WRONG}}
            if asked["params"][0] == "latest" and int(result["number"], 16) > 3 and self._lies("lag"):
                number = hex(int(result["number"], 16) - self._random.randint(1, 3))
                return answer | {"result": await self._block(number)}
        return answer

    def _twist_logs(self, asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        logs = answer.get("result")
        if "fromBlock" in asked["params"][0] and self._lies("range_error"):
            error = {"code": -32005, "message": "query returned more than 10000 results"}
            return {"jsonrpc": "2.0", "id": answer["id"], "error": error}
        if not logs:
            return answer
        logs = copy.deepcopy(logs)
        if self._lies("empty_logs"):
            logs = []
        elif self._lies("missing_logs"):
            del logs[self._random.randrange(len(logs))]
        elif self._lies("wrong_hash"):
            self._random.choice(logs)["blockHash"] = WRONG
        elif self._lies("duplicates"):
            logs.append(copy.deepcopy(self._random.choice(logs)))
            self._random.shuffle(logs)
        elif self._lies("removed"):
            self._random.choice(logs)["removed"] = True
        return answer | {"result": logs}

    async def _block(self, number: str) -> Any:
        assert self._session is not None
        body = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": [number, False]}
        async with self._session.post(self._http_url, json=body) as response:
            return (await response.json())["result"]

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        ours = web.WebSocketResponse()
        await ours.prepare(request)
        self._sockets.add(ours)
        assert self._session is not None
        held: list[str] = []
        try:
            async with self._session.ws_connect(self._ws_url) as theirs:

                async def up() -> None:
                    async for message in ours:
                        await theirs.send_str(message.data)
                    await theirs.close()

                task = asyncio.create_task(up())
                async for message in theirs:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    if "eth_subscription" not in message.data:
                        await ours.send_str(message.data)
                    elif self.faults.get("timeout_s") or self._lies("drop_heads"):
                        continue
                    elif self._lies("late_heads"):
                        held.append(message.data)
                    else:
                        for text in [message.data, *held]:
                            await ours.send_str(text)
                        held.clear()
                task.cancel()
        except (aiohttp.ClientError, ConnectionError):
            pass
        finally:
            self._sockets.discard(ours)
            await ours.close()
        return ours
