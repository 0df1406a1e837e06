"""HTTP of sound: the recording and samples of voices, streamed from the storage, in parts where a player asks for them."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from backend.core.errors import NotFound, TransientError, Unavailable
from backend.core.storage import Storage
from backend.core.web import DatabaseDep, ViewerDep, problem
from backend.recordings.library import reading
from backend.recordings.library.reading import Sound
from backend.recordings.schemas import Label

router = APIRouter(prefix="/api/recordings", tags=["recordings"])

_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")
_BYTES = {"schema": {"type": "string", "format": "binary"}}
SOUND_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The sound.", "content": {"application/octet-stream": _BYTES}},
    206: {"description": "The part that was asked for.", "content": {"application/octet-stream": _BYTES}},
    304: {"description": "It is as it was."},
    416: {"description": "The range is not in it."},
}
# A range is for GET alone (RFC 9110, 14.2).
HEAD_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "What there is to be heard: its type and length."},
    304: {"description": "It is as it was."},
}


async def get_storage(request: Request) -> Storage:
    storage: Storage = request.app.state.storage
    return storage


StorageDep = Annotated[Storage, Depends(get_storage)]
RangeHeader = Annotated[str | None, Header(alias="Range")]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from `start` up to `end`, that one not included, out of `size`."""

    start: int
    end: int
    size: int


class Unsatisfiable(Exception):
    """A range that begins behind the end."""


@router.head("/{recording_id}/audio", response_class=Response, responses=HEAD_RESPONSES)
@router.get("/{recording_id}/audio", response_class=Response, responses=SOUND_RESPONSES)
async def read_audio(
    recording_id: UUID, db: DatabaseDep, principal: ViewerDep, storage: StorageDep, request: Request
) -> Response:
    """The sound as it was uploaded or recorded; one range of bytes at a time (RFC 9110)."""
    async with db.transaction() as session:
        sound = await reading.read_sound(session, recording_id, principal)
    return await answer(request, storage, sound)


@router.head("/{recording_id}/speakers/{label}/sample", response_class=Response, responses=HEAD_RESPONSES)
@router.get("/{recording_id}/speakers/{label}/sample", response_class=Response, responses=SOUND_RESPONSES)
async def read_speaker_sample(
    recording_id: UUID, label: Label, db: DatabaseDep, principal: ViewerDep, storage: StorageDep, request: Request
) -> Response:
    """A few seconds of a speaker's voice, to know whom to name."""
    async with db.transaction() as session:
        sound = await reading.read_sample(session, recording_id, label, principal)
    return await answer(request, storage, sound)


async def answer(request: Request, storage: Storage, sound: Sound) -> Response:
    """200 or 206 with the bytes (none for HEAD), 304, 416.

    NotFound (404) where the file is gone, Unavailable (503) while the storage is away.
    """
    try:
        size = await storage.size(sound.key)
    except TransientError as fault:
        raise _away() from fault
    if size is None:
        raise NotFound("the audio is not in the storage", code="no_audio")
    headers = _headers(sound)
    if _has_it(request.headers.get("If-None-Match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(size)}, media_type=sound.media_type)
    wanted = request.headers.get("Range")
    if request.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
        wanted = None
    try:
        part = parse_range(wanted, size)
    except Unsatisfiable:
        headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
        return problem(416, "unsatisfiable_range", f"the audio has {size} bytes", headers)
    return await _streamed(storage, sound, part or Part(0, size, size), headers, whole=part is None)


def _has_it(given: str | None, tag: str) -> bool:
    """Whether If-None-Match names the tag, weakly (RFC 9110, 13.1.2)."""
    return given is not None and any(each.strip().removeprefix("W/") in {tag, "*"} for each in given.split(","))


def parse_range(wanted: str | None, size: int) -> Part | None:
    """One range of bytes. None where the whole is to be sent: no range, several, another unit, none that makes sense.

    Raises Unsatisfiable.
    """
    found = _RANGE.match(wanted.strip()) if wanted else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        if int(found[2]) == 0 or size == 0:
            raise Unsatisfiable
        return Part(max(0, size - int(found[2])), size, size)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return Part(start, min(size, int(found[2]) + 1) if found[2] else size, size)


async def _streamed(storage: Storage, sound: Sound, part: Part, headers: dict[str, str], *, whole: bool) -> Response:
    chunks = storage.read(sound.key, part.start, part.end)
    try:
        # Before the answer begins: a storage that is away, or has lost the file, can still be said.
        first = await anext(chunks, b"")
    except FileNotFoundError as fault:
        raise NotFound("the audio is not in the storage", code="no_audio") from fault
    except TransientError as fault:
        raise _away() from fault
    headers["Content-Length"] = str(part.end - part.start)
    if not whole:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{part.size}"
    return StreamingResponse(
        _joined(first, chunks), status_code=200 if whole else 206, headers=headers, media_type=sound.media_type
    )


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk


def _headers(sound: Sound) -> dict[str, str]:
    """Whatever somebody has uploaded, no browser runs it as a page."""
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{sound.tag}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(sound.name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'; media-src 'self'",
        "X-Content-Type-Options": "nosniff",
    }


def _away() -> Unavailable:
    return Unavailable("The storage of recordings is away; try again shortly.", code="storage_away", retry_after=5)
