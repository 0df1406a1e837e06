"""`beatline quotas …`: what people may have transcribed a day, for whoever has the database. Days are UTC days."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

import typer

from backend.accounts import service as accounts
from backend.core.changing import Changing
from backend.core.console import configuration, fail, in_transaction, say, say_table
from backend.core.db import Session
from backend.core.errors import AppError
from backend.quotas import service as quotas
from backend.quotas.schemas import PlanRead, PlanUpdate, QuotaRead, QuotaUpdate

T = TypeVar("T")

app = typer.Typer(
    help="Quotas: what people may have transcribed a day, what is left, plans and limits of their own.",
    no_args_is_help=True,
    add_completion=False,
)

_ACTOR = "cli"
_MOST = 1_000_000

Name = Annotated[str, typer.Argument(metavar="USER", help="The user name, or the e-mail address.")]
Plan = Annotated[str, typer.Argument(metavar="PLAN", help="Lower-case letters, digits, dash, underscore.")]
# Words that stand for no number of one's own, and for no limit.
_PLANS, _NO_LIMIT = "plan", "none"


def _number_or(word: str) -> Callable[[str], int | str]:
    """How an option reads a whole number from 0 on, or `word`."""

    def read(text: str) -> int | str:
        if text == word:
            return word
        if text.isascii() and text.isdecimal() and int(text) <= _MOST:
            return int(text)
        raise typer.BadParameter(f"{text!r} is neither a number from 0 to {_MOST} nor `{word}`")

    return read


def _limit_option(what: str, word: str, meaning: str) -> Any:
    return typer.Option(parser=_number_or(word), metavar=f"N|{word}", help=f"{what} a day; `{word}`: {meaning}.")


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


@app.command("set", cls=Changing)
def set_quota(
    name: Name,
    plan: Annotated[str | None, typer.Option(metavar="PLAN", help="A plan, such as standard.")] = None,
    minutes: Annotated[Any, _limit_option("Minutes", _PLANS, "the plan's again")] = None,
    files: Annotated[Any, _limit_option("Files", _PLANS, "the plan's again")] = None,
    extra_minutes: Annotated[int | None, typer.Option(min=0, max=_MOST, help="More for today alone.")] = None,
    extra_files: Annotated[int | None, typer.Option(min=0, max=_MOST, help="More for today alone.")] = None,
) -> None:
    """Change somebody's plan and limits; what is left out stays as it is. It counts from the next upload on."""
    said = {
        "plan": plan,
        "minutes_per_day": minutes,
        "files_per_day": files,
        "extra_minutes": extra_minutes,
        "extra_files": extra_files,
    }
    given = {field: value for field, value in said.items() if value is not None}
    if not given:
        fail("say what to change: --plan, --minutes, --files, --extra-minutes, --extra-files", 2)
    wish = QuotaUpdate.model_construct(
        **{field: None if value == _PLANS and field != "plan" else value for field, value in given.items()}
    )

    async def work(session: Session) -> QuotaRead:
        user = await accounts.find_user(session, name)
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


@app.command("set-plan", cls=Changing)
def set_plan(
    name: Plan,
    minutes: Annotated[Any, _limit_option("Minutes", _NO_LIMIT, "no limit")] = None,
    files: Annotated[Any, _limit_option("Files", _NO_LIMIT, "no limit")] = None,
) -> None:
    """Make a plan or change its limits; what is left out stays as it is, and is no limit of a new one.

    It counts from the next upload of everybody who has it.
    """
    said = {"minutes_per_day": minutes, "files_per_day": files}
    given = {field: None if value == _NO_LIMIT else value for field, value in said.items() if value is not None}

    async def work(session: Session) -> PlanRead:
        before = await quotas.find_plan(session, name)
        limits = {field: getattr(before, field) if before else None for field in said} | given
        return await quotas.set_plan(session, name, PlanUpdate(**limits), actor=_ACTOR)

    plan = _run(work)
    say(f"{plan.name}: minutes a day {_limit(plan.minutes_per_day)}, files a day {_limit(plan.files_per_day)}")


@app.command("delete-plan", cls=Changing)
def delete_plan(name: Plan) -> None:
    """Delete a plan that nobody has; `standard` gets the limits back that it comes with."""
    _run(lambda session: quotas.delete_plan(session, name))
    say(f"the plan {name} is deleted")


def _run(work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """In a transaction; what is refused as one line and exit code 2."""
    try:
        return in_transaction(configuration("DATABASE_URL"), work)
    except AppError as fault:
        fail(fault.detail, 2)
