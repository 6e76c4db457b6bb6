"""The image's health check: asks HEALTH_URL and ends with 0 when it answers 200, else 1. Without the variable: 0."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 2


def healthy(url: str) -> bool:
    """Whether the page answers 200 in time."""
    if not url.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310 - the scheme is checked above
            return response.status == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main() -> int:
    """Entry point of ``python -m deploy.probe``."""
    url = os.environ.get("HEALTH_URL", "")
    return 0 if not url or healthy(url) else 1


if __name__ == "__main__":
    sys.exit(main())
