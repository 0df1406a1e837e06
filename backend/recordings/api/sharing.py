"""HTTP of share links: making and revoking them, and what they open without a sign-in."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from backend.audit.noting import Noted
from backend.audit.service import Recorder
from backend.core.clock import utc_now
from backend.core.logging import request_id
from backend.core.throttle import client_address, limited
from backend.core.web import DatabaseDep, SessionDep, WriterDep
from backend.recordings.api.audio import HEAD_RESPONSES, SOUND_RESPONSES, StorageDep, answer
from backend.recordings.api.recordings import file_of
from backend.recordings.library import sharing
from backend.recordings.schemas import ExportFormat, ShareCreate, SharedRead, ShareMade, ShareRead

router = APIRouter(prefix="/api/recordings", tags=["recordings"])
# The token in the path is the credential.
open_router = APIRouter(prefix="/api/shared", tags=["shared"])

Token = Annotated[str, Path(min_length=1, max_length=200)]
# A link passes from hand to hand; neither the next site nor a search engine is to have it.
_HEADERS = {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex", "Cache-Control": "private, no-store"}
_OPENED: dict[int | str, dict[str, Any]] = {410: {"description": "The link has expired or was revoked."}}


@router.post("/{recording_id}/shares", status_code=201)
async def create_share(
    session: SessionDep, principal: WriterDep, recording_id: UUID, body: ShareCreate, response: Response
) -> ShareMade:
    """A link that opens this recording to whoever has it, for at most a year; its token is shown this once."""
    response.headers["Cache-Control"] = "no-store"
    return await sharing.share(session, recording_id, body, principal)


@router.get("/{recording_id}/shares")
async def list_shares(session: SessionDep, principal: WriterDep, recording_id: UUID) -> list[ShareRead]:
    """The links of a recording with how often they were used, newest first: all that are open, the last hundred that are over."""
    return await sharing.list_shares(session, recording_id, principal)


@router.delete("/{recording_id}/shares/{share_id}")
async def revoke_share(session: SessionDep, principal: WriterDep, recording_id: UUID, share_id: UUID) -> ShareRead:
    """Close a link, for good."""
    return await sharing.revoke(session, recording_id, share_id, principal)


@open_router.get("/{token}", responses=_OPENED, dependencies=[limited("60/minute", name="shared")])
async def read_shared(session: SessionDep, token: Token, request: Request, response: Response) -> SharedRead:
    """What a link opens: who said what, and a summary. 404 for a link that opens nothing, 410 for one that is over."""
    shared = await sharing.read_shared(session, token)
    response.headers.update(_HEADERS)
    note(request)
    return shared


@open_router.get(
    "/{token}/transcript",
    response_class=Response,
    responses=_OPENED,
    dependencies=[limited("60/minute", name="shared")],
)
async def read_shared_transcript(
    db: DatabaseDep,
    token: Token,
    request: Request,
    form: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.TXT,
    download: bool = False,
) -> Response:
    """The words as a file."""
    async with db.transaction() as session:
        document = await sharing.shared_document(session, token)
    note(request)
    made = await file_of(document, form, download=download)
    made.headers.update(_HEADERS)
    return made


# A player asks for many parts of one file.
@open_router.head(
    "/{token}/audio",
    response_class=Response,
    responses={**HEAD_RESPONSES, **_OPENED},
    dependencies=[limited("600/minute", name="shared-audio")],
)
@open_router.get(
    "/{token}/audio",
    response_class=Response,
    responses={**SOUND_RESPONSES, **_OPENED},
    dependencies=[limited("600/minute", name="shared-audio")],
)
async def read_shared_audio(db: DatabaseDep, token: Token, storage: StorageDep, request: Request) -> Response:
    """The sound, where the link is for hearing too; one range of bytes at a time."""
    first = request.method == "GET" and request.headers.get("Range", "bytes=0-").startswith("bytes=0-")
    async with db.transaction() as session:
        sound = await sharing.shared_sound(session, token, counted=first)
    if first:
        note(request)
    made = await answer(request, storage, sound)
    made.headers.update(_HEADERS | {"Cache-Control": "private, no-cache"})
    return made


def note(request: Request) -> None:
    """In the log of operations, which otherwise has no reading: that somebody who has not signed in has opened a link."""
    recorder: Recorder = request.app.state.recorder
    route = request.scope.get("route")
    recorder.note(
        Noted(
            at=utc_now(),
            principal=None,
            method=request.method,
            route=str(getattr(route, "path_format", "")),
            path=request.url.path,
            params=dict(request.path_params),
            query=request.url.query,
            status=200,
            duration_ms=0.0,
            address=client_address(request),
            user_agent=request.headers.get("User-Agent", ""),
            request_id=request_id.get(),
            content_type="",
            body=None,
            size=0,
        )
    )
