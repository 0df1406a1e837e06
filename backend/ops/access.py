"""Who looks at the pages, and what they may do there."""

import hashlib
import hmac
import re
import time
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from backend.config import Config
from backend.core.db import Database
from backend.core.principal import SERVICE, Principal, Role
from backend.core.web import Authenticate, ConfigDep, DatabaseDep, require

COOKIE = "beatline_session"
# Nobody can end such a session before its time, short of a new service key.
SERVICE_SESSION_SECONDS = 12 * 3600

_SERVICE = "service"
_OURS = re.compile(r"/ops(?:[/?][!-~]*)?")
_basic = HTTPBasic(auto_error=False, realm="Beatline")
Credentials = Annotated[HTTPBasicCredentials | None, Depends(_basic)]


class SignInRequired(Exception):
    """Nobody is signed in. `challenge`: a password was sent, and it is wrong."""

    def __init__(self, *, challenge: bool = False) -> None:
        super().__init__("sign in")
        self.challenge = challenge


async def know_who_asks(request: Request, db: DatabaseDep, config: ConfigDep, credentials: Credentials) -> None:
    """Sets `request.state.principal`: of the session's cookie, or of the service key as the password of HTTP Basic."""
    request.state.principal = await _principal(request, db, config, credentials)


async def _principal(
    request: Request, db: Database, config: Config, credentials: HTTPBasicCredentials | None
) -> Principal:
    if credentials is not None:
        if not is_service_key(config, credentials.password):
            raise SignInRequired(challenge=True)
        return SERVICE
    found = await principal_of_cookie(request, db, config)
    if found is None:
        raise SignInRequired
    return found


async def principal_of_cookie(request: Request, db: Database, config: Config) -> Principal | None:
    """Whose session the cookie is; None where there is none, or it is over."""
    token = request.cookies.get(COOKIE, "")
    if token.startswith(f"{_SERVICE}."):
        return SERVICE if _is_service_session(config, token) else None
    authenticate: Authenticate = request.app.state.authenticate
    found = await authenticate(db, token) if token else None
    # A key for programs is no session, which has an end.
    return found if found is not None and found.kind == "user" else None


def is_service_key(config: Config, password: str) -> bool:
    return hmac.compare_digest(password.encode(), config.service_key.encode())


def service_session(config: Config, ends: int) -> str:
    """A cookie's value that stands for the service key and does not hold it; `ends` in seconds since 1970."""
    proof = hmac.new(config.service_key.encode(), f"ops session until {ends}".encode(), hashlib.sha256).hexdigest()
    return f"{_SERVICE}.{ends}.{proof}"


def _is_service_session(config: Config, token: str) -> bool:
    ends = token.split(".")[1]
    if not (ends.isascii() and ends.isdigit() and len(ends) < 12):
        return False
    return hmac.compare_digest(token.encode(), service_session(config, int(ends)).encode()) and int(ends) > time.time()


class Needs:
    """A dependency: the one who asks, who has this role at least; Forbidden (403) for others."""

    def __init__(self, role: Role) -> None:
        self._role = role

    async def __call__(self, request: Request) -> Principal:
        principal: Principal = request.state.principal
        require(principal, self._role)
        return principal


Viewer = Annotated[Principal, Depends(Needs(Role.VIEWER))]
Operator = Annotated[Principal, Depends(Needs(Role.OPERATOR))]
Admin = Annotated[Principal, Depends(Needs(Role.ADMIN))]


def inside(path: str | None) -> str:
    """`path` where it leads to one of our pages; the start elsewhere."""
    return path if path is not None and _OURS.fullmatch(path) else "/ops"


async def ask_to_sign_in(request: Request, fault: SignInRequired) -> Response:
    """To the form, and from there to the page that was asked for; of a button, to the page on which it stood.

    A script that sent a wrong password is told so; a live part of a page leads the whole page there.
    """
    if fault.challenge:
        text = "wrong password: send BEATLINE_SERVICE_KEY as the password, with any user name"
        return Response(text, 401, {"WWW-Authenticate": 'Basic realm="Beatline"'}, "text/plain")
    if "HX-Request" in request.headers:
        return Response(headers={"HX-Redirect": _form(_path_of(request.headers.get("HX-Current-URL", "")), ended=True)})
    if request.method in {"GET", "HEAD"}:
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(_form(here, ended=COOKIE in request.cookies), 303)
    return RedirectResponse(_form(_path_of(request.headers.get("Referer", "")), ended=True), 303)


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def _form(path: str, *, ended: bool) -> str:
    wish = {"next": inside(path)} | ({"ended": "true"} if ended else {})
    return f"/ops/sign-in?{urlencode(wish)}"
