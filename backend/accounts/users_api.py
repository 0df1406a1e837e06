"""HTTP of people, for admins."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.accounts import service as accounts
from backend.accounts.schemas import (
    ApiKeyRead,
    PasswordReset,
    SessionRead,
    SessionsEnded,
    UserCreate,
    UserDetail,
    UserRead,
    UserUpdate,
)
from backend.core.paging import Page
from backend.core.principal import Role
from backend.core.web import Admin, AdminDep, DatabaseDep, SessionDep

router = APIRouter(prefix="/api/users", tags=["users"], dependencies=[Admin])


@router.get("")
async def list_users(
    session: SessionDep,
    role: Role | None = None,
    is_active: bool | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page[UserRead]:
    """Everybody with an account, newest first."""
    return await accounts.list_users(session, role=role, is_active=is_active, cursor=cursor, limit=limit)


@router.post("", status_code=201)
async def create_user(db: DatabaseDep, principal: AdminDep, response: Response, body: UserCreate) -> UserRead:
    """An account. Its name never changes."""
    user = await accounts.create_user(db, body, actor=principal.name)
    response.headers["Location"] = f"/api/users/{user.id}"
    return user


@router.get("/{user_id}")
async def read_user(session: SessionDep, user_id: UUID) -> UserDetail:
    """One account, and what its owner has done."""
    return await accounts.read_user(session, user_id)


@router.patch("/{user_id}")
async def update_user(session: SessionDep, user_id: UUID, body: UserUpdate) -> UserDetail:
    """Change role, activity, address or shown name: it counts from the next request on. The last active admin stays one."""
    return await accounts.update_user(session, user_id, body)


@router.post("/{user_id}/password")
async def reset_password(db: DatabaseDep, user_id: UUID, body: PasswordReset) -> SessionsEnded:
    """Set a password for somebody; ends all their sessions, and a lock on their name."""
    ended = await accounts.reset_password(db, user_id, body.new_password.get_secret_value())
    return SessionsEnded(ended=ended)


@router.get("/{user_id}/sessions")
async def list_sessions(session: SessionDep, user_id: UUID) -> list[SessionRead]:
    """Somebody's sessions that are not over, newest first."""
    await accounts.read_user(session, user_id)
    return await accounts.list_sessions(session, user_id)


@router.delete("/{user_id}/sessions")
async def end_sessions(session: SessionDep, user_id: UUID) -> SessionsEnded:
    """End all sessions of somebody."""
    return SessionsEnded(ended=await accounts.end_sessions(session, user_id))


@router.get("/{user_id}/api-keys")
async def list_api_keys(session: SessionDep, user_id: UUID) -> list[ApiKeyRead]:
    """Somebody's API keys, newest first, without their secrets."""
    await accounts.read_user(session, user_id)
    return await accounts.list_api_keys(session, user_id)


@router.delete("/{user_id}/api-keys/{key_id}", status_code=204)
async def revoke_api_key(session: SessionDep, user_id: UUID, key_id: UUID) -> None:
    """Revoke one of somebody's API keys, for good."""
    await accounts.revoke_api_key(session, user_id, key_id)
