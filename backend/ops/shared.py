"""The page that a share link opens, to whoever has the link; nobody signs in here."""

import math
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from backend.core.errors import AppError, Invalid, NotFound
from backend.core.throttle import limited
from backend.core.web import ConfigDep, DatabaseDep
from backend.ops.context import Frames, render
from backend.ops.recordings import is_played
from backend.recordings.api.audio import StorageDep, answer
from backend.recordings.api.recordings import file_of
from backend.recordings.api.sharing import note
from backend.recordings.library import reading, sharing
from backend.recordings.schemas import ExportFormat, SharedRead

_TITLES = {410: "This link is over", 429: "Too many requests", 503: "Not now"}


class LinkRefusal(Exception):
    """A fault that is shown to a stranger, on a page without anything of the house."""

    def __init__(self, fault: AppError) -> None:
        super().__init__(fault.detail)
        self.fault = fault


async def refuse_with_a_page() -> AsyncIterator[None]:
    """What a link's pages raise becomes a LinkRefusal; whatever is no link or no time opens nothing."""
    try:
        yield
    except AppError as fault:
        raise LinkRefusal(fault) from fault
    except RequestValidationError as fault:
        raise LinkRefusal(Invalid("this link opens nothing: it is wrong")) from fault


async def show_refusal(request: Request, refusal: LinkRefusal) -> Response:
    fault = refusal.fault
    context = {
        "title": _TITLES.get(fault.status, "This link opens nothing"),
        "detail": f"{fault.detail[:1].upper()}{fault.detail[1:].rstrip('.')}.",
    }
    answered = _private(render(request, "shared_over.html", context, status=fault.status))
    if fault.retry_after is not None:
        answered.headers["Retry-After"] = str(math.ceil(fault.retry_after))
    return answered


router = APIRouter(prefix="/shared", include_in_schema=False, dependencies=[Depends(refuse_with_a_page)])

Token = Annotated[str, Path(min_length=1, max_length=200)]
At = Annotated[float | None, Query(alias="t", ge=0, le=1_000_000)]

# A link passes from hand to hand; neither the next site nor a search engine is to have it.
_HEADERS = {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
_COLOURS = 8


@router.get("/{token}", dependencies=[limited("60/minute", name="shared")])
async def show_shared(request: Request, db: DatabaseDep, config: ConfigDep, token: Token) -> Response:
    """Who said what, for whoever has the link."""
    async with db.transaction() as session:
        shared = await sharing.read_shared(session, token)
        _, recording = await sharing.open_link(session, token, counted=False)
    note(request)
    context = {
        "shared": shared,
        "base": f"/shared/{token}",
        "places": _places(shared),
        "played": is_played(recording.codec, recording.blob_key),
        "zone": config.timezone,
    }
    return _private(render(request, "shared.html", context, frames=Frames.HOLDS))


def _private(answered: Response) -> Response:
    answered.headers.update(_HEADERS)
    return answered


def _places(shared: SharedRead) -> dict[str, int]:
    """The colour of each name; of a link nobody knows the labels."""
    return {name: number % _COLOURS for number, name in enumerate(dict.fromkeys(shared.speakers))}


@router.get("/{token}/player", dependencies=[limited("600/minute", name="shared-player")])
async def show_player(request: Request, db: DatabaseDep, token: Token, at: At = None) -> Response:
    """The player, for a frame."""
    async with db.transaction() as session:
        _, recording = await sharing.open_link(session, token, counted=False)
    context = {
        "source": f"/shared/{token}/audio",
        "at": at,
        "play": at is not None,
        "film": False,
        "played": is_played(recording.codec, recording.blob_key),
        "codec": recording.codec,
    }
    return _private(render(request, "recording_player.html", context, frames=Frames.INSIDE))


@router.head("/{token}/audio", dependencies=[limited("600/minute", name="shared-audio")])
@router.get("/{token}/audio", dependencies=[limited("600/minute", name="shared-audio")])
async def send_audio(request: Request, db: DatabaseDep, storage: StorageDep, token: Token) -> Response:
    """The sound, where the link is for hearing too."""
    async with db.transaction() as session:
        sound = await sharing.shared_sound(session, token, counted=False)
    return _private(await answer(request, storage, sound))


@router.get("/{token}/text", dependencies=[limited("60/minute", name="shared")])
async def show_text(db: DatabaseDep, token: Token) -> Response:
    """Plain text, to copy from."""
    async with db.transaction() as session:
        _, recording = await sharing.open_link(session, token, counted=False)
        document = await reading.document_of(session, recording)
    return _private(await file_of(document, ExportFormat.TXT, download=False))


@router.get("/{path:path}")
async def show_nothing(path: str) -> Response:
    raise NotFound(f"there is no page /shared/{path}")
