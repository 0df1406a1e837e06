"""Signing in, going on, signing out; and who a token stands for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from backend.accounts import passwords, throttling, tokens
from backend.accounts.models import User, UserSession
from backend.accounts.repository.sessions import ApiKeyRepository, SessionRepository
from backend.accounts.repository.users import UserRepository
from backend.accounts.words import Ended, Outcome
from backend.audit.service import record_login
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import TooMany, Unauthorized
from backend.core.principal import Principal, Role, Scope
from backend.core.redaction import storable

# So long the refresh token before the newest is answered with the newest again: two tabs, or an answer that got lost.
REPEAT = timedelta(seconds=10)

_LONGEST_AGENT = 300


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from."""

    address: str
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session's tokens. The access token is good for `access_lasting`, and never longer than the session."""

    user: User
    session_id: UUID
    session_expires_at: datetime
    access_token: str
    access_lasting: timedelta
    refresh_token: str


async def login(
    db: Database,
    *,
    config: Config,
    username: str,
    password: str,
    client: Client,
    session_lasting: timedelta | None = None,
    access_lasting: timedelta | None = None,
) -> SignedIn:
    """Open a session; `username` may be the e-mail address. Each attempt is noted in the login log.

    Pages, whose cookie is the access token, give both durations alike: a session is asked for on each request, whatever the
    token says. Unauthorized (401, `wrong_credentials`), the same for a name that nobody has; TooMany (429, `locked`).
    """
    async with db.transaction() as session:
        wait = await throttling.admit(session, config, username=username, address=client.address)
        user = await UserRepository(session).find_by_name(username)
        if wait is not None:
            await note(session, username, Outcome.LOCKED, user, client)
    if wait is not None:
        raise TooMany(f"Too many attempts to sign in; try again in {wait} s.", code="locked", retry_after=wait)
    right = await passwords.verify(password, user.password_hash if user else None)
    fresh = await passwords.hash_password(password) if user and right and _outdated(user) else None
    async with db.transaction() as session:
        # For nobody, too: how long it takes must not tell.
        known = await UserRepository(session).lock(user.id if user else uuid4())
        outcome = _outcome(user, known, right)
        await note(session, username, outcome, user, client)
        if known is not None and outcome == Outcome.SUCCESS:
            await throttling.forgive(session, username=username, address=client.address)
            await UserRepository(session).note_login(known.id, fresh)
            lasting = session_lasting or timedelta(days=config.accounts.session_days)
            row = await _open(session, known, client, lasting)
            return _signed_in(config, known, row, access_lasting)
    raise Unauthorized("User name or password is wrong.", code="wrong_credentials")


def _outdated(user: User) -> bool:
    return passwords.is_outdated(user.password_hash)


def _outcome(user: User | None, known: User | None, right: bool) -> Outcome:
    """`known`: the user as they are now, who may have been changed while the password was looked at."""
    if user is None or known is None:
        return Outcome.UNKNOWN_USER
    if not right or known.password_hash != user.password_hash:
        return Outcome.WRONG_PASSWORD
    return Outcome.SUCCESS if known.is_active else Outcome.INACTIVE


async def note(session: Session, username: str, outcome: Outcome, user: User | None, client: Client) -> None:
    """For the login log."""
    await record_login(
        session,
        username=username,
        outcome=outcome,
        user_id=user.id if user else None,
        address=client.address,
        user_agent=client.user_agent,
    )


async def _open(session: Session, user: User, client: Client, lasting: timedelta) -> UserSession:
    now = utc_now()
    row = UserSession(
        id=uuid4(),
        user_id=user.id,
        seed=tokens.new_seed(),
        rotated_at=now,
        created_at=now,
        last_used_at=now,
        expires_at=now + lasting,
        address=storable(client.address),
        user_agent=storable(client.user_agent)[:_LONGEST_AGENT],
    )
    await SessionRepository(session).add(row)
    return row


