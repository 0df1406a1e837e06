"""What every page shares: the templates, the navigation's counts, and refusals as pages."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import Form, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import SQLAlchemyError

from backend.core.clock import utc_now
from backend.core.db import is_outage
from backend.core.durations import span
from backend.core.errors import AppError
from backend.core.principal import Role
from backend.core.web import DatabaseDep
from backend.jobs import service as jobs
from backend.ops.flash import forget, said
from backend.queues import service as queues
from backend.queues.schemas import LetterFilter
from backend.queues.states import LetterState

# Where a button's page is; anything else than a path of ours is not followed.
Back = Annotated[str, Form(pattern="^/ops/[!-~]*$", max_length=2000)]

FOLDER = Path(__file__).parent

# Counts in the navigation end here.
_MANY = 100

# Everything comes from this host, no script stands in a page, and no other site shows it in a frame.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; "
)
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


class Frames(StrEnum):
    """What of frames and sound a page's content security policy allows."""

    NONE = "frame-ancestors 'none'"
    # A page with the player in a frame, or with sound of its own.
    HOLDS = "frame-src 'self'; media-src 'self'; frame-ancestors 'none'"
    # The player itself.
    INSIDE = "media-src 'self'; frame-ancestors 'self'"


templates = Jinja2Templates(directory=FOLDER / "templates")


class Refusal(Exception):
    """A fault that is shown as a page."""

    def __init__(self, status: int, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail, self.code = status, detail, code


async def refuse_with_a_page() -> AsyncIterator[None]:
    """What a page's own work raises becomes a Refusal, after the session has rolled back."""
    try:
        yield
    except AppError as fault:
        raise Refusal(fault.status, fault.detail, fault.problem) from fault
    except RequestValidationError as fault:
        # First where it was sent, then the field, then which form of it was tried.
        lines = [f"{(*error['loc'], 'form')[1]}: {error['msg']}" for error in fault.errors()]
        raise Refusal(422, "; ".join(lines)) from fault
    except (SQLAlchemyError, OSError) as fault:
        if not is_outage(fault):
            raise
        raise Refusal(503, "the database is away; try again shortly") from fault


async def count_for_navigation(request: Request, db: DatabaseDep) -> None:
    """Sets `request.state.counts`: what waits for somebody to decide."""
    async with db.transaction() as session:
        letters = await queues.count_letters(session, LetterFilter(), state=LetterState.OPEN, at_most=_MANY)
        alerts = await jobs.list_alerts(session, is_open=True, limit=_MANY)
    request.state.counts = {"dead-letters": _number(letters), "schedules": _number(len(alerts.items))}


def _number(count: int) -> str:
    return f"{_MANY - 1}+" if count >= _MANY else str(count or "")


async def show_refusal(request: Request, fault: Refusal) -> Response:
    context = {"status": fault.status, "detail": fault.detail, "code": fault.code}
    return render(request, "refusal.html", context, status=fault.status)


def headers(frames: Frames = Frames.NONE) -> dict[str, str]:
    """Of every page."""
    return {"Content-Security-Policy": f"{_POLICY}{frames}"} | _HEADERS


def render(
    request: Request, name: str, context: dict[str, Any], *, status: int = 200, frames: Frames = Frames.NONE
) -> Response:
    """A page that no cache keeps: it holds customers' data, and a button of an old page would do what was done already.

    It knows who looks (`me`), whether they may change things (`may_act`), and what the button before had to say (`said`).
    """
    # A live part shows nothing but itself: what was said waits for the next page.
    live = "HX-Request" in request.headers
    me, told = getattr(request.state, "principal", None), None if live else said(request)
    shared = {
        "me": me,
        "may_act": me is not None and me.role.covers(Role.OPERATOR),
        "is_admin": me is not None and me.role.covers(Role.ADMIN),
        "counted": getattr(request.state, "counts", {}),
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "said": told,
    }
    if live and status == 200 and not context.get("refresh"):
        # htmx's sign to a live part that it may stop asking.
        status = 286
    answer = templates.TemplateResponse(request, name, shared | context, status, headers(frames))
    if told is not None:
        forget(answer)
    return answer


def local(at: datetime | None, zone: str) -> str:
    """An instant by the clock of `zone`, for people, with the year where it is not this one.

    In UTC where there is no such zone by now.
    """
    if at is None:
        return ""
    try:
        return _dated(at.astimezone(ZoneInfo(zone)))
    except (ZoneInfoNotFoundError, ValueError):
        return f"{_dated(at.astimezone(UTC))} UTC"


def _dated(at: datetime) -> str:
    this_year = at.year == utc_now().astimezone(at.tzinfo).year
    return f"{at:%d %b %H:%M:%S}" if this_year else f"{at:%d %b %Y %H:%M:%S}"


def wall(text: str | None) -> str:
    """ISO 8601 with an offset, as a day and time with the offset, for people."""
    if not text:
        return ""
    at = datetime.fromisoformat(text).replace(microsecond=0)
    return f"{at:%a %d %b %Y %H:%M:%S} {at.isoformat()[19:]}"


def utc(at: datetime | None) -> str:
    """An instant in UTC, for people, with the year where it is not this one."""
    return f"{at.astimezone(UTC):%a} {_dated(at.astimezone(UTC))}" if at else ""


def seconds(value: float | None) -> str:
    """A duration as m:ss."""
    return f"{int(value) // 60}:{int(value) % 60:02d}" if value is not None else ""


def clock(value: float | None) -> str:
    """An offset or a length as m:ss, or h:mm:ss where there are hours."""
    if value is None:
        return ""
    minutes, rest = divmod(int(value), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def day(at: datetime | None, zone: str) -> str:
    """The day of an instant in `zone`."""
    return f"{at.astimezone(ZoneInfo(zone)):%d %b %Y}" if at else ""


def ago(at: datetime | None) -> str:
    """How long ago an instant was."""
    if at is None:
        return ""
    seconds_ago = round((utc_now() - at).total_seconds())
    return f"{span(seconds_ago)} ago" if seconds_ago > 0 else "now"


def words(value: str | None) -> str:
    """A state's name without its underscores."""
    return (value or "").replace("_", " ")


def times(count: int) -> str:
    """How often."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def number_of(count: float, noun: str) -> str:
    """Such as `1 file`, `0 files`, `2.5 minutes`."""
    return f"{count:.10g} {noun}{'' if count == 1 else 's'}"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


templates.env.filters.update(
    local=local,
    wall=wall,
    utc=utc,
    seconds=seconds,
    clock=clock,
    day=day,
    span=span,
    ago=ago,
    words=words,
    times=times,
    number_of=number_of,
    pretty=pretty,
)
# An idempotency key for a button.
templates.env.globals["key"] = uuid4
