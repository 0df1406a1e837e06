"""Read models of calls and of the plan."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from backend.calls.models import Call, talk_seconds
from backend.calls.repository.calls import CallRepository
from backend.calls.repository.plan import PlanRepository
from backend.calls.schemas import (
    CallEventRead,
    CallRead,
    CallSummary,
    ScheduledCallRead,
    SegmentRead,
    SummaryRead,
    TranscriptRead,
)
from backend.calls.states import CallStatus
from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.recordings import service as recordings
from backend.recordings.library import reading as transcripts
from backend.recordings.library.reading import Said


async def read_call(session: Session, call_id: UUID) -> CallRead:
    """A call with its timeline and its transcript, where it has one. NotFound (404) for an unknown id."""
    details = await CallRepository(session).find_details(call_id)
    if details is None:
        raise NotFound(f"call {call_id} does not exist")
    call, customer, policy = details
    recording = await recordings.find(session, kind="call", subject_id=call_id)
    transcript = await recordings.transcript_of(session, kind="call", subject_id=call_id)
    said = await transcripts.said_in(session, kind="call", subject_id=call_id)
    events = await CallRepository(session).events(call_id)
    return CallRead(
        **_summary(call, customer.full_name, policy.policy_number),
        customer_id=call.customer_id,
        policy_id=call.policy_id,
        dialing_at=call.dialing_at,
        left_at=call.left_at,
        sip_code=call.sip_code,
        sip_text=call.sip_text,
        dial_error=call.dial_error,
        amd_category=call.amd_category,
        recording_problem=recording.error if recording else None,
        transcript=_transcript(transcript, said) if transcript else None,
        events=[CallEventRead(at=event.received_at, source=event.source, type=event.type) for event in events],
    )


async def list_calls(
    session: Session,
    *,
    status: CallStatus | None = None,
    customer_id: UUID | None = None,
    since: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[CallSummary]:
    """Calls, newest first."""
    rows = await CallRepository(session).list_calls(
        status=status, customer_id=customer_id, since=since, before=decode_cursor(cursor), limit=limit + 1
    )
    page = rows[:limit]
    more = encode_cursor((page[-1][0].created_at, page[-1][0].id)) if len(rows) > limit else None
    return Page(items=[CallSummary(**_summary(*row)) for row in page], next_cursor=more)


async def list_scheduled(
    session: Session, *, status: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[ScheduledCallRead]:
    """Planned calls with their latest attempt, newest first."""
    rows = await PlanRepository(session).rows(status, decode_cursor(cursor), limit + 1)
    page = rows[:limit]
    more = encode_cursor((page[-1]["created_at"], page[-1]["id"])) if len(rows) > limit else None
    calls = [row["call_id"] for row in page if row["call_id"] is not None]
    briefs = await recordings.briefs(session, kind="call", subject_ids=calls)
    items = []
    for row in page:
        fields = dict(row)
        brief = briefs.get(row["call_id"])
        fields["transcript_state"] = brief.state if brief else None
        fields["first_line"] = brief.first_line if brief else None
        fields["outcome"] = (row["call_outcome"] or {}).get("intent") or row["outcome"]
        items.append(ScheduledCallRead.model_validate(fields))
    return Page(items=items, next_cursor=more)


async def summary(session: Session) -> SummaryRead:
    """Counts by status, of plans and of calls."""
    return SummaryRead(
        scheduled_calls=await PlanRepository(session).counts(), calls=await CallRepository(session).counts()
    )


def _summary(call: Call, customer_name: str, policy_number: str) -> dict[str, Any]:
    return {
        "id": call.id,
        "scheduled_call_id": call.scheduled_call_id,
        "customer_name": customer_name,
        "policy_number": policy_number,
        "attempt_no": call.attempt_no,
        "status": call.status,
        "end_reason": call.end_reason,
        "answered_at": call.answered_at,
        "ended_at": call.ended_at,
        "talk_seconds": talk_seconds(call),
        "recording_state": call.recording_state,
        "outcome": call.outcome,
        "created_at": call.created_at,
    }


def _transcript(transcript: Any, said: Sequence[Said]) -> TranscriptRead:
    """As it reads now: with what people have corrected, and the names that they gave to speakers."""
    return TranscriptRead(
        language=transcript.language,
        backend=transcript.backend,
        model=transcript.model,
        segments=[
            SegmentRead(
                start=each.start, end=each.end, speaker=each.speaker or "", name=each.name or "", text=each.text
            )
            for each in said
            if each.text
        ],
    )
