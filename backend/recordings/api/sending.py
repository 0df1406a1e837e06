"""What every HTTP route of uploads shares: where uploads go, the body as a stream, the storage's troubles as answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from backend.core.errors import AppError, TransientError, Unavailable
from backend.core.storage import StorageFull
from backend.core.web import ConfigDep, DatabaseDep
from backend.recordings.api.audio import StorageDep
from backend.recordings.uploads.accepting import Intake
from backend.recordings.uploads.incoming import ClientGone

PATH = "/api/recordings"
# A sender that says nothing for so long has gone.
_SILENCE_SECONDS = 60.0
# Of a form, in bytes: what may stand around its file.
_AROUND_FILE = 32_000
_REFUSALS = {
    400: "A header is wrong, or what was sent is cut off.",
    405: "X-HTTP-Method-Override names no method that there is.",
    410: "The upload has expired.",
    412: "The client speaks another version of tus.",
    413: "Larger than UPLOAD_MAX_MB, or than was promised.",
    415: "A part has another type.",
    422: "The file will never do; the upload is gone.",
    460: "The part's checksum differs.",
    507: "No room is left in the storage.",
}


class NoRoom(AppError):
    status, code = 507, "storage_full"


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document: problem documents of these statuses, which not every route has."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}


async def get_intake(db: DatabaseDep, config: ConfigDep, storage: StorageDep) -> Intake:
    return Intake(db, storage, config.recordings.uploads)


IntakeDep = Annotated[Intake, Depends(get_intake)]


@contextmanager
def told() -> Iterator[None]:
    """The storage's troubles as answers: NoRoom (507), Unavailable (503)."""
    try:
        yield
    except StorageFull as fault:
        raise NoRoom(f"no room is left for this upload: {fault}") from fault
    except TransientError as fault:
        raise Unavailable(f"the storage is away: {fault}", code="storage_away", retry_after=30) from fault


async def body(request: Request) -> AsyncIterator[bytes]:
    """What is sent. ClientGone where the connection is cut, or nothing has come for a minute."""
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as fault:
            raise ClientGone(f"nothing has come for {_SILENCE_SECONDS:g} seconds") from fault
        except ClientDisconnect as fault:
            raise ClientGone("the connection was cut before the end") from fault
        if chunk:
            yield chunk


def sizes_in_form(request: Request) -> range | None:
    """Those that the one file of a form may have, where the request says how long the form is."""
    whole = length(request)
    return None if whole is None else range(max(0, whole - _AROUND_FILE), whole + 1)


def length(request: Request) -> int | None:
    """Content-Length, where there is one."""
    given = request.headers.get("Content-Length", "")
    return int(given) if given.isdecimal() and given.isascii() else None
