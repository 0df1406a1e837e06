"""HTTP of resumable uploads: tus 1.0.0 (tus.io/protocols/resumable-upload) with creation, creation-with-upload, expiration,
checksum and termination. Uploads begin with POST to /api/recordings, in uploads_api.
"""

import base64
from collections.abc import Callable, Coroutine
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from backend.core.errors import AppError
from backend.core.principal import Principal, Role
from backend.core.web import ConfigDep, ViewerDep, WriterDep
from backend.recordings.api.sending import PATH, IntakeDep, body, refusals, told
from backend.recordings.models import Upload
from backend.recordings.uploads import resumable as uploads
from backend.recordings.uploads.accepting import Intake, Outcome
from backend.recordings.uploads.resumable import CHECKSUMS, Checksum
from backend.recordings.uploads.wishes import Wish, read_wish

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
PART = "application/offset+octet-stream"
HEADERS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
_FARTHEST = 2**53
_PARTS = refusals(400, 410, 412, 413, 415, 422, 460, 507)
# Names that other clients have for ours.
_ALIASES = {"name": "filename"}


class _TusRoute(APIRoute):
    """Says which protocol it is with every answer, refusals too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def saying(request: Request) -> Response:
            try:
                response = await handle(request)
            except AppError as fault:
                fault.headers = HEADERS | fault.headers
                raise
            response.headers.update(HEADERS)
            return response

        return saying


router = APIRouter(prefix=PATH, tags=["recordings"], route_class=_TusRoute)


class BadRequest(AppError):
    status, code = 400, "bad_request"


class WrongMethod(AppError):
    status, code = 405, "method_not_allowed"


class WrongVersion(AppError):
    status, code = 412, "tus_version"


class WrongType(AppError):
    status, code = 415, "wrong_content_type"


class UploadRead(BaseModel):
    """A resumable upload. `recording_id` is there once it is complete; it expires where nothing more comes until `expires_at`."""

    id: UUID
    filename: str | None
    size_bytes: int
    offset_bytes: int
    recording_id: UUID | None
    created_at: datetime
    expires_at: datetime


async def begin(intake: Intake, principal: Principal, request: Request) -> Response:
    """201 with the Location of a new upload, on which the body, if it is a part, is the first one."""
    try:
        _check_version(request)
        size = _number(request, "Upload-Length")
        with told():
            upload = await uploads.begin(intake, principal, _wish(request), size=size)
            outcome = None
            if request.headers.get("Content-Type", "").lower() == PART:
                upload, outcome = await _append(intake, upload, 0, request)
    except AppError as fault:
        fault.headers = HEADERS | fault.headers
        raise
    where = {"Location": f"{PATH}/uploads/{upload.id}"}
    return Response(status_code=201, headers=HEADERS | where | _headers(upload, outcome))


@router.api_route("", methods=["OPTIONS"], status_code=204, response_class=Response)
async def describe_uploads(config: ConfigDep) -> Response:
    """What this server knows of tus."""
    known = {
        "Tus-Version": VERSION,
        "Tus-Extension": EXTENSIONS,
        "Tus-Max-Size": str(config.recordings.uploads.max_bytes),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
    }
    return Response(status_code=204, headers=known)


@router.get("/uploads")
async def list_uploads(intake: IntakeDep, principal: ViewerDep) -> list[UploadRead]:
    """Your unfinished uploads, those in one request among them, the oldest first."""
    return [_read(upload) for upload in await uploads.unfinished(intake, principal)]


@router.get("/uploads/{upload_id}", responses=refusals(410))
async def read_upload(upload_id: UUID, intake: IntakeDep, principal: ViewerDep) -> UploadRead:
    """How far an upload is, and what became of it."""
    return _read(await uploads.find(intake, upload_id, principal))


@router.head("/uploads/{upload_id}", response_class=Response, responses=refusals(410, 412, 422, 507))
async def measure_upload(upload_id: UUID, request: Request, intake: IntakeDep, principal: ViewerDep) -> Response:
    """`Upload-Offset`: where to go on. One that is there as a whole is completed, if that was lost."""
    _check_version(request)
    with told():
        upload = await uploads.find(intake, upload_id, principal, resumable=True)
        # A key that is for reading changes nothing.
        may = upload.recording_id is not None or principal.scoped(Role.OPERATOR)
        outcome = await uploads.complete(intake, upload) if may else None
    return Response(headers={"Upload-Length": str(upload.size_bytes)} | _headers(upload, outcome))


@router.patch("/uploads/{upload_id}", status_code=204, response_class=Response, responses=_PARTS)
async def continue_upload(upload_id: UUID, request: Request, intake: IntakeDep, principal: WriterDep) -> Response:
    """Send a part, which begins at `Upload-Offset`. With the last one `Beatline-Recording` names the recording."""
    _check_version(request)
    if request.headers.get("Content-Type", "").lower() != PART:
        raise WrongType(f"Content-Type: a part is sent as {PART}")
    with told():
        upload = await uploads.find(intake, upload_id, principal, resumable=True)
        upload, outcome = await _append(intake, upload, _number(request, "Upload-Offset"), request)
    return Response(status_code=204, headers=_headers(upload, outcome))


@router.delete("/uploads/{upload_id}", status_code=204, response_class=Response, responses=refusals(410))
async def delete_upload(upload_id: UUID, intake: IntakeDep, principal: WriterDep) -> Response:
    """End an upload that is not complete; nothing of it stays."""
    with told():
        await uploads.abandon(intake, await uploads.find(intake, upload_id, principal))
    return Response(status_code=204)


@router.post("/uploads/{upload_id}", status_code=204, response_class=Response, responses=_PARTS | refusals(405))
async def override_method(upload_id: UUID, request: Request, intake: IntakeDep, principal: WriterDep) -> Response:
    """PATCH or DELETE for clients that cannot: `X-HTTP-Method-Override` says which."""
    method = request.headers.get("X-HTTP-Method-Override", "").upper()
    if method == "PATCH":
        return await continue_upload(upload_id, request, intake, principal)
    if method == "DELETE":
        return await delete_upload(upload_id, intake, principal)
    raise WrongMethod("X-HTTP-Method-Override: PATCH or DELETE", headers={"Allow": "GET, HEAD, PATCH, DELETE, POST"})


async def _append(intake: Intake, upload: Upload, offset: int, request: Request) -> tuple[Upload, Outcome | None]:
    # The end may have been lost by a crash, or refused by a quota: then nothing more is to come, and it is tried again.
    whole = upload.recording_id is None and offset == upload.offset_bytes == upload.size_bytes
    if not whole:
        upload = await uploads.append(intake, upload, offset, body(request), checksum=_checksum(request))
    return upload, await uploads.complete(intake, upload)


def _check_version(request: Request) -> None:
    if request.headers.get("Tus-Resumable") != VERSION:
        raise WrongVersion(f"Tus-Resumable: this is tus {VERSION}", headers={"Tus-Version": VERSION})


def _number(request: Request, name: str) -> int:
    given = request.headers.get(name, "")
    if not (given.isdecimal() and given.isascii() and len(given) < 17 and int(given) <= _FARTHEST):
        raise BadRequest(f"{name}: a number of bytes is needed")
    return int(given)


def _wish(request: Request) -> Wish:
    """From Upload-Metadata: names and their values in Base64, with commas between them; unknown names are passed over."""
    fields: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in request.headers.get("Upload-Metadata", "").split(","))):
        name, _, value = pair.partition(" ")
        try:
            fields[_ALIASES.get(name, name)] = base64.b64decode(value, validate=True).decode()
        except ValueError as fault:
            raise BadRequest(f"Upload-Metadata: {name} is not Base64 of UTF-8") from fault
    return read_wish(dict(request.query_params) | fields, only_known=False)


def _checksum(request: Request) -> Checksum | None:
    given = request.headers.get("Upload-Checksum")
    if given is None:
        return None
    algorithm, _, value = given.partition(" ")
    try:
        digest = base64.b64decode(value, validate=True)
    except ValueError:
        digest = b""
    if algorithm not in CHECKSUMS or not digest:
        raise BadRequest(f"Upload-Checksum: one of {', '.join(CHECKSUMS)}, a space, and Base64")
    return Checksum(algorithm, digest)


def _headers(upload: Upload, outcome: Outcome | None) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }
    if outcome is not None:
        headers["Beatline-Recording"] = str(outcome.recording.id)
        headers["Beatline-Duplicate"] = "true" if outcome.duplicate else "false"
    return headers


def _read(upload: Upload) -> UploadRead:
    return UploadRead.model_validate(upload.model_dump())
