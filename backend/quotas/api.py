"""HTTP of quotas: one's own for everybody, all of them for admins."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from backend.core.errors import Forbidden
from backend.core.paging import Page
from backend.core.web import Admin, AdminDep, PersonDep, SessionDep
from backend.quotas import service as quotas
from backend.quotas.schemas import PlanName, PlanRead, PlanUpdate, QuotaRead, QuotaUpdate, ResetRead, StandingRead

router = APIRouter(prefix="/api/quotas", tags=["quotas"])


@router.get("/me")
async def read_own_quota(session: SessionDep, principal: PersonDep) -> StandingRead:
    """What I may have transcribed today, and what is left of it."""
    if principal.user_id is None:
        raise Forbidden("this belongs to a user", code="user_needed")
    return StandingRead.model_validate(await quotas.standing(session, principal.user_id))


@router.get("/plans", dependencies=[Admin])
async def list_quota_plans(session: SessionDep) -> list[PlanRead]:
    """The plans, with how many users have each; whoever was given none has `standard`."""
    return await quotas.list_plans(session)


@router.put("/plans/{name}")
async def update_quota_plan(session: SessionDep, principal: AdminDep, name: PlanName, body: PlanUpdate) -> PlanRead:
    """Make a plan, or change its limits; it counts from the next upload on."""
    return await quotas.set_plan(session, name, body, actor=principal.name)


@router.delete("/plans/{name}", dependencies=[Admin], status_code=204)
async def delete_quota_plan(session: SessionDep, name: PlanName) -> None:
    """Delete a plan that nobody has; `standard` gets the limits back that it comes with."""
    await quotas.delete_plan(session, name)


@router.get("/resets", dependencies=[Admin])
async def list_quota_resets(session: SessionDep, limit: Annotated[int, Query(ge=1, le=500)] = 31) -> list[ResetRead]:
    """The daily resets, the latest first, with what had been used."""
    return await quotas.list_resets(session, limit=limit)


@router.get("", dependencies=[Admin])
async def list_quotas(
    session: SessionDep,
    plan: str | None = None,
    used: Annotated[bool, Query(description="Who has used something today, alone")] = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page[QuotaRead]:
    """How everybody stands today, newest account first."""
    return await quotas.list_quotas(session, plan=plan, used=used, cursor=cursor, limit=limit)


@router.get("/{user_id}", dependencies=[Admin])
async def read_quota(session: SessionDep, user_id: UUID) -> QuotaRead:
    """How somebody stands today, and what was set for them."""
    return await quotas.read_quota(session, user_id)


@router.put("/{user_id}")
async def update_quota(session: SessionDep, principal: AdminDep, user_id: UUID, body: QuotaUpdate) -> QuotaRead:
    """Change somebody's plan, limits of their own, and what they are given for today alone; it counts from the next upload on.

    What is left out stays as it is; null takes it back: the standard plan, the plan's limit, nothing more for today.
    """
    return await quotas.set_quota(session, user_id, body, actor=principal.name)