def _signed_in(config: Config, user: User, row: UserSession, access_lasting: timedelta | None = None) -> SignedIn:
    keys, now = tokens.keys_of(config), utc_now()
    lasting = min(access_lasting or timedelta(seconds=config.accounts.access_seconds), row.expires_at - now)
    return SignedIn(
        user=user,
        session_id=row.id,
        session_expires_at=row.expires_at,
        access_token=tokens.access_token(keys, user_id=user.id, session_id=row.id, now=now, lasting=lasting),
        access_lasting=lasting,
        refresh_token=tokens.refresh_token(keys, session_id=row.id, seed=row.seed, generation=row.generation),
    )


async def refresh(db: Database, token: str, *, config: Config, client: Client) -> SignedIn:
    """New tokens for a refresh token, once. The one before the newest is answered alike for REPEAT, then ends the session.

    Unauthorized (401): `refresh_token` for one that is of no use, `token_reused` for one that was used before.
    """
    parts = tokens.parts_of_refresh(token)
    if parts is None:
        raise _useless()
    session_id, generation = parts
    async with db.transaction() as session:
        sessions = SessionRepository(session)
        row = await sessions.lock(session_id)
        alive = await sessions.alive(session_id)
        if row is None or alive is None or not _authentic(config, row, token, generation):
            raise _useless()
        user, now = alive[1], await sessions.now()
        if generation == row.generation:
            row.generation, row.rotated_at, row.last_used_at = generation + 1, now, now
            await sessions.save(row)
            return _signed_in(config, user, row)
        if generation == row.generation - 1 and now - row.rotated_at <= REPEAT:
            return _signed_in(config, user, row)
        await sessions.revoke(user.id, Ended.TOKEN_REUSED, session_id=row.id)
        await note(session, user.username, Outcome.TOKEN_REUSED, user, client)
    raise Unauthorized("This refresh token was used before; its session is ended. Sign in again.", code="token_reused")


def _authentic(config: Config, row: UserSession, token: str, generation: int) -> bool:
    keys = tokens.keys_of(config)
    made = tokens.refresh_token(keys, session_id=row.id, seed=row.seed, generation=generation)
    return tokens.same(token, made) and generation <= row.generation


def _useless() -> Unauthorized:
    return Unauthorized("The refresh token is of no use (any more); sign in again.", code="refresh_token")


async def logout(db: Database, principal: Principal, *, client: Client) -> None:
    """End the session that asks. Once more changes nothing; nor does it for who has no session."""
    if principal.user_id is None or principal.session_id is None:
        return
    async with db.transaction() as session:
        ended = await SessionRepository(session).revoke(
            principal.user_id, Ended.LOGOUT, session_id=principal.session_id
        )
        if ended:
            user = await UserRepository(session).find(principal.user_id)
            await note(session, principal.name, Outcome.LOGOUT, user, client)


def authenticator(config: Config) -> Callable[[Database, str], Awaitable[Principal | None]]:
    """`authenticate` for one deployment: who an access token or an API key stands for now, None where it is of no use."""
    keys = tokens.keys_of(config)

    async def authenticate(db: Database, token: str) -> Principal | None:
        prefix = tokens.prefix_of(token)
        if prefix is not None:
            return await _by_api_key(db, token, prefix)
        session_id = tokens.session_of_access(keys, token)
        return await _by_session(db, session_id) if session_id is not None else None

    return authenticate


async def _by_session(db: Database, session_id: UUID) -> Principal | None:
    async with db.transaction() as session:
        sessions = SessionRepository(session)
        found = await sessions.alive(session_id)
        if found is None:
            return None
        row, user = found
        await sessions.note_use(row)
    return Principal("user", user.username, Role(user.role), user_id=user.id, session_id=row.id)


async def _by_api_key(db: Database, token: str, prefix: str) -> Principal | None:
    async with db.transaction() as session:
        keys = ApiKeyRepository(session)
        found = await keys.alive(prefix)
        if found is None or not tokens.same(tokens.hashed(token), found[0].hash):
            return None
        row, user = found
        await keys.note_use(row)
    return Principal(
        "api_key",
        user.username,
        narrowed(Role(user.role), row.scopes),
        user_id=user.id,
        api_key_id=row.id,
        scopes=frozenset(row.scopes),
    )


def narrowed(role: Role, scopes: list[str]) -> Role:
    """What is left of a role under these scopes."""
    most = max((Scope(scope).role for scope in scopes), key=list(Role).index)
    return most if role.covers(most) else role
