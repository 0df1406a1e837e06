"""HTTP of signing in, and of what belongs to the one who asks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from backend.accounts import service as accounts
from backend.accounts.schemas import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    Login,
    LoginRead,
    MeRead,
    PasswordChange,
    Refresh,
    SessionRead,
    SessionsEnded,
    Tokens,
    UserRead,
)
from backend.core.errors import Forbidden
from backend.core.throttle import client_address, limited
from backend.core.web import ConfigDep, DatabaseDep, SessionDep, SignedInDep, ViewerDep

router = APIRouter(prefix="/api/auth", tags=["accounts"])
# These two are for who has no token yet, or none any more.
open_router = APIRouter(prefix="/api/auth", tags=["accounts"])

# Against floods; guesses of passwords are counted in PostgreSQL, also while Redis is away.
_RATE = "120/minute"


async def get_client(request: Request) -> accounts.Client:
    return accounts.Client(client_address(request), request.headers.get("User-Agent", ""))


async def get_user_id(principal: SignedInDep) -> UUID:
    if principal.user_id is None:
        raise Forbidden("this belongs to a user", code="user_needed")
    return principal.user_id


ClientDep = Annotated[accounts.Client, Depends(get_client)]
OwnerDep = Annotated[UUID, Depends(get_user_id)]


def _tokens(signed: accounts.SignedIn) -> Tokens:
    return Tokens(
        access_token=signed.access_token,
        expires_in=int(signed.access_lasting.total_seconds()),
        refresh_token=signed.refresh_token,
        session_id=signed.session_id,
        session_expires_at=signed.session_expires_at,
    )


@open_router.post("/login", dependencies=[limited(_RATE, name="login")])
async def log_in(db: DatabaseDep, config: ConfigDep, client: ClientDep, response: Response, body: Login) -> LoginRead:
    """Sign in with a user name or e-mail address and the password; opens a session and gives its tokens."""
    signed = await accounts.login(
        db, config=config, username=body.username, password=body.password.get_secret_value(), client=client
    )
    response.headers["Cache-Control"] = "no-store"
    user = UserRead.model_validate(signed.user.model_dump())
    return LoginRead(**_tokens(signed).model_dump(), user=user)


@open_router.post("/refresh", dependencies=[limited(_RATE, name="refresh")])
async def refresh(db: DatabaseDep, config: ConfigDep, client: ClientDep, response: Response, body: Refresh) -> Tokens:
    """New tokens for a refresh token, once: one that was used before ends its session."""
    signed = await accounts.refresh(db, body.refresh_token, config=config, client=client)
    response.headers["Cache-Control"] = "no-store"
    return _tokens(signed)


@router.post("/logout", status_code=204)
async def log_out(db: DatabaseDep, principal: SignedInDep, client: ClientDep) -> None:
    """End the session that asks; its tokens are of no use from now on."""
    await accounts.logout(db, principal, client=client)


@router.get("/me")
async def read_me(session: SessionDep, principal: ViewerDep) -> MeRead:
    """Who asks, and what they may do."""
    return await accounts.read_me(session, principal)


@router.post("/password")
async def change_password(
    db: DatabaseDep, config: ConfigDep, principal: SignedInDep, client: ClientDep, body: PasswordChange
) -> SessionsEnded:
    """Change one's password; ends all one's other sessions."""
    ended = await accounts.change_password(
        db,
        principal,
        config=config,
        current=body.current_password.get_secret_value(),
        new=body.new_password.get_secret_value(),
        client=client,
    )
    return SessionsEnded(ended=ended)


@router.get("/sessions")
async def list_sessions(session: SessionDep, owner: OwnerDep, principal: SignedInDep) -> list[SessionRead]:
    """One's sessions that are not over, newest first."""
    return await accounts.list_sessions(session, owner, current=principal.session_id)


@router.delete("/sessions")
async def end_other_sessions(session: SessionDep, principal: SignedInDep) -> SessionsEnded:
    """End all one's sessions but this one."""
    return SessionsEnded(ended=await accounts.end_other_sessions(session, principal))


@router.delete("/sessions/{session_id}", status_code=204)
async def end_session(session: SessionDep, owner: OwnerDep, session_id: UUID) -> None:
    """End one of one's sessions."""
    await accounts.end_session(session, owner, session_id)


@router.get("/api-keys")
async def list_api_keys(session: SessionDep, owner: OwnerDep) -> list[ApiKeyRead]:
    """One's API keys, newest first, without their secrets."""
    return await accounts.list_api_keys(session, owner)


@router.post("/api-keys", status_code=201)
async def create_api_key(
    session: SessionDep, principal: SignedInDep, response: Response, body: ApiKeyCreate
) -> ApiKeyCreated:
    """A key for programs. It is shown in this answer and never again."""
    response.headers["Cache-Control"] = "no-store"
    return await accounts.create_api_key(session, principal, body)


@router.delete("/api-keys/{key_id}", status_code=204)
async def revoke_api_key(session: SessionDep, owner: OwnerDep, key_id: UUID) -> None:
    """Revoke one of one's API keys, for good."""
    await accounts.revoke_api_key(session, owner, key_id)
