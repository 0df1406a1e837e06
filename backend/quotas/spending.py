"""Reservations: made when a recording comes, settled by what it took, released when nothing came of it.

Each function works within its caller's transaction, may be called any number of times, and does nothing without a user: what
belongs to the team is not limited. `key` is the recording's id; the sweep releases one that no recording has.
"""

from dataclasses import replace
from uuid import UUID

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.quotas.allowance import Standing, check, milliseconds, refusal
from backend.quotas.models import ReservationState
from backend.quotas.repository.spending import Reservation, SpendingRepository
from backend.quotas.repository.standings import StandingRepository


async def standing(session: Session, user_id: UUID) -> Standing:
    """How somebody stands today. NotFound (404)."""
    account = await StandingRepository(session).find(user_id)
    if account is None:
        raise NotFound(f"no user {user_id}")
    return account.standing


async def check_left(session: Session, user_id: UUID | None) -> None:
    """QuotaExceeded (429) where nothing more can be reserved today; nothing is reserved. NotFound (404)."""
    if user_id is not None and (fault := refusal(await standing(session, user_id))):
        raise fault


async def reserve(
    session: Session, *, user_id: UUID | None, key: UUID, seconds: float, files: int = 1, again: bool = False
) -> None:
    """Take it off today's allowance, 0 seconds where the length is not known yet. QuotaExceeded (429); NotFound (404) for no user.

    Of any number at once, as many get through as there is allowance for. A key that is open or settled changes nothing; one that
    was released is reserved anew, today. `again`: so is one that was settled; what it took stays used.
    """
    if user_id is None:
        return
    ms = milliseconds(seconds)
    rows = SpendingRepository(session)
    reservation = await rows.claim(key, user_id)
    if reservation is None:
        raise NotFound(f"no user {user_id}")
    if reservation.state == ReservationState.OPEN or (reservation.state == ReservationState.SETTLED and not again):
        return
    today = reservation.today
    await rows.lock_counter(user_id, today)
    check(await standing(session, user_id), ms, files)
    await rows.write(key, user_id=user_id, day=today, ms=ms, files=files, state=ReservationState.OPEN)
    await rows.count(user_id, today, reserved_ms=ms, reserved_files=files)


async def adjust(session: Session, *, key: UUID, seconds: float) -> None:
    """The length is known now. QuotaExceeded (429), with nothing changed, where it is more than was reserved and is left.

    It counts on the day of the reservation, by the limits of now. A key that is not open changes nothing.
    """
    ms = milliseconds(seconds)
    rows = SpendingRepository(session)
    held = await rows.lock(key)
    if held is None or not held.is_open or held.ms == ms:
        return
    await rows.lock_counter(held.user_id, held.day)
    if ms > held.ms:
        account = await StandingRepository(session).find(held.user_id, held.day)
        if account is not None:
            # What is held for it is left for it.
            check(replace(account.standing, reserved_ms=account.standing.reserved_ms - held.ms), ms, 0)
    await _write(rows, held, ms, ReservationState.OPEN)
    await rows.count(held.user_id, held.day, reserved_ms=ms - held.ms)


async def settle(session: Session, *, key: UUID, seconds: float) -> None:
    """The work is done and took so much, whether that is more or less than was reserved. A key that is not open changes nothing."""
    ms = milliseconds(seconds)
    rows = SpendingRepository(session)
    held = await rows.lock(key)
    if held is None or not held.is_open:
        return
    await _write(rows, held, ms, ReservationState.SETTLED)
    await rows.count(
        held.user_id,
        held.day,
        used_ms=ms,
        used_files=held.files,
        reserved_ms=-held.ms,
        reserved_files=-held.files,
    )


async def release(session: Session, *, key: UUID) -> None:
    """Nothing came of it: it counts nothing. A key that is not open changes nothing."""
    rows = SpendingRepository(session)
    held = await rows.lock(key)
    if held is None or not held.is_open:
        return
    await _write(rows, held, held.ms, ReservationState.RELEASED)
    await rows.count(held.user_id, held.day, reserved_ms=-held.ms, reserved_files=-held.files)


async def _write(rows: SpendingRepository, held: Reservation, ms: int, state: ReservationState) -> None:
    await rows.write(held.key, user_id=held.user_id, day=held.day, ms=ms, files=held.files, state=state)
