"""The calls domain's door: everything other code may ask of it.

A function with `session` works inside the caller's transaction; one with `db` opens its own around slow work.
"""

from typing import Any
from uuid import UUID

from backend.calls import settling
from backend.calls.dialing import Accepted, Dialer, accept, agent_token
from backend.calls.importing import find_import, import_policies, list_errors
from backend.calls.models import Call
from backend.calls.outcome import VERSION, extract
from backend.calls.planning import pending, plan, release_expired
from backend.calls.reading import list_calls, list_scheduled, read_call, summary
from backend.calls.reconciling import advance
from backend.calls.repository.calls import CallRepository, call_in
from backend.calls.repository.contacts import ContactRepository
from backend.calls.schemas import AgentEvent
from backend.calls.states import CallStatus
from backend.calls.telephony.base import TelephonyEvent
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import Conflict, NotFound
from backend.recordings import service as recordings
from backend.recordings.models import Recording

__all__ = [
    "Accepted",
    "Dialer",
    "accept",
    "advance",
    "agent_token",
    "allow_calling",
    "extract_outcome",
    "find_import",
    "import_policies",
    "list_calls",
    "list_errors",
    "list_scheduled",
    "pending",
    "plan",
    "read_call",
    "release_expired",
    "stop_calling",
    "summary",
    "take_agent_event",
    "take_webhook",
]


_WITHOUT_CONSEQUENCES = {"agent_joined", "recording_started", "other"}


async def take_webhook(session: Session, event: TelephonyEvent, *, config: Config) -> str | None:
    """Store a verified webhook and draw its consequences, once; the room to close now, if any.

    A second delivery changes nothing; an event of a room that is not a call's is kept without one.
    """
    calls = CallRepository(session)
    if event.kind in _WITHOUT_CONSEQUENCES:
        # More than half of all webhooks: one statement, which neither reads nor locks the call.
        await calls.add_event(
            event_id=event.event_id, call_id=call_in(event.room), source="webhook", kind=event.type, body=event.body
        )
        return None
    call = await calls.lock_by_room(event.room) if event.room else None
    fresh = await calls.add_event(
        event_id=event.event_id, call_id=call.id if call else None, source="webhook", kind=event.type, body=event.body
    )
    if call is None or not fresh:
        return None
    now = utc_now()
    if event.kind == "phone_joined":
        await settling.add_facts(session, call, config=config, joined_at=now, sip_call_id=event.sip_call_id)
    elif event.kind == "phone_left":
        facts: dict[str, Any] = {"left_at": now, "disconnect_reason": event.reason}
        if event.was_answered:
            facts["answered_at"] = now
        await settling.add_facts(session, call, config=config, **facts)
        # Once the phone has left, only the agent keeps the room and its recording open.
        return event.room
    elif event.kind == "room_finished" and call.answered_at is not None:
        await settling.add_facts(session, call, config=config, left_at=now)
    elif event.kind == "recording_ended" and event.recording is not None:
        await settling.recording_ended(session, call, event.recording)
    return None


async def take_agent_event(session: Session, call_id: UUID, event: AgentEvent, *, config: Config) -> None:
    """Store a report of the call's agent and draw its consequences, once. NotFound (404) for an unknown call."""
    calls = CallRepository(session)
    call = await calls.lock(call_id)
    if call is None:
        raise NotFound(f"call {call_id} does not exist")
    body = event.model_dump(mode="json", exclude={"event_id"}, exclude_none=True)
    # Agents number their own events; another call's agent may use the same number.
    event_id = f"agent:{call_id}:{event.event_id}"
    if not await calls.add_event(event_id=event_id, call_id=call_id, source="agent", kind=event.type, body=body):
        return
    if event.type == "answered":
        await settling.add_facts(session, call, config=config, answered_at=utc_now())
    if event.type == "amd" and event.category is not None:
        await settling.add_facts(session, call, config=config, amd_category=event.category)
    if event.outcome is not None:
        outcome: dict[str, Any] = {"intent": event.outcome, "source": "agent", "note": event.note}
        if event.callback_at is not None:
            outcome["callback_at"] = event.callback_at.isoformat()
        await settling.take_outcome(session, call, outcome, config=config)


async def stop_calling(session: Session, phone_e164: str, *, source: str, reason: str) -> bool:
    """Put a number on the do-not-call list; False when it stood there already. No call begins after the commit."""
    return await ContactRepository(session).add_do_not_call(phone_e164, source=source, reason=reason)


async def allow_calling(session: Session, phone_e164: str) -> None:
    """Take a number off the do-not-call list; NotFound (404) when it is not on it."""
    if not await ContactRepository(session).revoke_do_not_call(phone_e164):
        raise NotFound(f"{phone_e164} is not on the do-not-call list")


async def extract_outcome(session: Session, call_id: UUID, *, config: Config) -> Call:
    """Store a first outcome from the call's transcript; an outcome that is there stays.

    Where there will be no transcript, the outcome is unknown, and gives way to one that comes later. NotFound (404) for an unknown
    call, Conflict (409, `no_transcript`) while there is nothing to read.
    """
    call = await CallRepository(session).lock(call_id)
    if call is None:
        raise NotFound(f"call {call_id} does not exist")
    transcript = await recordings.transcript_of(session, kind="call", subject_id=call_id)
    if transcript is None:
        recording = await recordings.find(session, kind="call", subject_id=call_id)
        note = _why_none(call, recording)
        if note is None:
            raise Conflict(f"call {call_id} has no transcript yet", code="no_transcript")
        missing = {"intent": "unknown", "source": "none", "note": note}
        await settling.take_outcome(session, call, missing, config=config)
        return call
    if call.status == CallStatus.VOICEMAIL:
        # The greeting of a machine says nothing of what the customer wants.
        await settling.take_outcome(session, call, {"intent": "voicemail", "source": "detection"}, config=config)
        return call
    said = [segment["text"] for segment in transcript.segments if segment["speaker"] == "customer"]
    found = extract(said)
    outcome = {
        "intent": found.intent,
        "source": "transcript",
        "version": VERSION,
        "confidence": found.confidence,
        "evidence": found.evidence,
    }
    await settling.take_outcome(session, call, outcome, config=config)
    return call


def _why_none(call: Call, recording: Recording | None) -> str | None:
    """Why there will be no transcript; None where there may be one."""
    if recording is None:
        return "the recording was deleted" if call.recording_state == "deleted" else None
    if recording.state not in {"failed", "cancelled"}:
        return None
    return recording.error or f"recording {recording.state}"
