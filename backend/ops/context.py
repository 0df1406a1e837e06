"""What every page shares: who may look, and the templates."""

import hmac
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import Depends, Request, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.templating import Jinja2Templates

from backend.core.errors import AppError
from backend.core.web import ConfigDep

FOLDER = Path(__file__).parent

templates = Jinja2Templates(directory=FOLDER / "templates")
_basic = HTTPBasic(auto_error=False, realm="Beatline")
Credentials = Annotated[HTTPBasicCredentials | None, Depends(_basic)]


class SignInRequired(AppError):
    status, code = 401, "sign_in"


def require_operator(config: ConfigDep, credentials: Credentials) -> None:
    """Any user name with the service key as the password; the browser asks for them."""
    given = credentials.password if credentials else ""
    if not hmac.compare_digest(given.encode(), config.service_key.encode()):
        raise SignInRequired("sign in with any user name and BEATLINE_SERVICE_KEY as the password")


async def ask_to_sign_in(_: Request, fault: SignInRequired) -> Response:
    return Response(fault.detail, 401, {"WWW-Authenticate": 'Basic realm="Beatline"'}, "text/plain")


def local(at: datetime | None, zone: str) -> str:
    """An instant by the clock of `zone`, for people."""
    return at.astimezone(ZoneInfo(zone)).strftime("%d %b %H:%M:%S") if at else ""


def seconds(value: float | None) -> str:
    """A duration as m:ss."""
    return f"{int(value) // 60}:{int(value) % 60:02d}" if value is not None else ""


def words(value: str | None) -> str:
    """A state's name without its underscores."""
    return (value or "").replace("_", " ")


templates.env.filters.update(local=local, seconds=seconds, words=words)
