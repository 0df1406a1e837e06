"""HTTP of recordings: lists, one recording, its words, what people change, deleting, searching, retention."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.core.paging import Page
from backend.core.throttle import caller, limited
from backend.core.web import (
    AdminDep,
    ConfigDep,
    DatabaseDep,
    PersonDep,
    SessionDep,
    Viewer,
    ViewerDep,
    WriterDep,
    private,
)
from backend.recordings.api.audio import StorageDep
from backend.recordings.keeping import removing, retention
from backend.recordings.library import editing, exporting, managing, reading, searching
from backend.recordings.models import RecordingKind, RecordingState
from backend.recordings.schemas import (
    ExportFormat,
    Label,
    Number,
    RecordingDetail,
    RecordingRead,
    RecordingUpdate,
    Removed,
    RetentionRead,
    RetentionUpdate,
    SearchPage,
    SearchText,
    SegmentRead,
    SegmentUpdate,
    SegmentVersionRead,
    SpeakerRead,
    SpeakerUpdate,
    TranscribeWish,
)

router = APIRouter(prefix="/api/recordings", tags=["recordings"])

Limit = Annotated[int, Query(ge=1, le=200)]
_FILE = {"schema": {"type": "string"}}
_EXPORTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The transcript; docs/operations/transcripts.md describes each format.",
        "content": {media.partition(";")[0]: _FILE for media in exporting.MEDIA_TYPES.values()},
    }
}


@router.get("")
async def list_recordings(
    session: SessionDep,
    principal: ViewerDep,
    state: RecordingState | None = None,
    kind: RecordingKind | None = None,
    mine: bool = False,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[RecordingRead]:
    """Recordings that you may know of, newest first; `mine`: those that you have uploaded."""
    states = {state} if state is not None else None
    return await reading.list_recordings(
        session, principal, states=states, kind=kind, mine=mine, cursor=cursor, limit=limit
    )


@router.get("/search", dependencies=[Viewer, limited("60/minute", name="recordings-search", key=caller)])
async def search_recordings(
    session: SessionDep,
    principal: ViewerDep,
    q: Annotated[SearchText, Query(description='Words, "a phrase", or, -without')],
    recording_id: UUID | None = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> SearchPage:
    """Who said what: segments with these words, in recordings that you may read."""
    return await searching.search(session, q, principal, only=recording_id, cursor=cursor, limit=limit)


@router.get("/retention")
async def list_own_retention(session: SessionDep, config: ConfigDep, principal: PersonDep) -> list[RetentionRead]:
    """For how long your recordings are kept."""
    return await retention.list_retention(session, retention.own(principal), config=config)


@router.put("/retention")
async def set_own_retention(
    session: SessionDep, config: ConfigDep, principal: PersonDep, body: RetentionUpdate
) -> RetentionRead:
    """Keep your recordings for fewer days than the setting; what is due then goes with the next cleaning."""
    return await retention.set_retention(session, retention.own(principal), body, principal=principal, config=config)


@router.get("/retention/users/{user_id}")
async def list_retention(session: SessionDep, config: ConfigDep, _: AdminDep, user_id: UUID) -> list[RetentionRead]:
    """For how long somebody's recordings are kept."""
    return await retention.list_retention(session, user_id, config=config)


@router.put("/retention/users/{user_id}")
async def set_retention(
    session: SessionDep, config: ConfigDep, principal: AdminDep, user_id: UUID, body: RetentionUpdate
) -> RetentionRead:
    """Keep somebody's recordings for another time than the setting, longer too."""
    return await retention.set_retention(session, user_id, body, principal=principal, config=config)


@router.get("/{recording_id}")
async def read_recording(
    session: SessionDep, config: ConfigDep, principal: ViewerDep, recording_id: UUID
) -> RecordingDetail:
    """One recording: how far it is, how it was made, who speaks, what it is about."""
    return await reading.read_recording(session, recording_id, principal, config=config)


@router.patch("/{recording_id}", dependencies=[private("title")])
async def update_recording(
    session: SessionDep, principal: WriterDep, recording_id: UUID, body: RecordingUpdate
) -> RecordingRead:
    """Change the title, or the role that it is shared with."""
    return await editing.update_recording(session, recording_id, body, principal)


