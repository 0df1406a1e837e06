"""The page of one's own account: password, sessions, API keys."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import ValidationError

from backend.accounts import service as accounts
from backend.accounts.schemas import ApiKeyCreate, ApiKeyCreated
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from backend.core.principal import Principal, Scope
from backend.core.throttle import client_address
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Viewer
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import Errors, of_refusal, of_validation, typed

router = APIRouter(prefix="/me")

_HERE = "/ops/me"
# Days that a new key may be good for; empty: until it is revoked.
_DAYS = {"30": "30 days", "90": "90 days", "365": "a year", "": "until it is revoked"}
_SCOPES = {
    Scope.READ: "read: see what a viewer sees",
    Scope.WRITE: "write: do what an operator does",
    Scope.ADMIN: "admin: manage people, too",
}

Password = Annotated[str, Form(max_length=1024)]


async def _somebody(principal: Viewer) -> UUID:
    """The account of the one who asks."""
    if principal.user_id is None:
        raise Forbidden("the service key has no account: sign out, and sign in with a user name, which an admin makes")
    return principal.user_id


Owner = Annotated[UUID, Depends(_somebody)]


@router.get("")
async def show_me(request: Request, db: DatabaseDep, config: ConfigDep, principal: Viewer, user_id: Owner) -> Response:
    """What belongs to the one who asks."""
    return await _page(request, db, config.timezone, principal, user_id)


async def _page(
    request: Request,
    db: Database,
    zone: str,
    principal: Principal,
    user_id: UUID,
    *,
    values: dict[str, str] | None = None,
    errors: Errors | None = None,
    created: ApiKeyCreated | None = None,
    status: int | None = None,
) -> Response:
    async with db.transaction() as session:
        known: dict[str, Any] = {
            "user": await accounts.read_user(session, user_id),
            "sessions": await accounts.list_sessions(session, user_id, current=principal.session_id),
            "keys": await accounts.list_api_keys(session, user_id),
        }
    context = known | {
        "values": {"scope": Scope.READ, "days": "90"} | (values or {}),
        "errors": errors or {},
        "first_fault": next(iter(errors or {}), None),
        "created": created,
        # What is more than one's role is no choice.
        "scopes": {scope: words for scope, words in _SCOPES.items() if principal.role.covers(scope.role)},
        "days": _DAYS,
        "now": utc_now(),
        "zone": zone,
    }
    return render(request, "me.html", context, status=status or (422 if errors else 200))


@router.post("/password")
async def change_password(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    principal: Viewer,
    user_id: Owner,
    current_password: Password = "",
    new_password: Password = "",
    repeated_password: Password = "",
) -> Response:
    """Ends all other sessions. A double click's second half finds the old password wrong, and changes nothing."""
    missing: Errors = {} if current_password else {"current_password": "must not be empty"}
    errors = missing | ({} if new_password == repeated_password else {"repeated_password": "is not what stands above"})
    if errors:
        return await _page(request, db, config.timezone, principal, user_id, errors=errors)
    client = accounts.Client(client_address(request), request.headers.get("User-Agent", ""))
    try:
        ended = await accounts.change_password(
            db, principal, config=config, current=current_password, new=new_password, client=client
        )
    except TooMany as fault:
        faults = {"current_password": fault.detail}
        return await _page(request, db, config.timezone, principal, user_id, errors=faults, status=429)
    except (Invalid, Conflict) as fault:
        if fault.problem == "wrong_password":
            errors = {"current_password": "is wrong"}
        else:
            errors = of_refusal(fault, {"password": "new_password", "form": "new_password"})
        return await _page(request, db, config.timezone, principal, user_id, errors=errors)
    others = f" Your {ended} other {'session has' if ended == 1 else 'sessions have'} ended." if ended else ""
    return lead(_HERE, f"Your password is changed.{others}")


@router.post("/sessions/end-others")
async def end_others(session: SessionDep, principal: Viewer, _: Owner) -> Response:
    """All but the one that asks."""
    ended = await accounts.end_other_sessions(session, principal)
    return lead(_HERE, f"{ended or 'No'} other {'session has' if ended == 1 else 'sessions have'} ended.")


@router.post("/sessions/{session_id}/end")
async def end_session(session: SessionDep, user_id: Owner, session_id: UUID) -> Response:
    """One; once more changes nothing."""
    try:
        await accounts.end_session(session, user_id, session_id)
    except NotFound:
        return lead(_HERE, "That session had ended already.")
    return lead(_HERE, "The session has ended.")


@router.post("/api-keys")
async def create_api_key(
    request: Request, db: DatabaseDep, config: ConfigDep, principal: Viewer, user_id: Owner
) -> Response:
    """The answer itself shows the key, which nothing else ever does: no cookie, no address."""
    values = await typed(request)
    try:
        wish = _key_wish(values)
        async with db.transaction() as session:
            created = await accounts.create_api_key(session, principal, wish)
    except ValidationError as fault:
        errors = of_validation(fault)
    except Conflict as fault:
        hint = " If you have just made it and have not seen it, revoke it and make another." * (
            fault.problem == "taken"
        )
        errors = {"name": f"{fault.detail}.{hint}"}
    except Invalid as fault:
        errors = {"scope" if fault.problem == "scopes" else "days": fault.detail}
    else:
        return await _page(request, db, config.timezone, principal, user_id, created=created)
    renamed = {"scopes": "scope", "expires_at": "days"}
    errors = {renamed.get(name, name): wrong for name, wrong in errors.items()}
    return await _page(request, db, config.timezone, principal, user_id, values=values, errors=errors)


def _key_wish(values: dict[str, str]) -> ApiKeyCreate:
    days = values.get("days", "")
    if days not in _DAYS:
        raise Invalid("choose one of them", code="days")
    ends = utc_now() + timedelta(days=int(days)) if days else None
    return ApiKeyCreate.model_validate(
        {"name": values.get("name", ""), "scopes": [values.get("scope", "")], "expires_at": ends}
    )


@router.post("/api-keys/{key_id}/revoke")
async def revoke_api_key(session: SessionDep, user_id: Owner, key_id: UUID) -> Response:
    """For good; once more changes nothing."""
    try:
        await accounts.revoke_api_key(session, user_id, key_id)
    except NotFound:
        return lead(_HERE, "That API key was revoked already.")
    return lead(_HERE, "The API key is revoked.")
