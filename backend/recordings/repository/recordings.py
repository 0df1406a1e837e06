"""The SQL of recordings: every change of state is a conditional update that says whether it changed a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col, or_, select

from backend.core.db import Session
from backend.recordings.models import Recording, RecordingState, SegmentRow, TranscriptRow

OPEN_STATES = (RecordingState.REGISTERED, RecordingState.FETCHED, RecordingState.TRANSCRIBING)


# What one attempt leaves on a row that the next one begins without.
_OF_AN_ATTEMPT = ("stage", "percent", "seconds_left", "cancel_requested_at", "claimed_until", "error", "error_code")


def _is_free() -> ColumnElement[bool]:
    """Not final, and nobody is at it. The server's clock decides, so that workers' clocks may differ."""
    return col(Recording.state).in_(OPEN_STATES) & or_(
        col(Recording.claimed_until).is_(None), col(Recording.claimed_until) <= func.now()
    )


def _is_held(claimed: Recording) -> ColumnElement[bool]:
    return (
        (col(Recording.id) == claimed.id)
        & (col(Recording.attempts) == claimed.attempts)
        & col(Recording.state).in_(OPEN_STATES)
    )


@dataclass(frozen=True, slots=True)
class Look:
    """What a worker sees of the recording it holds."""

    cancel_requested: bool


class RecordingRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def add(self, recording: Recording) -> bool:
        """Insert it, unless its subject already has one."""
        row = (
            insert(Recording)
            .values(**recording.model_dump())
            .on_conflict_do_nothing(index_elements=["kind", "subject_id"])
        )
        added = await self.session.exec(row.returning(col(Recording.id)))
        return added.first() is not None

    async def find(self, kind: str, subject_id: UUID) -> Recording | None:
        query = select(Recording).where(Recording.kind == kind, Recording.subject_id == subject_id)
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def find_transcript(self, kind: str, subject_id: UUID) -> TranscriptRow | None:
        query = (
            select(TranscriptRow)
            .join(Recording, col(Recording.id) == TranscriptRow.recording_id)
            .where(Recording.kind == kind, Recording.subject_id == subject_id)
        )
        return (await self.session.exec(query)).first()

    async def briefs(self, kind: str, subject_ids: Sequence[UUID]) -> Sequence[tuple[UUID, str, str | None]]:
        """Subject, state and the transcript's first line of each subject's recording."""
        query = (
            select(Recording.subject_id, Recording.state, SegmentRow.text)
            .outerjoin(SegmentRow, (col(SegmentRow.recording_id) == Recording.id) & (col(SegmentRow.number) == 0))
            .where(Recording.kind == kind, col(Recording.subject_id).in_(subject_ids))
        )
        return [(row[0], row[1], row[2]) for row in (await self.session.exec(query)).all()]

    async def get(self, recording_id: UUID) -> Recording | None:
        query = select(Recording).where(Recording.id == recording_id)
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def finished_of(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those that are final or gone."""
        query = select(Recording.id).where(col(Recording.id).in_(ids), col(Recording.state).in_(OPEN_STATES))
        return set(ids) - set((await self.session.exec(query)).all())

    async def claim(self, recording_id: UUID, lease: timedelta) -> Recording | None:
        """Take a free recording for `lease`; None where it is final, being worked on or unknown."""
        change = (
            update(Recording)
            .where(col(Recording.id) == recording_id, _is_free())
            .values(
                claimed_until=func.now() + lease,
                attempts=Recording.attempts + 1,
                tries=Recording.tries + 1,
                updated_at=func.now(),
            )
            .returning(Recording)
            .execution_options(populate_existing=True)
        )
        claimed: Recording | None = (await self.session.exec(change)).scalars().first()
        return claimed

    async def change_claimed(self, claimed: Recording, **values: Any) -> bool:
        """Change a recording that this worker still holds: not final, and claimed by nobody after it."""
        change = update(Recording).where(_is_held(claimed)).values(updated_at=func.now(), **values)
        return (await self.session.exec(change.returning(col(Recording.id)))).first() is not None

    async def finish(self, claimed: Recording, *, title: str | None, **values: Any) -> bool:
        """The same for a result, which nobody wants any more once the recording is to be cancelled.

        `title` is for a recording that has none; its owner may have given it one meanwhile.
        """
        change = update(Recording).where(_is_held(claimed), col(Recording.cancel_requested_at).is_(None))
        change = change.values(title=func.coalesce(Recording.title, title), updated_at=func.now(), **values)
        return (await self.session.exec(change.returning(col(Recording.id)))).first() is not None

    async def look(self, claimed: Recording, lease: timedelta | None = None, **values: Any) -> Look | None:
        """Whether this worker still holds it, None where not; `values` are written on the way, and a new lease."""
        if lease is not None:
            values["claimed_until"] = func.now() + lease
        if values:
            change = update(Recording).where(_is_held(claimed)).values(updated_at=func.now(), **values)
            found = (await self.session.exec(change.returning(col(Recording.cancel_requested_at)))).all()
            return Look(found[0][0] is not None) if found else None
        query = select(Recording.cancel_requested_at).where(_is_held(claimed))
        seen: Sequence[datetime | None] = (await self.session.exec(query)).all()
        return Look(seen[0] is not None) if seen else None

    async def release(self, claimed: Recording, *, error: str | None, wait: timedelta) -> bool:
        return await self.change_claimed(claimed, claimed_until=None, error=error, next_attempt_at=func.now() + wait)

    async def request_cancel(self, recording_id: UUID) -> Recording | None:
        """Ask for an open recording to be cancelled; at once where nobody is at it. None where it is final or unknown.

        Where the worker at it is lost, the sweep sends it as soon as the lease ends.
        """
        change = (
            update(Recording)
            .where(col(Recording.id) == recording_id, col(Recording.state).in_(OPEN_STATES))
            .values(
                cancel_requested_at=func.coalesce(Recording.cancel_requested_at, func.now()),
                state=case((_is_free(), RecordingState.CANCELLED.value), else_=Recording.state),
                next_attempt_at=func.least(
                    Recording.next_attempt_at, func.coalesce(Recording.claimed_until, func.now())
                ),
                updated_at=func.now(),
            )
            .returning(Recording)
            .execution_options(populate_existing=True)
        )
        found: Recording | None = (await self.session.exec(change)).scalars().first()
        return found

    async def start_again(self, recording_id: UUID, first_sweep: timedelta) -> Recording | None:
        """Open a failed or cancelled recording anew; whoever held it before may write no more. None where it is neither."""
        change = (
            update(Recording)
            .where(
                col(Recording.id) == recording_id,
                col(Recording.state).in_((RecordingState.FAILED, RecordingState.CANCELLED)),
            )
            .values(
                state=case(
                    (col(Recording.blob_key).is_(None), RecordingState.REGISTERED.value),
                    else_=RecordingState.FETCHED.value,
                ),
                **dict.fromkeys(_OF_AN_ATTEMPT),
                attempts=Recording.attempts + 1,
                tries=0,
                next_attempt_at=func.now() + first_sweep,
                updated_at=func.now(),
            )
            .returning(Recording)
            .execution_options(populate_existing=True)
        )
        found: Recording | None = (await self.session.exec(change)).scalars().first()
        return found

    async def change_waiting(self, recording_id: UUID, **values: Any) -> bool:
        """Change a recording that lies in the storage and that no worker has begun with."""
        change = (
            update(Recording)
            .where(col(Recording.id) == recording_id, col(Recording.state) == RecordingState.FETCHED, _is_free())
            .values(updated_at=func.now(), **values)
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).first() is not None

    async def fail_open(self, kind: str, subject_id: UUID, error: str) -> bool:
        change = (
            update(Recording)
            .where(
                col(Recording.kind) == kind,
                col(Recording.subject_id) == subject_id,
                col(Recording.state).in_(OPEN_STATES),
            )
            .values(state=RecordingState.FAILED, error=error, claimed_until=None, updated_at=func.now())
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).first() is not None

    async def store(self, rows: Sequence[SQLModel]) -> None:
        """Insert rows of a recording's result."""
        self.session.add_all(rows)
        await self.session.flush()

    async def postpone_due(self, wait: timedelta, limit: int) -> Sequence[UUID]:
        """The ids of free recordings whose next attempt is due, which becomes due again after `wait`."""
        due = (
            select(Recording.id)
            .where(_is_free(), col(Recording.next_attempt_at) <= func.now())
            .order_by(col(Recording.next_attempt_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        change = (
            update(Recording)
            .where(col(Recording.id).in_(due.scalar_subquery()))
            .values(next_attempt_at=func.now() + wait)
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).scalars().all()
