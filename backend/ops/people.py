"""The pages of people, for admins: who there is, what they may do, and what opens their account."""

import secrets
from datetime import timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import ValidationError

from backend.accounts import service as accounts
from backend.accounts.schemas import UserCreate, UserRead, UserUpdate
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import Conflict, Invalid, NotFound
from backend.core.principal import Role
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Admin, Needs
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import Errors, of_refusal, of_validation, typed
from backend.quotas import service as quotas

router = APIRouter(prefix="/people", dependencies=[Depends(Needs(Role.ADMIN))])

_ROWS = 50
# Within it a second creation of the same account is the same click.
_SAME_CLICK = timedelta(seconds=30)
# Without letters and digits that look alike: it is read out or typed from paper.
_ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_OF_NEW = ("username", "email", "display_name", "role", "password")

State = Literal["", "active", "inactive"]
Password = Annotated[str, Form(max_length=1024)]


def _suggestion() -> str:
    """A password of 93 random bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


@router.get("")
async def show_people(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    role: Literal[""] | Role = "",
    state: State = "",
    cursor: str | None = None,
) -> Response:
    """Everybody with an account, newest first."""
    page = await accounts.list_users(
        session, role=role or None, is_active=state == "active" if state else None, cursor=cursor, limit=_ROWS
    )
    context = {
        "people": page.items,
        "next_cursor": page.next_cursor,
        "role": role,
        "state": state,
        "roles": list(Role),
        "zone": config.timezone,
    }
    return render(request, "people.html", context)


@router.get("/new")
async def show_form(request: Request) -> Response:
    """An empty form, with a password that nobody has thought of."""
    return _form(request, {"role": Role.VIEWER, "password": _suggestion()}, {})


def _form(request: Request, values: dict[str, str], errors: Errors) -> Response:
    first = next((name for name in _OF_NEW if name in errors), None)
    context = {"values": values, "errors": errors, "first_fault": first, "roles": list(Role)}
    return render(request, "person_form.html", context, status=422 if errors else 200)


@router.post("/new")
async def create(request: Request, db: DatabaseDep, actor: Admin) -> Response:
    """An account; the second half of a double click leads to the account that the first has made."""
    values = await typed(request)
    texts = {name: values.get(name, "") if name == "password" else values.get(name, "").strip() for name in _OF_NEW}
    try:
        wish = UserCreate.model_validate({name: text for name, text in texts.items() if text or name == "password"})
        user = await accounts.create_user(db, wish, actor=actor.name)
    except ValidationError as fault:
        return _form(request, values, of_validation(fault))
    except Invalid as fault:
        return _form(request, values, of_refusal(fault))
    except Conflict as fault:
        same = await _just_made(db, texts["username"], actor.name)
        if same is None:
            return _form(request, values, {"username": fault.detail})
        user = same
    told = f"{user.username} has an account. Hand the password over in person; it is shown nowhere again."
    return lead(f"/ops/people/{user.id}", told)


async def _just_made(db: Database, username: str, actor: str) -> UserRead | None:
    async with db.transaction() as session:
        try:
            user = await accounts.find_user(session, username)
        except NotFound:
            return None
    return user if user.created_by == actor and utc_now() - user.created_at < _SAME_CLICK else None


@router.get("/{user_id}")
async def show_person(request: Request, db: DatabaseDep, config: ConfigDep, user_id: UUID) -> Response:
    """One account: what it may do, what opens it, what its owner has done."""
    return await _person(request, db, config.timezone, user_id)


async def _person(
    request: Request,
    db: Database,
    zone: str,
    user_id: UUID,
    values: dict[str, str] | None = None,
    errors: Errors | None = None,
) -> Response:
    async with db.transaction() as session:
        user = await accounts.read_user(session, user_id)
        known: dict[str, Any] = {
            "sessions": await accounts.list_sessions(session, user_id, current=request.state.principal.session_id),
            "keys": await accounts.list_api_keys(session, user_id),
            "quota": await quotas.read_quota(session, user_id),
            "plans": await quotas.list_plans(session),
        }
    as_it_is = {"email": user.email or "", "display_name": user.display_name, "role": user.role}
    context = known | {
        "user": user,
        "values": as_it_is | {"new_password": _suggestion()} | (values or {}),
        "errors": errors or {},
        "first_fault": next(iter(errors or {}), None),
        "roles": list(Role),
        "now": utc_now(),
        "zone": zone,
    }
    return render(request, "person.html", context, status=422 if errors else 200)


@router.post("/{user_id}")
async def update(request: Request, db: DatabaseDep, config: ConfigDep, user_id: UUID) -> Response:
    """Shown name, address and role; they count from the next request on."""
    values = await typed(request)
    texts = {name: values[name].strip() for name in ("email", "display_name", "role") if name in values}
    try:
        wish = UserUpdate.model_validate(texts | ({"email": texts["email"] or None} if "email" in texts else {}))
        async with db.transaction() as session:
            user = await accounts.update_user(session, user_id, wish)
    except ValidationError as fault:
        return await _person(request, db, config.timezone, user_id, values, of_validation(fault))
    except Conflict as fault:
        field = "role" if fault.problem == "last_admin" else "email"
        return await _person(request, db, config.timezone, user_id, values, {field: fault.detail})
    return lead(f"/ops/people/{user_id}", f"{user.username} is saved.")


@router.post("/{user_id}/active")
async def set_active(session: SessionDep, user_id: UUID, active: Annotated[bool, Form()]) -> Response:
    """Let somebody in, or keep them out, which ends their sessions and makes their API keys useless."""
    user = await accounts.update_user(session, user_id, UserUpdate(is_active=active))
    told = "may sign in again" if active else "cannot sign in any more; all sessions have ended"
    return lead(f"/ops/people/{user_id}", f"{user.username} {told}.")


@router.post("/{user_id}/password")
async def reset_password(
    request: Request, db: DatabaseDep, config: ConfigDep, user_id: UUID, new_password: Password = ""
) -> Response:
    """A new password, which ends their sessions and a lock on their name."""
    try:
        ended = await accounts.reset_password(db, user_id, new_password)
    except Invalid as fault:
        errors = of_refusal(fault, {"password": "new_password"})
        return await _person(request, db, config.timezone, user_id, {"new_password": new_password}, errors)
    told = f"The new password is set; {_sessions(ended)} ended. Hand it over in person; it is shown nowhere again."
    return lead(f"/ops/people/{user_id}", told)


def _sessions(count: int) -> str:
    return "one session has" if count == 1 else f"{count or 'no'} sessions have"


@router.post("/{user_id}/sessions/end")
async def end_sessions(session: SessionDep, user_id: UUID) -> Response:
    """Wherever they are signed in, they are no longer."""
    ended = await accounts.end_sessions(session, user_id)
    return lead(f"/ops/people/{user_id}", f"{_sessions(ended).capitalize()} ended.")


@router.post("/{user_id}/api-keys/{key_id}/revoke")
async def revoke_api_key(session: SessionDep, user_id: UUID, key_id: UUID) -> Response:
    """For good; once more changes nothing."""
    await accounts.read_user(session, user_id)
    try:
        await accounts.revoke_api_key(session, user_id, key_id)
    except NotFound:
        return lead(f"/ops/people/{user_id}", "That API key was revoked already.")
    return lead(f"/ops/people/{user_id}", "The API key is revoked.")
