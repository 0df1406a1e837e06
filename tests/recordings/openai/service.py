"""A service on loopback that speaks OpenAI's protocol: multipart in, JSON out, and every way of going wrong."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from backend.recording_settings import OpenAI
from backend.recordings.openai_service import OpenAIService, Patience
from tests.fixtures.web import answering

KEY = "sk-test-0123456789abcdefghij"
QUICK = Patience(first=0.01, tries=3, waiting=2.0)


@dataclass(frozen=True)
class Asked:
    """A request: `fields` of a form by name, or `body` of JSON; `sound` is the uploaded file."""

    path: str
    headers: dict[str, str]
    fields: dict[str, list[str]] = field(default_factory=dict)
    filename: str | None = None
    sound: bytes = field(default=b"", repr=False)
    body: Any = None

    def first(self, name: str) -> str | None:
        return self.fields[name][0] if name in self.fields else None


@dataclass(frozen=True)
class Says:
    """An answer. `cut`: the connection ends in the middle of it; `after`: seconds until it comes."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    cut: bool = False
    after: float = 0.0

    @property
    def content(self) -> bytes:
        return (json.dumps(self.value) if self.text is None else self.text).encode()


def error(status: int, message: str, code: str | None = None, **headers: str) -> Says:
    """As OpenAI writes errors."""
    body = {"error": {"message": message, "type": code or "invalid_request_error", "param": None, "code": code}}
    return Says(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Answer = Says | Callable[[Asked], Says]


@dataclass
class Service:
    """`answers` are those to the next requests, then `always`. `gone` counts requests that the client gave up."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    always: Answer = Says({"text": "", "usage": {"type": "duration", "seconds": 1}})
    asked: list[Asked] = field(default_factory=list)
    gone: int = 0

    def settings(self, **changed: Any) -> OpenAI:
        values: dict[str, Any] = {
            "api_key": KEY,
            "base_url": f"{self.url}/v1",
            "transcription_model": "whisper-1",
            "text_model": "gpt-5.4-mini",
            "timeout_seconds": 5.0,
            "price_per_minute": None,
            "price_per_million_input": None,
            "price_per_million_output": None,
        }
        return OpenAI(**(values | changed))

    def opened(self, patience: Patience = QUICK, **changed: Any) -> OpenAIService:
        return OpenAIService(self.settings(**changed), patience)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request)
        self.asked.append(asked)
        answer = self.answers.pop(0) if self.answers else self.always
        says = answer if isinstance(answer, Says) else answer(asked)
        if not await _still_there(request, says.after):
            self.gone += 1
            return web.Response()
        response = web.StreamResponse(status=says.status, headers={"Content-Type": "application/json", **says.headers})
        response.content_length = len(says.content)
        await response.prepare(request)
        if says.cut:
            await response.write(says.content[: len(says.content) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        with contextlib.suppress(ConnectionError):
            await response.write(says.content)
        return response


async def _still_there(request: web.Request, seconds: float) -> bool:
    """Wait, unless the client closes the connection meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(0.05, left))
        if request.transport is None or request.transport.is_closing():
            return False
    return True


async def _read(request: web.Request) -> Asked:
    headers = {name.lower(): value for name, value in request.headers.items()}
    if not request.content_type.startswith("multipart/"):
        return Asked(request.path, headers, body=json.loads(await request.read() or b"null"))
    fields: dict[str, list[str]] = {}
    filename, sound = None, b""
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        assert part.name is not None
        if part.filename:
            filename, sound = part.filename, bytes(await part.read())
        else:
            fields.setdefault(part.name, []).append(await part.text())
    return Asked(request.path, headers, fields, filename, sound)


@asynccontextmanager
async def running_service() -> AsyncIterator[Service]:
    service = Service()
    async with answering(service.handle) as address:
        service.url = address
        yield service
