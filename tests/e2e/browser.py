"""A real headless browser for the console's tests, and a console of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cli.stack import free_port
from tests.e2e.rooms import DEADLINE_S, Rooms

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> str:
    """The path of an installed browser; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no Chromium: install it with deploy/install-test-tools.sh")


class Tab:
    """A page of the browser, and everything that went wrong in it."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("console", lambda m: self.errors.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda r: self.foreign.append(r.url) if not r.url.startswith((url, "data:")) else None)

    async def open(self, path: str) -> None:
        """Go to a page of the console, e.g. ``#/map``."""
        await self.page.goto(f"{self.url}/{path}", wait_until="domcontentloaded")

    async def until(self, script: str, timeout_s: float = DEADLINE_S) -> Any:
        """Wait until a JavaScript expression is true; asked from here, because the page's own policy forbids eval."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (value := await self.page.evaluate(script)):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.page.evaluate("document.body.innerText.slice(0, 1500)")
                raise AssertionError(f"not within {timeout_s:g} s: {script}\n{self.errors}\n{text}")
            await asyncio.sleep(0.05)
        return value


@contextlib.asynccontextmanager
async def browser_tab(url: str, *, phone: bool = False, light: bool = False) -> AsyncIterator[Tab]:
    """A fresh browser with one tab, closed at the end."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), headless=True, args=list(FLAGS))
        context = await browser.new_context(
            viewport={"width": 390, "height": 844} if phone else {"width": 1440, "height": 900},
            color_scheme="light" if light else "dark", device_scale_factor=1,
        )  # fmt: skip
        try:
            yield Tab(await context.new_page(), url)
        finally:
            await browser.close()


async def start_console(rooms: Rooms, name: str = "console", **console: Any) -> str:
    """Start a console of these rooms as a process; gives its address when it reads."""
    port = free_port()
    own = rooms.settings.console.model_copy(update={"web_port": port, **console})
    child = await rooms.stack.start(name, "console", settings=rooms.settings.model_copy(update={"console": own}))

    def listening() -> bool:
        return "console http" in child.tail(50)

    await rooms.stack.until("the console", listening, DEADLINE_S)
    return f"http://127.0.0.1:{port}"


def screenshot_path(name: str) -> Path | None:
    """Where a picture for the documents goes: docs/images with SCREENSHOTS=1, else nowhere."""
    import os

    if not os.environ.get("SCREENSHOTS"):
        return None
    folder = Path(__file__).parent.parent.parent / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.png"
