"""What admins do about people, and how the first of them comes to be."""

from uuid import UUID, uuid4

from backend.accounts import passwords, throttling
from backend.accounts.models import User
from backend.accounts.repository.sessions import SessionRepository
from backend.accounts.repository.users import UserRepository
from backend.accounts.schemas import StatsRead, UserCreate, UserDetail, UserRead, UserUpdate
from backend.accounts.words import Ended
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import Conflict, Invalid, NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.core.principal import Role


def check_password(password: str, *names: str | None) -> None:
    """Invalid (422, `weak_password`) with what is wrong."""
    wrong = passwords.weakness(password, *names)
    if wrong is not None:
        raise Invalid(f"password: {wrong}", code="weak_password", errors=[{"field": "password", "problem": wrong}])


def read(user: User) -> UserRead:
    return UserRead.model_validate(user.model_dump())


async def found(session: Session, user_id: UUID, *, lock: bool = False) -> User:
    """NotFound (404)."""
    users = UserRepository(session)
    user = await (users.lock(user_id) if lock else users.find(user_id))
    if user is None:
        raise NotFound(f"no user {user_id}")
    return user


async def _new_user(wish: UserCreate, actor: str) -> User:
    password = wish.password.get_secret_value()
    check_password(password, wish.username, wish.email)
    now = utc_now()
    return User(
        id=uuid4(),
        username=wish.username,
        email=wish.email,
        display_name=wish.display_name,
        role=wish.role,
        password_hash=await passwords.hash_password(password),
        password_changed_at=now,
        created_by=actor,
        created_at=now,
        updated_at=now,
    )


async def create_user(db: Database, wish: UserCreate, *, actor: str) -> UserRead:
    """Conflict (409, `taken`) where somebody has the name or the address, in whatever case."""
    user = await _new_user(wish, actor)
    async with db.transaction() as session:
        if not await UserRepository(session).add(user):
            raise Conflict(f"somebody has the user name {wish.username} or this e-mail address already", code="taken")
    return read(user)


async def create_first_admin(db: Database, wish: UserCreate) -> UserRead | None:
    """The admin of an installation that has no user; None where there is one. Any number of processes may try at once."""
    async with db.transaction() as session:
        if await UserRepository(session).exists():
            return None
    user = await _new_user(wish, "environment")
    async with db.transaction() as session:
        users = UserRepository(session)
        await users.alone("first_user")
        if await users.exists() or not await users.add(user):
            return None
    return read(user)


async def list_users(
    session: Session,
    *,
    role: Role | None = None,
    is_active: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[UserRead]:
    """Newest first."""
    rows = await UserRepository(session).page(
        role=role, is_active=is_active, after=decode_cursor(cursor), limit=limit + 1
    )
    more = encode_cursor((rows[limit - 1].created_at, rows[limit - 1].id)) if len(rows) > limit else None
    return Page(items=[read(row) for row in rows[:limit]], next_cursor=more)


async def find_user(session: Session, name: str) -> UserRead:
    """By user name or e-mail address. NotFound (404)."""
    user = await UserRepository(session).find_by_name(name)
    if user is None:
        raise NotFound(f"no user {name!r}")
    return read(user)


async def read_user(session: Session, user_id: UUID) -> UserDetail:
    """NotFound (404)."""
    user = await found(session, user_id)
    stats = await UserRepository(session).stats(user_id)
    shown = StatsRead.model_validate(stats.model_dump()) if stats is not None else None
    return UserDetail(**read(user).model_dump(), stats=shown)


async def update_user(session: Session, user_id: UUID, wish: UserUpdate) -> UserDetail:
    """Change what is given; it counts from the next request on, and who is deactivated has no session any more.

    NotFound (404); Conflict (409): `taken` for an address that somebody has, `last_admin` where nobody would be left.
    """
    users, given = UserRepository(session), wish.given()
    if "role" in given or "is_active" in given:
        # Before the row: two admins may be after each other.
        await users.alone("admins")
    user = await found(session, user_id, lock=True)
    if "email" in given and not await users.rename_email(user, given.pop("email")):
        raise Conflict("somebody has this e-mail address already", code="taken")
    was_admin = user.role == Role.ADMIN and user.is_active
    for name, value in given.items():
        setattr(user, name, value)
    if was_admin and not (user.role == Role.ADMIN and user.is_active) and not await users.other_admins(user.id):
        raise Conflict(
            f"{user.username} is the last active admin; make somebody else an admin first", code="last_admin"
        )
    user.updated_at = utc_now()
    await users.save(user)
    if not user.is_active:
        await SessionRepository(session).revoke(user.id, Ended.DEACTIVATED)
    return await read_user(session, user_id)


async def reset_password(db: Database, user_id: UUID, password: str) -> int:
    """Set a password for somebody: ends all their sessions, and a lock on their name. How many sessions ended.

    NotFound (404); Invalid (422, `weak_password`).
    """
    async with db.transaction() as session:
        user = await found(session, user_id)
    check_password(password, user.username, user.email)
    fresh = await passwords.hash_password(password)
    async with db.transaction() as session:
        user = await found(session, user_id, lock=True)
        user.password_hash, user.password_changed_at = fresh, utc_now()
        await UserRepository(session).save(user)
        await throttling.unlock(session, user.username, user.email)
        return await SessionRepository(session).revoke(user.id, Ended.PASSWORD)


async def end_sessions(session: Session, user_id: UUID) -> int:
    """End all sessions of somebody; how many there were. NotFound (404)."""
    user = await found(session, user_id)
    return await SessionRepository(session).revoke(user.id, Ended.REVOKED)
