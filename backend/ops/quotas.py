"""The page of quotas, and the form of one person's, for admins."""

from datetime import datetime, time, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import ValidationError

from backend.core.clock import utc_now
from backend.core.errors import Invalid
from backend.core.principal import Role
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Admin, Needs
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import of_validation, typed
from backend.quotas import service as quotas
from backend.quotas.schemas import PlanUpdate, QuotaUpdate

router = APIRouter(dependencies=[Depends(Needs(Role.ADMIN))])

_ROWS = 50
_LIMITS = ("minutes_per_day", "files_per_day")
_EXTRAS = ("extra_minutes", "extra_files")
_OF_A_PERSON = ("plan", *_LIMITS)


@router.get("/quotas")
async def show_quotas(
    request: Request, session: SessionDep, config: ConfigDep, used: bool = True, cursor: str | None = None
) -> Response:
    """Plans, and how everybody stands today."""
    page = await quotas.list_quotas(session, used=used, cursor=cursor, limit=_ROWS)
    context = {
        "plans": await quotas.list_plans(session),
        "people": page.items,
        "next_cursor": page.next_cursor,
        "used": used,
        "reset_at": _next_day(),
        "zone": config.timezone,
    }
    return render(request, "quotas.html", context)


def _next_day() -> datetime:
    now = utc_now()
    return datetime.combine(now.date() + timedelta(days=1), time.min, now.tzinfo)


def _numbers(values: dict[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    """As they were typed; empty is None."""
    return {name: values.get(name, "").strip() or None for name in names}


def _problem(fault: ValidationError) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {wrong}" for name, wrong in of_validation(fault).items())


@router.post("/quotas/plans")
async def set_plan(
    request: Request, db: DatabaseDep, actor: Admin, name: Annotated[str, Form(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]
) -> Response:
    """Make a plan, or change its limits; an empty one is none."""
    try:
        wish = PlanUpdate.model_validate(_numbers(await typed(request), _LIMITS))
    except ValidationError as fault:
        return lead("/ops/quotas", f"{name}: {_problem(fault)}", good=False)
    async with db.transaction() as session:
        await quotas.set_plan(session, name, wish, actor=actor.name)
    return lead("/ops/quotas", f"The plan {name} is saved; it counts from the next upload on.")


@router.post("/people/{user_id}/quota")
async def set_quota(request: Request, db: DatabaseDep, actor: Admin, user_id: UUID) -> Response:
    """Somebody's plan and limits; an empty limit is the plan's."""
    here, values = f"/ops/people/{user_id}#quota", await typed(request)
    # An empty limit is the plan's; nothing more for today is nothing.
    wanted = _numbers(values, _OF_A_PERSON) | {name: values.get(name, "").strip() or 0 for name in _EXTRAS}
    try:
        wish = QuotaUpdate.model_validate(wanted)
        async with db.transaction() as session:
            await quotas.set_quota(session, user_id, wish, actor=actor.name)
    except ValidationError as fault:
        return lead(here, _problem(fault), good=False)
    except Invalid as fault:
        return lead(here, fault.detail, good=False)
    return lead(here, "The quota is saved; it counts from the next upload on.")
