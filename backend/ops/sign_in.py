"""Signing in and out of the pages."""

import time
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from backend.accounts import service as accounts
from backend.audit.service import record_login
from backend.core.db import Database
from backend.core.errors import TooMany, Unauthorized
from backend.core.principal import SERVICE, Principal
from backend.core.redaction import storable
from backend.core.throttle import client_address, limited
from backend.core.web import ConfigDep, DatabaseDep
from backend.ops.access import (
    COOKIE,
    SERVICE_SESSION_SECONDS,
    inside,
    is_service_key,
    principal_of_cookie,
    service_session,
)
from backend.ops.context import render
from backend.ops.flash import lead

router = APIRouter()

# A day's work. Pages have no refresh token: whoever is signed out meanwhile signs in again and is led back.
_LASTING = timedelta(hours=12)

# Against floods, by address; guesses of passwords are counted in PostgreSQL, also while Redis is away.
_RATE = "120/minute"

Page = Annotated[str, Query(max_length=2000)]
Text = Annotated[str, Form(max_length=1024)]


@router.get("/sign-in")
async def show_form(request: Request, next: Page = "/ops", ended: bool = False) -> Response:  # noqa: A002
    """`next` is where to go from here; `ended`: there was a session."""
    return _form(request, next, ended=ended)


def _form(
    request: Request, page: str, *, status: int = 200, username: str = "", fault: str = "", ended: bool = False
) -> Response:
    context = {"next": inside(page), "username": username, "fault": fault, "ended": ended}
    return render(request, "sign_in.html", context, status=status)


@router.post("/sign-in", dependencies=[limited(_RATE, name="sign-in")])
async def sign_in(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    username: Text = "",
    password: Text = "",
    next: Annotated[str, Form(max_length=2000)] = "/ops",  # noqa: A002 - the name of the field
) -> Response:
    """With an account; or with the service key as the password, whatever the name. Each attempt is in the login log."""
    client = accounts.Client(client_address(request), request.headers.get("User-Agent", ""))
    if not username.strip() or not password:
        return _form(request, next, status=422, username=username, fault="Type your user name and your password.")
    if is_service_key(config, password):
        async with db.transaction() as session:
            await record_login(
                session,
                username=SERVICE.name,
                outcome="success",
                user_id=None,
                address=client.address,
                user_agent=client.user_agent,
            )
        token = service_session(config, int(time.time()) + SERVICE_SESSION_SECONDS)
        return _let_in(request, next, token, SERVICE_SESSION_SECONDS)
    try:
        signed = await accounts.login(
            db,
            config=config,
            username=storable(username.strip()),
            password=password,
            client=client,
            session_lasting=_LASTING,
            access_lasting=_LASTING,
        )
    except TooMany as fault:
        return _form(request, next, status=429, username=username, fault=fault.detail)
    except Unauthorized:
        wrong = "The user name or the password is wrong. An admin can set a new password for you."
        return _form(request, next, status=422, username=username, fault=wrong)
    return _let_in(request, next, signed.access_token, int(_LASTING.total_seconds()))


def _let_in(request: Request, page: str, token: str, seconds: int) -> Response:
    answer = RedirectResponse(inside(page), 303)
    # Lax: a link in an alert's mail leads to the page, another site's form brings no cookie.
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=seconds, path="/ops", secure=secure, httponly=True, samesite="lax")
    return answer


@router.post("/sign-out")
async def sign_out(request: Request, db: DatabaseDep, config: ConfigDep) -> Response:
    """Ends the session, if there still is one; once more changes nothing."""
    principal = await principal_of_cookie(request, db, config)
    if principal is not None:
        await _end(request, db, principal)
    answer = lead("/ops/sign-in", "You are signed out.")
    answer.delete_cookie(COOKIE, path="/ops", httponly=True, samesite="lax")
    return answer


async def _end(request: Request, db: Database, principal: Principal) -> None:
    client = accounts.Client(client_address(request), request.headers.get("User-Agent", ""))
    request.state.principal = principal
    await accounts.logout(db, principal, client=client)
