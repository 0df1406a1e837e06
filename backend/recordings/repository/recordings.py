"""The SQL of recordings: every change of state is a conditional update that says whether it changed a row."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, or_, select

from backend.core.db import Session
from backend.core.paging import Position
from backend.recordings.models import Recording, RecordingState, TranscriptRow

_REMOVE = """
with gone as (delete from recordings where id = any(:ids) returning kind, subject_id),
told as (
    update calls set recording_state = 'deleted', updated_at = now()
    where id in (select subject_id from gone where kind = 'call') and recording_state in ('ready', 'failed')
)
select count(*) from gone
"""

OPEN_STATES = (RecordingState.REGISTERED, RecordingState.FETCHED, RecordingState.TRANSCRIBING)


def _is_free() -> ColumnElement[bool]:
    """Not final, and nobody is at it. The server's clock decides, so that workers' clocks may differ."""
    return col(Recording.state).in_(OPEN_STATES) & or_(
        col(Recording.claimed_until).is_(None), col(Recording.claimed_until) <= func.now()
    )


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
            select(Recording.subject_id, Recording.state, col(TranscriptRow.segments)[0]["text"].astext)
            .outerjoin(TranscriptRow, col(TranscriptRow.recording_id) == Recording.id)
            .where(Recording.kind == kind, col(Recording.subject_id).in_(subject_ids))
        )
        return [(row[0], row[1], row[2]) for row in (await self.session.exec(query)).all()]

    async def claim(self, recording_id: UUID, lease: timedelta) -> Recording | None:
        """Take a free recording for `lease`; None where it is final, being worked on or unknown."""
        change = (
            update(Recording)
            .where(col(Recording.id) == recording_id, _is_free())
            .values(claimed_until=func.now() + lease, attempts=Recording.attempts + 1, updated_at=func.now())
            .returning(Recording)
            .execution_options(populate_existing=True)
        )
        claimed: Recording | None = (await self.session.exec(change)).scalars().first()
        return claimed

    async def change_claimed(self, claimed: Recording, **values: Any) -> bool:
        """Change a recording that this worker still holds: not final, and claimed by nobody after it."""
        change = (
            update(Recording)
            .where(
                col(Recording.id) == claimed.id,
                col(Recording.attempts) == claimed.attempts,
                col(Recording.state).in_(OPEN_STATES),
            )
            .values(updated_at=func.now(), **values)
            .returning(col(Recording.id))
        )
        return (await self.session.exec(change)).first() is not None

    async def renew(self, claimed: Recording, lease: timedelta) -> bool:
        return await self.change_claimed(claimed, claimed_until=func.now() + lease)

    async def release(self, claimed: Recording, *, error: str, wait: timedelta) -> bool:
        return await self.change_claimed(claimed, claimed_until=None, error=error, next_attempt_at=func.now() + wait)

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

    async def store_transcript(self, transcript: TranscriptRow) -> None:
        self.session.add(transcript)
        await self.session.flush()

    async def kept_longer(self, days: int, after: Position | None, limit: int) -> list[Recording]:
        """Finished recordings that were made more than `days` days ago, oldest first."""
        at, key = col(Recording.created_at), col(Recording.id)
        query = select(Recording).where(
            at < func.now() - timedelta(days=days), col(Recording.state).not_in(OPEN_STATES)
        )
        if after is not None:
            query = query.where(at >= after[0], (at > after[0]) | (key > after[1]))
        return list((await self.session.exec(query.order_by(at, key).limit(limit))).all())

    async def remove(self, ids: Sequence[UUID]) -> int:
        """Delete recordings and their transcripts, and say so on their calls; how many."""
        connection = await self.session.connection()
        return int((await connection.execute(text(_REMOVE), {"ids": list(ids)})).scalar_one())

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
