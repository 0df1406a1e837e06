"""Read models of recordings: lists, one recording, what was said, the document that exports are made of."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.core.principal import Principal
from backend.recordings import access
from backend.recordings.access import Rights
from backend.recordings.keeping.retention import setting_days
from backend.recordings.library.exporting import Abstract, Document, Line, Party
from backend.recordings.models import Recording, RecordingKind, RecordingState, SegmentRow, SpeakerRow, SummaryRow
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.repository.transcripts import Facts, TranscriptRepository
from backend.recordings.schemas import (
    RecordingDetail,
    RecordingRead,
    SegmentRead,
    SegmentVersionRead,
    SpeakerRead,
    SummaryRead,
    TranscriptFacts,
)
from backend.recordings.service import LEASE
from backend.recordings.speech.base import Word

# What browsers play, by the end of a file's name; anything else is offered as bytes.
_AUDIO = {
    ".aac": "audio/aac",
    ".amr": "audio/amr",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}


@dataclass(frozen=True, slots=True)
class Sound:
    """A blob to be played. `tag` changes when its bytes do."""

    key: str
    name: str
    media_type: str
    tag: str


@dataclass(frozen=True, slots=True)
class Content:
    """What there is to read of a recording, but for the segments."""

    transcript: TranscriptFacts | None
    speakers: list[SpeakerRead]
    summary: SummaryRead | None


@dataclass(frozen=True, slots=True)
class Said:
    """A segment for pages that show another thing, such as a call. `speaker` is a label, `name` what people call them."""

    number: int
    start: float
    end: float
    speaker: str | None
    name: str | None
    text: str
    version: int


async def list_recordings(
    session: Session,
    principal: Principal,
    *,
    states: Collection[RecordingState] | None = None,
    kind: RecordingKind | None = None,
    mine: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[RecordingRead]:
    """Those that exist for `principal`, newest first; `mine`: those they own; `states` and `kind`: of these alone."""
    rows = await TranscriptRepository(session).listed(
        access.viewer(principal), states=states, kind=kind, mine=mine, before=decode_cursor(cursor), limit=limit + 1
    )
    page = rows[:limit]
    more = encode_cursor((page[-1][0].created_at, page[-1][0].id)) if len(rows) > limit else None
    items = []
    for recording, owner in page:
        granted = access.rights(principal, recording)
        if granted is not None:
            items.append(RecordingRead(**_facts(recording, owner, granted)))
    return Page(items=items, next_cursor=more)


async def read_recording(
    session: Session, recording_id: UUID, principal: Principal, *, config: Config
) -> RecordingDetail:
    """NotFound (404) for one that does not exist for `principal`. Content only for whoever may read it."""
    recording, granted = await access.known(session, recording_id, principal)
    transcripts = TranscriptRepository(session)
    facts = _facts(recording, await transcripts.owner(recording), granted)
    kept = await _kept_until(session, recording, config)
    if not granted.read:
        return RecordingDetail(**facts, options={}, transcript=None, speakers=[], summary=None, kept_until=kept)
    content = await content_of(session, recording)
    return RecordingDetail(
        **facts,
        options=recording.options,
        transcript=content.transcript,
        speakers=content.speakers,
        summary=content.summary,
        kept_until=kept,
    )


async def content_of(session: Session, recording: Recording) -> Content:
    """For whoever has asked `access` before."""
    transcripts = TranscriptRepository(session)
    row = await transcripts.summary(recording.id)
    return Content(
        transcript=_transcript(await transcripts.facts(recording.id), row),
        speakers=[speaker(each) for each in await transcripts.speakers(recording.id)],
        summary=SummaryRead.model_validate(row.model_dump()) if row else None,
    )


async def title_of(session: Session, recording_id: UUID, principal: Principal) -> str | None:
    """The title that follows from what is said; None where there is no summary. NotFound, Forbidden as in `access.readable`."""
    await access.readable(session, recording_id, principal)
    row = await TranscriptRepository(session).summary(recording_id)
    return row.title or None if row is not None else None


async def list_segments(
    session: Session, recording_id: UUID, principal: Principal, *, after: int = -1, limit: int | None = None
) -> list[SegmentRead]:
    """By number, those behind `after`. NotFound (404), Forbidden (403) as in `access.readable`."""
    await access.readable(session, recording_id, principal)
    return await segments_of(session, recording_id, after=after, limit=limit)


async def segments_of(
    session: Session, recording_id: UUID, *, after: int = -1, limit: int | None = None
) -> list[SegmentRead]:
    """For whoever has asked `access` before."""
    transcripts = TranscriptRepository(session)
    called = names(await transcripts.speakers(recording_id))
    return [segment(row, called) for row in await transcripts.segments(recording_id, after=after, limit=limit)]


async def list_versions(
    session: Session,
    recording_id: UUID,
    number: int,
    principal: Principal,
    *,
    before: int | None = None,
    limit: int = 100,
) -> list[SegmentVersionRead]:
    """What a segment says and what it said before, the newest first; `before` goes on behind a page."""
    await access.readable(session, recording_id, principal)
    transcripts = TranscriptRepository(session)
    row = await transcripts.segment(recording_id, number)
    if row is None:
        raise NotFound(f"recording {recording_id} has no segment {number}")
    written = row.updated_at or await transcripts.made_at(recording_id)
    assert written is not None, "segments come with a transcript"  # noqa: S101
    now = SegmentVersionRead(
        version=row.version, speaker=row.speaker, text=row.text, written_by=row.updated_by, written_at=written
    )
    shown = [now] if before is None or row.version < before else []
    older = await transcripts.versions(
        recording_id, number, before=row.version if before is None else before, limit=limit - len(shown)
    )
    return shown + [SegmentVersionRead.model_validate(each.model_dump()) for each in older]


async def list_speakers(session: Session, recording_id: UUID, principal: Principal) -> list[SpeakerRead]:
    await access.readable(session, recording_id, principal)
    return [speaker(row) for row in await TranscriptRepository(session).speakers(recording_id)]


async def read_document(session: Session, recording_id: UUID, principal: Principal) -> Document:
    """For an export. NotFound (404) also where there is no transcript (yet)."""
    return await document_of(session, await access.readable(session, recording_id, principal))


async def document_of(session: Session, recording: Recording) -> Document:
    """For whoever has asked `access` before. NotFound (404, `no_transcript`)."""
    transcripts = TranscriptRepository(session)
    facts = await transcripts.facts(recording.id)
    if facts is None:
        raise NotFound(
            f"recording {recording.id} has no transcript; its state is {recording.state}", code="no_transcript"
        )
    speakers = await transcripts.speakers(recording.id)
    summary = await transcripts.summary(recording.id)
    called, heard = names(speakers), await transcripts.heard(recording.id)
    return Document(
        title=recording.title,
        language=facts.row.language,
        duration_seconds=_seconds(recording.duration_ms),
        backend=facts.row.backend,
        model=facts.row.model,
        diarizer=facts.row.diarizer,
        parties=tuple(Party(row.label, row.name or row.label, row.spoken_ms / 1000) for row in speakers),
        lines=tuple(_line(row, called, heard) for row in await transcripts.segments(recording.id)),
        abstract=_abstract(summary),
        recording_id=str(recording.id),
        recorded_at=recording.created_at,
    )


def sound_of(recording: Recording) -> Sound:
    """For whoever has asked `access` before. NotFound (404, `no_audio`) while there is none in our storage."""
    if recording.blob_key is None:
        raise NotFound(f"the audio of recording {recording.id} is not here (yet)", code="no_audio")
    suffix = PurePath(recording.blob_key).suffix.lower()
    name = PurePath(recording.filename or "").stem or recording.title or str(recording.id)
    media_type = _AUDIO.get(suffix, "application/octet-stream")
    return Sound(recording.blob_key, f"{name}{suffix}", media_type, recording.sha256 or str(recording.id))


async def read_sound(session: Session, recording_id: UUID, principal: Principal) -> Sound:
    return sound_of(await access.readable(session, recording_id, principal))


async def read_sample(session: Session, recording_id: UUID, label: str, principal: Principal) -> Sound:
    """A short clip of a speaker's voice. NotFound (404) where there is none."""
    await access.readable(session, recording_id, principal)
    found = await TranscriptRepository(session).speaker(recording_id, label)
    if found is None or found.sample_key is None:
        raise NotFound(f"recording {recording_id} has no sample of a speaker {label}", code="no_sample")
    suffix = PurePath(found.sample_key).suffix.lower()
    media_type = _AUDIO.get(suffix, "application/octet-stream")
    return Sound(found.sample_key, f"{found.name or label}{suffix}", media_type, found.sample_key)


