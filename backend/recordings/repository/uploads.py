"""The SQL of uploads: what is under way, and the recording that comes of it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, cast, delete, func, text, true, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col, select

from backend.core.clock import utc_now
from backend.core.db import Session
from backend.recordings.models import Checkpoint, Recording, RecordingState, RemovedFile, Upload

# Of one owner's, so that the count is right for two at once, and a second upload of the team's sees the first one.
_LOCK = "select pg_advisory_xact_lock(hashtextextended('beatline.uploads.' || :name, 0))"
# Nothing changes one that has expired; the sweep begins this much later, when every transaction from before has ended.
_MARGIN = timedelta(minutes=1)
# Of these nothing is left to keep: the same content again starts anew.
NOTHING_CAME = (RecordingState.FAILED, RecordingState.CANCELLED)


class UploadRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def lock(self, name: str) -> None:
        """One at a time until the transaction ends."""
        await (await self.session.connection()).execute(text(_LOCK), {"name": name})

    async def unfinished(self, owner_id: UUID | None) -> int:
        query = select(func.count()).select_from(Upload).where(_of(owner_id), _is_open())
        return (await self.session.exec(query)).one()

    async def list_unfinished(self, owner_id: UUID | None) -> Sequence[Upload]:
        query = select(Upload).where(_of(owner_id), _is_open())
        return (await self.session.exec(query.order_by(col(Upload.created_at)))).all()

    async def add(self, upload: Upload, lasting: timedelta) -> Upload:
        values = upload.model_dump() | {"expires_at": func.now() + lasting}
        added: Upload = (await self.session.exec(insert(Upload).values(**values).returning(Upload))).scalars().one()
        return added

    async def find(self, upload_id: UUID, *, lock: bool = False) -> Upload | None:
        query = select(Upload).where(Upload.id == upload_id)
        if lock:
            query = query.with_for_update()
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def find_open(self, upload_id: UUID) -> Upload | None:
        """Locked until the end: one that has not expired, whether it is complete or not."""
        query = select(Upload).where(Upload.id == upload_id, col(Upload.expires_at) > func.now()).with_for_update()
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def advance(self, upload_id: UUID, offset: int, piece: str, size: int, lasting: timedelta) -> Upload | None:
        """Add a piece that begins at `offset`. None where that is not where the upload ends, or where it is no longer open."""
        pieces = func.coalesce(col(Upload.progress)["pieces"], cast([], JSONB))
        change = (
            update(Upload)
            .where(col(Upload.id) == upload_id, col(Upload.offset_bytes) == offset, _is_open())
            .values(
                offset_bytes=offset + size,
                progress=col(Upload.progress).op("||")(
                    func.jsonb_build_object("pieces", pieces.op("||")(cast([piece], JSONB)))
                ),
                expires_at=func.now() + lasting,
            )
            .returning(Upload)
            .execution_options(populate_existing=True)
        )
        advanced: Upload | None = (await self.session.exec(change)).scalars().first()
        return advanced

    async def prolong(self, upload_id: UUID, lasting: timedelta) -> bool:
        change = update(Upload).where(col(Upload.id) == upload_id, _is_open()).values(expires_at=func.now() + lasting)
        return (await self.session.exec(change.returning(col(Upload.id)))).first() is not None

    async def describe(self, upload_id: UUID, values: dict[str, Any]) -> Upload | None:
        change = update(Upload).where(col(Upload.id) == upload_id, _is_open()).values(**values).returning(Upload)
        changed = await self.session.exec(change.execution_options(populate_existing=True))
        described: Upload | None = changed.scalars().first()
        return described

    async def begin_joining(self, upload_id: UUID, lasting: timedelta) -> bool:
        """False where somebody else is at it, or it is no longer open."""
        until = cast(col(Upload.progress)["joining_until"].astext, DateTime(timezone=True))
        free = (until.is_(None) | (until < func.now())) & col(Upload.progress)["joined"].is_(None)
        return await self._note(upload_id, free, joining_until=func.now() + lasting)

    async def go_on_joining(self, upload_id: UUID, lasting: timedelta) -> bool:
        return await self._note(upload_id, true(), joining_until=func.now() + lasting)

    async def keep_joined(self, upload_id: UUID, size: int, sha256: str) -> bool:
        """The blob is there: nobody joins the pieces again. False where the upload is no longer open."""
        return await self._note(upload_id, true(), joined=func.jsonb_build_object("size_bytes", size, "sha256", sha256))

    async def end_joining(self, upload_id: UUID) -> None:
        change = update(Upload).where(col(Upload.id) == upload_id)
        await self.session.exec(change.values(progress=col(Upload.progress).op("-")("joining_until")))

    async def _note(self, upload_id: UUID, condition: Any, **members: Any) -> bool:
        noted = func.jsonb_build_object(*(each for member in members.items() for each in member))
        change = (
            update(Upload)
            .where(col(Upload.id) == upload_id, _is_open(), condition)
            .values(progress=col(Upload.progress).op("||")(noted))
            .execution_options(synchronize_session=False)
        )
        return (await self.session.exec(change.returning(col(Upload.id)))).first() is not None

    async def holds(self, owner_id: UUID | None, key: str) -> bool:
        """Whether a blob is that of a recording."""
        whose = col(Recording.owner_id).is_(None) if owner_id is None else col(Recording.owner_id) == owner_id
        query = select(Recording.id).where(whose, Recording.blob_key == key).limit(1)
        return (await self.session.exec(query)).first() is not None

    async def expire(self, upload_id: UUID) -> bool:
        """Nobody goes on with it from now on. False for one that is complete, or gone."""
        change = (
            update(Upload)
            .where(col(Upload.id) == upload_id, col(Upload.recording_id).is_(None))
            .values(expires_at=func.least(Upload.expires_at, func.now()))
        )
        return (await self.session.exec(change.returning(col(Upload.id)))).first() is not None

    async def complete(self, upload: Upload, recording_id: UUID) -> None:
        upload.recording_id = recording_id
        self.session.add(upload)
        await self.session.flush()

    async def remove(self, upload_id: UUID) -> None:
        await self.session.exec(delete(Upload).where(col(Upload.id) == upload_id))

    async def expired(self, limit: int) -> Sequence[Upload]:
        query = select(Upload).where(col(Upload.expires_at) < func.now() - _MARGIN)
        return (await self.session.exec(query.order_by(col(Upload.expires_at)).limit(limit))).all()

    async def received(self, rested: timedelta, lasting: timedelta, limit: int) -> Sequence[UUID]:
        """Resumable ones that are there as a whole, and of which nothing has come for `rested`: whoever took the end was lost."""
        query = (
            select(Upload.id)
            .where(
                _is_open(),
                col(Upload.offset_bytes) == col(Upload.size_bytes),
                col(Upload.expires_at) < func.now() + lasting - rested,
            )
            .limit(limit)
        )
        return (await self.session.exec(query)).all()

    async def add_recording(self, recording: Recording) -> bool:
        """False where its owner has one of the same content."""
        row = insert(Recording).values(**recording.model_dump()).on_conflict_do_nothing()
        return (await self.session.exec(row.returning(col(Recording.id)))).first() is not None

    async def same(self, owner_id: UUID | None, sha256: str) -> Recording | None:
        """The owner's recording of the same content, locked until the end; the oldest one of the team's."""
        whose = col(Recording.owner_id).is_(None) if owner_id is None else col(Recording.owner_id) == owner_id
        query = (
            select(Recording)
            .where(whose, Recording.kind == "note", Recording.sha256 == sha256)
            .order_by(col(Recording.created_at))
            .limit(1)
            .with_for_update()
        )
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def may_have(self, owner_id: UUID, sha256: str | None, sizes: range | None) -> bool:
        """Whether somebody has a recording of this content, where that is known, and of one of these sizes, where they are.

        One that came to nothing does not count, and where nothing is known there is none.
        """
        query = select(Recording.id).where(
            Recording.owner_id == owner_id, Recording.kind == "note", col(Recording.state).not_in(NOTHING_CAME)
        )
        if sha256 is not None:
            query = query.where(Recording.sha256 == sha256)
        if sizes is not None:
            query = query.where(col(Recording.size_bytes).between(sizes.start, sizes.stop - 1))
        if sha256 is None and sizes is None:
            return False
        return (await self.session.exec(query.limit(1))).first() is not None

    async def find_recording(self, recording_id: UUID) -> Recording | None:
        query = select(Recording).where(Recording.id == recording_id)
        return (await self.session.exec(query, execution_options={"populate_existing": True})).first()

    async def replace(self, recording: Recording, *, other_options: bool, **values: Any) -> None:
        """Write a new upload into a recording that came to nothing; what was done with other options counts no more."""
        if other_options:
            await self.session.exec(delete(Checkpoint).where(col(Checkpoint.recording_id) == recording.id))
        change = update(Recording).where(col(Recording.id) == recording.id)
        await self.session.exec(change.values(updated_at=func.now(), **values))

    async def remove_file(self, key: str) -> None:
        """Have a blob deleted: by the sweep of removed files, so that a crash leaves none."""
        row = RemovedFile(place="storage", path=key, until=utc_now())
        await self.session.exec(insert(RemovedFile).values(**row.model_dump()).on_conflict_do_nothing())

    async def file_gone(self, key: str) -> None:
        """It was deleted already."""
        at = (col(RemovedFile.place) == "storage") & (col(RemovedFile.path) == key)
        await self.session.exec(delete(RemovedFile).where(at))


def _of(owner_id: UUID | None) -> Any:
    return col(Upload.owner_id).is_(None) if owner_id is None else col(Upload.owner_id) == owner_id


def _is_open() -> Any:
    return col(Upload.recording_id).is_(None) & (col(Upload.expires_at) > func.now())
