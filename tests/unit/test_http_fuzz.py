"""Whatever is asked of the console and of a collector's page: an answer, no failure inside, nothing shown that is not theirs."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from bus.status_page import start_server
from console.security import HEADERS
from console.server import Console
from tests.hostile_http import answer, attack


@pytest.mark.parametrize("with_token", [False, True], ids=["on localhost", "with a token"])
async def test_the_console_answers_whatever_is_asked(settings, tmp_path: Path, with_token: bool) -> None:
    token = "canary-" + "x" * 20
    (tmp_path / "token").write_text(token)
    own = {"web_port": 0, **({"token_file": tmp_path / "token"} if with_token else {})}
    console = Console(settings(kafka={"bootstrap_servers": "127.0.0.1:1"}, console=own))
    url = await console.start()
    try:
        seen = await attack(url, seed=1, count=400, headers=HEADERS)
        assert seen.get(404 if not with_token else 401, 0) > 100, seen
        async with aiohttp.ClientSession() as http:
            assert (await http.get(url + "/healthz")).status == 200, "and it goes on"
        assert console.clients == 0 or not with_token, "nobody got in"
        for raw in (b"Authorization: Bearer \xff\xfe", b"Cookie: venue-mirror-console=\xff\xfe"):
            head = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n" + raw
            status, _ = await answer(url, head + b"\r\nConnection: close\r\n\r\n", 20)
            assert status == (401 if with_token else 200)
        form = b"token=%ff%fe\xff"
        of_form = f"Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"
        status, _ = await answer(url, b"POST /login HTTP/1.1\r\n" + of_form.encode() + b"Connection: close\r\n\r\n" + form, 20)
        assert status in (400, 401)
    finally:
        await console.stop()


async def test_a_collectors_page_answers_whatever_is_asked() -> None:
    runner, port = await start_server("127.0.0.1", 0, lambda: b"collector_x 1\n", lambda: {"status": "ok"}, str)
    try:
        seen = await attack(f"http://127.0.0.1:{port}", seed=2, count=300)
        assert seen.get(404, 0) > 100, seen
    finally:
        await runner.cleanup()
