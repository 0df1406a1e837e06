"""Dialing: accept a call once, then ring the phone once.

The row is committed before anything rings. Whoever dials claims the row first, by a conditional update, so no row is ever
dialed twice; a crash in between leaves the row to the reconciler.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from backend.calls import settling
from backend.calls.models import Call, Customer, Policy, ScheduledCall
from backend.calls.repository.calls import CallRepository, ringing_deadline
from backend.calls.repository.contacts import ContactRepository
from backend.calls.repository.plan import PlanRepository, next_pending
from backend.calls.states import ScheduledCallStatus
from backend.calls.telephony.base import DialOrder, DialResult, Telephony, TelephonyAway
from backend.calls.window import effective, next_open
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session, is_outage
from backend.core.errors import AppError, Conflict, Invalid, NotFound, TooMany
from backend.environment import Window

log = logging.getLogger(__name__)

_AGENT_POLL_SECONDS = 0.1
# How long a fact is worth keeping in memory while the database is away.
_KEEP_TRYING_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Accepted:
    """The call of an idempotency key; `replayed` when the key had been used before."""

    call: Call
    replayed: bool


def agent_token(config: Config, call_id: UUID) -> str:
    """The bearer token with which one call's agent may report, and nothing else."""
    return hmac.new(config.service_key.encode(), f"agent:{call_id}".encode(), hashlib.sha256).hexdigest()


async def accept(db: Database, *, config: Config, customer_id: UUID, scheduled_call_id: UUID, key: str) -> Accepted:
    """Write the call's row, every gate checked once more. Numbered as the API documents it:

    1. A key that was used before gives its call again (422 when it came with something else).
    2. 404 for an unknown customer or scheduled call; 409 with a code for a gate that is closed, and the scheduled call's
       row says why; 429 when the trunk has no free line or no call per second left.
    3. The row is committed when this returns.
    """
    digest = hashlib.sha256(f"{customer_id}:{scheduled_call_id}".encode()).hexdigest()
    async with db.transaction() as session:
        earlier = await CallRepository(session).find_by_key(key)
        if earlier is not None:
            return _replay(earlier, digest)
        customer = await ContactRepository(session).find_customer(customer_id)
        if customer is None:
            raise NotFound(f"customer {customer_id} does not exist")
        # Holding the row serializes two deliveries of the same key; the second finds the first's call.
        row = await PlanRepository(session).lock(scheduled_call_id)
        if row is None or row.customer_id != customer_id:
            raise NotFound(f"scheduled call {scheduled_call_id} of this customer does not exist")
        earlier = await CallRepository(session).find_by_key(key)
        if earlier is not None:
            return _replay(earlier, digest)
        _check_attempt(row, key)
        closed = await _closed_gate(session, config, customer, row)
        if closed is None:
            call = await _insert(session, config, customer, row, key, digest)
    if closed is not None:
        # Raised after the commit: the row must remember why.
        raise closed
    return Accepted(call, replayed=False)


def _replay(call: Call, digest: str) -> Accepted:
    if call.request_hash != digest:
        raise Invalid(
            "Idempotency-Key: was used for another request; send a new key for a new call", code="idempotency_mismatch"
        )
    return Accepted(call, replayed=True)


def _check_attempt(row: ScheduledCall, key: str) -> None:
    if key != f"{row.id}:{row.attempt_no + 1}":
        raise Conflict(
            f"Idempotency-Key: the next attempt of this scheduled call is {row.id}:{row.attempt_no + 1}",
            code="stale_attempt",
        )
    if row.status not in {ScheduledCallStatus.PENDING, ScheduledCallStatus.CLAIMED}:
        raise Conflict(f"the scheduled call is {row.status}", code="not_pending")