async def said_in(session: Session, *, kind: str, subject_id: UUID) -> list[Said]:
    """What was said in a subject's recording as it reads now, edits and names of speakers included; for other domains."""
    transcripts = TranscriptRepository(session)
    recording = await transcripts.subject(kind, subject_id)
    if recording is None:
        return []
    called = names(await transcripts.speakers(recording.id))
    return [Said(**_said(row, called)) for row in await transcripts.segments(recording.id)]


def segment(row: SegmentRow, called: dict[str, str]) -> SegmentRead:
    """`called`: names by label."""
    return SegmentRead(
        **_said(row, called),
        channel=row.channel,
        confidence=row.confidence,
        updated_by=row.updated_by,
        updated_at=row.updated_at,
    )


def _said(row: SegmentRow, called: dict[str, str]) -> dict[str, Any]:
    """What each view of a segment says of it."""
    return {
        "number": row.number,
        "start": row.start_ms / 1000,
        "end": row.end_ms / 1000,
        "speaker": row.speaker,
        "name": called.get(row.speaker, row.speaker) if row.speaker is not None else None,
        "text": row.text,
        "version": row.version,
    }


def facts_of(recording: Recording, owner: str | None, granted: Rights) -> RecordingRead:
    """For whoever has asked `access` before."""
    return RecordingRead(**_facts(recording, owner, granted))


