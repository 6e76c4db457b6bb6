"""`console`: the page, and its part in a demo."""

from __future__ import annotations

from cli.stack import Child, Stack, free_port
from config.settings import Settings


def run(settings: Settings) -> int:
    """Serve the page until SIGTERM; gives the exit code."""
    from console.server import main

    return main(settings)


async def start_console(stack: Stack, settings: Settings, metrics_urls: tuple[str, ...] = ()) -> tuple[Child, str]:
    """Start it as a process of the stack, on a free port; gives the process and the page's address."""
    own = settings.console.model_copy(update={"web_port": free_port(), "metrics_urls": metrics_urls})
    child = await stack.start("console", "console", settings=settings.model_copy(update={"console": own}))

    def listening() -> str:
        found = [line for line in child.tail(50).splitlines() if line.startswith("console http")]
        return found[0].split()[1] if found else ""

    return child, await stack.until("the console", listening, 60)
