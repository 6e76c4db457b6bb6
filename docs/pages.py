"""The documentation as a site: pages written by hand, and pages made of what the code itself says. A hook of mkdocs.

``python -m mkdocs build --strict`` (``make docs``) runs it. Venues, protocols, strategies, settings, topics and the API
are read from adapters, classes, models, the catalogue and the OpenAPI document, so they cannot differ from what runs.
Links to files that are no page become plain text; a link to nothing is an error.
"""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.venues import proof_of
from cli.venues import rows as venue_rows
from collectors.dex.presets import PROTOCOLS
from collectors.venue import adapter
from config.settings import Settings
from deploy.acls import WRITES
from market.pools.families import FAMILIES
from processors.openapi import describe
from schemas.topics import TOPICS
from strategies.registry import KINDS

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")

Pages = dict[str, str]
"""Address in the site → Markdown."""


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: ``code`` as `code`, indented blocks as they are."""
    return inspect.cleandoc(docstring or "").replace("``", "`")


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)


def module_text(kind: type) -> str:
    """What the class's own file says at its top."""
    return prose(inspect.getdoc(inspect.getmodule(kind)))


def venue_pages() -> Pages:
    """One page a venue, and their list."""
    index = ["# Venues", "Each is one file; books are exact or say that they are not. Every other venue of ccxt.pro can be "
             "had by its id, marked `exact=false`.", "",
             table(("venue", "channels", "proof of a book (evidence)"),
                   [(f"[{name}]({name}.md)", channels, proof) for name, channels, proof in venue_rows()])]  # fmt: skip
    out: Pages = {"venues/index.md": "\n\n".join(index)}
    for name, channels, _ in venue_rows():
        kind = adapter(name)
        limits = kind.limits
        facts = [
            ("REST", f"`{kind.rest_url}`"), ("websocket", f"`{kind.ws_url}`"), ("channels", channels),
            ("proof of a book", proof_of(kind)),
            ("instruments a connection", f"{limits.instruments_per_connection:,}"),
            ("instruments a request", f"{limits.instruments_per_request:,}"),
            ("between two requests", f"{limits.request_interval_s:g} s"),
            ("between two connections", f"{limits.connect_interval_s:g} s"),
            ("REST weight a minute", f"{limits.rest_weight_per_minute:,}"),
            ("a connection lives", f"{limits.max_age_s / 3600:g} h" if limits.max_age_s else "the venue does not say"),
        ]  # fmt: skip
        run = f"```sh\nvenue-mirror live {name} --duration 60     # on this machine, no keys\nvenue-mirror collect {name}\n```"
        out[f"venues/{name}.md"] = f"# {name}\n\n{run}\n\n{table(('', ''), facts)}\n\n## The protocol\n\n{module_text(kind)}\n"
    return out


def protocol_pages() -> Pages:
    """The families of pools."""
    mirrored = [
        f"## {name}\n\n{module_text(kind)}\n\n{prose(inspect.getdoc(kind))}" for name, kind in sorted(PROTOCOLS.items())
    ]
    quoted = [(name, prose(inspect.getdoc(inspect.getmodule(family))).split("\n\n")[0]) for name, family in FAMILIES.items()]
    text = (
        "# Protocols\n\nPools of these families are followed on a chain, exact to the wei ([how](../CHAINS.md)):\n\n"
        + "\n\n".join(mirrored)
        + "\n\n## Quotes\n\nFamilies whose swaps can be computed exactly (`venue-mirror quote`):\n\n"
        + table(("family", "what it is"), quoted)
    )
    return {"protocols/index.md": text}


def strategy_pages() -> Pages:
    """One page a strategy, with its parameters."""
    out: Pages = {
        "strategies/index.md": "# Strategies\n\nHow one is run: [trading](../TRADING.md).\n\n"
        + table(("kind", "what it does"), [
            (f"[{name}]({name}.md)", module_text(kind).split("\n\n")[0]) for name, kind in sorted(KINDS.items())
        ])
    }  # fmt: skip
    for name, kind in sorted(KINDS.items()):
        own = kind.parameters_type
        rows = [(f"`{field}`", f"`{getattr(default, '__name__', default)!r}`", said) for field, default, said in _fields(own)]
        out[f"strategies/{name}.md"] = (
            f"# {name}\n\n{module_text(kind)}\n\n## Parameters\n\n{prose(own.__doc__)}\n\n"
            f"{table(('parameter', 'default', 'what it is'), rows)}\n"
        )
    return out


