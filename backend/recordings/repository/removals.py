"""The SQL of deleting: rows at once, with a list of the files that must follow them; and for how long things are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.accounts.models import User
from backend.core.clock import utc_now
from backend.core.db import Session
from backend.recordings.models import OwnerRetention, Recording, RemovedFile, ShareLink
from backend.recordings.repository.recordings import OPEN_STATES

# A worker that does not know yet that its recording is gone stores what it has at hand, and notices then.
_WATCHED = timedelta(minutes=15)
_FIRST_WAIT, _LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)

_FILES = """
insert into removed_files (place, path, until, next_attempt_at, attempts, created_at)
select place, path, max(until), now(), 0, now() from (
    select r.id, r.kind, 'storage' as place, r.blob_key as path from recordings r where r.blob_key is not null
    union all
    select r.id, r.kind, 'egress', r.source_path from recordings r where r.kind = 'call' and r.source_path <> ''
    union all
    select s.recording_id, null, 'storage', s.sample_key from recording_speakers s where s.sample_key is not null
    union all
    select id, null, 'storage', path from unnest(cast(:extra_ids as uuid[]), cast(:extra_paths as text[])) e (id, path)
) file
join (select id, case when claimed_until > now() then now() + :watched else now() end as until from recordings) r using (id)
where id = any(:ids)
group by place, path
on conflict (place, path) do update set until = greatest(removed_files.until, excluded.until), next_attempt_at = now()
returning place, path
"""
_COUNTS = """
select (select count(*) from transcripts where recording_id = any(:ids)) as transcripts,
    (select count(*) from transcript_segments where recording_id = any(:ids)) as segments,
    (select count(*) from segment_versions where recording_id = any(:ids)) as segment_versions,
    (select count(*) from recording_speakers where recording_id = any(:ids)) as speakers,
    (select count(*) from recording_shares where recording_id = any(:ids)) as shares
"""
# An outcome quotes what was said.
_REMOVE = """
with gone as (delete from recordings where id = any(:ids) returning kind, subject_id),
told as (
    update calls set updated_at = now(), outcome = outcome - 'evidence',
        recording_state = case when recording_state in ('ready', 'failed') then 'deleted' else recording_state end
    where id in (select subject_id from gone where kind = 'call')
    and (recording_state in ('ready', 'failed') or outcome ? 'evidence')
)
select count(*) from gone
"""
# The rows of uploads lead to pieces that may be left, so the sweep of uploads deletes them; names and wishes go at once.
_FORGET = """
update uploads set filename = null, title = null, options = '{}', progress = '{}', expires_at = least(expires_at, now())
where recording_id = any(:ids)
"""
# What was made by somebody who keeps such things for another time than the setting goes by theirs.
_DUE = """
select r.id from recordings r
left join recording_retention own on own.owner_id = r.owner_id and own.kind = r.kind
cross join lateral (
    select coalesce(own.days, case r.kind when 'call' then cast(:calls as int) else cast(:notes as int) end) as days
) kept
where r.state not in ('registered', 'fetched', 'transcribing')
and kept.days > 0 and r.created_at < now() - make_interval(days => kept.days)
order by r.created_at, r.id
limit :limit
for update of r skip locked
"""


_REPLACED_FILES = """
insert into removed_files (place, path, until, next_attempt_at, attempts, created_at)
select 'storage', sample_key, now(), now(), 0, now() from recording_speakers where recording_id = :id and sample_key is not null
on conflict (place, path) do update set next_attempt_at = now()
"""
_REPLACED = ("segment_versions", "transcript_segments", "recording_speakers", "transcripts")


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows went, and the files that must follow them: place and path."""

    recordings: int
    transcripts: int
    segments: int
    segment_versions: int
    speakers: int
    shares: int
    files: tuple[tuple[str, str], ...]


class RemovalRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def remove(self, ids: Sequence[UUID], extra: Sequence[tuple[UUID, str]] = ()) -> Counted:
        """Delete recordings with all that hangs on them, say so on their calls, and list their files.

        `extra`: keys in the storage that a worker may be writing, by recording.
        """
        connection = await self.session.connection()
        counts = (await connection.execute(text(_COUNTS), {"ids": list(ids)})).mappings().one()
        values = {
            "ids": list(ids),
            "watched": _WATCHED,
            "extra_ids": [recording_id for recording_id, _ in extra],
            "extra_paths": [path for _, path in extra],
        }
        files = (await connection.execute(text(_FILES), values)).all()
        await connection.execute(text(_FORGET), {"ids": list(ids)})
        gone = int((await connection.execute(text(_REMOVE), {"ids": list(ids)})).scalar_one())
        return Counted(gone, **counts, files=tuple((row[0], row[1]) for row in files))

    async def replace_result(self, recording_id: UUID) -> str | None:
        """Delete what was heard before, edits and all, for a new result; the title that the machine gave then."""
        connection = await self.session.connection()
        of = {"id": recording_id}
        await connection.execute(text(_REPLACED_FILES), of)
        for table in _REPLACED:
            await connection.execute(text(f"delete from {table} where recording_id = :id"), of)  # noqa: S608 - a constant
        title = text("delete from recording_summaries where recording_id = :id returning title")
        found: str | None = (await connection.execute(title, of)).scalar_one_or_none()
        return found

    async def keep_files(self, keys: Sequence[str]) -> None:
        """Of the storage; they are about to be written anew."""
        at = (col(RemovedFile.place) == "storage") & col(RemovedFile.path).in_(keys)
        await self.session.exec(delete(RemovedFile).where(at))

    async def due(self, *, calls: int, notes: int, limit: int) -> list[Recording]:
        """Finished recordings that have been kept long enough, oldest first, held; days by kind, 0 for ever."""
        connection = await self.session.connection()
        values = {"calls": calls, "notes": notes, "limit": limit}
        ids = (await connection.execute(text(_DUE), values)).scalars().all()
        query = (
            select(Recording).where(col(Recording.id).in_(ids)).order_by(col(Recording.created_at), col(Recording.id))
        )
        return list((await self.session.exec(query)).all())

    async def files(self, places: Sequence[str], limit: int) -> list[RemovedFile]:
        """Those whose turn it is, the longest waiting first; put off meanwhile, so that nobody else takes them."""
        due = (
            select(RemovedFile.place, RemovedFile.path)
            .where(col(RemovedFile.place).in_(places), col(RemovedFile.next_attempt_at) <= func.now())
            .order_by(col(RemovedFile.next_attempt_at))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        taken = (await self.session.exec(due)).all()
        if not taken:
            return []
        wait = func.least(_LONGEST_WAIT, _FIRST_WAIT * func.power(2, func.least(col(RemovedFile.attempts), 10)))
        change = (
            update(RemovedFile)
            .where(func.row(col(RemovedFile.place), col(RemovedFile.path)).in_([tuple(row) for row in taken]))
            .values(attempts=RemovedFile.attempts + 1, next_attempt_at=func.now() + wait)
            .returning(RemovedFile)
            .execution_options(populate_existing=True)
        )
        return list((await self.session.exec(change)).scalars().all())

    async def file_gone(self, place: str, path: str) -> None:
        """It is deleted, and forgotten unless a worker might write it once more."""
        at = (col(RemovedFile.place) == place) & (col(RemovedFile.path) == path)
        await self.session.exec(delete(RemovedFile).where(at, col(RemovedFile.until) <= func.now()))
        await self.session.exec(
            update(RemovedFile).where(at).values(next_attempt_at=col(RemovedFile.until), problem=None)
        )

    async def file_stays(self, place: str, path: str, problem: str) -> None:
        at = (col(RemovedFile.place) == place) & (col(RemovedFile.path) == path)
        await self.session.exec(update(RemovedFile).where(at).values(problem=problem))

    async def due_files(self) -> bool:
        """Whether any waits for its turn."""
        due = select(func.count()).select_from(RemovedFile).where(col(RemovedFile.next_attempt_at) <= func.now())
        return (await self.session.exec(due)).one() > 0

    async def pending_files(self) -> int:
        return (await self.session.exec(select(func.count()).select_from(RemovedFile))).one()

    async def known(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those that are there."""
        return set((await self.session.exec(select(Recording.id).where(col(Recording.id).in_(ids)))).all())

    async def existing(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those that a worker may have need of: there, and not final."""
        query = select(Recording.id).where(col(Recording.id).in_(ids), col(Recording.state).in_(OPEN_STATES))
        return set((await self.session.exec(query)).all())

    async def purge_shares(self, kept: timedelta, limit: int) -> int:
        """Delete links that have been closed for longer; how many."""
        over = func.least(col(ShareLink.expires_at), col(ShareLink.revoked_at))
        doomed = select(ShareLink.id).where(over < func.now() - kept).limit(limit).with_for_update(skip_locked=True)
        gone = await self.session.exec(
            delete(ShareLink).where(col(ShareLink.id).in_((await self.session.exec(doomed)).all()))
        )
        return gone.rowcount

    async def is_user(self, user_id: UUID) -> bool:
        return (await self.session.exec(select(User.id).where(User.id == user_id))).first() is not None

    async def own_days(self, owner_id: UUID | None, kind: str) -> int | None:
        """For how long an owner keeps recordings of a kind; None where the setting says so."""
        if owner_id is None:
            return None
        query = select(OwnerRetention.days).where(OwnerRetention.owner_id == owner_id, OwnerRetention.kind == kind)
        return (await self.session.exec(query)).first()

    async def set_own(self, owner_id: UUID, kind: str, days: int | None, by: str) -> None:
        """None goes back to the setting."""
        if days is None:
            at = (col(OwnerRetention.owner_id) == owner_id) & (col(OwnerRetention.kind) == kind)
            await self.session.exec(delete(OwnerRetention).where(at))
            return
        values = {"days": days, "updated_by": by, "updated_at": utc_now()}
        row = insert(OwnerRetention).values(owner_id=owner_id, kind=kind, **values)
        await self.session.exec(row.on_conflict_do_update(index_elements=["owner_id", "kind"], set_=values))

    async def due_now(self, owner_id: UUID, kind: str, days: int) -> int:
        """How many of an owner's recordings the next cleaning deletes."""
        if not days:
            return 0
        query = (
            select(func.count())
            .select_from(Recording)
            .where(
                Recording.owner_id == owner_id,
                Recording.kind == kind,
                col(Recording.state).not_in(OPEN_STATES),
                col(Recording.created_at) < func.now() - timedelta(days=days),
            )
        )
        return (await self.session.exec(query)).one()
