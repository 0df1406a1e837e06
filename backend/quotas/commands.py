"""`beatline quotas …`: what people may have transcribed a day, for whoever has the database. Days are UTC days."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from backend.accounts import service as accounts
from backend.core.console import configuration, fail, in_transaction, say, say_table
from backend.core.db import Session
from backend.core.errors import AppError
from backend.quotas import service as quotas
from backend.quotas.schemas import PlanUpdate, QuotaRead, QuotaUpdate

T = TypeVar("T")

app = typer.Typer(
    help="Quotas: what people may have transcribed a day, what is left, plans and limits of their own.",
    no_args_is_help=True,
    add_completion=False,
)

_ACTOR = "cli"
_MOST = 1_000_000

Name = Annotated[str, typer.Argument(metavar="USER", help="The user name, or the e-mail address.")]
Minutes = Annotated[int | None, typer.Option(min=0, max=_MOST, help="Minutes a day; left out: the plan's.")]
Files = Annotated[int | None, typer.Option(min=0, max=_MOST, help="Files a day; left out: the plan's.")]
_HEADERS = ("user", "plan", "minutes used", "reserved", "left", "of", "files used", "reserved", "left", "of")


@app.command("list")
def list_quotas(
    used: Annotated[bool, typer.Option("--used", help="Who has used something today, alone.")] = False,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500, help="How many.")] = 100,
) -> None:
    """How everybody stands today, newest account first."""
    page = _run(lambda session: quotas.list_quotas(session, used=used, limit=limit))
    if not page.items:
        say("nobody has used anything today" if used else "no users")
        return
    say_table(_HEADERS, [_cells(one) for one in page.items])
    if page.next_cursor:
        say("there are more: -n shows up to 500")


def _cells(one: QuotaRead) -> tuple[object, ...]:
    minutes = (one.used_seconds, one.reserved_seconds, one.left_seconds, one.limit_seconds)
    files = (one.used_files, one.reserved_files, one.left_files, one.limit_files)
    return (
        one.username,
        one.plan,
        *("no limit" if each is None else f"{each / 60:.1f}" for each in minutes),
        *("no limit" if each is None else each for each in files),
    )


@app.command("set")
def set_quota(
    name: Name,
    plan: Annotated[str | None, typer.Option(metavar="PLAN", help="A plan; left out: standard.")] = None,
    minutes: Minutes = None,
    files: Files = None,
    extra_minutes: Annotated[int | None, typer.Option(min=0, max=_MOST, help="More for today alone.")] = None,
    extra_files: Annotated[int | None, typer.Option(min=0, max=_MOST, help="More for today alone.")] = None,
) -> None:
    """Somebody's plan and limits, as a whole; it counts from the next upload on."""

    async def work(session: Session) -> QuotaRead:
        user = await accounts.find_user(session, name)
        wish = QuotaUpdate.model_construct(
            plan=plan,
            minutes_per_day=minutes,
            files_per_day=files,
            extra_minutes=extra_minutes,
            extra_files=extra_files,
        )
        return await quotas.set_quota(session, user.id, wish, actor=_ACTOR)

    say_table(_HEADERS, [_cells(_run(work))])


@app.command("plans")
def list_plans() -> None:
    """The plans; whoever was given none has `standard`."""
    say_table(
        ("plan", "minutes a day", "files a day", "users"),
        [
            (plan.name, _limit(plan.minutes_per_day), _limit(plan.files_per_day), plan.users)
            for plan in _run(quotas.list_plans)
        ],
    )


def _limit(number: int | None) -> object:
    return "no limit" if number is None else number


@app.command("set-plan")
def set_plan(
    name: Annotated[str, typer.Argument(metavar="PLAN", help="Lower-case letters, digits, dash, underscore.")],
    minutes: Annotated[int | None, typer.Option(min=0, max=_MOST, help="Minutes a day; left out: no limit.")] = None,
    files: Annotated[int | None, typer.Option(min=0, max=_MOST, help="Files a day; left out: no limit.")] = None,
) -> None:
    """Make a plan or change its limits; it counts from the next upload of everybody who has it."""
    wish = PlanUpdate(minutes_per_day=minutes, files_per_day=files)
    plan = _run(lambda session: quotas.set_plan(session, name, wish, actor=_ACTOR))
    say(f"{plan.name}: minutes a day {_limit(plan.minutes_per_day)}, files a day {_limit(plan.files_per_day)}")


def _run(work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """In a transaction; what is refused as one line and exit code 2."""
    try:
        return in_transaction(configuration("DATABASE_URL"), work)
    except AppError as fault:
        fail(fault.detail, 2)
