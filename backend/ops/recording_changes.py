"""The buttons and forms of one recording. Who may press them is the recording's to say: see recordings/access.py."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response
from pydantic import ValidationError

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import Conflict, Invalid, NotFound, TooMany
from backend.core.principal import Principal
from backend.core.web import ConfigDep, DatabaseDep, SessionDep, private
from backend.ops.access import Viewer
from backend.ops.context import Frames, number_of, render
from backend.ops.flash import lead
from backend.ops.forms import Errors, of_validation, typed
from backend.ops.recordings import has_audio, is_played, page_of
from backend.recordings.api.audio import StorageDep
from backend.recordings.keeping import removing
from backend.recordings.library import editing, managing, reading, sharing
from backend.recordings.schemas import (
    RecordingUpdate,
    SegmentRead,
    SegmentUpdate,
    ShareCreate,
    SpeakerUpdate,
)

router = APIRouter(prefix="/recordings/{recording_id}")

Then = Literal["back", "next", "stay"]


def _path(recording_id: UUID) -> str:
    return f"/ops/recordings/{recording_id}"


@router.post("", dependencies=[private("title")])
async def update(request: Request, db: DatabaseDep, principal: Viewer, recording_id: UUID) -> Response:
    """Title, an empty one being that of the summary, and with whom it is shared."""
    values = await typed(request)
    wish: dict[str, Any] = {"title": values.get("title", "")}
    if "shared_role" in values:
        wish["shared_role"] = values["shared_role"] or None
    try:
        async with db.transaction() as session:
            if not wish["title"].strip():
                wish["title"] = await reading.title_of(session, recording_id, principal)
            await editing.update_recording(session, recording_id, RecordingUpdate.model_validate(wish), principal)
    except ValidationError as fault:
        return lead(_path(recording_id), _problem(fault), good=False)
    return lead(_path(recording_id), "Saved.")


def _problem(fault: ValidationError) -> str:
    return "; ".join(f"{name}: {wrong}" for name, wrong in of_validation(fault).items())


@router.post("/speakers", dependencies=[private("name")])
async def rename(
    session: SessionDep,
    principal: Viewer,
    recording_id: UUID,
    label: Annotated[str, Form(max_length=100)],
    name: Annotated[str, Form(max_length=1_000)] = "",
) -> Response:
    """Once for the whole recording; an empty name goes back to the label."""
    try:
        wish = SpeakerUpdate(name=name)
    except ValidationError as fault:
        return lead(f"{_path(recording_id)}#speakers", _problem(fault), good=False)
    speaker = await editing.rename_speaker(session, recording_id, label, wish, principal)
    told = f"{label} is {speaker.name} from here on." if speaker.named else f"{label} has no name of its own any more."
    return lead(f"{_path(recording_id)}#speakers", told)


@router.get("/segments/{number}")
async def show_segment(
    request: Request, session: SessionDep, config: ConfigDep, principal: Viewer, recording_id: UUID, number: int
) -> Response:
    """What is said in one go: words, speaker, and what stood there before."""
    return await _segment_page(request, session, config, principal, recording_id, number)


async def _segment_page(
    request: Request,
    session: Session,
    config: Config,
    principal: Principal,
    recording_id: UUID,
    number: int,
    *,
    values: dict[str, str] | None = None,
    errors: Errors | None = None,
    status: int = 200,
) -> Response:
    recording = await reading.read_recording(session, recording_id, principal, config=config)
    around = await reading.list_segments(session, recording_id, principal, after=max(-1, number - 2), limit=3)
    segment = next((each for each in around if each.number == number), None)
    if segment is None:
        raise NotFound(f"recording {recording_id} has no segment {number}")
    context = {
        "recording": recording,
        "heard": has_audio(recording) and is_played(recording.codec, recording.filename),
        "segment": segment,
        "values": values or {"text": segment.text, "speaker": segment.speaker or ""},
        "errors": errors or {},
        "first_fault": next(iter(errors or {}), None),
        "versions": await reading.list_versions(session, recording_id, number, principal),
        "names": {each.label: each.name for each in recording.speakers},
        "previous": number - 1 if any(each.number == number - 1 for each in around) else None,
        "following": _following(around, number),
        "zone": config.timezone,
    }
    return render(request, "recording_segment.html", context, status=status, frames=Frames.HOLDS)


def _following(around: list[SegmentRead], number: int) -> int | None:
    return next((each.number for each in around if each.number > number), None)


@router.post("/segments/{number}", dependencies=[private("text")])
async def edit(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    principal: Viewer,
    recording_id: UUID,
    number: int,
    then: Annotated[Then, Form()] = "back",
) -> Response:
    """What was there before is kept. Where somebody has changed it since, nothing happens; what was typed is in the form."""
    values = await typed(request)
    # Of a recording without speakers there is no such field; an empty one is nobody who is known.
    wish: dict[str, Any] = {"version": values.get("version", ""), "text": values.get("text", "")}
    if "speaker" in values:
        wish["speaker"] = values["speaker"] or None
    status, errors = 422, {}
    try:
        async with db.transaction() as session:
            await editing.edit_segment(session, recording_id, number, SegmentUpdate.model_validate(wish), principal)
    except ValidationError as fault:
        errors = of_validation(fault)
    except Invalid as fault:
        errors = {fault.problem if fault.problem == "speaker" else "form": fault.detail}
    except Conflict as fault:
        if fault.problem != "version":
            raise
        status = 409
        now = fault.extra["segment"]["text"]
        errors = {"form": f"Somebody has changed it since; it now says: “{now}”. Save again to put yours in its place."}
    if errors:
        async with db.transaction() as session:
            return await _segment_page(
                request, session, config, principal, recording_id, number, values=values, errors=errors, status=status
            )
    return _after_edit(recording_id, number, then)


def _after_edit(recording_id: UUID, number: int, then: Then) -> Response:
    here = f"{_path(recording_id)}/segments"
    if then == "next":
        return lead(f"{here}/{number + 1}", "Saved.")
    return lead(f"{here}/{number}" if then == "stay" else f"{_path(recording_id)}#s{number}", "Saved.")


@router.post("/shares")
async def share(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    principal: Viewer,
    recording_id: UUID,
    hours: Annotated[str, Form(max_length=10)] = "168",
    with_audio: Annotated[bool, Form()] = False,
) -> Response:
    """The answer itself shows the link, which nothing else ever does: no cookie, no address."""
    try:
        wish = ShareCreate.model_validate({"hours": hours, "with_audio": with_audio})
        async with db.transaction() as session:
            made = await sharing.share(session, recording_id, wish, principal)
    except ValidationError as fault:
        return lead(f"{_path(recording_id)}#settings", _problem(fault), good=False)
    except Conflict as fault:
        return lead(f"{_path(recording_id)}#settings", fault.detail, good=False)
    async with db.transaction() as session:
        return await page_of(request, session, config, principal, recording_id, made=made)


@router.post("/shares/{share_id}/revoke")
async def revoke(session: SessionDep, principal: Viewer, recording_id: UUID, share_id: UUID) -> Response:
    """It opens nothing from here on."""
    await sharing.revoke(session, recording_id, share_id, principal)
    return lead(f"{_path(recording_id)}#settings", "The link opens nothing any more.")


@router.post("/cancel")
async def cancel(session: SessionDep, principal: Viewer, recording_id: UUID) -> Response:
    """Stops within seconds; one that has ended meanwhile is left alone."""
    try:
        recording = await managing.cancel(session, recording_id, principal)
    except Conflict as fault:
        return lead(_path(recording_id), fault.detail, good=False)
    return lead(_path(recording_id), "It stops within seconds." if recording.cancelling else "It is cancelled.")


@router.post("/retry")
async def retry(db: DatabaseDep, principal: Viewer, recording_id: UUID) -> Response:
    """Once more, from what is left of the attempt before; it counts on today's quota of its owner."""
    try:
        async with db.transaction() as session:
            await managing.retry(session, recording_id, principal)
    except (Conflict, TooMany) as fault:
        return lead(_path(recording_id), _sentence(fault.detail), good=False)
    return lead(_path(recording_id), "It is transcribed once more.")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


@router.post("/delete")
async def delete(
    db: DatabaseDep, config: ConfigDep, principal: Viewer, storage: StorageDep, recording_id: UUID
) -> Response:
    """For good, and what went is told. The second half of a double click finds nothing to delete."""
    try:
        gone = await removing.remove(db, storage, recording_id, principal, config=config)
    except NotFound:
        return lead("/ops/recordings", "It is deleted already.")
    words = (
        f", its {number_of(gone.segments, 'segment')} and {number_of(gone.shares, 'link')}" if gone.transcript else ""
    )
    files = f" {gone.files_pending} of its files follow within minutes." if gone.files_pending else ""
    return lead("/ops/recordings", f"Deleted: the recording{words}.{files}")