@router.delete("/{recording_id}")
async def delete_recording(
    db: DatabaseDep, config: ConfigDep, principal: WriterDep, storage: StorageDep, recording_id: UUID
) -> Removed:
    """Delete a recording for good: sound, words, edits, index, speakers, summary, links. Answers what went."""
    return await removing.remove(db, storage, recording_id, principal, config=config)


@router.post("/{recording_id}/cancel", status_code=202)
async def cancel_recording(session: SessionDep, principal: WriterDep, recording_id: UUID) -> RecordingRead:
    """Stop the work on a recording: at once where nobody is at it, else within seconds."""
    return await managing.cancel(session, recording_id, principal)


@router.post("/{recording_id}/retry", status_code=202)
async def retry_recording(session: SessionDep, principal: WriterDep, recording_id: UUID) -> RecordingRead:
    """Transcribe a recording that has failed or was cancelled once more; it counts on today's quota of its owner."""
    return await managing.retry(session, recording_id, principal)


@router.post("/{recording_id}/transcribe", status_code=202, dependencies=[private("hints")])
async def transcribe_recording(
    db: DatabaseDep,
    principal: WriterDep,
    storage: StorageDep,
    recording_id: UUID,
    body: TranscribeWish | None = None,
) -> RecordingRead:
    """Transcribe a recording once more, with other options; what is there stays until the new transcript takes its place.

    It counts on today's quota of its owner. 409 `edited` where somebody has corrected segments or named speakers: `discard_edits`.
    """
    return await managing.transcribe(db, storage, recording_id, body or TranscribeWish(), principal)


@router.get("/{recording_id}/transcript", response_class=Response, responses=_EXPORTS)
async def read_transcript(
    db: DatabaseDep,
    principal: ViewerDep,
    recording_id: UUID,
    form: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.JSON,
    download: bool = False,
) -> Response:
    """What was said as a file: JSON with word times, plain text, SubRip or WebVTT; edits and names included."""
    async with db.transaction() as session:
        document = await reading.read_document(session, recording_id, principal)
    return await file_of(document, form, download=download)


async def file_of(document: exporting.Document, form: ExportFormat, *, download: bool) -> Response:
    """The answer with an export."""
    text = await asyncio.to_thread(exporting.export, document, form)
    name = quote(f"{document.title or document.recording_id}.{form}", safe="")
    headers = {
        "Content-Disposition": f"{'attachment' if download else 'inline'}; filename*=UTF-8''{name}",
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(text, media_type=exporting.MEDIA_TYPES[form], headers=headers)


@router.get("/{recording_id}/segments")
async def list_segments(
    session: SessionDep,
    principal: ViewerDep,
    recording_id: UUID,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1)] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[SegmentRead]:
    """Segments as they read now, with their versions, those behind the number `after`."""
    return await reading.list_segments(session, recording_id, principal, after=after, limit=limit)


@router.put("/{recording_id}/segments/{number}", dependencies=[private("text")])
async def edit_segment(
    session: SessionDep, principal: WriterDep, recording_id: UUID, number: Number, body: SegmentUpdate
) -> SegmentRead:
    """Correct what a segment says, or who says it; 409 where somebody has changed it since you read it."""
    return await editing.edit_segment(session, recording_id, number, body, principal)


@router.get("/{recording_id}/segments/{number}/versions")
async def list_versions(
    session: SessionDep,
    principal: ViewerDep,
    recording_id: UUID,
    number: Number,
    before: Annotated[int | None, Query(ge=2, le=2**31 - 1)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[SegmentVersionRead]:
    """What a segment says and has said, the newest first, those below the version `before`; version 1 is what the machine heard."""
    return await reading.list_versions(session, recording_id, number, principal, before=before, limit=limit)


@router.get("/{recording_id}/speakers")
async def list_speakers(session: SessionDep, principal: ViewerDep, recording_id: UUID) -> list[SpeakerRead]:
    """Who speaks, by first appearance."""
    return await reading.list_speakers(session, recording_id, principal)


@router.put("/{recording_id}/speakers/{label}", dependencies=[private("name")])
async def rename_speaker(
    session: SessionDep, principal: WriterDep, recording_id: UUID, label: Label, body: SpeakerUpdate
) -> SpeakerRead:
    """Say once who a speaker is: every segment, export and link shows it."""
    return await editing.rename_speaker(session, recording_id, label, body, principal)
