"""The form that uploads a recording. It works without scripts; what is sent goes to the storage as it comes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import AppError, Invalid, TooLarge, TooMany
from backend.core.principal import Principal
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Viewer
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import Errors
from backend.ops.recordings import own_standing
from backend.quotas import service as quotas
from backend.quotas.service import QuotaExceeded
from backend.recordings.api.sending import IntakeDep, NoRoom, body, sizes_in_form, told
from backend.recordings.uploads import resumable as uploads
from backend.recordings.uploads.forms import Form
from backend.recordings.uploads.incoming import ClientGone
from backend.recordings.uploads.resumable import Outcome
from backend.recordings.uploads.wishes import read_wish

router = APIRouter(prefix="/recordings")

_FIELDS = ("title", "language", "speakers", "hints", "backend")
# A browser shows an answer only once it has sent everything. Of a file that is refused so much more is read, and thrown away.
_DRAINED, _DRAIN_SECONDS = 256_000_000, 60.0

LANGUAGES = (
    ("", "found out by itself"),
    ("ar", "Arabic"),
    ("bn", "Bengali"),
    ("zh", "Chinese"),
    ("cs", "Czech"),
    ("da", "Danish"),
    ("nl", "Dutch"),
    ("en", "English"),
    ("fi", "Finnish"),
    ("fr", "French"),
    ("de", "German"),
    ("el", "Greek"),
    ("gu", "Gujarati"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("hu", "Hungarian"),
    ("id", "Indonesian"),
    ("it", "Italian"),
    ("ja", "Japanese"),
    ("kn", "Kannada"),
    ("ko", "Korean"),
    ("ml", "Malayalam"),
    ("mr", "Marathi"),
    ("no", "Norwegian"),
    ("fa", "Persian"),
    ("pl", "Polish"),
    ("pt", "Portuguese"),
    ("pa", "Punjabi"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("es", "Spanish"),
    ("sv", "Swedish"),
    ("ta", "Tamil"),
    ("te", "Telugu"),
    ("th", "Thai"),
    ("tr", "Turkish"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("vi", "Vietnamese"),
)
SPEAKERS = (
    ("", "found out by itself"),
    ("1", "one: a note"),
    *((str(number), str(number)) for number in range(2, 11)),
)


@router.get("/new")
async def show_form(request: Request, session: SessionDep, config: ConfigDep, principal: Viewer) -> Response:
    """An empty form."""
    return await _page(request, session, config, principal)


async def _page(
    request: Request,
    session: Session,
    config: Config,
    principal: Principal,
    *,
    values: dict[str, str] | None = None,
    errors: Errors | None = None,
    status: int = 200,
) -> Response:
    limits, given, standing = config.recordings.uploads, values or {}, await own_standing(session, principal)
    context = {
        "values": {name: given.get(name, "") for name in _FIELDS},
        "errors": errors or {},
        "first_fault": next(iter(errors or {}), None),
        "languages": LANGUAGES,
        "speakers": SPEAKERS,
        "backends": backends(config),
        "most_mb": limits.max_bytes // 1_000_000,
        "most_minutes": round(limits.max_seconds / 60),
        "standing": standing,
        "used_up": _used_up(fault) if standing and (fault := quotas.refusal(standing)) else "",
        "zone": config.timezone,
    }
    return render(request, "recording_form.html", context, status=status)


def backends(config: Config) -> list[tuple[str, str]]:
    """Those that are set up."""
    if not config.recordings.openai.api_key:
        return []
    here, there = ("local", "this installation: nothing leaves it"), ("openai", "OpenAI, or what speaks its language")
    usual = here if config.recordings.speech.backend == "local" else there
    return [("", f"as usual: {usual[1]}"), here, there]


@router.post("/new")
async def upload(
    request: Request, db: DatabaseDep, config: ConfigDep, principal: Viewer, intake: IntakeDep
) -> Response:
    """A file, and what is wished for it. The same file again leads to the recording that it made."""
    chunks = body(request)
    form: Form | None = None
    try:
        form = Form(request.headers.get("Content-Type", ""), chunks)
        with told():
            outcome = await _received(intake, principal, form, sizes_in_form(request))
    except (Invalid, TooLarge, TooMany, NoRoom) as fault:
        await _drain(chunks)
        values = form.fields if form is not None else {}
        async with db.transaction() as session:
            return await _page(
                request, session, config, principal, values=values, errors=_errors(fault), status=fault.status
            )
    return _led(outcome)


async def _received(intake: IntakeDep, principal: Principal, form: Form, sizes: range | None) -> Outcome:
    await form.begin()
    fields: dict[str, Any] = {name: form.fields.get(name, "").strip() for name in _FIELDS}
    wish = read_wish({"filename": form.filename} | fields)
    return await uploads.receive(intake, principal, wish, aiter(form), sizes=sizes)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    left = _DRAINED
    with contextlib.suppress(ClientGone, TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    return


def _used_up(fault: QuotaExceeded) -> str:
    then = " An administrator may raise it." if fault.in_vain else ""
    return f"{fault.why[:1].upper()}{fault.why[1:]}.{then}"


def _errors(fault: AppError) -> Errors:
    """Beside the field that was wrong; else beside the file, which has to be chosen again anyway."""
    if isinstance(fault, QuotaExceeded):
        # When the next day begins stands below, by the clock of the page.
        return {"file": _used_up(fault)}
    listed = {each["field"]: each["problem"] for each in fault.extra.get("errors", ())}
    named = {name: text.removeprefix("Value error, ") for name, text in listed.items() if name in _FIELDS}
    return named or {"file": f"{fault.detail[:1].upper()}{fault.detail[1:].rstrip('.')}."}


def _led(outcome: Outcome) -> Response:
    here = f"/ops/recordings/{outcome.recording.id}"
    if outcome.duplicate:
        otherwise = " For what you have chosen now, have it transcribed again." if outcome.other_options else ""
        return lead(here, f"You had uploaded this file before: here it is.{otherwise}")
    return lead(here, "It is here. What is said in it follows; you need not wait on this page.")
