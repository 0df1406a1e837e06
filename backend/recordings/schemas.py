"""What the API takes and gives about recordings. Instants are UTC, offsets and durations seconds."""

import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from backend.core.principal import Role
from backend.recordings.models import RecordingKind, RecordingState, Stage
from backend.recordings.options import TranscribeOptions

# What no page and no file should hold: control characters, lone surrogates (no UTF-8).
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_TEXT, _LONGEST_NAME = 10_000, 100
# A link for longer is a copy that nobody remembers.
_LONGEST_SHARE_HOURS, _SHARE_HOURS = 24 * 366, 24 * 7


class _Wish(BaseModel):
    # A misspelt field must be an error, not a default.
    model_config = ConfigDict(extra="forbid")


def _one_line(text: str) -> str:
    """Runs of white space, line ends too, become one space."""
    joined = " ".join(text.split())
    if _UNFIT.search(joined):
        raise ValueError("must not hold control characters or half of a surrogate pair")
    return joined


def _query(text: str) -> str:
    if not (cleaned := _one_line(text)):
        raise ValueError("must hold a word")
    return cleaned


Line = Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_one_line)]
Name = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_one_line)]
Title = Annotated[str, Field(max_length=300), AfterValidator(_one_line)]
SearchText = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_query)]
Label = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME, pattern=r"^[^\x00]*$")]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]


class ExportFormat(StrEnum):
    JSON = "json"
    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"


class RecordingRead(BaseModel):
    """One recording. `title` and `filename` are null for an admin with whom it is not shared.

    `stage`, `percent` and `seconds_left` say how far a worker is; `cancelling`: it has been told to stop; `stalled`: nothing has
    been heard of it for a while, and the next one goes on from there.
    """

    id: UUID
    kind: RecordingKind
    subject_id: UUID
    owner_id: UUID | None
    owner: str | None
    shared_role: Role | None
    title: str | None
    filename: str | None
    state: RecordingState
    stage: Stage | None
    percent: int | None
    seconds_left: int | None
    cancelling: bool
    stalled: bool
    error: str | None
    error_code: str | None
    duration_seconds: float | None
    size_bytes: int | None
    codec: str | None
    channels: int | None
    created_at: datetime
    updated_at: datetime
    may_read: bool
    may_change: bool
    may_manage: bool


class SpeakerRead(BaseModel):
    """`label` never changes; `name` is what people call this one, the label where nobody has said."""

    label: str
    name: str
    named: bool
    spoken_seconds: float
    has_sample: bool


class SummaryRead(BaseModel):
    """`backend` wrote it, `openai` or `extractive`; `note` says why it is not the one that was asked for."""

    title: str
    summary: str
    action_items: list[str]
    backend: str
    model: str | None
    note: str | None


class TranscriptFacts(BaseModel):
    """How a transcript was made. `cost_usd` is of transcription and summary, null where nothing was paid or no price is set."""

    language: str | None
    backend: str
    model: str
    diarizer: str | None
    cost_usd: Decimal | None
    segments: int
    edited: int
    created_at: datetime


class RecordingDetail(RecordingRead):
    """One recording with its content, null and empty for whoever may not read it. `kept_until`: then it is deleted."""

    options: dict[str, Any]
    transcript: TranscriptFacts | None
    speakers: list[SpeakerRead]
    summary: SummaryRead | None
    kept_until: datetime | None


class WordRead(BaseModel):
    start: float
    end: float
    text: str
    confidence: float


class SegmentRead(BaseModel):
    """What somebody said in one go. `version` 1 is the machine's; `speaker` is a label, `name` what people call them."""

    number: int
    start: float
    end: float
    speaker: str | None
    name: str | None
    channel: int | None
    text: str
    confidence: float | None
    version: int
    updated_by: str | None
    updated_at: datetime | None


class SegmentVersionRead(BaseModel):
    """`written_by` is null for the machine."""

    version: int
    speaker: str | None
    text: str
    written_by: str | None
    written_at: datetime


class SegmentUpdate(_Wish):
    """`version` is the one that was read: 409 where somebody has changed the segment since.

    White space is joined to single spaces; an empty text leaves the segment out of exports. Without `speaker` that stays.
    """

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    text: Line | None = None
    speaker: Label | None = None

    @model_validator(mode="after")
    def _something(self) -> "SegmentUpdate":
        if not self.model_fields_set & {"text", "speaker"}:
            raise ValueError("give text, speaker or both")
        if "text" in self.model_fields_set and self.text is None:
            raise ValueError("text must be text; an empty one leaves the segment out")
        return self


class SpeakerUpdate(_Wish):
    """Null or empty goes back to the label."""

    name: Name | None


class RecordingUpdate(_Wish):
    """`shared_role`: everybody with this role or a higher one may read it; null is nobody. What is left out stays."""

    title: Title | None = None
    shared_role: Role | None = None


class TranscribeWish(TranscribeOptions):
    """Options as of an upload; what is left out has its default. `discard_edits`: what people have changed may go."""

    discard_edits: bool = False


class SearchHit(BaseModel):
    """A segment that matches. `snippet` is its text in pieces, those that match marked."""

    recording_id: UUID
    title: str | None
    filename: str | None
    recorded_at: datetime
    number: int
    start: float
    end: float
    speaker: str | None
    name: str | None
    snippet: list["SnippetPart"]


class SnippetPart(BaseModel):
    text: str
    match: bool


class SearchPage(BaseModel):
    """Newest recordings first, then in the order of the words; `next_cursor` is null on the last page."""

    items: list[SearchHit]
    next_cursor: str | None = None


class ShareCreate(_Wish):
    """A link that opens one recording to whoever has it."""

    hours: Annotated[int, Field(ge=1, le=_LONGEST_SHARE_HOURS)] = _SHARE_HOURS
    with_audio: bool = True


class ShareRead(BaseModel):
    """A link without its token, which nobody is shown again. Not `is_open`: expired, revoked, or its maker's account is closed."""

    id: UUID
    with_audio: bool
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None
    uses: int
    is_open: bool


class ShareMade(ShareRead):
    """A new link. `token` is shown this once; `url` is the API's, `/api/shared/TOKEN`."""

    token: str
    url: str


class SharedRead(BaseModel):
    """What a link shows: the words and who said them, nothing about people who have accounts.

    Without a transcript (yet) there are no segments either.
    """

    title: str | None
    recorded_at: datetime
    duration_seconds: float | None
    language: str | None
    expires_at: datetime
    with_audio: bool
    has_transcript: bool
    speakers: list[str]
    summary: SummaryRead | None
    segments: list["SharedSegment"]


class SharedSegment(BaseModel):
    number: int
    start: float
    end: float
    name: str | None
    text: str


class Removed(BaseModel):
    """What a deletion took away, rows by kind. `files_pending`: files that could not be deleted yet; `sweep` deletes them."""

    id: UUID
    transcript: bool
    segments: int
    segment_versions: int
    speakers: int
    shares: int
    files_deleted: int
    files_pending: int


class RetentionRead(BaseModel):
    """For how many days recordings of a kind are kept; 0: for ever. `own`: set for this owner, not the setting."""

    kind: RecordingKind
    days: int
    own: bool
    setting: int
    due_now: int


class RetentionUpdate(_Wish):
    """`days` null goes back to the setting. Longer than the setting is for admins to allow."""

    kind: RecordingKind = RecordingKind.NOTE
    days: Annotated[int, Field(ge=0, le=3650)] | None