async def _closed_gate(session: Session, config: Config, customer: Customer, row: ScheduledCall) -> AppError | None:
    """The gate that refuses this call, noted on its row; None when all are open."""
    policy = await PlanRepository(session).policy(row.policy_id)
    now = utc_now()
    for code, shut in (
        ("do_not_call", await ContactRepository(session).is_do_not_call(customer.phone_e164)),
        ("invalid_phone", customer.phone_status != "ok"),
        ("policy_not_active", policy.status != "active"),
    ):
        if shut:
            row.status, row.reason, row.claimed_until, row.updated_at = ScheduledCallStatus.SKIPPED, code, None, now
            return Conflict(f"this customer may not be called: {code}", code=code)
    window = effective(config.calls_window, config.calls_window_limit, _own_window(customer))
    if window is None:
        row.status, row.reason, row.updated_at = ScheduledCallStatus.SKIPPED, "no_window", now
        return Conflict("the customer's calling window and the legal limit share no time", code="no_window")
    opens = next_open(now, customer.timezone, window)
    if opens > now:
        next_pending(row, opens, now)
        return Conflict(
            "outside the customer's calling window", code="outside_window", next_allowed_at=opens.isoformat()
        )
    live = await CallRepository(session).find_live(customer.id)
    if live is not None:
        next_pending(row, now + timedelta(minutes=10) * config.calls_backoff_scale, now)
        return Conflict("the customer is in another call", code="call_in_progress", call_id=str(live.id))
    return None


def _own_window(customer: Customer) -> Window | None:
    if customer.window_start is None or customer.window_end is None:
        return None
    return Window(customer.window_start, customer.window_end)


async def _insert(
    session: Session, config: Config, customer: Customer, row: ScheduledCall, key: str, digest: str
) -> Call:
    calls = CallRepository(session)
    # The token's row stays locked, so that the count of live calls below cannot be overtaken.
    if not await calls.take_token(config.livekit_sip_trunk, config.calls_per_second):
        raise TooMany("the trunk's calls per second are used up", code="pace", retry_after=1 / config.calls_per_second)
    if await calls.count_live() >= config.calls_max_concurrent:
        raise TooMany("every line of the trunk is busy", code="no_line", retry_after=5)
    now = utc_now()
    call_id = uuid4()
    call = Call(
        id=call_id,
        scheduled_call_id=row.id,
        customer_id=customer.id,
        policy_id=row.policy_id,
        attempt_no=row.attempt_no + 1,
        idempotency_key=key,
        request_hash=digest,
        room_name=f"call-{call_id}",
        to_e164=customer.phone_e164,
        deadline_at=now + timedelta(seconds=config.calls_agent_wait_seconds + config.calls_grace_seconds),
    )
    await calls.add(call)
    row.attempt_no += 1
    row.status, row.reason, row.claimed_until, row.updated_at = ScheduledCallStatus.IN_PROGRESS, None, None, now
    return call


