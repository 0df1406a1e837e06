"""Recordings with transcripts for tests, as the pipeline leaves them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings.languages import search_config
from backend.recordings.models import Recording, SegmentRow, SpeakerRow, SummaryRow, TranscriptRow

SOUND = bytes(range(256)) * 40
TALK = (
    (0.0, 2.0, "Speaker 1", "Good morning, this is the insurance office."),
    (2.5, 4.0, "Speaker 2", "Hello, I am calling about my running policies."),
    (4.5, 8.0, "Speaker 1", "Which of the policies do you mean?"),
)


def words_of(start: float, end: float, said: str) -> list[dict[str, Any]]:
    """Words that share the time evenly."""
    parts = said.split()
    step = (end - start) / max(1, len(parts))
    return [
        {"start": start + step * index, "end": start + step * (index + 1), "text": f" {part}", "confidence": 0.9}
        for index, part in enumerate(parts)
    ]


@dataclass
class Made:
    """A note of somebody's, ready, with two speakers; what differs is given."""

    owner_id: UUID | None = None
    talk: Sequence[tuple[float, float, str | None, str]] = TALK
    language: str = "en"
    kind: str = "note"
    age: timedelta = timedelta()
    storage: Path | None = None
    sound: bytes = SOUND
    summary: bool = True
    fields: dict[str, Any] = field(default_factory=dict)

    async def add(self, db: Database) -> Recording:
        recording = self._recording()
        if self.storage is not None:
            await self._store(recording)
        async with db.transaction() as session:
            session.add(recording)
            await session.flush()
            if recording.state == "ready":
                for row in self._rows(recording.id):
                    session.add(row)
                await session.flush()
            connection = await session.connection()
            aged = text("update recordings set created_at = created_at - cast(:age as interval) where id = :id")
            await connection.execute(aged, {"age": self.age, "id": recording.id})
        return recording

    def _recording(self) -> Recording:
        key = uuid4()
        given: dict[str, Any] = {
            "id": key,
            "kind": self.kind,
            "subject_id": key,
            "owner_id": self.owner_id,
            "title": "A talk",
            "filename": "talk.ogg",
            "state": "ready",
            "source_path": "",
            "blob_key": f"notes/{key}.ogg" if self.storage is not None else None,
            "sha256": uuid4().hex,
            "size_bytes": len(self.sound),
            "duration_ms": 8_000,
            "channels": 1,
        }
        return Recording(**(given | self.fields))

    async def _store(self, recording: Recording) -> None:
        assert self.storage is not None
        storage = FolderStorage(self.storage)
        for key in (recording.blob_key, *(f"samples/{recording.id}/{n}.wav" for n in (0, 1))):
            path = storage.path(str(key))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.sound)

    def _rows(self, key: UUID) -> list[Any]:
        heard = [
            {
                "start": start,
                "end": end,
                "speaker": speaker,
                "channel": None,
                "text": said,
                "words": words_of(start, end, said),
                "confidence": 0.9,
            }
            for start, end, speaker, said in self.talk
        ]
        transcript = TranscriptRow(
            recording_id=key,
            language=self.language,
            text="\n".join(said for *_, said in self.talk),
            segments=heard,
            backend="local",
            model="tiny",
            diarizer="campplus",
        )
        segments = [
            SegmentRow(
                recording_id=key,
                number=number,
                start_ms=round(start * 1000),
                end_ms=round(end * 1000),
                speaker=speaker,
                text=said,
                confidence=0.9,
                config=search_config(self.language),
            )
            for number, (start, end, speaker, said) in enumerate(self.talk)
        ]
        labels = list(dict.fromkeys(speaker for _, _, speaker, _ in self.talk if speaker))
        speakers = [
            SpeakerRow(
                recording_id=key,
                label=label,
                position=position,
                spoken_ms=sum(round((end - start) * 1000) for start, end, who, _ in self.talk if who == label),
                sample_key=f"samples/{key}/{position}.wav" if self.storage is not None else None,
            )
            for position, label in enumerate(labels)
        ]
        summary = SummaryRow(
            recording_id=key, title="A talk", summary="They talk.", action_items=["Call back"], backend="extractive"
        )
        return [transcript, *segments, *speakers, *([summary] if self.summary else [])]


async def add_recording(db: Database, owner_id: UUID | None = None, **given: Any) -> Recording:
    """A ready note, unless `given` says otherwise: members of Made, others are columns."""
    known = {name: given.pop(name) for name in list(given) if name in Made.__dataclass_fields__}
    return await Made(owner_id=owner_id, fields=given, **known).add(db)


def at(recording: Recording, path: str = "") -> str:
    """An address of the API."""
    return f"/api/recordings/{recording.id}{path}"
