"""Tables of the recordings: what was recorded, what was said, who may see it. Instants are UTC, offsets milliseconds."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, REGCONFIG, TSVECTOR
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base


class RecordingKind(StrEnum):
    """`call`: left by a call; `note`: uploaded by somebody."""

    CALL = "call"
    NOTE = "note"


class RecordingState(StrEnum):
    """`registered`: known, perhaps not written yet; `fetched`: in our storage; the last three are final."""

    REGISTERED = "registered"
    FETCHED = "fetched"
    TRANSCRIBING = "transcribing"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """What a worker does with a recording, in this order."""

    FETCH = "fetch"
    PROBE = "probe"
    DECODE = "decode"
    SPEECH = "speech"
    WORDS = "words"
    SPEAKERS = "speakers"
    SUMMARY = "summary"
    STORE = "store"


def _quoted(values: type[StrEnum]) -> str:
    return ",".join(f"'{value}'" for value in values)


def _recording(**options: Any) -> Column[Any]:
    return Column(Uuid, ForeignKey("recordings.id", ondelete="CASCADE"), nullable=False, **options)


def _json(default: str) -> Column[Any]:
    return Column(JSONB, nullable=False, server_default=text(f"'{default}'::jsonb"))


def _config() -> Column[Any]:
    return Column(REGCONFIG, nullable=False, server_default=text("'simple'"))


class Recording(Base, table=True):
    """A recording of a subject, such as a call; a note is its own subject.

    `claimed_until` is the lease of the worker at it, `next_attempt_at` when the sweep sends it again. `attempts` is the
    fence: a worker may write only while the number is the one that its own claim gave. `channel_speakers` names the
    parties by channel. `then_task` is sent with the subject's id once the transcript is there, or will never be.

    `stage`, `percent` and `seconds_left` say how far the worker is. `options` is a TranscribeOptions (options.py). A recording
    without `owner_id` belongs to the team, as calls do; one with an owner is seen by nobody else but for `shared_role` (whoever has
    at least that role) and by share links, so that a user who owns any is never deleted.
    """

    __tablename__: ClassVar[str] = "recordings"
    __table_args__ = (
        UniqueConstraint("kind", "subject_id"),
        CheckConstraint(f"kind in ({_quoted(RecordingKind)})", name="kind"),
        CheckConstraint(f"state in ({_quoted(RecordingState)})", name="state"),
        CheckConstraint(f"stage in ({_quoted(Stage)})", name="stage"),
        CheckConstraint("shared_role in ('viewer','operator','admin')", name="shared_role"),
        Index(
            "ix_recordings_next_attempt_at_open",
            "next_attempt_at",
            postgresql_where=text("state in ('registered','fetched','transcribing')"),
        ),
        Index("ix_recordings_created_at_id", "created_at", "id"),
        Index("ix_recordings_owner_id_created_at_id", "owner_id", "created_at", "id"),
        # What more than its owner may know of.
        Index(
            "ix_recordings_common",
            "created_at",
            "id",
            postgresql_where=text("owner_id is null or shared_role is not null"),
        ),
        Index("ix_recordings_team_sha256", "sha256", postgresql_where=text("kind = 'note' and owner_id is null")),
        Index(
            "uq_recordings_owner_id_sha256",
            "owner_id",
            "sha256",
            unique=True,
            postgresql_where=text("kind = 'note' and owner_id is not null"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    kind: str = Field(sa_type=Text)
    subject_id: UUID
    owner_id: UUID | None = Field(
        default=None, sa_column=Column(Uuid, ForeignKey("users.id", ondelete="RESTRICT"), nullable=True)
    )
    shared_role: str | None = Field(default=None, sa_type=Text)
    title: str | None = Field(default=None, sa_type=Text)
    filename: str | None = Field(default=None, sa_type=Text)
    options: dict[str, Any] = Field(default_factory=dict, sa_column=_json("{}"))
    state: str = Field(default=RecordingState.REGISTERED, sa_type=Text)
    stage: str | None = Field(default=None, sa_type=Text)
    percent: int | None = None
    seconds_left: int | None = None
    cancel_requested_at: datetime | None = None
    source_path: str = Field(sa_type=Text)
    blob_key: str | None = Field(default=None, sa_type=Text)
    sha256: str | None = Field(default=None, sa_type=Text)
    size_bytes: int | None = Field(default=None, sa_column=Column(BigInteger))
    codec: str | None = Field(default=None, sa_type=Text)
    duration_ms: int | None = None
    channels: int | None = None
    channel_speakers: list[str] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    claimed_until: datetime | None = None
    next_attempt_at: datetime = Field(default_factory=utc_now)
    attempts: int = 0
    # Attempts since the last checkpoint: a recording that gets on is not given up.
    tries: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    error: str | None = Field(default=None, sa_type=Text)
    # Of an error, for programs: such as `truncated_audio`.
    error_code: str | None = Field(default=None, sa_type=Text)
    then_task: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class Upload(Base, table=True):
    """An upload that is under way, by the tus protocol or in one request. `progress` is the storage's own, to go on with."""

    __tablename__: ClassVar[str] = "uploads"
    __table_args__ = (
        CheckConstraint("offset_bytes >= 0 and offset_bytes <= size_bytes", name="offset"),
        Index("ix_uploads_expires_at", "expires_at"),
        Index("ix_uploads_owner_id", "owner_id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    owner_id: UUID | None = Field(
        default=None, sa_column=Column(Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=True)
    )
    created_by: str = Field(sa_type=Text)
    filename: str | None = Field(default=None, sa_type=Text)
    title: str | None = Field(default=None, sa_type=Text)
    options: dict[str, Any] = Field(default_factory=dict, sa_column=_json("{}"))
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    offset_bytes: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    blob_key: str = Field(sa_type=Text)
    progress: dict[str, Any] = Field(default_factory=dict, sa_column=_json("{}"))
    # Once it is complete: what became of it.
    recording_id: UUID | None = None
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime


class Checkpoint(Base, table=True):
    """What a worker has done of a recording, so that the next one goes on from there; gone once the recording is final."""

    __tablename__: ClassVar[str] = "recording_checkpoints"

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    stage: str = Field(sa_type=Text, primary_key=True)
    part: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    value: Any = Field(default=None, sa_column=Column(JSONB, nullable=True))
    created_at: datetime = Field(default_factory=utc_now)


class TranscriptRow(Base, table=True):
    """What the machine heard; `segments` as in speech/base.py, times in seconds from the recording's start. Never edited.

    `cost_usd` is of transcription alone, None where nothing was paid or no price is set; `diarizer` told the speakers apart.
    """

    __tablename__: ClassVar[str] = "transcripts"

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    language: str | None = Field(default=None, sa_type=Text)
    text: str = Field(sa_type=Text)
    segments: list[dict[str, Any]] = Field(default_factory=list, sa_column=Column(JSONB, nullable=False))
    backend: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    diarizer: str | None = Field(default=None, sa_type=Text)
    usage: dict[str, Any] = Field(default_factory=dict, sa_column=_json("{}"))
    cost_usd: Decimal | None = Field(default=None, sa_column=Column(Numeric(12, 6), nullable=True))
    created_at: datetime = Field(default_factory=utc_now)


class SegmentRow(Base, table=True):
    """A segment as people read it now: `version` 1 is what the machine heard, each edit adds one. `speaker` is a label.

    `number` counts from 0, as in TranscriptRow.segments; `config` is languages.search_config of the transcript's language.
    """

    __tablename__: ClassVar[str] = "transcript_segments"
    __table_args__ = (Index("ix_transcript_segments_search", "search", postgresql_using="gin"),)

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    start_ms: int
    end_ms: int
    speaker: str | None = Field(default=None, sa_type=Text)
    channel: int | None = None
    text: str = Field(sa_type=Text)
    confidence: float | None = None
    version: int = 1
    config: str = Field(default="simple", sa_column=_config())
    search: str | None = Field(
        default=None, sa_column=Column(TSVECTOR, Computed("to_tsvector(config, text)", persisted=True))
    )
    updated_by: str | None = Field(default=None, sa_type=Text)
    updated_at: datetime | None = None


class SegmentVersion(Base, table=True):
    """What a segment said before an edit, and who wrote it; None is the machine."""

    __tablename__: ClassVar[str] = "segment_versions"

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    number: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    version: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    speaker: str | None = Field(default=None, sa_type=Text)
    text: str = Field(sa_type=Text)
    written_by: str | None = Field(default=None, sa_type=Text)
    written_at: datetime = Field(default_factory=utc_now)


class SpeakerRow(Base, table=True):
    """A party of a recording. `label` never changes; `name` is what people call it. `sample_key`: a short clip of the voice."""

    __tablename__: ClassVar[str] = "recording_speakers"

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    label: str = Field(sa_type=Text, primary_key=True)
    position: int = 0
    name: str | None = Field(default=None, sa_type=Text)
    spoken_ms: int = 0
    sample_key: str | None = Field(default=None, sa_type=Text)


class SummaryRow(Base, table=True):
    """Title, summary and action items of a transcript; `backend` is openai or extractive: who wrote them."""

    __tablename__: ClassVar[str] = "recording_summaries"

    recording_id: UUID = Field(sa_column=_recording(primary_key=True))
    title: str = Field(sa_type=Text)
    summary: str = Field(sa_type=Text)
    action_items: list[str] = Field(default_factory=list, sa_column=_json("[]"))
    backend: str = Field(sa_type=Text)
    model: str | None = Field(default=None, sa_type=Text)
    # Why it is extractive where openai was asked for.
    note: str | None = Field(default=None, sa_type=Text)
    cost_usd: Decimal | None = Field(default=None, sa_column=Column(Numeric(12, 6), nullable=True))
    created_at: datetime = Field(default_factory=utc_now)


class ShareLink(Base, table=True):
    """Whoever has the link's token reads one recording until `expires_at`; the token itself is never stored."""

    __tablename__: ClassVar[str] = "recording_shares"
    __table_args__ = (
        Index("uq_recording_shares_token_hash", "token_hash", unique=True),
        Index("ix_recording_shares_recording_id", "recording_id"),
        Index("ix_recording_shares_expires_at", "expires_at"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    recording_id: UUID = Field(sa_column=_recording())
    token_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    with_audio: bool = True
    created_by: str = Field(sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    uses: int = 0


class OwnerRetention(Base, table=True):
    """For how many days somebody's recordings of a kind are kept, where that differs from the setting; 0: for ever."""

    __tablename__: ClassVar[str] = "recording_retention"

    owner_id: UUID = Field(
        sa_column=Column(Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    kind: str = Field(sa_type=Text, primary_key=True)
    days: int
    updated_by: str = Field(sa_type=Text)
    updated_at: datetime = Field(default_factory=utc_now)


class RemovedFile(Base, table=True):
    """A file whose recording is deleted: to be deleted, too, and again until `until`, since a worker may still have been at it.

    `place` is storage or egress; `path` a key, or a path below EGRESS_DIR. `problem` is why it is still there.
    """

    __tablename__: ClassVar[str] = "removed_files"
    __table_args__ = (
        CheckConstraint("place in ('storage','egress')", name="place"),
        Index("ix_removed_files_next_attempt_at", "next_attempt_at"),
    )

    place: str = Field(sa_type=Text, primary_key=True)
    path: str = Field(sa_type=Text, primary_key=True)
    until: datetime
    next_attempt_at: datetime = Field(default_factory=utc_now)
    attempts: int = 0
    problem: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