class Dialer:
    """Rings the phones of accepted calls in the background of the process that accepted them."""

    def __init__(self, db: Database, telephony: Telephony, config: Config) -> None:
        self._db = db
        self._telephony = telephony
        self._config = config
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, call_id: UUID) -> None:
        """Dial in the background; returns at once."""
        self._spawn(self._guarded(call_id))

    def close_room(self, room: str) -> None:
        """Close a room in the background; one that cannot be closed now closes by its own timers."""
        self._spawn(self._close_quietly(room))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    async def drain(self, within: float) -> None:
        """Let running dials end, for at most `within` seconds; the reconciler sees to the rest."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=within)
            for running in late:
                running.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _guarded(self, call_id: UUID) -> None:
        try:
            await self.place(call_id)
        except Exception:
            # The end of the line for a background task: the reconciler ends the call, the log says what happened.
            log.exception("call %s: dialing failed", call_id)

    async def place(self, call_id: UUID) -> None:
        """Ring the phone of an accepted call.

        1. Claim the row; whoever comes second stops.
        2. Open the room with its agent, and wait until the agent is there: without one the customer would hear silence.
        3. Write down that it rings, then dial, once.
        4. Write down how it ended, however long the database takes; record an answered call.
        """
        async with self._db.transaction() as session:
            if not await CallRepository(session).claim_dial(call_id, utc_now()):
                return
            details = await CallRepository(session).find_details(call_id)
        if details is None:
            return
        call, customer, policy = details
        problem = await self._prepare(call, customer, policy)
        if problem is None and not await self._begin(call):
            problem = "canceled"
        if problem is not None:
            await self._note(call.id, dial_error=problem)
            await self._close_quietly(call.room_name)
            return
        result = await self._telephony.dial(self._order(call))
        await self._note(call.id, **_facts(result))
        if result.answered:
            await self._record(call)
        elif not result.uncertain:
            await self._close_quietly(call.room_name)

    async def _prepare(self, call: Call, customer: Customer, policy: Policy) -> str | None:
        """Room and agent; the name of the problem when one of them is missing."""
        try:
            await self._telephony.open_room(call.room_name, _agent_job(self._config, call, customer, policy))
            async with asyncio.timeout(self._config.calls_agent_wait_seconds):
                while not await self._telephony.agent_present(call.room_name):  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(_AGENT_POLL_SECONDS)
        except TelephonyAway as fault:
            log.warning("call %s: nobody was dialed: %s", call.id, fault)
            return "unavailable"
        except TimeoutError:
            log.warning(
                "call %s: nobody was dialed: no agent came within %.0f s",
                call.id,
                self._config.calls_agent_wait_seconds,
            )
            return "agent_unavailable"
        return None

    async def _begin(self, call: Call) -> bool:
        now = utc_now()
        deadline = ringing_deadline(now, self._config.calls_ring_seconds, self._config.calls_grace_seconds)
        async with self._db.transaction() as session:
            return await CallRepository(session).begin_dialing(call.id, now, deadline)

    def _order(self, call: Call) -> DialOrder:
        return DialOrder(
            room=call.room_name,
            to_e164=call.to_e164,
            caller_id=self._config.livekit_sip_number,
            call_id=str(call.id),
            ring_seconds=self._config.calls_ring_seconds,
            max_seconds=self._config.calls_max_seconds,
        )

    async def _record(self, call: Call) -> None:
        if not self._config.calls_recording:
            return
        path = str(self._config.egress_dir / "calls" / f"{call.id}.ogg")
        egress_id: str | None = None
        try:
            egress_id = await self._telephony.start_recording(call.room_name, path)
        except TelephonyAway as fault:
            log.warning("call %s: not recorded: %s", call.id, fault)
        async for attempt in _while_away():
            with attempt:
                async with self._db.transaction() as session:
                    row = await CallRepository(session).lock(call.id)
                    if row is not None:
                        settling.recording_started(row, egress_id)

    async def _note(self, call_id: UUID, **facts: Any) -> None:
        """Add facts, trying again while the database is away: nobody else knows them."""
        async for attempt in _while_away():
            with attempt:
                async with self._db.transaction() as session:
                    row = await CallRepository(session).lock(call_id)
                    if row is not None:
                        await settling.add_facts(session, row, config=self._config, **facts)

    async def _close_quietly(self, room: str) -> None:
        try:
            await self._telephony.close_room(room)
        except TelephonyAway as fault:
            log.info("room %s closes by its own timers: %s", room, fault)


def _while_away() -> AsyncRetrying:
    return AsyncRetrying(
        retry=retry_if_exception(is_outage),
        wait=wait_exponential_jitter(multiplier=0.2, max=5),
        stop=stop_after_delay(_KEEP_TRYING_SECONDS),
        reraise=True,
    )


def _facts(result: DialResult) -> dict[str, Any]:
    now = utc_now()
    if result.uncertain:
        return {"dial_uncertain": True}
    if result.answered:
        return {"answered_at": now, "sip_call_id": result.sip_call_id, "dial_settled_at": now}
    return {
        "sip_code": result.sip_code,
        "sip_text": result.sip_text,
        "dial_error": result.error,
        "dial_settled_at": now,
    }


def _agent_job(config: Config, call: Call, customer: Customer, policy: Policy) -> dict[str, str]:
    return {
        "call_id": str(call.id),
        "callback_token": agent_token(config, call.id),
        "agency": config.agency,
        "customer_name": customer.full_name,
        "language": customer.language,
        "policy_number": policy.policy_number,
        "product": policy.product,
        "expiry_date": policy.expiry_date.isoformat(),
    }
