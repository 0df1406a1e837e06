"""An egress folder, a storage, the door, and tools that are told what to hear."""

# ruff: noqa: ARG002 - the protocols have arguments that these stand-ins do without

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID, uuid4

import numpy as np
from sqlalchemy import update
from sqlmodel import SQLModel, col, select

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings import service
from backend.recordings.models import Checkpoint, Recording, RecordingState, TranscriptRow
from backend.recordings.pipeline import Tools
from backend.recordings.speech.base import HeardPart, Part, Segment, SpeakerCount, Tick, Transcript, Turn, Word, said
from backend.recordings.speech.samples import Samples
from backend.recordings.speech.voice_activity import Run
from backend.recordings.summaries.base import Summary, no_tick
from backend.recordings.work import running
from backend.recordings.work.running import Place
from tests.fixtures.sent import Sent
from tests.recordings.sounds import noise, silence, write_wav

Row = TypeVar("Row", bound=SQLModel)

Act = Callable[[Tick], object]

# What is heard on each channel of `two_parties`.
HEARD = (
    (said([Word(0.0, 0.5, " Good", 0.9), Word(0.5, 1.0, " morning.", 0.7)]),),
    (said([Word(1.2, 1.6, " Yes?", 0.8)]),),
)


def nothing(_: Tick) -> None:
    """For a stage at which nothing happens."""


def two_parties(path: Path, seconds: float = 2.25) -> Path:
    """A call whose first half is one party's and whose second is the other's, each on a channel."""
    first, second = noise(seconds / 2), noise(seconds / 2, seed=2)
    return write_wav(
        path, np.concatenate([first, silence(seconds / 2)]), np.concatenate([silence(seconds / 2), second])
    )


@dataclass
class Scripted:
    """Every tool of the pipeline: does what it is told to at each stage, then hears `script`, by channel.

    Parts are of `length` seconds; what a part hears is what the script has in it.
    """

    words: Act = nothing
    speech: Act = nothing
    speakers: Act = nothing
    summary: Act = nothing
    script: Sequence[Sequence[Segment]] = HEARD
    told: Sequence[Turn] = ()
    length: float = 1000.0
    language_spoken: str | None = "en"
    backend: str = "scripted"
    model: str = "none"
    heard: list[Part] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    counts: list[SpeakerCount] = field(default_factory=list)
    listened: int = 0
    summed_up: int = 0

    def acting(self, stage: str, act: Act) -> Self:
        """The same, doing `act` at a stage."""
        setattr(self, stage, act)
        return self

    def tools(self, **settings: Any) -> Tools:
        return Tools(
            engines={"local": lambda: self},
            open_diarizer=lambda: self,
            open_summarizer=lambda: self,
            open_voice=lambda: self,  # type: ignore[arg-type,return-value]  # it has the one method
            **settings,
        )

    def runs(self, samples: Samples, *, isolated: bool, tick: Tick) -> list[Run]:
        self.listened += 1
        self.speech(tick)
        loud = np.flatnonzero(np.abs(samples) > 100)
        return [Run(float(loud[0]) / 16_000, float(loud[-1]) / 16_000)] if loud.size else []

    def parts(self, runs: Sequence[Sequence[Run]], duration: float, *, isolated: bool) -> list[Part]:
        cuts = np.arange(0.0, duration, self.length)
        return [
            Part(channel, ((float(start), float(min(start + self.length, duration))),), isolated)
            for channel, found in enumerate(runs)
            for start in cuts
            if found
        ]

    def language(self, channels: Sequence[Samples], runs: Sequence[Sequence[Run]], tick: Tick) -> str | None:
        return self.language_spoken

    def hear(
        self, samples: Samples, part: Part, runs: Sequence[Run], *, language: str | None, hints: str | None, tick: Tick
    ) -> HeardPart:
        self.heard.append(part)
        self.languages.append(language)
        self.words(tick)
        found = [piece for piece in self.script[part.channel] if part.start <= piece.start < part.end]
        return HeardPart(tuple(found), language, {"parts": 1.0})

    def joined(self, parts: Sequence[Part], heard: Sequence[HeardPart]) -> list[Segment]:
        return [segment for piece in heard for segment in piece.segments]

    def cost(self, usage: dict[str, float], seconds: float) -> float | None:
        return 0.25 * usage["parts"] if usage else None

    def turns(self, samples: Samples, runs: Sequence[Run], count: SpeakerCount, tick: Tick) -> list[Turn]:
        self.counts.append(count)
        self.speakers(tick)
        return list(self.told)

    def summarize(
        self, transcript: Transcript, language: str | None = None, *, names: Sequence[str] = (), tick: Tick = no_tick
    ) -> Summary:
        self.summed_up += 1
        self.summary(tick)
        return Summary("A greeting", transcript.text, ("Answer.",), "scripted", model="none", cost=0.5)


