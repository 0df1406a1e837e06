"""The operators' pages."""

from fastapi import APIRouter, Depends, Response
from fastapi.responses import RedirectResponse

from backend.ops import calls, runs, schedule_form, schedules
from backend.ops.context import refuse_with_a_page, require_operator
from backend.ops.origin import require_same_origin

# The order counts: what stands after refuse_with_a_page is refused with a page.
router = APIRouter(
    prefix="/ops",
    include_in_schema=False,
    dependencies=[Depends(require_operator), Depends(refuse_with_a_page), Depends(require_same_origin)],
)


@router.get("")
async def show_start() -> Response:
    return RedirectResponse("/ops/calls")


router.include_router(calls.router)
# Before the schedules, whose {schedule_id} would take `new`.
router.include_router(schedule_form.router)
router.include_router(schedules.router)
router.include_router(runs.router)
