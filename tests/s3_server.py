"""As much of the S3 protocol as object storage for the archive needs, in memory: objects, listings, multipart uploads.

Path style, one bucket after another as they are asked for. Requests signed with another access key than ``key`` get
403, as from any server; the signature itself is not computed.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from email.utils import formatdate
from xml.sax.saxutils import escape

from aiohttp import web

XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class S3Server:
    """Runs in a thread of its own. Use as a context manager; ``endpoint`` is host:port."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.objects: dict[tuple[str, str], bytes] = {}
        self.refused = 0
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.endpoint = ""

    def __enter__(self) -> S3Server:
        self._thread.start()
        self.endpoint = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self) -> str:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{bucket}", self._bucket)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._object)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"127.0.0.1:{self._runner.addresses[0][1]}"

    def _may(self, request: web.Request) -> bool:
        allowed = f"Credential={self.key}/" in request.headers.get("Authorization", "")
        self.refused += not allowed
        return allowed

    async def _bucket(self, request: web.Request) -> web.Response:
        if not self._may(request):
            return _error(403, "AccessDenied")
        if request.method in ("HEAD", "PUT"):
            return web.Response()
        bucket, q = request.match_info["bucket"], request.query
        if request.method == "POST" and "delete" in q:
            import xml.etree.ElementTree as ET

            for node in ET.fromstring(await _body(request)).iter():
                if node.tag.rpartition("}")[2] == "Key":
                    self.objects.pop((bucket, node.text or ""), None)
            return _xml(f"<DeleteResult {XMLNS}/>")
        if request.method != "GET":
            return _error(405, "MethodNotAllowed")
        prefix, delimiter, most = q.get("prefix", ""), q.get("delimiter", ""), int(q.get("max-keys", "1000"))
        after = q.get("continuation-token", "")
        names: list[str] = []
        folders: list[str] = []
        truncated = False
        for _, name in sorted(k for k in self.objects if k[0] == bucket):
            if not name.startswith(prefix) or name <= after:
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                if (folder := name[: cut + 1]) not in folders:
                    folders.append(folder)
                continue
            if len(names) == most:
                truncated = True
                break
            names.append(name)
        items = "".join(
            f"<Contents><Key>{escape(n)}</Key><Size>{len(self.objects[(bucket, n)])}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>" for n in names
        )  # fmt: skip
        items += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        token = f"<NextContinuationToken>{escape(names[-1])}</NextContinuationToken>" if truncated else ""
        return _xml(
            f"<ListBucketResult {XMLNS}><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(names) + len(folders)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
        )

    async def _object(self, request: web.Request) -> web.StreamResponse:
        if not request.match_info["key"]:
            return await self._bucket(request)
        if not self._may(request):
            return _error(403, "AccessDenied")
        place, q = (request.match_info["bucket"], request.match_info["key"]), request.query
        if request.method in ("GET", "HEAD"):
            return self._give(request, self.objects.get(place))
        if request.method == "DELETE":
            self.objects.pop(place, None)
            return web.Response(status=204)
        if request.method == "PUT" and "uploadId" in q:
            body = await _body(request)
            self._uploads[q["uploadId"]][int(q["partNumber"])] = body
            return web.Response(headers={"ETag": _etag(body)})
        if request.method == "PUT":
            self.objects[place] = body = await _body(request)
            return web.Response(headers={"ETag": _etag(body)})
        if request.method == "POST" and "uploads" in q:
            upload = f"upload-{len(self._uploads)}"
            self._uploads[upload] = {}
            return _xml(f"<InitiateMultipartUploadResult {XMLNS}><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>")
        if request.method == "POST" and "uploadId" in q:
            parts = self._uploads.pop(q["uploadId"])
            self.objects[place] = body = b"".join(parts[n] for n in sorted(parts))
            return _xml(
                f"<CompleteMultipartUploadResult {XMLNS}><Key>{escape(place[1])}</Key><ETag>{escape(_etag(body))}</ETag>"
                "</CompleteMultipartUploadResult>"
            )
        return _error(405, "MethodNotAllowed")

    @staticmethod
    def _give(request: web.Request, body: bytes | None) -> web.Response:
        if body is None:
            return _error(404, "NoSuchKey") if request.method == "GET" else web.Response(status=404)
        headers = {"Last-Modified": formatdate(0, usegmt=True), "ETag": _etag(body), "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(body))})
        if (asked := request.headers.get("Range", "")).startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(len(body), int(last) + 1) if last else len(body)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
            return web.Response(status=206, body=body[int(first) : end], headers=headers)
        return web.Response(body=body, headers=headers)


async def _body(request: web.Request) -> bytes:
    raw = await request.read()
    if not request.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
        return raw
    out, at = b"", 0  # aws-chunked: size;signature, a line break, the bytes, a line break …
    while True:
        line, _, _ = raw[at:].partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            return out
        at += len(line) + 2
        out += raw[at : at + size]
        at += size + 2


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(text: str, status: int = 200) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', status=status, content_type="application/xml")


def _error(status: int, code: str) -> web.Response:
    return _xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", status)