@dataclass
class Desk:
    """What the tests work with: an egress folder, our storage, and the door."""

    db: Database
    sent: Sent
    egress: Path
    storage: FolderStorage
    work: Path
    subject: UUID = field(default_factory=uuid4)

    def write(self, name: str = "call.wav", content: bytes | None = None) -> Path:
        path = self.egress / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            return two_parties(path)
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

    async def note(self, source: Path, *, owner: UUID | None = None, **values: Any) -> Recording:
        """An upload that is complete."""
        note = Recording(
            kind="note", subject_id=uuid4(), source_path="", owner_id=owner, state=RecordingState.FETCHED, **values
        )
        note.subject_id = note.id
        blob = await self.storage.put(f"notes/{note.id}{source.suffix}", source)
        note.blob_key, note.sha256, note.size_bytes = blob.key, blob.sha256, blob.size_bytes
        async with self.db.transaction() as session:
            session.add(note)
        self.subject = note.id
        return note

    async def transcribe(
        self,
        recording: Recording,
        scripted: Scripted | None = None,
        *,
        lease: timedelta = service.LEASE,
        **options: Any,
    ) -> RecordingState | None:
        return await running.transcribe(
            self.db,
            (scripted or Scripted()).tools(),
            self.place,
            recording_id=recording.id,
            lease=lease,
            **options,
        )

    @property
    def place(self) -> Place:
        return Place(self.storage, self.egress, self.work)

    async def cancel(self, recording: Recording) -> Recording | None:
        async with self.db.transaction() as session:
            return await service.cancel(session, recording.id)

    async def now(self) -> Recording:
        async with self.db.transaction() as session:
            found = await session.exec(select(Recording).where(Recording.subject_id == self.subject))
            return found.one()

    async def rows(self, kind: type[Row]) -> list[Row]:
        """All of a table."""
        async with self.db.transaction() as session:
            return list((await session.exec(select(kind))).all())

    async def checkpoints(self) -> list[tuple[str, int]]:
        async with self.db.transaction() as session:
            rows = (await session.exec(select(Checkpoint).order_by(col(Checkpoint.stage), col(Checkpoint.part)))).all()
        return [(row.stage, row.part) for row in rows]

    async def transcript(self) -> TranscriptRow | None:
        async with self.db.transaction() as session:
            return (
                await session.exec(
                    select(TranscriptRow)
                    .join(Recording, col(Recording.id) == TranscriptRow.recording_id)
                    .where(Recording.subject_id == self.subject)
                )
            ).first()

    async def change(self, **values: Any) -> None:
        """Of every recording."""
        async with self.db.transaction() as session:
            await session.exec(update(Recording).values(**values))

    async def pass_time(self, span: timedelta) -> None:
        """As if everything had happened `span` earlier."""
        async with self.db.transaction() as session:
            await session.exec(
                update(Recording).values(
                    next_attempt_at=col(Recording.next_attempt_at) - span,
                    claimed_until=col(Recording.claimed_until) - span,
                    updated_at=col(Recording.updated_at) - span,
                )
            )


@dataclass
class Held:
    """Work that begins, and ends when it is let go, or stopped by its tick."""

    began: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def __call__(self, tick: Tick) -> None:
        self.began.set()
        for _ in range(400):
            if self.let_go.wait(0.05):
                return
            tick(0.5)
        raise AssertionError("nobody let it go")


class Killed(BaseException):
    """Ends a worker as a signal does: nothing is caught, nothing is recorded."""


def die(_: Tick) -> None:
    raise Killed
