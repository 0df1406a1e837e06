"""The SQL of recordings: every change of state is a conditional update that says whether it changed a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, exists, func, literal, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import SQLModel, col, or_, select

from backend.core.db import Session
from backend.recordings.models import Recording, RecordingState, SegmentRow, SpeakerRow, SummaryRow, TranscriptRow

OPEN_STATES = (RecordingState.REGISTERED, RecordingState.FETCHED, RecordingState.TRANSCRIBING)


# What one attempt leaves on a row that the next one begins without.
_OF_AN_ATTEMPT = ("stage", "percent", "seconds_left", "cancel_requested_at", "claimed_until", "error", "error_code")


def _is_free() -> ColumnElement[bool]:
    """Not final, and nobody is at it. The server's clock decides, so that workers' clocks may differ."""
    return col(Recording.state).in_(OPEN_STATES) & or_(
        col(Recording.claimed_until).is_(None), col(Recording.claimed_until) <= func.now()
    )


def _is_waiting(recording_id: UUID) -> ColumnElement[bool]:
    return (col(Recording.id) == recording_id) & (col(Recording.state) == RecordingState.FETCHED) & _is_free()


def _state_of(state: str | None) -> RecordingState | None:
    return RecordingState(state) if state is not None else None


def _is_held(claimed: Recording) -> ColumnElement[bool]:
    return (
        (col(Recording.id) == claimed.id)
        & (col(Recording.attempts) == claimed.attempts)
        & col(Recording.state).in_(OPEN_STATES)
    )


def _without_result(state: RecordingState) -> ColumnElement[str]:
    """The state of one of which nothing new came: what was heard before is there still."""
    heard = exists().where(col(TranscriptRow.recording_id) == col(Recording.id))
    return case((heard, RecordingState.READY.value), else_=literal(state.value))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a recording ended, for its owner. `name` is a person's title for it, else its file's name.

    `fresh`: it was made less than a minute ago; `kept`: the transcript is the one from before.
    """

    owner_id: UUID | None
    attempts: int
    name: str | None
    ready: bool
    kept: bool
    fresh: bool
    error: str | None
    created_at: datetime
    duration_ms: int | None


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
                # The sweep may have put it off for long, behind others; whoever is lost is followed soon.
                next_attempt_at=func.now() + lease,
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

    async def end(self, claimed: Recording, state: RecordingState, **values: Any) -> RecordingState | None:
        """The same for one of which nothing came: `state`, or ready where what was heard before is there. The state it has."""
        change = update(Recording).where(_is_held(claimed))
        change = change.values(state=_without_result(state), updated_at=func.now(), **values)
        return _state_of((await self.session.exec(change.returning(col(Recording.state)))).scalars().first())

    async def end_waiting(self, recording_id: UUID, state: RecordingState, **values: Any) -> RecordingState | None:
        """The same for one that no worker has begun with."""
        change = update(Recording).where(_is_waiting(recording_id))
        change = change.values(state=_without_result(state), updated_at=func.now(), **values)
        return _state_of((await self.session.exec(change.returning(col(Recording.state)))).scalars().first())

    async def finish(self, claimed: Recording, **values: Any) -> bool:
        """The same for a result, which nobody wants any more once the recording is to be cancelled."""
        change = update(Recording).where(_is_held(claimed), col(Recording.cancel_requested_at).is_(None))
        change = change.values(state=RecordingState.READY, updated_at=func.now(), **values)
        return (await self.session.exec(change.returning(col(Recording.id)))).first() is not None

    async def give_title(self, recording_id: UUID, title: str | None, *, instead_of: str | None) -> None:
        """For a recording that has none, or `instead_of`; its owner may have given it one meanwhile."""
        kept = func.nullif(Recording.title, instead_of)
        change = update(Recording).where(col(Recording.id) == recording_id)
        await self.session.exec(change.values(title=func.coalesce(kept, title)))

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

    async def release(self, claimed: Recording, *, error: str | None, wait: timedelta) -> Look | None:
        """Give it back for the next attempt after `wait`; what is seen of it on the way, None where somebody else has it."""
        cancelled = col(Recording.cancel_requested_at).is_not(None)
        next_attempt_at = case((cancelled, func.now()), else_=func.now() + wait)
        return await self.look(
            claimed, next_attempt_at=next_attempt_at, claimed_until=None, error=error, seconds_left=None
        )

    async def request_cancel(self, recording_id: UUID) -> Recording | None:
        """Ask for an open recording to be cancelled; at once where nobody is at it. None where it is final or unknown.

        Where the worker at it is lost, the sweep sends it as soon as the lease ends.
        """
        change = (
            update(Recording)
            .where(col(Recording.id) == recording_id, col(Recording.state).in_(OPEN_STATES))
            .values(
                cancel_requested_at=func.coalesce(Recording.cancel_requested_at, func.now()),
                state=case((_is_free(), _without_result(RecordingState.CANCELLED)), else_=Recording.state),
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

    async def start_again(
        self, recording_id: UUID, first_sweep: timedelta, states: Sequence[RecordingState], **values: Any
    ) -> Recording | None:
        """Open a recording in one of `states` anew; whoever held it before may write no more. None where it is in another."""
        change = (
            update(Recording)
            .where(
                col(Recording.id) == recording_id,
                col(Recording.state).in_(states),
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
                **values,
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
            .where(_is_waiting(recording_id))
            .values(updated_at=func.now(), **values)
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).first() is not None

    async def fail_open(self, kind: str, subject_id: UUID, error: str) -> Recording | None:
        """Ready where what was heard before is there."""
        change = (
            update(Recording)
            .where(
                col(Recording.kind) == kind,
                col(Recording.subject_id) == subject_id,
                col(Recording.state).in_(OPEN_STATES),
            )
            .values(
                state=_without_result(RecordingState.FAILED), error=error, claimed_until=None, updated_at=func.now()
            )
            .returning(Recording)
            .execution_options(populate_existing=True)
        )
        failed: Recording | None = (await self.session.exec(change)).scalars().first()
        return failed

    async def outcome(self, recording_id: UUID, fresh: timedelta) -> Outcome | None:
        """None where it is gone. A title that stands in its summary, too, is the machine's."""
        theirs = case((col(Recording.title).is_distinct_from(SummaryRow.title), Recording.title))
        query = (
            select(Recording, func.coalesce(theirs, Recording.filename), Recording.created_at > func.now() - fresh)
            .outerjoin(SummaryRow, col(SummaryRow.recording_id) == Recording.id)
            .where(Recording.id == recording_id)
        )
        row = (await self.session.exec(query, execution_options={"populate_existing": True})).first()
        if row is None:
            return None
        found, name, is_fresh = row
        ready = found.state == RecordingState.READY
        return Outcome(
            owner_id=found.owner_id,
            attempts=found.attempts,
            name=name,
            ready=ready and found.error is None,
            kept=ready and found.error is not None,
            fresh=is_fresh,
            error=found.error,
            created_at=found.created_at,
            duration_ms=found.duration_ms,
        )

    async def sample_keys(self, recording_id: UUID) -> set[str]:
        """Of the voices of the transcript that is there."""
        query = select(SpeakerRow.sample_key).where(SpeakerRow.recording_id == recording_id)
        return {key for key in (await self.session.exec(query)).all() if key is not None}

    async def marks(self, recording_id: UUID) -> tuple[int, int]:
        """What people have made of a transcript: how many segments they have changed, how many speakers they have named."""
        edited = select(func.count()).where(SegmentRow.recording_id == recording_id, col(SegmentRow.version) > 1)
        named = select(func.count()).where(SpeakerRow.recording_id == recording_id, col(SpeakerRow.name).is_not(None))
        return (await self.session.exec(edited)).one(), (await self.session.exec(named)).one()

    async def store(self, rows: Sequence[SQLModel]) -> None:
        """Insert rows of a recording's result."""
        self.session.add_all(rows)
        await self.session.flush()

    async def postpone_due(self, wait: timedelta, longest: timedelta, limit: int) -> Sequence[UUID]:
        """The ids of free recordings whose next attempt is due, which becomes due again after `wait`.

        After as long again as it has waited, where that is more, up to `longest`: behind a long queue its message is in it.
        """
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
            .values(
                next_attempt_at=func.now()
                + func.least(longest, func.greatest(wait, func.now() - col(Recording.updated_at)))
            )
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).scalars().all()
