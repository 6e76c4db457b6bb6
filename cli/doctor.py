"""`doctor`: looks at everything that must be right before the mirror can run; each line says how to mend it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import typer

from config.settings import Settings

Level = Literal["ok", "warn", "fail"]
TIMEOUT = aiohttp.ClientTimeout(total=8)
DISK_MIN_GB = 5
FILES_MIN = 4096
SKEW_MAX_S = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``mend`` says what to do where it is not ok."""

    level: Level
    what: str
    mend: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, in the order in which one would mend them. Asks the network; takes at most about 20 s."""
    out = [*_machine(settings), *_secrets(settings), *_tokens(settings)]
    out += await asyncio.to_thread(lambda: list(_kafka(settings)))
    async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
        asked: list[Awaitable[list[Finding]]] = [_venue(http, settings, name) for name in settings.venues]
        asked += [_chain(http, settings, name) for name in settings.chains]
        asked += [_port(http, "processor", settings.processor.web_host, settings.processor.web_port)]
        asked += [_port(http, "console", settings.console.web_host, settings.console.web_port)]
        if url := os.environ.get("SCHEMA_REGISTRY_URL", "").strip():
            asked.append(_registry(http, url))
        for found in await asyncio.gather(*asked):
            out += found
    return out


def _machine(settings: Settings) -> Iterator[Finding]:
    version = sys.version_info[:2]
    good = (3, 11) <= version < (3, 14)
    text = f"Python {version[0]}.{version[1]}"
    yield Finding("ok", text) if good else Finding("fail", text, "use Python 3.11, 3.12 or 3.13: make setup")
    try:
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        enough = files >= FILES_MIN
        yield Finding("ok" if enough else "warn", f"{files} open files allowed", "" if enough else f"ulimit -n {FILES_MIN}")
    except ImportError:
        pass
    for name, folder in (("processor.data_dir", settings.processor.data_dir), ("broker.data_dir", settings.broker.data_dir)):
        there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
        free_gb = shutil.disk_usage(there).free // 10**9
        if not there.is_dir() or not os.access(there, os.W_OK):
            yield Finding("fail", f"{name} {folder} cannot be written", f"name another folder, or: chown $USER {there}")
        elif free_gb < DISK_MIN_GB:
            yield Finding("fail", f"{free_gb} GB free for {name} {folder}", f"free {DISK_MIN_GB} GB, or name another disk")
        else:
            yield Finding("ok", f"{free_gb} GB free for {name}")


def _secrets(settings: Settings) -> Iterator[Finding]:
    kafka = settings.kafka
    for name, path, private in (
        ("kafka.sasl_password_file", kafka.sasl_password_file, True), ("kafka.ssl_ca_file", kafka.ssl_ca_file, False),
        ("kafka.ssl_certificate_file", kafka.ssl_certificate_file, False), ("kafka.ssl_key_file", kafka.ssl_key_file, True),
        ("console.token_file", settings.console.token_file, True),
        ("processor.web_token_file", settings.processor.web_token_file, True),
    ):  # fmt: skip
        if path is None:
            continue
        try:
            empty = not path.read_bytes().strip()
            mode = path.stat().st_mode
        except OSError as error:
            yield Finding("fail", f"{name} {path}: {error.strerror}", "name a file that this user may read")
            continue
        if empty:
            yield Finding("fail", f"{name} {path} is empty", "write the secret into it")
        elif private and mode & stat.S_IROTH:
            yield Finding("warn", f"{name} {path} can be read by everybody", f"chmod 600 {path}")
        else:
            yield Finding("ok", f"{name} can be read")


def _tokens(settings: Settings) -> Iterator[Finding]:
    from config.access import is_loopback

    own, p = settings.console, settings.processor
    for name, host, file, more in (
        ("console", own.web_host, own.token_file, ""),
        ("processor", p.web_host, p.web_token_file, ", or set processor.web_open where something in front of it asks"),
    ):
        if is_loopback(host) or file is not None or (name == "processor" and p.web_open):
            continue
        setting = "console.token_file" if name == "console" else "processor.web_token_file"
        text = f"{name}.web_host {host} can be reached from other machines, and there is no token"
        yield Finding("fail", text, f"set {setting} (openssl rand -hex 32 > token), or listen on 127.0.0.1{more}")


def _kafka(settings: Settings) -> Iterator[Finding]:
    from bus.connection import bootstrap, configured_bootstrap, require_broker
    from bus.errors import BusError
    from bus.topics import differences

    try:
        if not configured_bootstrap(settings):
            missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
            if missing:
                yield Finding("warn", f"no {' and no '.join(missing)} for the embedded broker", "deploy/install-java.sh")
        address = bootstrap(settings)
        for one in address.split(","):
            host, _, port = one.strip().rpartition(":")
            if (problem := _dial(host, port)) is not None:
                yield problem
                return
        require_broker(settings, timeout_s=6)
    except BusError as error:
        security = f"security_protocol is {settings.kafka.security_protocol}"
        yield Finding("fail", str(error), f"{security}: does the broker's listener say the same, and is the user known to it?")
        return
    yield Finding("ok", f"Kafka answers at {address}")
    try:
        found = differences(settings)
    except BusError as error:
        yield Finding("warn", f"the topics cannot be compared: {error}", "ask with the operator's user (deploy/acls.py)")
        return
    refused = [d for d in found if d.refused]
    missing_topics = [d.topic for d in found if d.what == "missing"]
    for difference in refused:
        yield Finding("fail", f"{difference.topic} {difference.what}", "set kafka.market_partitions to what the broker has")
    if missing_topics:
        text = f"{len(missing_topics)} topics are missing: {', '.join(missing_topics[:4])}…"
        yield Finding("fail", text, "venue-mirror topics apply")
    others = [d for d in found if not d.refused and d.what != "missing"]
    if others:
        yield Finding("warn", f"{others[0].topic}: {others[0].what}", "venue-mirror topics apply")
    if not found:
        yield Finding("ok", "the topics are as the catalogue says")


def _dial(host: str, port: str) -> Finding | None:
    try:
        with socket.create_connection((host, int(port)), timeout=4):
            return None
    except socket.gaierror:
        return Finding("fail", f"Kafka: nobody knows the host {host}", "check kafka.bootstrap_servers and the name service")
    except ValueError:
        return Finding("fail", f"Kafka: {host}:{port} is no host:port", "write kafka.bootstrap_servers as host:port,host:port")
    except OSError as error:
        text = f"Kafka: nothing listens at {host}:{port} ({error.strerror or type(error).__name__})"
        return Finding("fail", text, "start it (venue-mirror broker start), or check the address and the firewall")


async def _venue(http: aiohttp.ClientSession, settings: Settings, name: str) -> list[Finding]:
    from collectors.errors import UnknownVenue
    from collectors.venue import adapter

    section = settings.venue(name)
    try:
        kind = adapter(section.adapter)
    except UnknownVenue as error:
        return [Finding("fail", f"venue {name}: {error}", "venue-mirror venues lists the adapters")]
    url = section.rest_url or kind.rest_url
    started_s = time.time()
    try:
        async with http.get(url, allow_redirects=False) as response:
            date = response.headers.get("Date", "")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return [Finding("fail", f"venue {name}: {url} cannot be reached ({type(error).__name__})",
                        f"check the network and venues.{name}.rest_url")]  # fmt: skip
    found = [Finding("ok", f"venue {name} answers at {url}")]
    if response.status in (403, 418, 429, 451):
        text = f"venue {name} answers {response.status}"
        found.append(Finding("warn", text, "this address is throttled, banned or not served"))
    skew_s = _skew(date, started_s)
    if skew_s is not None and abs(skew_s) > SKEW_MAX_S:
        found.append(Finding("warn", f"this clock is {skew_s:+.1f} s off venue {name}'s", "let chrony or ntpd run"))
    return found


def _skew(date: str, now_s: float) -> float | None:
    try:
        # The header counts whole seconds.
        off_s = now_s - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    return off_s - 0.5 if off_s > 0.5 else off_s


async def _chain(http: aiohttp.ClientSession, settings: Settings, name: str) -> list[Finding]:
    from collectors.dex.presets import with_preset

    own, _ = with_preset(name, settings.chains[name])
    if not own.http_urls:
        return [Finding("fail", f"chain {name} has no endpoint", f"set chains.{name}.http_urls")]
    out: list[Finding] = []
    for number, url in enumerate(own.http_urls, 1):
        label = f"chain {name}, endpoint {number}"  # the address itself often holds a key
        try:
            body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
            async with http.post(url, json=body) as response:
                answer: Any = await response.json(content_type=None)
            chain_id = int(answer["result"], 16)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            out.append(Finding("fail", f"{label} does not answer ({type(error).__name__})", f"check chains.{name}.http_urls"))
            continue
        if own.chain_id and chain_id != own.chain_id:
            out.append(Finding("fail", f"{label} is chain {chain_id}, not {own.chain_id}", "name an endpoint of this chain"))
        else:
            out.append(Finding("ok", f"{label} is chain {chain_id}"))
    return out


async def _port(http: aiohttp.ClientSession, room: str, host: str, port: int) -> list[Finding]:
    if port == 0:
        return []
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex((host, port)) != 0:
            return [Finding("ok", f"{room}: port {port} is free")]
    try:
        async with http.get(f"http://{host}:{port}/healthz") as response:
            ours = (await response.json(content_type=None)).get("status") == "ok"
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
        ours = False
    if ours:
        return [Finding("ok", f"{room} runs at {host}:{port}")]
    text = f"{room}: port {port} is taken by another program"
    return [Finding("fail", text, f"VENUE_MIRROR_{room.upper()}__WEB_PORT={port + 1}")]


async def _registry(http: aiohttp.ClientSession, url: str) -> list[Finding]:
    try:
        async with http.get(url.rstrip("/") + "/subjects") as response:
            if response.status == 200:
                return [Finding("ok", f"the schema registry answers at {url}")]
            problem = f"says {response.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        problem = f"does not answer ({type(error).__name__})"
    mend = "check SCHEMA_REGISTRY_URL, or unset it: ids need no server"
    return [Finding("fail", f"the schema registry at {url} {problem}", mend)]


def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file with the settings.")] = None,
) -> None:
    """Look at everything that must be right before the mirror runs; exit code 1 when something must be mended."""
    from cli.main import settings_of

    found = asyncio.run(examine(settings_of(config)))
    for one in found:
        print(f"{one.level:5} {one.what}" + (f"\n      → {one.mend}" if one.mend else ""))
    raise typer.Exit(1 if any(one.level == "fail" for one in found) else 0)