def _facts(recording: Recording, owner: str | None, granted: Rights) -> dict[str, Any]:
    stalled = _is_stalled(recording)
    return {name: getattr(recording, name) for name in _SAME} | {
        "stalled": stalled,
        "seconds_left": None if stalled else recording.seconds_left,
        "owner": owner,
        "title": recording.title if granted.read else None,
        "filename": recording.filename if granted.read else None,
        "cancelling": recording.cancel_requested_at is not None and recording.state not in _FINAL,
        "duration_seconds": _seconds(recording.duration_ms),
        "may_read": granted.read,
        "may_change": granted.change,
        "may_manage": granted.manage,
    }


def _is_stalled(recording: Recording) -> bool:
    """Whoever lives renews the lease four times within it."""
    if recording.state != RecordingState.TRANSCRIBING or recording.claimed_until is None:
        return False
    return recording.claimed_until < utc_now() + LEASE * 2 / 3


_SAME = (
    *("id", "kind", "subject_id", "owner_id", "shared_role", "state", "stage", "percent"),
    *("error", "error_code", "size_bytes", "codec", "channels", "created_at", "updated_at"),
)
_FINAL = (RecordingState.READY, RecordingState.FAILED, RecordingState.CANCELLED)


async def _kept_until(session: Session, recording: Recording, config: Config) -> Any:
    own = await RemovalRepository(session).own_days(recording.owner_id, recording.kind)
    days = own if own is not None else setting_days(config, RecordingKind(recording.kind))
    return recording.created_at + timedelta(days=days) if days else None


def _transcript(facts: Facts | None, summary: SummaryRow | None) -> TranscriptFacts | None:
    if facts is None:
        return None
    paid = [cost for cost in (facts.row.cost_usd, summary.cost_usd if summary else None) if cost is not None]
    return TranscriptFacts(
        language=facts.row.language,
        backend=facts.row.backend,
        model=facts.row.model,
        diarizer=facts.row.diarizer,
        cost_usd=sum(paid, Decimal(0)) if paid else None,
        segments=facts.segments,
        edited=facts.edited,
        created_at=facts.row.created_at,
    )


def speaker(row: SpeakerRow) -> SpeakerRead:
    return SpeakerRead(
        label=row.label,
        name=row.name or row.label,
        named=row.name is not None,
        spoken_seconds=row.spoken_ms / 1000,
        has_sample=row.sample_key is not None,
    )


def _abstract(row: SummaryRow | None) -> Abstract | None:
    return Abstract(row.title, row.summary, tuple(row.action_items), row.backend, row.model) if row else None


def _line(row: SegmentRow, called: dict[str, str], heard: Sequence[dict[str, Any]]) -> Line:
    machine = heard[row.number] if row.number < len(heard) else {}
    # The times of words that an edit has changed are nobody's.
    words = machine.get("words", ()) if machine.get("text") == row.text else ()
    return Line(
        **_said(row, called),
        channel=row.channel,
        confidence=row.confidence,
        words=tuple(Word(**word) for word in words),
    )


def names(speakers: Sequence[SpeakerRow]) -> dict[str, str]:
    """What people call them, by label; those without a name are left out."""
    return {row.label: row.name for row in speakers if row.name is not None}


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds is not None else None
