"""What every HTTP route shares: the session, the service key, problem documents, request ids, health."""

import hmac
import logging
import math
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.config import Config
from backend.core.db import Database, Session, is_outage
from backend.core.errors import AppError, Unauthorized
from backend.core.logging import request_id

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


# Coroutines, though they wait for nothing: FastAPI sends a plain function through a thread for every request.
async def get_db(request: Request) -> Database:
    db: Database = request.app.state.db
    return db


async def get_config(request: Request) -> Config:
    config: Config = request.app.state.config
    return config


DatabaseDep = Annotated[Database, Depends(get_db)]
ConfigDep = Annotated[Config, Depends(get_config)]


async def get_session(db: DatabaseDep) -> AsyncIterator[Session]:
    async with db.transaction() as session:
        yield session


# scope="function" commits before the response is sent; the default would answer 200 and then fail to commit.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def bearer(request: Request) -> str:
    """The bearer token of a request; empty when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def require_service_key(request: Request, config: ConfigDep) -> None:
    """Only who holds the service key may pass."""
    if not hmac.compare_digest(bearer(request).encode(), config.service_key.encode()):
        raise Unauthorized("Authorization: send `Bearer <BEATLINE_SERVICE_KEY>`")


ServiceKey = Depends(require_service_key)


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> JSONResponse:
    """An RFC 9457 problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return JSONResponse(body | extra, status, headers, media_type="application/problem+json")


async def _app_error(_: Request, fault: AppError) -> Response:
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(fault.retry_after)))
    if fault.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(fault.status, fault.problem, fault.detail, headers, **fault.extra)


async def _validation_error(_: Request, fault: RequestValidationError) -> Response:
    errors = [
        {
            "field": ".".join(str(part) for part in error["loc"] if part not in {"body", "query", "path"}),
            "problem": error["msg"],
        }
        for error in fault.errors()
    ]
    detail = "; ".join(f"{error['field'] or 'body'}: {error['problem']}" for error in errors)
    return problem(422, "invalid", detail, errors=errors)


async def _http_error(_: Request, fault: StarletteHTTPException) -> Response:
    phrase = HTTPStatus(fault.status_code).phrase
    return problem(fault.status_code, phrase.lower().replace(" ", "_"), str(fault.detail), dict(fault.headers or {}))


async def _database_error(_: Request, fault: Exception) -> Response:
    if not is_outage(fault):
        raise fault
    log.warning("database away: %s", type(fault).__name__)
    return problem(503, "database_away", "The database is away; try again shortly.", {"Retry-After": "2"})


class RequestIds:
    """ASGI middleware: each request has an id, the caller's own where it is a sane one, in the log and in the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("X-Request-ID", "")
        name = given if _REQUEST_ID.match(given) else uuid4().hex[:12]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        token = request_id.set(name)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)


def install(app: FastAPI) -> None:
    """Error handlers, request ids and health routes."""
    app.exception_handler(AppError)(_app_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(StarletteHTTPException)(_http_error)
    for kind in (SQLAlchemyError, OSError):
        app.exception_handler(kind)(_database_error)
    app.add_middleware(RequestIds)
    app.include_router(_health)


_health = APIRouter(tags=["health"])


@_health.get("/healthz")
async def read_health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@_health.get("/readyz")
async def read_readiness(db: DatabaseDep) -> dict[str, str]:
    """The process can work: the database answers (503 otherwise)."""
    await db.ping()
    return {"status": "ready"}
