"""What admins do about quotas: plans, limits of one's own, something more for today."""

from uuid import UUID

from backend.core.db import Session
from backend.core.errors import Conflict, Invalid, NotFound
from backend.core.paging import Page, decode_cursor, encode_cursor
from backend.quotas.allowance import STANDARD, STANDARD_FILES, STANDARD_MINUTES
from backend.quotas.repository.limits import LimitRepository
from backend.quotas.repository.resetting import ResetRepository
from backend.quotas.repository.standings import Account, StandingRepository
from backend.quotas.schemas import PLAN_NAME, PlanRead, PlanUpdate, QuotaRead, QuotaUpdate, ResetRead, StandingRead


def _read(account: Account) -> QuotaRead:
    own = {
        "user_id": account.standing.user_id,
        "username": account.standing.username,
        "is_active": account.is_active,
        "minutes_per_day": account.own_minutes,
        "files_per_day": account.own_files,
        "extra_minutes": account.standing.extra_minutes,
        "extra_files": account.standing.extra_files,
        "updated_by": account.updated_by,
        "updated_at": account.updated_at,
    }
    return QuotaRead(**StandingRead.model_validate(account.standing).model_dump(), **own)


async def read_quota(session: Session, user_id: UUID) -> QuotaRead:
    """NotFound (404)."""
    account = await StandingRepository(session).find(user_id)
    if account is None:
        raise NotFound(f"no user {user_id}")
    return _read(account)


async def list_quotas(
    session: Session, *, plan: str | None = None, used: bool = False, cursor: str | None = None, limit: int = 50
) -> Page[QuotaRead]:
    """Everybody, newest account first; of one plan, or those alone who have used something today."""
    found = await StandingRepository(session).page(plan=plan, used=used, after=decode_cursor(cursor), limit=limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = encode_cursor((last.created_at, last.standing.user_id)) if last is not None else None
    return Page(items=[_read(account) for account in found[:limit]], next_cursor=more)


async def set_quota(session: Session, user_id: UUID, wish: QuotaUpdate, *, actor: str) -> QuotaRead:
    """Change what the wish names, nothing else; None is the standard plan, the plan's limit, nothing more for today.

    It counts from the next reservation on. NotFound (404); Invalid (422, `unknown_plan`).
    """
    before = await read_quota(session, user_id)
    given = wish.model_dump(exclude_unset=True)
    if not given:
        return before
    limits = LimitRepository(session)
    plan = given.get("plan")
    if plan == STANDARD:
        given["plan"] = None
    elif plan is not None and not await limits.keep_plan(plan):
        known = ", ".join(each.name for each in await list_plans(session))
        raise Invalid(f"no plan is called {plan!r}; there are: {known}", code="unknown_plan")
    extra = {name: given.pop(name) or 0 for name in ("extra_minutes", "extra_files") if name in given}
    await limits.set_own(user_id, given, actor=actor)
    if extra:
        await limits.set_extra(user_id, minutes=extra.get("extra_minutes"), files=extra.get("extra_files"))
    return await read_quota(session, user_id)


async def list_plans(session: Session) -> list[PlanRead]:
    """By name; `standard` is there in any case."""
    limits = LimitRepository(session)
    users = await limits.users_by_plan()
    found = [PlanRead(**row.model_dump(), users=users.get(row.name, 0)) for row in await limits.plans()]
    if all(plan.name != STANDARD for plan in found):
        found.append(
            PlanRead(
                name=STANDARD,
                minutes_per_day=STANDARD_MINUTES,
                files_per_day=STANDARD_FILES,
                users=0,
                updated_by="",
                updated_at=None,
            )
        )
    return sorted(found, key=lambda plan: plan.name)


async def find_plan(session: Session, name: str) -> PlanRead | None:
    """None where there is none; nobody else changes it until the end of the transaction."""
    await LimitRepository(session).lock_plan(name)
    return next((plan for plan in await list_plans(session) if plan.name == name), None)


async def set_plan(session: Session, name: str, wish: PlanUpdate, *, actor: str) -> PlanRead:
    """Make a plan or change it; it counts from the next reservation of everybody who has it. Invalid (422) for such a name."""
    if not PLAN_NAME.fullmatch(name):
        raise Invalid(f"{name!r}: a plan's name has up to 40 lower-case letters, digits, dashes and underscores")
    await LimitRepository(session).set_plan(name, minutes=wish.minutes_per_day, files=wish.files_per_day, actor=actor)
    return next(plan for plan in await list_plans(session) if plan.name == name)


async def delete_plan(session: Session, name: str) -> None:
    """`standard` gets the limits back that it comes with. NotFound (404); Conflict (409, `in_use`)."""
    limits = LimitRepository(session)
    if not await limits.lock_plan(name):
        raise NotFound(f"no plan {name!r} was set")
    users = (await limits.users_by_plan()).get(name, 0)
    if users:
        have = "one user has" if users == 1 else f"{users} users have"
        raise Conflict(f"{have} the plan {name!r} and must be given another first", code="in_use")
    await limits.delete_plan(name)


async def list_resets(session: Session, *, limit: int = 31) -> list[ResetRead]:
    """The latest first."""
    found = await ResetRepository(session).latest(limit)
    return [ResetRead(**row.model_dump(exclude={"used_ms"}), used_seconds=row.used_ms / 1000) for row in found]
