"""`beatline users …`: people with accounts, for whoever has the database.

A password is typed twice where somebody sits at a terminal, and is the first line of standard input elsewhere; never an argument,
which everybody on the machine can read.
"""

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo

import typer
from pydantic import SecretStr, ValidationError

from backend.accounts import service as accounts
from backend.accounts.schemas import UserCreate, UserRead, UserUpdate
from backend.config import Config
from backend.core.changing import Changing
from backend.core.console import configuration, fail, in_transaction, say, say_table, with_database
from backend.core.db import Session
from backend.core.errors import AppError
from backend.core.principal import Role

T = TypeVar("T")

app = typer.Typer(
    help="People: list, create, roles, passwords, sessions. Passwords are asked for, or read from standard input.",
    no_args_is_help=True,
    add_completion=False,
)

_ACTOR = "cli"

Name = Annotated[str, typer.Argument(metavar="USER", help="The user name, or the e-mail address.")]
NewName = Annotated[
    str, typer.Argument(metavar="NAME", help="Letters, digits, dot, dash, underscore. It never changes.")
]
Email = Annotated[str | None, typer.Option(metavar="ADDRESS", help="May be used to sign in, too.")]
Shown = Annotated[str, typer.Option("--display-name", metavar="TEXT", help="As shown to people.")]


@app.command("list")
def list_users(
    role: Annotated[Role | None, typer.Option(help="Of this role alone.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500, help="How many.")] = 100,
) -> None:
    """Everybody with an account, newest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")
    found = in_transaction(config, lambda session: accounts.list_users(session, role=role, limit=limit))
    if not found.items:
        say("no users; `beatline users create-admin NAME` makes the first")
        return
    say_table(
        ("name", "role", "active", "e-mail", "last login", "created"), [_cells(user, config) for user in found.items]
    )
    if found.next_cursor:
        say("there are more: -n shows up to 500")


def _cells(user: UserRead, config: Config) -> tuple[object, ...]:
    active = "yes" if user.is_active else "no"
    times = (_local(user.last_login_at, config), _local(user.created_at, config))
    return user.username, user.role, active, user.email or "", *times


def _local(at: datetime | None, config: Config) -> str:
    return f"{at.astimezone(ZoneInfo(config.timezone)):%Y-%m-%d %H:%M:%S}" if at is not None else ""


@app.command("create-admin", cls=Changing)
def create_admin(name: NewName, email: Email = None, display_name: Shown = "") -> None:
    """Make an account that may do everything; the first of an installation, or another."""
    _create(name, Role.ADMIN, email, display_name)


@app.command("create", cls=Changing)
def create_user(
    name: NewName,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.VIEWER,
    email: Email = None,
    display_name: Shown = "",
) -> None:
    """Make an account."""
    _create(name, role, email, display_name)


def _create(name: str, role: Role, email: str | None, display_name: str) -> None:
    config = configuration("DATABASE_URL")
    try:
        wish = UserCreate(
            username=name, email=email, display_name=display_name, role=role, password=SecretStr(_new_password())
        )
    except ValidationError as fault:
        fail("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in fault.errors()), 2)
    user = _refusals(lambda: with_database(config, lambda db: accounts.create_user(db, wish, actor=_ACTOR)))
    say(f"{user.username} is {user.role}")


@app.command("set-role", cls=Changing)
def set_role(name: Name, role: Annotated[Role, typer.Argument(help="What they may do from now on.")]) -> None:
    """Change what somebody may do, at once. The last active admin stays one."""
    user = _update(name, UserUpdate(role=role))
    say(f"{user.username} is {user.role}")


@app.command("deactivate", cls=Changing)
def deactivate(name: Name) -> None:
    """Let somebody in no more, and end their sessions; what they did keeps their name."""
    say(f"{_update(name, UserUpdate(is_active=False)).username} is deactivated")


@app.command("activate", cls=Changing)
def activate(name: Name) -> None:
    """Let somebody in again."""
    say(f"{_update(name, UserUpdate(is_active=True)).username} is active")


@app.command("set-password", cls=Changing)
def set_password(name: Name) -> None:
    """Set a password for somebody; ends all their sessions, and a lock on their name."""
    config = configuration("DATABASE_URL")
    user = _refusals(lambda: in_transaction(config, lambda session: accounts.find_user(session, name)))
    password = _new_password()
    ended = _refusals(lambda: with_database(config, lambda db: accounts.reset_password(db, user.id, password)))
    say(f"{user.username} has a new password; {ended} sessions ended")


@app.command("sessions")
def list_sessions(name: Name) -> None:
    """Somebody's sessions that are not over, newest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> list[tuple[object, ...]]:
        user = await accounts.find_user(session, name)
        return [
            (_local(one.created_at, config), _local(one.last_used_at, config), one.address, one.user_agent, one.id)
            for one in await accounts.list_sessions(session, user.id)
        ]

    found = _refusals(lambda: in_transaction(config, work))
    if not found:
        say("no sessions")
        return
    say_table(("since", "last used", "address", "with", "id"), found)


@app.command("revoke", cls=Changing)
def revoke(name: Name) -> None:
    """End all sessions of somebody."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> int:
        user = await accounts.find_user(session, name)
        return await accounts.end_sessions(session, user.id)

    say(f"{_refusals(lambda: in_transaction(config, work))} sessions ended")


def _update(name: str, wish: UserUpdate) -> UserRead:
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> UserRead:
        user = await accounts.find_user(session, name)
        return await accounts.update_user(session, user.id, wish)

    return _refusals(lambda: in_transaction(config, work))


def _new_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        fail("no password on standard input", 2)
    return password


def _refusals(work: Callable[[], T]) -> T:
    """What is refused as one line and exit code 2."""
    try:
        return work()
    except AppError as fault:
        fail(fault.detail, 2)
