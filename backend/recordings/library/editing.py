"""What people make of a recording: corrected segments, names of speakers, a title, who else may read it."""

from collections import Counter
from uuid import UUID

from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import Conflict, Invalid, NotFound
from backend.core.principal import Principal
from backend.recordings import access
from backend.recordings.access import Rights
from backend.recordings.library import reading
from backend.recordings.models import Recording, RecordingState, SegmentRow, SegmentVersion
from backend.recordings.repository.transcripts import TranscriptRepository
from backend.recordings.schemas import (
    RecordingRead,
    RecordingUpdate,
    SegmentRead,
    SegmentUpdate,
    SpeakerRead,
    SpeakerUpdate,
)


async def update_recording(
    session: Session, recording_id: UUID, wish: RecordingUpdate, principal: Principal
) -> RecordingRead:
    """Change the title, or with whom it is shared. NotFound (404), Forbidden (403) as in `access.changeable`."""
    recording = await access.changeable(session, recording_id, principal)
    given = wish.model_fields_set
    if "shared_role" in given and recording.owner_id is None:
        raise Invalid("shared_role: this recording is the team's, everybody reads it", code="shared_role")
    if "title" in given:
        recording.title = wish.title or None
    if "shared_role" in given:
        recording.shared_role = wish.shared_role.value if wish.shared_role else None
    recording.updated_at = utc_now()
    session.add(recording)
    await session.flush()
    owner = await TranscriptRepository(session).owner(recording)
    return reading.facts_of(recording, owner, Rights(read=True, change=True, manage=True))


async def rename_speaker(
    session: Session, recording_id: UUID, label: str, wish: SpeakerUpdate, principal: Principal
) -> SpeakerRead:
    """Say once who a speaker of a recording is. Two may have one name: who was taken for two people is one again."""
    _check_ready(await access.changeable(session, recording_id, principal))
    speaker = await TranscriptRepository(session).speaker(recording_id, label)
    if speaker is None:
        raise NotFound(f"recording {recording_id} has no speaker {label}")
    speaker.name = wish.name if wish.name and wish.name != label else None
    session.add(speaker)
    await session.flush()
    return reading.speaker(speaker)


async def edit_segment(
    session: Session, recording_id: UUID, number: int, wish: SegmentUpdate, principal: Principal
) -> SegmentRead:
    """Correct what a segment says or who says it; what it was before is kept. The same again changes nothing.

    Conflict (409, `version`, with the segment as it is now) where it is not the version that the wish was made for; 409
    `not_ready` while a recording is being transcribed. Invalid (422) for a speaker that the recording has not.
    """
    _check_ready(await access.changeable(session, recording_id, principal))
    transcripts = TranscriptRepository(session)
    row = await transcripts.segment(recording_id, number, lock=True)
    if row is None:
        raise NotFound(f"recording {recording_id} has no segment {number}")
    names = reading.names(await transcripts.speakers(recording_id))
    if row.version != wish.version:
        detail = f"segment {number} has version {row.version} by now, not {wish.version}: read it again"
        now = reading.segment(row, names).model_dump(mode="json")
        raise Conflict(detail, code="version", segment=now)
    text = wish.text if wish.text is not None else row.text
    speaker = wish.speaker if "speaker" in wish.model_fields_set else row.speaker
    if speaker is not None and speaker != row.speaker and await transcripts.speaker(recording_id, speaker) is None:
        labels = [each.label for each in await transcripts.speakers(recording_id)]
        raise Invalid(f"speaker: {speaker} is none of {', '.join(labels) or 'no speakers'}", code="speaker")
    if (text, speaker) != (row.text, row.speaker):
        await _write(session, row, text, speaker, principal)
    return reading.segment(row, names)


async def _write(session: Session, row: SegmentRow, text: str, speaker: str | None, principal: Principal) -> None:
    transcripts = TranscriptRepository(session)
    written = row.updated_at or await transcripts.made_at(row.recording_id) or utc_now()
    session.add(
        SegmentVersion(
            recording_id=row.recording_id,
            number=row.number,
            version=row.version,
            speaker=row.speaker,
            text=row.text,
            written_by=row.updated_by,
            written_at=written,
        )
    )
    moved = Counter({speaker: row.end_ms - row.start_ms})
    moved.subtract({row.speaker: row.end_ms - row.start_ms})
    row.text, row.speaker, row.version = text, speaker, row.version + 1
    row.updated_by, row.updated_at = principal.name, utc_now()
    session.add(row)
    await session.flush()
    await transcripts.move_speech(row.recording_id, {label: ms for label, ms in moved.items() if label and ms})


def _check_ready(recording: Recording) -> None:
    if recording.state != RecordingState.READY:
        raise Conflict(
            f"recording {recording.id} is {recording.state}: there is no transcript to change", code="not_ready"
        )
