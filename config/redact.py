"""What may be shown of a setting, and what is wrong with one: no secret is ever in either, wherever somebody put it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

HIDDEN = "[hidden]"
SECRET = re.compile(r"pass(word|phrase)?$|secret|token$|api_?key|private_?key|credential|mnemonic|uid$", re.IGNORECASE)
"""Names whose value is nobody's business. A name that ends in _file names the place of a secret, which may be shown."""
ADDRESS = re.compile(r"^[a-z]+://", re.IGNORECASE)


def shown(name: str, value: Any) -> Any:
    """The value of a setting as it may be shown: secrets hidden, of addresses only scheme and host."""
    if isinstance(value, Mapping):
        return {str(key): shown(str(key), one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [shown(name, one) for one in value]  # pyright: ignore[reportUnknownVariableType]
    if SECRET.search(name) and value not in ("", None):
        return HIDDEN
    if isinstance(value, str) and ADDRESS.match(value):
        return _address(value)
    return value


def _address(text: str) -> str:
    """Endpoints of nodes hold keys in user, path or query: those are left out."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return HIDDEN
    more = f"/{HIDDEN}" if parts.path.strip("/") or parts.query or parts.username else ""
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{more}"


def problem(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """One of pydantic's errors as a line: the place, what is wrong, the value, and what would be right."""
    place = ".".join(map(str, error["loc"]))
    hidden = any(SECRET.search(str(part)) and not str(part).endswith("_file") for part in error["loc"])
    given = HIDDEN if hidden else repr(shown(str(error["loc"][-1]) if error["loc"] else "", error.get("input")))[:80]
    if error["type"] == "extra_forbidden":
        names = _names(model, error["loc"][:-1])
        near = get_close_matches(str(error["loc"][-1]), names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        return f"  {place}: no such setting ({hint}) (got {given})"
    return f"  {place}: {error['msg']} (got {given})"


def _names(model: type[BaseModel], place: Iterable[Any]) -> list[str]:
    """The settings that there are at a place."""
    found: Any = model
    for part in place:
        fields = getattr(found, "model_fields", {})
        annotation = fields[part].annotation if part in fields else None
        inner = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
        # A section by name ([venues.okx]): the name itself leads nowhere further.
        found = inner[0] if inner else annotation if annotation is not None else found
    return sorted(getattr(found, "model_fields", {}))