def _fields(own: type) -> Iterator[tuple[str, Any, str]]:
    """(name, default, the text below it in the source) of a parameters class and those that it builds on."""
    import msgspec

    said: dict[str, str] = {}
    for base in reversed(own.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found = re.findall(r'^    (\w+):[^\n]*\n    """(.+?)"""', inspect.getsource(base), re.DOTALL | re.MULTILINE)
            said |= {name: " ".join(text.split()) for name, text in found}
    for field in msgspec.structs.fields(own):
        default = "required" if field.default is msgspec.NODEFAULT else field.default
        yield field.name, default, said.get(field.name, "")


def settings_page() -> Pages:
    """Every setting with its default."""
    parts = ["# Settings", "A TOML file named by `--config` or `VENUE_MIRROR_CONFIG`; the environment overrides it "
             "(`VENUE_MIRROR_COLLECTOR__STALE_S=30`). `venue-mirror config check` tells every mistake at once, "
             "`venue-mirror config show` what holds in the end."]  # fmt: skip
    for section, field in Settings.model_fields.items():
        model = field.annotation
        inner = [a for a in getattr(model, "__args__", ()) if hasattr(a, "model_fields")]
        title = f"[{section}.NAME]" if inner else f"[{section}]"
        found: Any = inner[0] if inner else model
        rows = [(f"`{name}`", f"`{_default(one)}`", one.description or "") for name, one in found.model_fields.items()]
        text = f"## `{title}`\n\n{prose(found.__doc__)}\n\n{table(('setting', 'default', 'what it is'), rows)}"
        parts.append(text)
    return {"settings.md": "\n\n".join(parts)}


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return str(value) if isinstance(value, str | int | float | bool | tuple | Path) else "" if value is None else "…"


def topics_page() -> Pages:
    """The topic catalogue, with who may write."""
    rows = [
        (f"`{name}`", f"`{topic.record}`", topic.key, topic.cleanup, ", ".join(sorted(r for r, w in WRITES.items() if name in w)))
        for name, topic in sorted(TOPICS.items())
    ]
    text = "# Topics\n\nThe contract between all rooms, `schemas/topics.py`; `venue-mirror topics list` prints it.\n\n"
    return {"topics.md": text + table(("topic", "record", "key", "kept", "written by"), rows)}


def api_page() -> Pages:
    """The web views of a processor, from their OpenAPI document."""
    parts = ["# API", "Every processor answers these over HTTP, for any key; `/openapi.json` is the same as a document. "
             "Numbers are decimal texts, exact to the last digit."]  # fmt: skip
    for path, methods in describe()["paths"].items():
        get = methods["get"]
        rows = [
            (f"`{p['name']}`", p["in"], "yes" if p.get("required") else "",
             p.get("description") or f"as `{p.get('example', '')}`")
            for p in get["parameters"]
        ]  # fmt: skip
        answers = ", ".join(f"`{status}` {answer['description']}" for status, answer in get["responses"].items())
        parts.append(f"## `GET {path}`\n\n{get['summary']}.")
        if rows:
            parts.append(table(("parameter", "in", "required", "what it is"), rows))
        parts.append(f"Answers: {answers}.")
    return {"api.md": "\n\n".join(parts)}


def root_pages() -> dict[str, str]:
    """Pages that stand beside the code: file in the project → address in the site."""
    names = ["ARCHITECTURE.md", "BENCHMARKS.md", "SECURITY.md", "CHANGELOG.md", *(f.name for f in ROOT.glob("ADDING_A_*.md"))]
    return {name: name for name in names}


def made() -> Pages:
    """All pages that are made."""
    return {
        **venue_pages(), **protocol_pages(), **strategy_pages(), **settings_page(), **topics_page(), **api_page(),
        **{address: (ROOT / name).read_text("utf-8") for name, address in root_pages().items()},
    }  # fmt: skip


def linked(text: str, place: str, pages: dict[str, str]) -> str:
    """The text of the project's file ``place`` with its links as the site has them.

    ``pages``: file in the project → address in the site. Raises FileNotFoundError for a link to nothing.
    """
    own = pages[place]

    def to(match: re.Match[str], keep: str) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if found in pages:
            address = posixpath.relpath(pages[found], posixpath.dirname(own) or ".")
            return f"{keep}[{match[1]}]({address}{'#' + anchor if anchor else ''})"
        if (ROOT / found).exists():
            return match[1]
        raise FileNotFoundError(f"{place}: a link to {match[2]}, which is nothing")

    return IMAGE.sub(lambda m: to(m, "!"), LINK.sub(lambda m: to(m, ""), text))


# What mkdocs calls.


def on_config(config: Any) -> Any:
    """Fill the lists of the navigation that are made."""
    names = sorted(made())

    def under(folder: str) -> list[str]:
        return [name for name in names if name.startswith(f"{folder}/")]

    named = set(re.findall(r"[\w/.-]+\.md", str(config["nav"]))) | set(names)
    more = [str(f.relative_to(ROOT / "docs")) for f in sorted((ROOT / "docs").rglob("*.md"))]
    lists = {"VENUES": under("venues"), "STRATEGIES": under("strategies"), "DECISIONS": [m for m in more if "decisions/" in m],
             "RUNBOOKS": [m for m in more if "runbooks/" in m],
             "RECIPES": [n for n in names if n.startswith("ADDING_A_")],
             "MORE": [m for m in more if m not in named and "/" not in m]}  # fmt: skip

    def filled(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: lists[one] if isinstance(one, str) and one in lists else
                    [filled(e) for e in one] if isinstance(one, list) else one for title, one in entry.items()}  # fmt: skip
        return entry

    nav = [filled(entry) for entry in config["nav"]]
    config["nav"] = [entry for entry in nav if not (isinstance(entry, dict) and list(entry.values()) == [[]])]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for address, text in made().items():
        files.append(File.generated(config, address, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Bring links between the project's files in line with the site."""
    pages = {f"docs/{file.src_uri}": file.src_uri for file in files} | root_pages()
    place = next((name for name, address in root_pages().items() if address == page.file.src_uri), f"docs/{page.file.src_uri}")
    return linked(markdown, place, pages)
