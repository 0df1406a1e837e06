"""An egress folder, a storage, the door, and an engine that is told what to hear."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import update
from sqlmodel import col

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings import service
from backend.recordings.models import Recording, RecordingState, TranscriptRow
from backend.recordings.speech.base import Transcript, Word, said
from tests.fixtures.sent import Sent

HEARD = Transcript(
    segments=(
        said([Word(0.0, 0.5, " Good", 0.9), Word(0.5, 1.0, " morning.", 0.7)], speaker="agent", channel=0),
        said([Word(1.2, 1.6, " Yes?", 0.8)], speaker="customer", channel=1),
    ),
    language="en",
    duration_seconds=2.25,
    channels=2,
    backend="scripted",
    model="none",
)


@dataclass
class Scripted:
    """A transcriber: does `act` for each file, then answers."""

    act: Callable[[Path], object] = lambda _: None
    heard: list[tuple[Path, list[str]]] = field(default_factory=list)

    def __call__(self, path: Path, speakers: Sequence[str]) -> Transcript:
        self.heard.append((path, list(speakers)))
        self.act(path)
        return HEARD


@dataclass
class Desk:
    """What the tests work with: an egress folder, our storage, and the door."""

    db: Database
    sent: Sent
    egress: Path
    storage: FolderStorage
    subject: UUID = field(default_factory=uuid4)

    def write(self, name: str = "call.ogg", content: bytes = b"OggS sound") -> Path:
        path = self.egress / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def register(self, source: Path | str, *, subject: UUID | None = None) -> Recording:
        async with self.db.transaction() as session:
            return await service.register(
                session,
                kind="call",
                subject_id=subject or self.subject,
                source_path=str(source),
                duration_ms=2_000,
                channel_speakers=["agent", "customer"],
                then_task="extract_call_outcome",
            )

    async def transcribe(
        self, recording: Recording, transcriber: Scripted | None = None, *, lease: timedelta = service.LEASE
    ) -> RecordingState | None:
        return await service.transcribe(
            self.db,
            transcriber or Scripted(),
            self.storage,
            recording_id=recording.id,
            egress_dir=self.egress,
            lease=lease,
        )

    async def now(self) -> Recording:
        async with self.db.transaction() as session:
            recording = await service.find(session, kind="call", subject_id=self.subject)
        assert recording is not None
        return recording

    async def transcript(self) -> TranscriptRow | None:
        async with self.db.transaction() as session:
            return await service.transcript_of(session, kind="call", subject_id=self.subject)

    async def pass_time(self, span: timedelta) -> None:
        """As if everything had happened `span` earlier."""
        async with self.db.transaction() as session:
            await session.exec(
                update(Recording).values(
                    next_attempt_at=col(Recording.next_attempt_at) - span,
                    claimed_until=col(Recording.claimed_until) - span,
                )
            )


@dataclass
class Held:
    """Work that begins, and ends when it is let go."""

    began: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _: Path) -> None:
        self.began.set()
        assert self.let_go.wait(20)


class Killed(BaseException):
    """Ends a worker as a signal does: nothing is caught, nothing is recorded."""


def die(_: Path) -> None:
    raise Killed
