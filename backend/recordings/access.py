"""Who may read a recording, who may change it, who may only clear it away.

| whose | reads | changes | cancels, retries, deletes |
| --- | --- | --- | --- |
| nobody's: the team's | everybody | operators | operators |
| an owner's | the owner, and who has the role it is shared with | the owner | the owner, admins |

To everybody else a recording does not exist. An admin sees of an owner's recording that it is there, and no word of it.
"""

from dataclasses import dataclass
from uuid import UUID

from backend.core.db import Session
from backend.core.errors import Forbidden, NotFound
from backend.core.principal import Principal, Role, Scope
from backend.recordings.models import Recording
from backend.recordings.repository.transcripts import TranscriptRepository, Viewer


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do with a recording that they know of."""

    read: bool
    change: bool
    manage: bool


def rights(principal: Principal, recording: Recording) -> Rights | None:
    """None for whom the recording does not exist."""
    if recording.owner_id is None:
        operator = principal.role.covers(Role.OPERATOR)
        return Rights(read=True, change=operator, manage=operator)
    if recording.owner_id == principal.user_id:
        writes = principal.scoped(Role.OPERATOR)
        return Rights(read=True, change=writes, manage=writes)
    admin = principal.role is Role.ADMIN
    shared = recording.shared_role is not None and principal.role.covers(Role(recording.shared_role))
    return Rights(read=shared, change=False, manage=admin) if shared or admin else None


def viewer(principal: Principal) -> Viewer:
    """The same rules for a query over many recordings."""
    covered = tuple(role.value for role in Role if principal.role.covers(role))
    return Viewer(user_id=principal.user_id, roles=covered, admin=principal.role is Role.ADMIN)


async def known(
    session: Session, recording_id: UUID, principal: Principal, *, lock: bool = False
) -> tuple[Recording, Rights]:
    """NotFound (404) for one that is not there, or not for this one's eyes; nobody can tell which. `lock`: until the end."""
    recording = await TranscriptRepository(session).find(recording_id, lock=lock)
    granted = rights(principal, recording) if recording is not None else None
    if recording is None or granted is None:
        raise NotFound(f"recording {recording_id} does not exist")
    return recording, granted


async def readable(session: Session, recording_id: UUID, principal: Principal) -> Recording:
    """NotFound (404); Forbidden (403) for an admin with whom it is not shared."""
    recording, granted = await known(session, recording_id, principal)
    if not granted.read:
        raise Forbidden("this recording is its owner's and is not shared with you", code="not_shared")
    return recording


async def changeable(session: Session, recording_id: UUID, principal: Principal) -> Recording:
    """Held until the transaction ends. NotFound (404); Forbidden (403) for whoever may only read it."""
    recording, granted = await known(session, recording_id, principal, lock=True)
    if not granted.change:
        raise _refusal(principal, recording)
    return recording


async def manageable(session: Session, recording_id: UUID, principal: Principal) -> Recording:
    """Held until the transaction ends. NotFound (404); Forbidden (403) for whoever may not clear it away."""
    recording, granted = await known(session, recording_id, principal, lock=True)
    if not granted.manage:
        raise _refusal(principal, recording)
    return recording


def _refusal(principal: Principal, recording: Recording) -> Forbidden:
    if not principal.scoped(Role.OPERATOR):
        return Forbidden(
            f"this needs an API key with the scope {Scope.WRITE}", code="scope_needed", needed_scope=Scope.WRITE
        )
    if recording.owner_id is None:
        return Forbidden(
            f"this needs the role {Role.OPERATOR}; {principal.name} has the role {principal.role}",
            code="role_needed",
            needed_role=Role.OPERATOR,
        )
    return Forbidden("only the owner of this recording may do that", code="not_owner")
