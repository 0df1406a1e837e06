"""The operators' pages."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse

from backend.core.errors import NotFound
from backend.ops import (
    audit,
    calls,
    letters,
    me,
    people,
    queues,
    quotas,
    recording_again,
    recording_changes,
    recording_sound,
    recording_upload,
    recordings,
    runs,
    schedule_form,
    schedules,
    shared,
    sign_in,
)
from backend.ops.access import know_who_asks
from backend.ops.context import count_for_navigation, refuse_with_a_page
from backend.ops.origin import require_same_origin

# The order counts: what stands after refuse_with_a_page is refused with a page, and nobody learns anything before they are known.
_guarded = APIRouter(
    prefix="/ops",
    include_in_schema=False,
    dependencies=[
        Depends(refuse_with_a_page),
        Depends(know_who_asks),
        Depends(require_same_origin),
        Depends(count_for_navigation),
    ],
)
# For who is not signed in (any more).
_open = APIRouter(
    prefix="/ops",
    include_in_schema=False,
    dependencies=[Depends(refuse_with_a_page), Depends(require_same_origin)],
)
_open.include_router(sign_in.router)


@_guarded.get("")
async def show_start() -> Response:
    return RedirectResponse("/ops/calls")


_guarded.include_router(calls.router)
# Before the recordings, whose {recording_id} would take `new`.
_guarded.include_router(recording_upload.router)
_guarded.include_router(recordings.router)
_guarded.include_router(recording_sound.router)
_guarded.include_router(recording_changes.router)
_guarded.include_router(recording_again.router)
# Before the schedules, whose {schedule_id} would take `new`.
_guarded.include_router(schedule_form.router)
_guarded.include_router(schedules.router)
_guarded.include_router(runs.router)
_guarded.include_router(queues.router)
_guarded.include_router(letters.router)
_guarded.include_router(me.router)
_guarded.include_router(quotas.router)
_guarded.include_router(people.router)
_guarded.include_router(audit.router)


@_guarded.get("/{path:path}")
async def show_nothing(path: str) -> Response:
    if path.endswith("/") or not path:
        return RedirectResponse(f"/ops/{path.strip('/')}".rstrip("/"), 307)
    raise NotFound(f"there is no page /ops/{path}")


# Before the guarded ones, whose last route takes every path.
router = APIRouter()
router.include_router(shared.router)
router.include_router(_open)
router.include_router(_guarded)
