"""Recordings as a worker leaves them, with real sound in the storage."""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from backend.core.clock import utc_now
from backend.core.db import Database
from backend.recordings.models import (
    Recording,
    RecordingState,
    SegmentRow,
    SpeakerRow,
    SummaryRow,
    TranscriptRow,
)

SOUND = Path(__file__).parents[2] / "fixtures" / "audio" / "read_austen_2.wav"
TALK = (
    ("Speaker 1", "Good morning, shall we look at the renewal of your policy?", 0.94),
    ("Speaker 2", "Yes, please. The premium went up and I would like to know why.", 0.91),
    ("Speaker 2", "And my address has changed.", 0.42),
    ("Speaker 1", "Of course, I will send you the new form today.", 0.96),
)


@dataclass(frozen=True)
class Talk:
    """What is said in a recording: speaker, words and confidence, three seconds each."""

    lines: tuple[tuple[str | None, str, float | None], ...] = TALK
    title: str | None = "Renewal of the policy"
    summary: str = "The premium went up; the address has changed."
    action_items: tuple[str, ...] = ("Send the new form",)
    more: dict[str, Any] = field(default_factory=dict)


async def add_ready(
    db: Database, folder: Path, *, owner_id: UUID | None, talk: Talk | None = None, suffix: str = ".wav", **fields: Any
) -> UUID:
    """A recording with its transcript; `folder` is the storage's, `suffix` what its file's name ends in there."""
    talk = talk or Talk()
    recording_id = uuid4()
    key = f"notes/{recording_id}{suffix}"
    target = folder / key
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SOUND, target)
    given: dict[str, Any] = {
        "title": talk.title,
        "state": RecordingState.READY,
        "blob_key": key,
        "sha256": hashlib.sha256(recording_id.bytes).hexdigest(),
        "size_bytes": target.stat().st_size,
        "codec": "pcm_s16le",
        "channels": 1,
        "duration_ms": 3_000 * len(talk.lines),
    }
    await add_recording(db, owner_id=owner_id, recording_id=recording_id, **(given | fields))
    async with db.transaction() as session:
        for row in _rows(recording_id, talk):
            session.add(row)
    return recording_id


def _rows(recording_id: UUID, talk: Talk) -> list[Any]:
    speakers = list(dict.fromkeys(speaker for speaker, _, _ in talk.lines if speaker))
    text = "\n".join(words for _, words, _ in talk.lines)
    rows: list[Any] = [
        TranscriptRow(
            recording_id=recording_id, language="en", text=text, backend="faster-whisper", model="whisper-base-int8"
        ),
        SummaryRow(
            recording_id=recording_id,
            title=talk.title or "Talk",
            summary=talk.summary,
            action_items=list(talk.action_items),
            backend="extractive",
        ),
    ]
    rows += [
        SpeakerRow(
            recording_id=recording_id,
            label=label,
            position=position,
            spoken_ms=3_000 * sum(speaker == label for speaker, _, _ in talk.lines),
        )
        for position, label in enumerate(speakers)
    ]
    return rows + [
        SegmentRow(
            recording_id=recording_id,
            number=number,
            start_ms=3_000 * number,
            end_ms=3_000 * number + 2_800,
            speaker=speaker,
            text=words,
            confidence=confidence,
            config="english",
        )
        for number, (speaker, words, confidence) in enumerate(talk.lines)
    ]


async def add_recording(
    db: Database, *, owner_id: UUID | None, recording_id: UUID | None = None, **fields: Any
) -> UUID:
    """A note as it is before a worker is done with it."""
    recording_id = recording_id or uuid4()
    given: dict[str, Any] = {
        "kind": "note",
        "subject_id": recording_id,
        "source_path": "",
        "filename": "monday.wav",
        "state": RecordingState.FETCHED,
        "sha256": hashlib.sha256(recording_id.bytes).hexdigest(),
        "next_attempt_at": utc_now(),
    }
    async with db.transaction() as session:
        session.add(Recording(id=recording_id, owner_id=owner_id, **(given | fields)))
    return recording_id
