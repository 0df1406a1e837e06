"""HTTP of uploads: one request, with the file as its body or in a form; what comes by the tus protocol goes to tus_api."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from backend.core.db import Database
from backend.core.principal import Principal
from backend.core.web import WriterDep, private
from backend.recordings.api import tus as tus_api
from backend.recordings.api.sending import PATH, IntakeDep, body, length, refusals, sizes_in_form, told
from backend.recordings.schemas import RecordingRead
from backend.recordings.uploads import resumable as uploads
from backend.recordings.uploads.accepting import Intake, Outcome
from backend.recordings.uploads.forms import Form
from backend.recordings.uploads.wishes import UploadWish, Wish, read_wish, wish

router = APIRouter(prefix=PATH, tags=["recordings"])


class AddedRecordingRead(RecordingRead):
    """`duplicate`: you had a recording of the same content; this is it. `other_options`: it has others than you have asked for now;
    `POST /api/recordings/{id}/transcribe` takes yours.
    """

    duplicate: bool
    other_options: bool


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": AddedRecordingRead,
        "description": "You had a recording of this content; nothing is taken off your quota.",
    },
    **refusals(400, 410, 412, 413, 507),
}


@router.post(
    "",
    status_code=201,
    response_model=AddedRecordingRead,
    responses=_ANSWERS,
    openapi_extra=_BODY,
    dependencies=[private("title", "filename", "hints")],
)
async def upload_recording(
    request: Request,
    intake: IntakeDep,
    principal: WriterDep,
    asked: Annotated[UploadWish, Query()],
) -> Response:
    """Upload a recording and have it transcribed: the file as the body of the request, or as the field `file` of a form.

    What you want stands in the query, or in fields of the form. With the header `Tus-Resumable: 1.0.0` a resumable upload begins
    instead, whose parts go to the answer's `Location` (tus.io; docs/operations/uploads.md).
    """
    if "Tus-Resumable" in request.headers:
        return await tus_api.begin(intake, principal, request)
    chunks = body(request)
    with told():
        if request.headers.get("Content-Type", "").lower().startswith("multipart/"):
            outcome = await _form(intake, principal, request, chunks)
        else:
            outcome = await uploads.receive(intake, principal, wish(asked), chunks, size=length(request))
    return await answer(intake.db, principal, outcome)


async def _form(intake: Intake, principal: Principal, request: Request, chunks: AsyncIterator[bytes]) -> Outcome:
    form = Form(request.headers["Content-Type"], chunks)
    await form.begin()

    def wished() -> Wish:
        """As far as it is known: fields may stand behind the file."""
        return read_wish({"filename": form.filename} | dict(request.query_params) | form.fields)

    sizes = sizes_in_form(request)
    return await uploads.receive(intake, principal, wished(), aiter(form), sizes=sizes, afterwards=wished)


async def answer(db: Database, principal: Principal, outcome: Outcome) -> Response:
    """201 for a new recording, 200 for one that was there."""
    read = await uploads.read_recording(db, outcome, principal)
    shown = AddedRecordingRead(**read.model_dump(), duplicate=outcome.duplicate, other_options=outcome.other_options)
    return JSONResponse(
        shown.model_dump(mode="json"), 200 if outcome.duplicate else 201, {"Location": f"{PATH}/{read.id}"}
    )
