"""A receiver of webhooks on loopback; verifies signatures by the words of the specification."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fixtures.web import answering


@dataclass
class Hook:
    """`answers` are those to the next requests, one each as (status, headers), then 200."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.seen]


def verified(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """standardwebhooks.com: HMAC-SHA256 over id.timestamp.body, the key after whsec_ in Base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers.get("webhook-signature") == f"v1,{expected}"


@asynccontextmanager
async def running_hook() -> AsyncIterator[Hook]:
    hook = Hook()

    async def answer(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        hook.seen.append((headers, await request.read()))
        status, more = hook.answers.pop(0) if hook.answers else (200, {})
        return web.Response(status=status, headers=more, text="answer")

    async with answering(answer) as address:
        hook.url = f"{address}/hook"
        yield hook
