"""The page of quotas, and the form of one person's, for admins."""

from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Session
from backend.core.errors import Conflict, Invalid, NotFound
from backend.core.principal import Role
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Admin, Needs
from backend.ops.context import render
from backend.ops.flash import lead
from backend.ops.forms import of_validation, typed
from backend.quotas import service as quotas
from backend.quotas.schemas import PlanUpdate, QuotaUpdate
from backend.quotas.service import STANDARD

router = APIRouter(dependencies=[Depends(Needs(Role.ADMIN))])

_ROWS = 50
_LIMITS = ("minutes_per_day", "files_per_day")
_OF_A_PERSON = ("plan", *_LIMITS, "extra_minutes", "extra_files")


@router.get("/quotas")
async def show_quotas(
    request: Request, session: SessionDep, config: ConfigDep, used: bool = True, cursor: str | None = None
) -> Response:
    """Plans, and how everybody stands today."""
    return await _page(request, session, config, used=used, cursor=cursor)


async def _page(
    request: Request,
    session: Session,
    config: Config,
    *,
    used: bool = True,
    cursor: str | None = None,
    values: dict[str, str] | None = None,
    fault: str = "",
) -> Response:
    """With `fault` the form of the plan that `values` name, or of a new one, as it was typed."""
    page = await quotas.list_quotas(session, used=used, cursor=cursor, limit=_ROWS)
    context = {
        "plans": await quotas.list_plans(session),
        "people": page.items,
        "next_cursor": page.next_cursor,
        "used": used,
        "reset_at": _next_day(),
        "zone": config.timezone,
        "values": values or {},
        "fault": fault,
        "faulty": values["name"] if values and "new" not in values else None,
    }
    return render(request, "quotas.html", context, status=422 if fault else 200)


def _next_day() -> datetime:
    now = utc_now()
    return datetime.combine(now.date() + timedelta(days=1), time.min, now.tzinfo)


def _numbers(values: dict[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    """Those that were sent, as they were typed; empty is None."""
    return {name: values[name].strip() or None for name in names if name in values}


def _problem(fault: ValidationError) -> str:
    return "; ".join(f"{name.replace('_', ' ')}: {wrong}" for name, wrong in of_validation(fault).items())


@router.post("/quotas/plans")
async def set_plan(request: Request, db: DatabaseDep, config: ConfigDep, actor: Admin) -> Response:
    """Make a plan, or change its limits; an empty one is none."""
    values = await typed(request)
    name = values["name"] = values.get("name", "").strip()
    try:
        wish = PlanUpdate.model_validate(dict.fromkeys(_LIMITS) | _numbers(values, _LIMITS))
        async with db.transaction() as session:
            if "new" in values:
                await _check_new(session, name)
            await quotas.set_plan(session, name, wish, actor=actor.name)
    except (ValidationError, Invalid) as fault:
        why = _problem(fault) if isinstance(fault, ValidationError) else fault.detail
        async with db.transaction() as session:
            return await _page(request, session, config, values=values, fault=why)
    return lead("/ops/quotas", f"The plan {name} is saved; it counts from the next upload on.")


async def _check_new(session: Session, name: str) -> None:
    if await quotas.find_plan(session, name) is not None:
        raise Invalid(f"there is a plan {name} already; change it above")


@router.post("/quotas/plans/{name}/delete")
async def delete_plan(session: SessionDep, name: str) -> Response:
    """One that nobody has; `standard` gets the limits back that it comes with."""
    try:
        await quotas.delete_plan(session, name)
    except (Conflict, NotFound) as fault:
        return lead("/ops/quotas", f"{fault.detail[:1].upper()}{fault.detail[1:]}.", good=False)
    if name == STANDARD:
        return lead("/ops/quotas", "The plan standard has the limits again that it comes with.")
    return lead("/ops/quotas", f"The plan {name} is deleted.")


@router.post("/people/{user_id}/quota")
async def set_quota(request: Request, db: DatabaseDep, actor: Admin, user_id: UUID) -> Response:
    """Somebody's plan and limits; an empty limit is the plan's, an empty number for today nothing."""
    here, values = f"/ops/people/{user_id}#quota", await typed(request)
    try:
        wish = QuotaUpdate.model_validate(_numbers(values, _OF_A_PERSON))
        async with db.transaction() as session:
            await quotas.set_quota(session, user_id, wish, actor=actor.name)
    except ValidationError as fault:
        return lead(here, _problem(fault), good=False)
    except Invalid as fault:
        return lead(here, fault.detail, good=False)
    return lead(here, "The quota is saved; it counts from the next upload on.")
