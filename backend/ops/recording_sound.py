"""What a recording's page plays and gives away as files. Players send the pages' cookie, which goes to `/ops` alone."""

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Viewer
from backend.ops.context import Frames, render
from backend.ops.recordings import is_film, is_played
from backend.recordings.api.audio import StorageDep, answer
from backend.recordings.api.recordings import file_of
from backend.recordings.library import reading
from backend.recordings.schemas import ExportFormat

router = APIRouter(prefix="/recordings/{recording_id}")

At = Annotated[float | None, Query(alias="t", ge=0, le=1_000_000)]


@router.get("/player")
async def show_player(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    principal: Viewer,
    recording_id: UUID,
    at: At = None,
    play: bool = True,
    label: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """The player, for a frame: at `t` seconds, and on from there unless `play` says no; or with the voice of one speaker.

    The file itself would not do: whatever somebody has uploaded is answered in a sandbox, in which it cannot ask for its own bytes.
    """
    recording = await reading.read_recording(session, recording_id, principal, config=config)
    base = f"/ops/recordings/{recording_id}"
    context = {
        "base": base,
        "source": f"{base}/sample?{urlencode({'label': label})}" if label else f"{base}/audio",
        "back": f"{base}/player" if label else "",
        "at": at,
        "play": bool(label) or (play and at is not None),
        # Browsers show captions beneath a picture alone.
        "film": is_film(recording) and not label,
        # The voices are ours to choose.
        "played": bool(label) or is_played(recording.codec, recording.filename),
        "codec": recording.codec,
        "captions": recording.transcript is not None,
        "language": recording.transcript.language if recording.transcript else None,
    }
    return render(request, "recording_player.html", context, frames=Frames.INSIDE)


@router.head("/audio")
@router.get("/audio")
async def send_audio(
    db: DatabaseDep, principal: Viewer, storage: StorageDep, request: Request, recording_id: UUID
) -> Response:
    async with db.transaction() as session:
        sound = await reading.read_sound(session, recording_id, principal)
    return await answer(request, storage, sound)


@router.head("/sample")
@router.get("/sample")
async def send_sample(
    db: DatabaseDep,
    principal: Viewer,
    storage: StorageDep,
    request: Request,
    recording_id: UUID,
    label: Annotated[str, Query(max_length=100)],
) -> Response:
    """A few seconds of a voice."""
    async with db.transaction() as session:
        sound = await reading.read_sample(session, recording_id, label, principal)
    return await answer(request, storage, sound)


@router.get("/captions.vtt")
async def send_captions(db: DatabaseDep, principal: Viewer, recording_id: UUID) -> Response:
    return await _file(db, principal, recording_id, ExportFormat.VTT, download=False)


@router.get("/text")
async def show_text(db: DatabaseDep, principal: Viewer, recording_id: UUID) -> Response:
    """Plain text in the browser, to copy from."""
    return await _file(db, principal, recording_id, ExportFormat.TXT, download=False)


@router.get("/export.{form}")
async def export(db: DatabaseDep, principal: Viewer, recording_id: UUID, form: ExportFormat) -> Response:
    """The transcript as a file to keep."""
    return await _file(db, principal, recording_id, form, download=True)


async def _file(
    db: DatabaseDep, principal: Viewer, recording_id: UUID, form: ExportFormat, *, download: bool
) -> Response:
    async with db.transaction() as session:
        document = await reading.read_document(session, recording_id, principal)
    return await file_of(document, form, download=download)
