"""Who may ask a room's web server: tokens from files, compared in a time that tells nothing, and addresses that need one."""

from __future__ import annotations

import hmac
from ipaddress import ip_address
from pathlib import Path

TOKEN_MIN = 16


class AccessError(Exception):
    """A token cannot be read, or one is missing; the text names the setting and the file, never what is in it."""


def read_token(path: Path | None, setting: str) -> str:
    """The token of the file that this setting names, empty without one. Raises AccessError."""
    if path is None:
        return ""
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AccessError(f"cannot read {setting} {path}: {type(error).__name__}") from None
    if len(token) < TOKEN_MIN:
        raise AccessError(f"{setting} {path} holds fewer than {TOKEN_MIN} characters; make one: openssl rand -hex 32")
    if not (token.isascii() and token.isprintable()):
        raise AccessError(f"{setting} {path} holds what no header can carry; make one: openssl rand -hex 32")
    return token


def is_loopback(host: str) -> bool:
    """Whether this address is of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def bearer(header: str) -> str:
    """The token in an ``Authorization`` header; empty when it holds none."""
    scheme, _, given = header.strip().partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def same(given: str, secret: str) -> bool:
    """Compared in a time that tells nothing. Bytes of a header that are no UTF-8 arrive as lone surrogates."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())
