"""What every page shares: who may look, the templates, and refusals as pages."""

import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.templating import Jinja2Templates

from backend.core.errors import AppError
from backend.core.web import ConfigDep

FOLDER = Path(__file__).parent
# Who asks, as it is written on the schedules and runs of these pages.
ACTOR = "ops"

templates = Jinja2Templates(directory=FOLDER / "templates")
_basic = HTTPBasic(auto_error=False, realm="Beatline")
Credentials = Annotated[HTTPBasicCredentials | None, Depends(_basic)]


class SignInRequired(AppError):
    status, code = 401, "sign_in"


class Refusal(Exception):
    """A fault that is shown as a page."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def require_operator(config: ConfigDep, credentials: Credentials) -> None:
    """Any user name with the service key as the password; the browser asks for them."""
    given = credentials.password if credentials else ""
    if not hmac.compare_digest(given.encode(), config.service_key.encode()):
        raise SignInRequired("sign in with any user name and BEATLINE_SERVICE_KEY as the password")


async def ask_to_sign_in(_: Request, fault: SignInRequired) -> Response:
    return Response(fault.detail, 401, {"WWW-Authenticate": 'Basic realm="Beatline"'}, "text/plain")


async def refuse_with_a_page() -> AsyncIterator[None]:
    """What a page's own work raises becomes a Refusal, after the session has rolled back."""
    try:
        yield
    except AppError as fault:
        raise Refusal(fault.status, fault.detail) from fault
    except RequestValidationError as fault:
        lines = [f"{error['loc'][-1]}: {error['msg']}" for error in fault.errors()]
        raise Refusal(422, "; ".join(lines)) from fault


async def show_refusal(request: Request, fault: Refusal) -> Response:
    context = {"status": fault.status, "detail": fault.detail}
    return render(request, "refusal.html", context, status=fault.status)


def render(request: Request, name: str, context: dict[str, Any], *, status: int = 200) -> Response:
    """A page that no cache keeps: it holds customers' data, and a button of an old page would do what was done already."""
    return templates.TemplateResponse(request, name, context, status, {"Cache-Control": "no-store"})


def local(at: datetime | None, zone: str) -> str:
    """An instant by the clock of `zone`, for people; in UTC where there is no such zone by now."""
    try:
        return at.astimezone(ZoneInfo(zone)).strftime("%d %b %H:%M:%S") if at else ""
    except (ZoneInfoNotFoundError, ValueError):
        return at.astimezone(UTC).strftime("%d %b %H:%M:%S UTC") if at else ""


def wall(text: str | None) -> str:
    """ISO 8601 with an offset, as a day and time with the offset, for people."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).replace(microsecond=0)
    return f"{at:%a %d %b %Y %H:%M:%S} {at.isoformat()[19:]}"


def utc(at: datetime | None) -> str:
    """An instant in UTC, for people."""
    return f"{at.astimezone(UTC):%a %d %b %H:%M:%S}" if at else ""


def seconds(value: float | None) -> str:
    """A duration as m:ss."""
    return f"{int(value) // 60}:{int(value) % 60:02d}" if value is not None else ""


def span(value: float | None) -> str:
    """A duration in the largest two units that it fills."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    days, rest = divmod(round(value), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    parts = [
        f"{number} {unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (left, "s")) if number
    ]
    return " ".join(parts[:2])


def words(value: str | None) -> str:
    """A state's name without its underscores."""
    return (value or "").replace("_", " ")


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


templates.env.filters.update(local=local, wall=wall, utc=utc, seconds=seconds, span=span, words=words, pretty=pretty)
# An idempotency key for a button.
templates.env.globals["key"] = uuid4
