"""The SQL of share links."""

from uuid import UUID

from sqlalchemy import and_, exists, func, not_, or_, update
from sqlmodel import col, select

from backend.accounts.models import User
from backend.core.db import Session
from backend.recordings.models import Recording, ShareLink

_IS_OPEN = and_(col(ShareLink.revoked_at).is_(None), col(ShareLink.expires_at) > func.now())
# A user's name never changes and is never given to somebody else.
_IS_CLOSED = exists().where(col(User.username) == col(ShareLink.created_by), not_(col(User.is_active)))


class ShareRepository:
    """Inside the session's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def add(self, link: ShareLink) -> None:
        self.session.add(link)
        await self.session.flush()

    async def listed(self, recording_id: UUID, *, over: int) -> list[tuple[ShareLink, bool]]:
        """With whether its maker's account is closed; newest first: all that are open, and of the others the newest `over`."""
        own, newest = ShareLink.recording_id == recording_id, col(ShareLink.created_at).desc()
        last = select(ShareLink.id).where(own, not_(_IS_OPEN)).order_by(newest).limit(over)
        query = (
            select(ShareLink, _IS_CLOSED)
            .where(own, or_(_IS_OPEN, col(ShareLink.id).in_(last)))
            .order_by(newest, col(ShareLink.id))
        )
        return [(row[0], row[1]) for row in (await self.session.exec(query)).all()]

    async def count_open(self, recording_id: UUID) -> int:
        query = select(func.count()).select_from(ShareLink).where(ShareLink.recording_id == recording_id, _IS_OPEN)
        return (await self.session.exec(query)).one()

    async def opened(self, token_hash: bytes) -> tuple[ShareLink, Recording, bool] | None:
        """With whether its maker's account is closed."""
        query = (
            select(ShareLink, Recording, _IS_CLOSED)
            .join(Recording, col(Recording.id) == ShareLink.recording_id)
            .where(ShareLink.token_hash == token_hash)
        )
        found = (await self.session.exec(query)).first()
        return (found[0], found[1], found[2]) if found is not None else None

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
