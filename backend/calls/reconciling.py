"""The third source of facts: for whatever is overdue, ask LiveKit what became of it."""

import logging
from datetime import timedelta
from uuid import UUID

from backend.calls import planning, settling
from backend.calls.models import Call
from backend.calls.repository.calls import CallRepository
from backend.calls.schemas import AdvanceRead
from backend.calls.states import CallStatus
from backend.calls.telephony.base import Observation, Telephony, TelephonyAway
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.queue import enqueue
from backend.recordings import service as recordings

log = logging.getLogger(__name__)

_BATCH = 200
_TALKING = {"active", "automation"}


async def advance(db: Database, telephony: Telephony, *, config: Config) -> AdvanceRead:
    """One sweep over every waiting state; any number of them may run at once.

    1. Expired claims go back to the queue; rows whose gate closed for good are skipped.
    2. Live calls past their deadline get an end, or more time while they go on.
    3. Recordings that should be there are looked for.
    4. Outcomes whose task was lost are asked for again.
    """
    async with db.transaction() as session:
        released = await planning.release_expired(session)
        closed = await planning.close_gates(session)
        overdue = await CallRepository(session).overdue(utc_now(), _BATCH)
    reconciled = 0
    for call_id in overdue:
        reconciled += await _reconcile(db, telephony, config, call_id)
    found, requested = await _finish(db, telephony, config)
    return AdvanceRead(
        released=released, closed=closed, reconciled=reconciled, recordings_found=found, outcomes_requested=requested
    )


async def _reconcile(db: Database, telephony: Telephony, config: Config, call_id: UUID) -> bool:
    """Bring one overdue call up to date; True when it ended."""
    async with db.transaction() as session:
        call = await CallRepository(session).find(call_id)
    if call is None:
        return False
    seen: Observation | None = None
    if call.status != CallStatus.QUEUED:
        try:
            seen = await telephony.observe(call.room_name)
        except TelephonyAway as fault:
            log.warning("call %s is overdue, and LiveKit cannot say why: %s", call_id, fault)
            return False
    async with db.transaction() as session:
        row = await CallRepository(session).lock(call_id)
        if row is None or row.ended_at is not None or row.deadline_at > utc_now():
            return False
        ended = await _conclude(session, config, row, seen)
    if ended:
        await _close(telephony, call.room_name)
    return ended


async def _conclude(session: Session, config: Config, call: Call, seen: Observation | None) -> bool:
    """Add what an observation shows to a locked, overdue call; True when it has ended."""
    now = utc_now()
    if seen is None:
        # Dialing begins by leaving this status, so nobody can have dialed.
        await settling.add_facts(session, call, config=config, dial_error="never_dialed")
    elif seen.phone_present and (seen.phone_status in _TALKING or call.answered_at is not None):
        await settling.add_facts(session, call, config=config, answered_at=now)
        longest = timedelta(seconds=config.calls_max_seconds + config.calls_grace_seconds)
        if call.answered_at is not None and now < call.answered_at + longest:
            call.deadline_at = now + timedelta(seconds=config.calls_grace_seconds)
            return False
        await settling.add_facts(session, call, config=config, final=True, left_at=now)
    elif seen.phone_present:
        await settling.add_facts(session, call, config=config, final=True, dial_error="ring_timeout", left_at=now)
    else:
        # Without a word of LiveKit's the phone may still have rung: it counts as an attempt.
        await settling.add_facts(session, call, config=config, final=True, left_at=now)
    return call.ended_at is not None


async def _close(telephony: Telephony, room: str) -> None:
    try:
        await telephony.close_room(room)
    except TelephonyAway as fault:
        log.info("room %s closes by its own timers: %s", room, fault)


async def _finish(db: Database, telephony: Telephony, config: Config) -> tuple[int, int]:
    """Look for recordings and outcomes that ended calls still wait for."""
    patience = timedelta(seconds=10 * config.calls_grace_seconds)
    async with db.transaction() as session:
        waiting = await CallRepository(session).unfinished(utc_now() - patience, _BATCH)
    found = requested = 0
    for call in waiting:
        if call.recording_state == "pending":
            found += await _find_recording(db, telephony, call)
        else:
            requested += await _request_outcome(db, call)
    return found, requested


async def _find_recording(db: Database, telephony: Telephony, call: Call) -> bool:
    try:
        seen = await telephony.observe(call.room_name)
        if seen.recording_running:
            await telephony.close_room(call.room_name)
            return False
    except TelephonyAway as fault:
        log.warning("call %s: LiveKit cannot say where its recording is: %s", call.id, fault)
        return False
    async with db.transaction() as session:
        row = await CallRepository(session).lock(call.id)
        if row is None:
            return False
        if seen.recording is None:
            row.recording_state, row.updated_at = "failed", utc_now()
            return False
        await settling.recording_ended(session, row, seen.recording)
    return True


async def _request_outcome(db: Database, call: Call) -> bool:
    async with db.transaction() as session:
        recording = await recordings.find(session, kind="call", subject_id=call.id)
        if recording is None or recording.state not in {"ready", "failed", "cancelled"}:
            return False
        enqueue(session, "extract_call_outcome", call_id=str(call.id))
    return True
