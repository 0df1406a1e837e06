"""Shapes of the calls API. Instants are UTC, durations seconds."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from backend.calls.states import CallStatus, ScheduledCallStatus
from backend.core.instants import Instant


class _Body(BaseModel):
    # A misspelt field must be an error, not a default.
    model_config = ConfigDict(extra="forbid")


class PlanCreate(_Body):
    """`day` (default: today in each customer's zone) and `horizon_days` (default: CALLS_HORIZON_DAYS) bound the expiry dates."""

    day: date | None = None
    horizon_days: int | None = Field(default=None, ge=0, le=366)


class PlanRead(BaseModel):
    """What this planning added; `skipped` counts by reason. A second planning of the same day adds nothing."""

    planned: int
    skipped: dict[str, int]


class PendingCustomer(BaseModel):
    scheduled_call_id: UUID
    customer_id: UUID
    attempt_no: int
    due_at: datetime


class PendingPage(BaseModel):
    items: list[PendingCustomer]


class CallInitiate(_Body):
    scheduled_call_id: UUID


class CallAccepted(BaseModel):
    call_id: UUID
    status: CallStatus
    room_name: str


class AdvanceRead(BaseModel):
    """What one sweep did, by step."""

    released: int
    closed: int
    reconciled: int
    recordings_found: int
    outcomes_requested: int


class CallSummary(BaseModel):
    id: UUID
    scheduled_call_id: UUID
    customer_name: str
    policy_number: str
    attempt_no: int
    status: CallStatus
    end_reason: str | None
    answered_at: datetime | None
    ended_at: datetime | None
    talk_seconds: float | None
    recording_state: str
    outcome: dict[str, Any] | None
    created_at: datetime


class CallEventRead(BaseModel):
    at: datetime
    source: str
    type: str


class SegmentRead(BaseModel):
    """`speaker` is a label, such as `agent`; `name` what people call them."""

    start: float
    end: float
    speaker: str
    name: str
    text: str


class TranscriptRead(BaseModel):
    language: str | None
    backend: str
    model: str
    segments: list[SegmentRead]


class CallRead(CallSummary):
    """A call with its timeline and, once there, its transcript."""

    customer_id: UUID
    policy_id: UUID
    dialing_at: datetime | None
    left_at: datetime | None
    sip_code: int | None
    sip_text: str | None
    dial_error: str | None
    amd_category: str | None
    recording_problem: str | None
    transcript: TranscriptRead | None
    events: list[CallEventRead]


class ScheduledCallRead(BaseModel):
    """A planned call with its latest attempt; `first_line` is the first line of that call's transcript."""

    id: UUID
    customer_name: str
    timezone: str
    policy_number: str
    expiry_date: date
    status: ScheduledCallStatus
    reason: str | None
    attempts: int
    next_attempt_at: datetime
    call_id: UUID | None
    call_status: CallStatus | None
    end_reason: str | None
    talk_seconds: float | None
    recording_state: str | None
    transcript_state: str | None
    outcome: str | None
    first_line: str | None


class SummaryRead(BaseModel):
    """Counts by status."""

    scheduled_calls: dict[str, int]
    calls: dict[str, int]


class AgentEvent(_Body):
    """A report of the voice agent; `event_id` makes a second delivery harmless."""

    event_id: str = Field(min_length=1, max_length=128)
    type: Literal["answered", "amd", "outcome", "session_end"]
    category: Literal["human", "machine-ivr", "machine-vm", "machine-unavailable", "uncertain"] | None = None
    outcome: (
        Literal[
            "renew_interested",
            "renewed_elsewhere",
            "not_interested",
            "callback",
            "do_not_call",
            "wrong_number",
            "complaint",
        ]
        | None
    ) = None
    note: str = Field(default="", max_length=2000)
    callback_at: Instant | None = None


class DoNotCallCreate(_Body):
    phone: str = Field(pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164, such as +919800000200")
    reason: str = Field(default="", max_length=500)


class ImportErrorRead(BaseModel):
    line: int
    field: str
    value: str
    problem: str
    fix: str


class ImportRead(BaseModel):
    """Counts of data rows, and the first errors; `GET /api/imports/{id}/errors` has them all."""

    id: UUID
    filename: str
    created: int
    changed: int
    unchanged: int
    failed: int
    started_at: datetime
    finished_at: datetime | None
    errors: list[ImportErrorRead]
