"""What every HTTP route shares: the session, who asks and what they may, problem documents, request ids, health."""

import hmac
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.config import Config
from backend.core.db import Database, Session, is_outage
from backend.core.errors import AppError, Forbidden, Unauthorized
from backend.core.logging import request_id
from backend.core.principal import SERVICE, Principal, Role
from backend.core.principal import Scope as KeyScope

log = logging.getLogger(__name__)

# Class 22 of PostgreSQL's error codes: text with U+0000, numbers and dates out of range. What a schema has let through.
_DATA_EXCEPTION = "22"
_SAFE = {"GET", "HEAD", "OPTIONS"}
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


# What `app.state.authenticate` is: the one whom a token stands for, None for one that is of no use (any more).
Authenticate = Callable[[Database, str], Awaitable[Principal | None]]

_scheme = HTTPBearer(
    auto_error=False, description="An access token of `POST /api/auth/login`, an API key, or the service key."
)


async def get_principal(
    request: Request,
    config: ConfigDep,
    db: DatabaseDep,
    _: Annotated[object, Depends(_scheme)],  # for the OpenAPI document
) -> Principal:
    """Who asks, also as `request.state.principal` for what follows. Unauthorized (401) for nobody we know."""
    principal = await _principal(request, config, db, bearer(request))
    if principal is None:
        raise Unauthorized("Authorization: send `Bearer` and an access token, an API key or BEATLINE_SERVICE_KEY")
    request.state.principal = principal
    return principal


async def _principal(request: Request, config: Config, db: Database, token: str) -> Principal | None:
    if not token:
        return None
    if hmac.compare_digest(token.encode(), config.service_key.encode()):
        return SERVICE
    authenticate: Authenticate = request.app.state.authenticate
    return await authenticate(db, token)


PrincipalDep = Annotated[Principal, Depends(get_principal)]


def require(principal: Principal, role: Role) -> None:
    """Forbidden (403), naming what is needed, unless the principal may do what needs `role`."""
    if principal.role.covers(role):
        return
    if not principal.scoped(role):
        raise _scope_needed(principal, role)
    detail = f"this needs the role {role}; {principal.name} has the role {principal.role}"
    raise Forbidden(detail, code="role_needed", needed_role=role)


def _scope_needed(principal: Principal, role: Role) -> Forbidden:
    scope = next(each for each in KeyScope if each.role == role)
    has = ", ".join(sorted(principal.scopes or ()))
    detail = f"this needs an API key with the scope {scope}; this one has {has}"
    return Forbidden(detail, code="scope_needed", needed_scope=scope)


async def require_viewer(principal: PrincipalDep) -> Principal:
    require(principal, Role.VIEWER)
    return principal


async def require_operator(principal: PrincipalDep) -> Principal:
    require(principal, Role.OPERATOR)
    return principal


async def require_admin(principal: PrincipalDep) -> Principal:
    require(principal, Role.ADMIN)
    return principal


async def require_person(request: Request, principal: PrincipalDep) -> Principal:
    """Somebody with an account, in person or by an API key, whose scope must be more than `read` to change anything."""
    if principal.user_id is None:
        raise Forbidden("this belongs to a user; the service key has no account", code="user_needed")
    if request.method not in _SAFE and not principal.scoped(Role.OPERATOR):
        raise _scope_needed(principal, Role.OPERATOR)
    return principal


async def require_writer(principal: PrincipalDep) -> Principal:
    """Anybody who is known, but no API key that is for reading: where what may be changed depends on whose it is."""
    if not principal.scoped(Role.OPERATOR):
        raise _scope_needed(principal, Role.OPERATOR)
    return principal


async def require_signed_in(principal: PrincipalDep) -> Principal:
    """A user who has signed in: an API key gives nobody power over the account that it belongs to."""
    if principal.kind != "user":
        raise Forbidden("this needs a user's own sign-in (POST /api/auth/login)", code="sign_in_needed")
    return principal


# For a router or a route: dependencies=[Viewer].
Viewer, Operator, Admin = Depends(require_viewer), Depends(require_operator), Depends(require_admin)
# For a route that wants to know who it is.
ViewerDep = Annotated[Principal, Viewer]
OperatorDep = Annotated[Principal, Operator]
AdminDep = Annotated[Principal, Admin]
PersonDep = Annotated[Principal, Depends(require_person)]
WriterDep = Annotated[Principal, Depends(require_writer)]
SignedInDep = Annotated[Principal, Depends(require_signed_in)]


def private(*members: str) -> Any:
    """For a route whose body or query holds people's own words.

    The log of operations says that these members came, not what they say.
    """

    async def mark(request: Request) -> None:
        request.state.private = frozenset(members)

    return Depends(mark)


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **extra: Any) -> JSONResponse:
    """An RFC 9457 problem document."""
    # A protocol may have codes of its own, such as 460 of tus.
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else code.replace("_", " ").capitalize()
    body = {"type": "about:blank", "title": title, "status": status, "code": code, "detail": detail}
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


async def _http_error(request: Request, fault: StarletteHTTPException) -> Response:
    phrase, headers = HTTPStatus(fault.status_code).phrase, dict(fault.headers or {})
    if fault.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = _allowed(request, headers.get("Allow", ""))
    return problem(fault.status_code, phrase.lower().replace(" ", "_"), str(fault.detail), headers)


def _allowed(request: Request, first: str) -> str:
    """The methods of every route of this path; Starlette names those of the first one alone."""
    methods = {method.strip() for method in first.split(",") if method.strip()}
    for path, operations in request.app.openapi()["paths"].items():
        if compile_path(path)[0].match(request.url.path):
            methods |= {method.upper() for method in operations}
    return ", ".join(sorted(methods))


async def _database_error(_: Request, fault: Exception) -> Response:
    if isinstance(fault, DBAPIError) and str(getattr(fault.orig, "sqlstate", "")).startswith(_DATA_EXCEPTION):
        log.warning("refused by the database: %s", fault.orig)
        return problem(422, "invalid", "The request holds what cannot be stored, such as the character U+0000.")
    if isinstance(fault, StatementError) and isinstance(fault.orig, (OverflowError, ValueError)):
        # asyncpg could not write a value down: an instant that leaves the calendar in UTC, a number beyond its column.
        log.warning("cannot be written to the database: %s", fault.orig)
        return problem(
            422, "invalid", "The request holds what cannot be stored, such as an instant beyond the calendar."
        )
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
    app.state.authenticate = _nobody


async def _nobody(_db: Database, _token: str) -> Principal | None:
    """Before anybody says who is who, the service key alone opens."""
    return None


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
