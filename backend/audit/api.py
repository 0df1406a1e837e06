"""HTTP of the logs; for admins."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from backend.audit import service as audit
from backend.audit.schemas import (
    LoginFilter,
    LoginQuery,
    LoginRead,
    OperationFilter,
    OperationQuery,
    OperationRead,
)
from backend.core.paging import Page
from backend.core.web import Admin, DatabaseDep, SessionDep

router = APIRouter(prefix="/api/audit", tags=["audit"], dependencies=[Admin])

_FILES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "content": {"text/csv": {}, "application/jsonl": {}}}
}


class OperationExport(OperationFilter):
    """Which operations, and as what."""

    format: audit.Format = audit.Format.CSV


class LoginExport(LoginFilter):
    """Which logins, and as what."""

    format: audit.Format = audit.Format.CSV


@router.get("/operations")
async def list_operations(session: SessionDep, query: Annotated[OperationQuery, Query()]) -> Page[OperationRead]:
    """Requests that may have changed something, newest first."""
    return await audit.list_operations(session, query, cursor=query.cursor, limit=query.limit)


@router.get("/logins")
async def list_logins(session: SessionDep, query: Annotated[LoginQuery, Query()]) -> Page[LoginRead]:
    """Logins that were tried, newest first."""
    return await audit.list_logins(session, query, cursor=query.cursor, limit=query.limit)


@router.get("/operations/export", response_class=StreamingResponse, responses=_FILES)
async def export_operations(db: DatabaseDep, query: Annotated[OperationExport, Query()]) -> StreamingResponse:
    """Every operation that the filters let through, newest first, as a file."""
    entries = audit.as_text(audit.every_operation(db, query), OperationRead, query.format)
    return await _file(entries, "operations", query.format)


@router.get("/logins/export", response_class=StreamingResponse, responses=_FILES)
async def export_logins(db: DatabaseDep, query: Annotated[LoginExport, Query()]) -> StreamingResponse:
    """Every login that the filters let through, newest first, as a file."""
    entries = audit.as_text(audit.every_login(db, query), LoginRead, query.format)
    return await _file(entries, "logins", query.format)


async def _file(pieces: AsyncIterator[str], name: str, kind: audit.Format) -> StreamingResponse:
    # The first piece comes before the answer begins: a database that is away is a 503.
    first = await anext(pieces, "")
    headers = {"Content-Disposition": f'attachment; filename="{name}.{kind}"', "Cache-Control": "no-store"}
    return StreamingResponse(_all(first, pieces), media_type=kind.media_type, headers=headers)


async def _all(first: str, pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for piece in pieces:
        yield piece
