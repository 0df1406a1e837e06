"""From facts to consequences: a call's status, the recording's hand-over, what becomes of the scheduled call.

Facts are written once and the status is derived from all of them under the row's lock; consequences hang on the first move
into an ended status, in the same transaction.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from backend.calls.attempts import decide, kind_of
from backend.calls.facts import Facts, derive
from backend.calls.models import Call, talk_seconds
from backend.calls.repository.contacts import ContactRepository
from backend.calls.repository.plan import PlanRepository, next_pending
from backend.calls.states import LIVE_STATUSES, CallStatus, ScheduledCallStatus
from backend.calls.telephony.base import RecordingResult
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.queue import enqueue
from backend.recordings import service as recordings

log = logging.getLogger(__name__)

SPEAKERS = ["agent", "customer"]


def facts_of(call: Call) -> Facts:
    """What the row knows."""
    return Facts(
        dialing=call.dialing_at is not None,
        ringing=call.ringing_at is not None,
        answered=call.answered_at is not None,
        left=call.left_at is not None,
        sip_code=call.sip_code,
        dial_error=call.dial_error,
        reason=call.disconnect_reason,
        amd=call.amd_category,
        cancel=call.cancel_requested_at is not None,
    )


async def add_facts(session: Session, call: Call, *, config: Config, final: bool = False, **facts: Any) -> None:
    """Fill in what is not known yet of a locked call and draw the consequences.

    `final`: nothing more will come (the reconciler says so), so an end that only the room's report shows may stand.
    """
    for name, value in facts.items():
        if getattr(call, name) is None:
            setattr(call, name, value)
    status, reason = derive(facts_of(call))
    # The phone's leaving can be reported before the dial's own result, which knows better why.
    known = call.answered_at or call.dial_settled_at or call.sip_code or call.dial_error or final
    if status not in LIVE_STATUSES and not known:
        return
    now = utc_now()
    if (call.status, call.end_reason) != (status, reason):
        log.info("call %s attempt %d: %s -> %s %s", call.id, call.attempt_no, call.status, status, reason or "")
    call.status, call.end_reason, call.updated_at = status, reason, now
    if status is CallStatus.ANSWERED and call.answered_at is not None:
        call.deadline_at = max(call.deadline_at, now + timedelta(seconds=config.calls_grace_seconds))
    if status not in LIVE_STATUSES and call.ended_at is None:
        call.ended_at = call.left_at or now
        await _settle(session, call, config, now)


async def _settle(session: Session, call: Call, config: Config, now: datetime) -> None:
    """The call has ended: the scheduled call is reached, waits for another attempt, or has none left."""
    plan = PlanRepository(session)
    row = await plan.lock(call.scheduled_call_id)
    if row is None or row.attempt_no != call.attempt_no or row.status != ScheduledCallStatus.IN_PROGRESS:
        return
    # A line has become free.
    enqueue(session, "call_next_customers")
    kind = _kind(call, config)
    history = [_kind(earlier, config) for earlier in await plan.earlier_kinds(row.id) if earlier.id != call.id]
    verdict = decide(
        kind,
        history.count(kind),
        row.counted_attempts,
        max_attempts=config.calls_max_attempts,
        scale=config.calls_backoff_scale,
    )
    row.counted_attempts += int(verdict.counts)
    callback = _callback(call)
    if kind == "reached" and callback is not None and row.counted_attempts < config.calls_max_attempts:
        next_pending(row, max(callback, now), now)
        row.reason = "callback"
        return
    if verdict.delay is not None:
        next_pending(row, now + verdict.delay, now)
    else:
        row.status, row.updated_at = verdict.status, now
    row.reason = None if kind == "reached" else call.end_reason if kind == "never" or verdict.delay else verdict.reason
    if call.end_reason == "invalid_number":
        await ContactRepository(session).mark_phone_invalid(call.customer_id)


def _kind(call: Call, config: Config) -> str:
    return kind_of(CallStatus(call.status), call.end_reason, talk_seconds(call), config.calls_short_seconds)


def recording_started(call: Call, egress_id: str | None) -> None:
    """LiveKit records, and the file comes when the room closes; None when it would not record."""
    call.egress_id = call.egress_id or egress_id
    if call.recording_state == "none":
        call.recording_state = "pending" if egress_id else "failed"


async def recording_ended(session: Session, call: Call, result: RecordingResult) -> None:
    """Hand a finished file over to the recordings, once; a recording without a file has failed."""
    if call.recording_state in {"ready", "failed", "deleted"}:
        return
    call.egress_id = call.egress_id or result.egress_id
    call.updated_at = utc_now()
    if result.path is None:
        call.recording_state = "failed"
        log.warning("call %s: no recording: %s", call.id, result.problem)
        return
    await recordings.register(
        session,
        kind="call",
        subject_id=call.id,
        source_path=result.path,
        duration_ms=result.duration_ms,
        channel_speakers=SPEAKERS,
        then_task="extract_call_outcome",
    )
    call.recording_state = "ready"


async def take_outcome(session: Session, call: Call, outcome: dict[str, Any], *, config: Config) -> None:
    """Keep the outcome of a locked call (an agent's stands above a transcript's, both above none) and draw its consequences.

    `outcome` has `intent`, `source` (agent, transcript, detection, or none where there was nothing to read) and, for a callback,
    `callback_at` (ISO 8601 with offset).
    """
    if call.outcome is not None and _stands(call.outcome["source"], outcome["source"]):
        return
    call.outcome, call.updated_at = outcome, utc_now()
    if outcome["intent"] == "do_not_call":
        await ContactRepository(session).add_do_not_call(
            call.to_e164, source=outcome["source"], reason="asked for in a call", call_id=call.id
        )
    row = await PlanRepository(session).lock(call.scheduled_call_id)
    if row is None or row.attempt_no != call.attempt_no:
        return
    row.outcome, row.updated_at = outcome["intent"], utc_now()
    callback = _callback(call)
    room_left = row.counted_attempts < config.calls_max_attempts
    if callback is not None and room_left and row.status == ScheduledCallStatus.COMPLETED:
        next_pending(row, callback, utc_now())
        row.reason = "callback"


def _stands(source: str, other: str) -> bool:
    if source == "none":
        # A recording that failed may be started again.
        return other == "none"
    return other != "agent" or source == "agent"


def _callback(call: Call) -> datetime | None:
    at = (call.outcome or {}).get("callback_at")
    return datetime.fromisoformat(at) if at else None
