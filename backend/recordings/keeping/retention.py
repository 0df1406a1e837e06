"""For how many days recordings are kept: a setting for each kind, and what an owner or an admin has said instead."""

from uuid import UUID

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import Forbidden, Invalid, NotFound
from backend.core.principal import Principal, Role
from backend.recordings.models import RecordingKind
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.schemas import RetentionRead, RetentionUpdate


def setting_days(config: Config, kind: RecordingKind) -> int:
    """0: for ever. A call's recording is kept no longer than the call."""
    if kind is RecordingKind.NOTE:
        return config.recordings.uploads.retention_days
    return min((days for days in (config.retention.recordings, config.retention.calls) if days), default=0)


def own(principal: Principal) -> UUID:
    """The one whose recordings a user's are. Forbidden (403) for the service, which has none."""
    if principal.user_id is None:
        raise Forbidden("this belongs to a user; the service key has no account", code="user_needed")
    return principal.user_id


async def list_retention(session: Session, owner_id: UUID, *, config: Config) -> list[RetentionRead]:
    """Of one owner's recordings, by kind, and how many the next cleaning would delete."""
    if not await RemovalRepository(session).is_user(owner_id):
        raise NotFound(f"user {owner_id} does not exist")
    return [await read_retention(session, owner_id, kind, config=config) for kind in RecordingKind]


async def read_retention(session: Session, owner_id: UUID, kind: RecordingKind, *, config: Config) -> RetentionRead:
    removals, setting = RemovalRepository(session), setting_days(config, kind)
    own = await removals.own_days(owner_id, kind)
    days = own if own is not None else setting
    due = await removals.due_now(owner_id, kind, days)
    return RetentionRead(kind=kind, days=days, own=own is not None, setting=setting, due_now=due)


async def set_retention(
    session: Session, owner_id: UUID, wish: RetentionUpdate, *, principal: Principal, config: Config
) -> RetentionRead:
    """Keep an owner's recordings for so many days; None goes back to the setting. What is due then goes with the next cleaning.

    Forbidden (403) for more than the setting, unless an admin says so. Invalid (422) for calls, which are nobody's own.
    """
    kind, days = wish.kind, wish.days
    if kind is RecordingKind.CALL:
        raise Invalid(
            "calls are the team's: CALLS_RECORDING_RETENTION_DAYS and CALLS_RETENTION_DAYS say how long", code="kind"
        )
    if not await RemovalRepository(session).is_user(owner_id):
        raise NotFound(f"user {owner_id} does not exist")
    setting = setting_days(config, kind)
    if days is not None and _longer(days, setting) and principal.role is not Role.ADMIN:
        detail = (
            f"{_words(days)} is longer than {_words(setting)}, which this installation keeps; an admin may allow it"
        )
        raise Forbidden(detail, code="role_needed", needed_role=Role.ADMIN)
    await RemovalRepository(session).set_own(owner_id, kind, days, principal.name)
    return await read_retention(session, owner_id, kind, config=config)


def _longer(days: int, setting: int) -> bool:
    return setting != 0 and (days == 0 or days > setting)


def _words(days: int) -> str:
    return f"{days} days" if days else "for ever"
