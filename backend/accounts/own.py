"""What belongs to a user: password, sessions, API keys. Another user's are not there (404)."""

from uuid import UUID, uuid4

from backend.accounts import passwords, throttling, tokens
from backend.accounts.models import ApiKey
from backend.accounts.people import check_password, found, read
from backend.accounts.repository.sessions import ApiKeyRepository, SessionRepository
from backend.accounts.repository.users import UserRepository
from backend.accounts.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead, MeRead, SessionRead
from backend.accounts.signing_in import Client, narrowed, note
from backend.accounts.words import Ended, Outcome
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import Conflict, Invalid, NotFound, TooMany
from backend.core.principal import Principal, Role, Scope

_MOST_KEYS = 50
_SHOWN_SESSIONS = 100


async def read_me(session: Session, principal: Principal) -> MeRead:
    """Who asks."""
    user = await UserRepository(session).find(principal.user_id) if principal.user_id is not None else None
    return MeRead(
        kind=principal.kind,
        name=principal.name,
        role=principal.role,
        scopes=sorted(map(Scope, principal.scopes)) if principal.scopes is not None else None,
        session_id=principal.session_id,
        user=read(user) if user is not None else None,
    )


async def change_password(
    db: Database, principal: Principal, *, config: Config, current: str, new: str, client: Client
) -> int:
    """Change one's password; ends all other sessions, and says how many. API keys stay.

    Invalid (422): `wrong_password` for the current one, which counts as an attempt to sign in, `weak_password`; TooMany (429).
    """
    async with db.transaction() as session:
        user = await found(session, _user_id(principal))
    check_password(new, user.username, user.email)
    async with db.transaction() as session:
        wait = await throttling.admit(session, config, username=user.username, address=client.address)
    if wait is not None:
        raise TooMany(f"Too many attempts; try again in {wait} s.", code="locked", retry_after=wait)
    if not await passwords.verify(current, user.password_hash):
        async with db.transaction() as session:
            await note(session, user.username, Outcome.WRONG_PASSWORD, user, client)
        raise Invalid("current_password: is wrong", code="wrong_password")
    fresh = await passwords.hash_password(new)
    async with db.transaction() as session:
        known = await found(session, user.id, lock=True)
        if known.password_hash != user.password_hash:
            raise Conflict("the password was changed a moment ago", code="changed")
        known.password_hash, known.password_changed_at = fresh, utc_now()
        await UserRepository(session).save(known)
        await throttling.forgive(session, username=user.username, address=client.address)
        return await SessionRepository(session).revoke(user.id, Ended.PASSWORD, keep=principal.session_id)


async def list_sessions(session: Session, user_id: UUID, *, current: UUID | None = None) -> list[SessionRead]:
    """Those that are not over, newest first, a hundred at most."""
    rows = await SessionRepository(session).of_user(user_id, limit=_SHOWN_SESSIONS)
    return [SessionRead.model_validate(row.model_dump() | {"is_current": row.id == current}) for row in rows]


async def end_session(session: Session, user_id: UUID, session_id: UUID) -> None:
    """NotFound (404) where the user has no such session that is not over."""
    if not await SessionRepository(session).revoke(user_id, Ended.REVOKED, session_id=session_id):
        raise NotFound(f"no session {session_id}")


async def end_other_sessions(session: Session, principal: Principal) -> int:
    """All but the one that asks; how many there were."""
    return await SessionRepository(session).revoke(_user_id(principal), Ended.REVOKED, keep=principal.session_id)


async def list_api_keys(session: Session, user_id: UUID) -> list[ApiKeyRead]:
    """Those that were not revoked, newest first; expired ones among them."""
    return [_key(row) for row in await ApiKeyRepository(session).of_user(user_id)]


async def create_api_key(session: Session, principal: Principal, wish: ApiKeyCreate) -> ApiKeyCreated:
    """A key that may do what the scopes and, at each moment, the owner's role let it. Its secret is in this answer alone.

    Invalid (422): `scopes` beyond the owner's role now, `expires_at` in the past. Conflict (409): `taken` for a name that is in
    use, `too_many_keys`.
    """
    user = await found(session, _user_id(principal), lock=True)
    now = utc_now()
    if wish.expires_at is not None and wish.expires_at <= now:
        raise Invalid("expires_at: must be in the future", code="expires_at")
    beyond = [scope for scope in wish.scopes if narrowed(Role(user.role), [scope]) != scope.role]
    if beyond:
        raise Invalid(f"scopes: {', '.join(beyond)} is more than the role {user.role} may do", code="scopes")
    keys = ApiKeyRepository(session)
    existing = await keys.of_user(user.id)
    if any(key.name == wish.name for key in existing):
        raise Conflict(f"you have an API key {wish.name!r} already; revoke it, or take another name", code="taken")
    if len(existing) >= _MOST_KEYS:
        raise Conflict(f"you have {_MOST_KEYS} API keys; revoke some", code="too_many_keys")
    prefix, key = tokens.new_api_key()
    row = ApiKey(
        id=uuid4(),
        user_id=user.id,
        name=wish.name,
        prefix=prefix,
        hash=tokens.hashed(key),
        scopes=sorted(set(wish.scopes)),
        created_at=now,
        expires_at=wish.expires_at,
    )
    await keys.add(row)
    return ApiKeyCreated(**_key(row).model_dump(), key=key)


async def revoke_api_key(session: Session, user_id: UUID, key_id: UUID) -> None:
    """At once, for good. NotFound (404) where the user has no such key that was not revoked."""
    if not await ApiKeyRepository(session).revoke(user_id, key_id):
        raise NotFound(f"no API key {key_id}")


def _user_id(principal: Principal) -> UUID:
    if principal.user_id is None:
        raise NotFound("the service key has no account")
    return principal.user_id


def _key(row: ApiKey) -> ApiKeyRead:
    return ApiKeyRead.model_validate(row.model_dump())
