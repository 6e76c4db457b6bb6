"""What a local chain's pools are at any block, over HTTP: the truth that a mirror of another process is held against.

``/truth`` lists the pools; ``/truth/IDENT?block=HASH`` gives one's slots; ``/quote/IDENT?block=HASH&token_in=0&amount=N``
(``&exact_out=1``) the router's or quoter's answer; ``POST /control/calm`` stops traffic and reorganisations, so that only
empty blocks follow. All numbers are decimal texts: JavaScript's have 53 bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from simulator.evm import Evm
from simulator.evm_dex import ordered
from simulator.evm_traffic import TrafficPool
from simulator.evm_truth import Truth


class Answers:
    """Serves the truth of ``pools``; ``busy`` is held while the chain is asked, so that no block comes in between."""

    def __init__(
        self, evm: Evm, truth: Truth, pools: list[TrafficPool], busy: asyncio.Lock, calm: Callable[[], None]
    ) -> None:
        self._evm = evm
        self._truth = truth
        self._pools = pools
        self._busy = busy
        self._calm = calm
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1") -> str:
        """Listen on a free port; gives the address."""
        app = web.Application()
        app.add_routes([
            web.get("/truth", self._list), web.get("/truth/{ident}", self._state), web.get("/quote/{ident}", self._quote),
            web.post("/control/calm", self._be_calm),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0).start()
        return f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _list(self, _: web.Request) -> web.Response:
        async with self._busy:
            head = await asyncio.to_thread(self._evm.head)
        return web.json_response({"head": head["hash"], "number": int(head["number"], 16), "pools": [
            {"ident": p.ident, "kind": p.kind, "tokens": ordered(p.a, p.b),
             "decimals": [d.decimals for d in sorted((p.a, p.b), key=lambda t: int(t.address, 16))]}
            for p in self._pools
        ]})  # fmt: skip

    async def _state(self, request: web.Request) -> web.Response:
        def read(pool: TrafficPool, block: str) -> dict[str, Any]:
            return {"slots": {name: str(value) for name, value in self._truth.state(pool, block).items()}}

        return await self._at_block(request, read)

    async def _quote(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            amount, exact_out = int(query["amount"]), query.get("exact_out") == "1"
            first = {"0": True, "1": False}[query["token_in"]]
        except (KeyError, ValueError):
            return web.json_response({"error": "token_in (0 or 1) and amount (an integer) are needed"}, status=400)

        def read(pool: TrafficPool, block: str) -> dict[str, Any]:
            found = self._truth.quote(pool, first, amount, exact_out, block)
            return {"amount": None if found is None else str(found)}

        return await self._at_block(request, read)

    async def _at_block(self, request: web.Request, read: Callable[[TrafficPool, str], dict[str, Any]]) -> web.Response:
        pool = next((p for p in self._pools if p.ident == request.match_info["ident"]), None)
        if pool is None:
            return web.json_response({"error": "no such pool; /truth lists them"}, status=404)
        block = request.query.get("block", "")

        def ask() -> dict[str, Any] | None:
            found = self._evm.rpc("eth_getBlockByHash", block, False)
            if found is None or self._evm.rpc("eth_getBlockByNumber", found["number"], False)["hash"] != block:
                return None
            return read(pool, block)

        async with self._busy:
            out = await asyncio.to_thread(ask)
        if out is None:
            return web.json_response({"error": "that block is not in the chain (any more)"}, status=409)
        return web.json_response(out)

    async def _be_calm(self, _: web.Request) -> web.Response:
        self._calm()
        async with self._busy:  # what is being mined is mined
            return web.json_response({"ok": True})
