"""Tables of the recordings: one row per recording, one per finished transcript. Instants are UTC."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base


class RecordingState(StrEnum):
    """`registered`: known, perhaps not written yet; `fetched`: in our storage; the last two are final."""

    REGISTERED = "registered"
    FETCHED = "fetched"
    TRANSCRIBING = "transcribing"
    READY = "ready"
    FAILED = "failed"


class Recording(Base, table=True):
    """A recording of a subject, such as a call.

    `claimed_until` is the lease of the worker at it, `next_attempt_at` when the sweep sends it again. `attempts` is the
    fence: a worker may write only while the number is the one that its own claim gave. `channel_speakers` names the
    parties by channel. `then_task` is sent with the subject's id once the transcript is there, or will never be.
    """

    __tablename__: ClassVar[str] = "recordings"
    __table_args__ = (
        UniqueConstraint("kind", "subject_id"),
        CheckConstraint("kind in ('call')", name="kind"),
        CheckConstraint("state in ('registered','fetched','transcribing','ready','failed')", name="state"),
        Index(
            "ix_recordings_next_attempt_at_open",
            "next_attempt_at",
            postgresql_where=text("state in ('registered','fetched','transcribing')"),
        ),
        Index("ix_recordings_created_at_id", "created_at", "id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    kind: str = Field(sa_type=Text)
    subject_id: UUID
    state: str = Field(default=RecordingState.REGISTERED, sa_type=Text)
    source_path: str = Field(sa_type=Text)
    blob_key: str | None = Field(default=None, sa_type=Text)
    sha256: str | None = Field(default=None, sa_type=Text)
    size_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    duration_ms: int | None = None
    channels: int | None = None
    channel_speakers: list[str] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    claimed_until: datetime | None = None
    next_attempt_at: datetime = Field(default_factory=utc_now)
    attempts: int = 0
    error: str | None = Field(default=None, sa_type=Text)
    then_task: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class TranscriptRow(Base, table=True):
    """The transcript of a recording; `segments` as in speech/base.py, times in seconds from the recording's start."""

    __tablename__: ClassVar[str] = "transcripts"

    recording_id: UUID = Field(
        sa_column=Column(Uuid, ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True)
    )
    language: str | None = Field(default=None, sa_type=Text)
    text: str = Field(sa_type=Text)
    segments: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    backend: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
