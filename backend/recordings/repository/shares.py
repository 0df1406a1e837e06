"""The SQL of share links."""

from uuid import UUID

from sqlalchemy import func, update
from sqlmodel import col, select

from backend.core.db import Session
from backend.recordings.models import Recording, ShareLink


class ShareRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def add(self, link: ShareLink) -> None:
        self.session.add(link)
        await self.session.flush()

    async def listed(self, recording_id: UUID) -> list[ShareLink]:
        """Newest first."""
        query = (
            select(ShareLink)
            .where(ShareLink.recording_id == recording_id)
            .order_by(col(ShareLink.created_at).desc(), col(ShareLink.id))
        )
        return list((await self.session.exec(query)).all())

    async def count_open(self, recording_id: UUID) -> int:
        query = (
            select(func.count())
            .select_from(ShareLink)
            .where(
                ShareLink.recording_id == recording_id,
                col(ShareLink.revoked_at).is_(None),
                col(ShareLink.expires_at) > func.now(),
            )
        )
        return (await self.session.exec(query)).one()

    async def opened(self, token_hash: bytes) -> tuple[ShareLink, Recording] | None:
        query = (
            select(ShareLink, Recording)
            .join(Recording, col(Recording.id) == ShareLink.recording_id)
            .where(ShareLink.token_hash == token_hash)
        )
        found = (await self.session.exec(query)).first()
        return (found[0], found[1]) if found is not None else None

    async def count_use(self, share_id: UUID) -> None:
        await self.session.exec(
            update(ShareLink)
            .where(col(ShareLink.id) == share_id)
            .values(uses=ShareLink.uses + 1, last_used_at=func.now())
        )

    async def revoke(self, recording_id: UUID, share_id: UUID) -> ShareLink | None:
        """The link, which stays revoked since the first time; None where the recording has no such one."""
        change = (
            update(ShareLink)
            .where(col(ShareLink.recording_id) == recording_id, col(ShareLink.id) == share_id)
            .values(revoked_at=func.coalesce(ShareLink.revoked_at, func.now()))
            .returning(ShareLink)
            .execution_options(populate_existing=True)
        )
        link: ShareLink | None = (await self.session.exec(change)).scalars().first()
        return link
