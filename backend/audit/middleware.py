"""Every request that may change something is noted once it has been answered."""

import time
from datetime import datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.audit.noting import LONGEST_BODY, Noted, is_readable
from backend.audit.service import Recorder
from backend.core.clock import utc_now
from backend.core.logging import request_id

_SAFE = {"GET", "HEAD", "OPTIONS"}


class _Body:
    """What a request sends, kept up to LONGEST_BODY while the route reads it."""

    def __init__(self, receive: Receive, content_type: str) -> None:
        self._receive = receive
        self._kept: list[bytes] | None = [] if is_readable(content_type) else None
        self.size = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            piece: bytes = message.get("body", b"")
            self.size += len(piece)
            if self.size > LONGEST_BODY:
                self._kept = None
            elif self._kept is not None:
                self._kept.append(piece)
        return message

    def kept(self) -> bytes | None:
        return b"".join(self._kept) if self._kept is not None else None


class Audit:
    """ASGI middleware: notes what is not GET, HEAD or OPTIONS under /api and /ops, in memory, after the answer was sent.

    Who it was is `request.state.principal`, which the route's own check has set, and `request.state.private` what core.web.private
    says. `app.state.recorder` takes the notes. It stands inside `RequestIds`, whose id it notes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] in _SAFE
            or not f"{scope['path']}/".startswith(("/api/", "/ops/"))
        ):
            await self._app(scope, receive, send)
            return
        at, began = utc_now(), time.perf_counter()
        body = _Body(receive, Headers(scope=scope).get("Content-Type", ""))
        # What nobody has answered is answered with this further out.
        status = 500

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, body.receive, send_noting)
        finally:
            recorder: Recorder = scope["app"].state.recorder
            recorder.note(_noted(scope, body, at, status, (time.perf_counter() - began) * 1000))


def _noted(scope: Scope, body: _Body, at: datetime, status: int, duration_ms: float) -> Noted:
    headers = Headers(scope=scope)
    return Noted(
        at=at,
        principal=scope.get("state", {}).get("principal"),
        method=scope["method"],
        route=_template(scope),
        path=scope["path"],
        params=dict(scope.get("path_params", {})),
        query=scope["query_string"].decode("latin-1"),
        status=status,
        duration_ms=duration_ms,
        address=scope["client"][0] if scope.get("client") else None,
        user_agent=headers.get("User-Agent", ""),
        request_id=request_id.get(),
        content_type=headers.get("Content-Type", ""),
        body=body.kept(),
        size=body.size,
        private=scope.get("state", {}).get("private", frozenset()),
    )


def _template(scope: Scope) -> str:
    """The path of the route with the names of its parts; empty where there is none."""
    # A route of a router within a router knows its whole path in this context alone.
    route: Any = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    return str(getattr(route, "path_format", ""))
