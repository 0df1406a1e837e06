"""An HTTP server on loopback that behaves as its path says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fixtures.web import answering


@dataclass
class Site:
    """`url` without a slash at its end; `seen` holds (method, path, headers, body) of every request."""

    url: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@asynccontextmanager
async def running_site() -> AsyncIterator[Site]:
    site = Site()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        site.seen.append((request.method, request.path_qs, headers, body))
        return await _answer(request)

    async with answering(answer) as site.url:
        yield site


async def _answer(request: web.Request) -> web.StreamResponse:
    kind, _, rest = request.path.strip("/").partition("/")
    if kind == "status":
        return web.Response(status=int(rest), text=f"status {rest}", headers={"Retry-After": "7"})
    if kind == "to":
        raise web.HTTPFound(request.query["url"])
    if kind == "circle":
        raise web.HTTPFound(request.path)
    if kind == "slow":
        await asyncio.sleep(float(rest))
    if kind == "flood":
        return await _flood(request)
    if kind == "bytes":
        return web.Response(body=b"a\x00\xff" * int(rest))
    return web.Response(text="all is well")


async def _flood(request: web.Request) -> web.StreamResponse:
    response: Any = web.StreamResponse(status=302 if request.query else 200, headers=dict(request.query))
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65536)
    except ConnectionError:
        return web.Response()
