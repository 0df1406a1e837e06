"""The form that has a recording transcribed again, with other options."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import Conflict, Forbidden, TooMany, Unavailable
from backend.core.principal import Principal
from backend.core.web import ConfigDep, DatabaseDep, SessionDep, private
from backend.ops.access import Viewer
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import Errors, of_validation, typed
from backend.ops.recording_upload import LANGUAGES, SPEAKERS, backends
from backend.ops.recordings import own_standing
from backend.recordings.api.audio import StorageDep
from backend.recordings.library import managing, reading
from backend.recordings.schemas import RecordingDetail, TranscribeWish

router = APIRouter(prefix="/recordings/{recording_id}/transcribe")

_FIELDS = ("language", "speakers", "hints", "backend")
# What the form does not ask for stays as it was.
_KEPT, _BOUNDS = ("diarization", "summary"), ("min_speakers", "max_speakers")


@router.get("")
async def show_form(
    request: Request, session: SessionDep, config: ConfigDep, principal: Viewer, recording_id: UUID
) -> Response:
    """The options of the last time, to be changed."""
    return await _page(request, session, config, principal, recording_id)


async def _page(
    request: Request,
    session: Session,
    config: Config,
    principal: Principal,
    recording_id: UUID,
    *,
    values: dict[str, str] | None = None,
    errors: Errors | None = None,
    status: int = 200,
) -> Response:
    recording = await _changeable(session, config, principal, recording_id)
    given = values if values is not None else {name: str(recording.options.get(name, "")) for name in _FIELDS}
    shown = {name: given.get(name, "") for name in _FIELDS}
    context = {
        "recording": recording,
        "values": shown,
        "discard": bool(given.get("discard_edits")),
        "edited": recording.transcript.edited if recording.transcript else 0,
        "named": sum(each.named for each in recording.speakers),
        "errors": errors or {},
        "first_fault": next(iter(errors or {}), None),
        "languages": _with(LANGUAGES, shown["language"]),
        "speakers": _with(SPEAKERS, shown["speakers"]),
        "backends": backends(config),
        "standing": await own_standing(session, principal) if recording.owner_id is not None else None,
        "zone": config.timezone,
    }
    return render(request, "recording_again.html", context, status=status)


def _with(choices: tuple[tuple[str, str], ...], value: str) -> tuple[tuple[str, str], ...]:
    """One that was asked for by the API may not be among them."""
    return choices if any(value == each for each, _ in choices) else (*choices, (value, value))


async def _changeable(session: Session, config: Config, principal: Principal, recording_id: UUID) -> RecordingDetail:
    recording = await reading.read_recording(session, recording_id, principal, config=config)
    if not recording.may_change:
        raise Forbidden("only who may change a recording has it transcribed again", code="not_owner")
    return recording


@router.post("", dependencies=[private("hints")])
async def transcribe(
    request: Request, db: DatabaseDep, config: ConfigDep, principal: Viewer, storage: StorageDep, recording_id: UUID
) -> Response:
    """What is there stays until the new transcript is. The second half of a double click changes nothing."""
    values = await typed(request)
    async with db.transaction() as session:
        recording = await _changeable(session, config, principal, recording_id)
    status, errors = 422, {}
    try:
        wish = TranscribeWish.model_validate(_wish(recording.options, values))
        await managing.transcribe(db, storage, recording_id, wish, principal)
    except ValidationError as fault:
        errors = of_validation(fault)
    except (Conflict, TooMany, Unavailable) as fault:
        status, errors = fault.status, {"form": f"{fault.detail[:1].upper()}{fault.detail[1:].rstrip('.')}."}
        if isinstance(fault, Conflict) and fault.problem == "edited":
            errors = {"discard_edits": "What people have changed would be gone: tick this, or leave it as it is."}
    if errors:
        async with db.transaction() as session:
            return await _page(
                request, session, config, principal, recording_id, values=values, errors=errors, status=status
            )
    return lead(f"/ops/recordings/{recording_id}", "It is transcribed again. What is here stays until that is done.")


def _wish(options: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    typed_in = {name: values[name].strip() for name in _FIELDS if values.get(name, "").strip()}
    kept = _KEPT if "speakers" in typed_in else (*_KEPT, *_BOUNDS)
    discard = {"discard_edits": True} if values.get("discard_edits") else {}
    return {name: options[name] for name in kept if name in options} | typed_in | discard
