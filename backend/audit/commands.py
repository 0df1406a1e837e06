"""`beatline audit …`."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError

from backend.audit import service as audit
from backend.audit.schemas import Filter, LoginFilter, LoginRead, OperationFilter, OperationRead
from backend.config import Config, load_or_exit
from backend.core.changing import Ran
from backend.core.console import attempt, configuration, fail, say, say_table, with_database
from backend.core.db import Database

app = typer.Typer(
    help="The logs of operations and of logins, newest first.",
    no_args_is_help=True,
    add_completion=False,
)

Wanted = TypeVar("Wanted", bound=Filter)
Entry = TypeVar("Entry", OperationRead, LoginRead)

_ON_TERMINAL = 20

Who = Annotated[str | None, typer.Option("--who", metavar="NAME", help="Of this name alone.")]
User = Annotated[UUID | None, typer.Option("--user-id", metavar="ID", help="Of this user alone.")]
From = Annotated[datetime | None, typer.Option("--from", help="At or after; local to DATETIME_TIMEZONE.")]
To = Annotated[datetime | None, typer.Option("--to", help="Before; local to DATETIME_TIMEZONE.")]
Address = Annotated[str | None, typer.Option("--address", metavar="IP", help="From this address alone.")]
Request = Annotated[str | None, typer.Option("--request-id", metavar="ID", help="Of this request alone.")]
Method = Annotated[str | None, typer.Option("--method", help="Such as POST.")]
Route = Annotated[
    str | None, typer.Option("--route", metavar="TEMPLATE", help="Such as /api/dead-letters/{letter_id}.")
]
Path = Annotated[str | None, typer.Option("--path", help="The path itself, in full.")]
Status = Annotated[str | None, typer.Option("--status", help="Such as 201, or a class such as 4xx.")]
Outcome = Annotated[str | None, typer.Option("--outcome", help="Such as success.")]
As = Annotated[audit.Format | None, typer.Option("--as", help="Every entry as a file on standard output.")]
Limit = Annotated[
    int | None, typer.Option("-n", "--limit", min=1, help=f"How many; {_ON_TERMINAL} unless --as is given.")
]


def keep(ran: Ran) -> None:
    """A command's entry, in the log at once; what was done and cannot be logged ends with 1."""
    config = load_or_exit()
    if not config.database_url:
        return
    fault = attempt(config, lambda session: audit.record_command(session, ran))
    if fault and ran.exit_code == 0:
        fail(f"done, but the log of operations has no entry of it: {fault}", 1)


@app.command("operations")
def show_operations(
    who: Who = None,
    user_id: User = None,
    method: Method = None,
    route: Route = None,
    path: Path = None,
    status: Status = None,
    since: From = None,
    until: To = None,
    address: Address = None,
    request_id: Request = None,
    limit: Limit = None,
    kind: As = None,
) -> None:
    """Requests and commands that may have changed something."""
    config = configuration("DATABASE_URL")
    wanted = _filter(
        OperationFilter,
        config,
        who=who,
        user_id=user_id,
        method=method,
        route=route,
        path=path,
        status=status,
        since=since,
        until=until,
        address=address,
        request_id=request_id,
    )
    found = _read(config, lambda db, most: audit.every_operation(db, wanted, limit=most), OperationRead, kind, limit)
    if found is not None:
        names = ("at", "who", "method", "path", "status", "ms", "address", "request")
        _show(names, [(one.at, *_operation_cells(one)) for one in found], config)


@app.command("logins")
def show_logins(
    who: Who = None,
    user_id: User = None,
    outcome: Outcome = None,
    since: From = None,
    until: To = None,
    address: Address = None,
    request_id: Request = None,
    limit: Limit = None,
    kind: As = None,
) -> None:
    """Logins that were tried."""
    config = configuration("DATABASE_URL")
    wanted = _filter(
        LoginFilter,
        config,
        who=who,
        user_id=user_id,
        outcome=outcome,
        since=since,
        until=until,
        address=address,
        request_id=request_id,
    )
    found = _read(config, lambda db, most: audit.every_login(db, wanted, limit=most), LoginRead, kind, limit)
    if found is not None:
        names = ("at", "who", "outcome", "address", "user agent", "request")
        _show(names, [(one.at, *_login_cells(one)) for one in found], config)


def _read(
    config: Config,
    every: Callable[[Database, int | None], AsyncIterator[Entry]],
    model: type[Entry],
    kind: audit.Format | None,
    limit: int | None,
) -> list[Entry] | None:
    """The entries for a table; None where they went out as a file."""

    async def work(db: Database) -> list[Entry] | None:
        if kind is not None:
            await _print(audit.as_text(every(db, limit), model, kind))
            return None
        return [one async for one in every(db, limit or _ON_TERMINAL)]

    return with_database(config, work)


def _operation_cells(one: OperationRead) -> tuple[object, ...]:
    who = one.actor or one.actor_kind
    return (who, one.method, one.path, one.status, f"{one.duration_ms:.0f}", one.address or "", one.request_id)


def _login_cells(one: LoginRead) -> tuple[object, ...]:
    return (one.username, one.outcome, one.address or "", one.user_agent, one.request_id)


def _filter(model: type[Wanted], config: Config, **given: Any) -> Wanted:
    for name in ("since", "until"):
        if given[name] is not None:
            given[name] = given[name].replace(tzinfo=ZoneInfo(config.timezone))
    try:
        return model(**given)
    except ValidationError as fault:
        fail("; ".join(f"{_option(error['loc'])}{error['msg']}" for error in fault.errors()), 2)


def _option(place: tuple[int | str, ...]) -> str:
    return f"--{str(place[0]).replace('_', '-')}: " if place else ""


def _show(names: tuple[str, ...], rows: list[tuple[Any, ...]], config: Config) -> None:
    if not rows:
        say("no entries")
        return
    zone = ZoneInfo(config.timezone)
    say_table(names, [(f"{row[0].astimezone(zone):%Y-%m-%d %H:%M:%S}", *row[1:]) for row in rows])


async def _print(pieces: AsyncIterator[str]) -> None:
    try:
        async for piece in pieces:
            sys.stdout.write(piece)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; what Python flushes at its end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
