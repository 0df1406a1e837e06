"""What the command line changes is in the log of operations."""

import getpass
import platform
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from sqlalchemy import text
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from backend import cli
from backend.core.changing import Changing, Ran
from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.fixtures.command import beatline
from tests.fixtures.people import add_user

# What these do is looked at, not changed; `migrate` makes the log, `transcribe` knows no database.
READING = {
    "audit logins",
    "audit operations",
    "calls",
    "dead-letters list",
    "dead-letters show",
    "migrate",
    "queues",
    "quotas list",
    "quotas plans",
    "recordings export",
    "recordings list",
    "recordings show",
    "runs list",
    "runs show",
    "schedules list",
    "schedules preview",
    "schedules show",
    "transcribe",
    "users list",
    "users sessions",
}
LOGGED = """
select actor_kind, actor, method, route, path, params, status, request from operation_log order by at
"""


def commands(group: TyperGroup, *path: str) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *path, name)
        elif isinstance(command, TyperCommand):
            yield " ".join((*path, name)), command


async def logged(db: Database, sql: str = LOGGED) -> list[tuple[Any, ...]]:
    async with db.transaction() as session:
        return [tuple(row) for row in await (await session.connection()).execute(text(sql))]


def test_every_command_either_reads_or_is_logged() -> None:
    root = get_command(cli.app)
    assert isinstance(root, TyperGroup)
    found = dict(commands(root))
    assert {name for name, command in found.items() if not isinstance(command, Changing)} == READING


async def test_a_change_is_in_the_log_at_once_with_what_was_typed(db: Database, postgres: PostgresServer) -> None:
    await add_user(db, "vera")
    await beatline("quotas", "set", "vera", "--minutes", "90", "--extra-files", "10", url=postgres.url)
    await beatline("quotas", "list", url=postgres.url)
    assert await logged(db) == [
        (
            "command",
            "cli",
            "CLI",
            "beatline quotas set",
            "beatline quotas set vera",
            {"name": "vera"},
            200,
            {"body": {"minutes": 90, "extra_files": 10}},
        )
    ]
    assert await logged(db, "select user_agent from operation_log") == [(f"{getpass.getuser()} on {platform.node()}",)]
    shown = await beatline("audit", "operations", "--path", "beatline quotas set vera", url=postgres.url)
    assert "CLI" in shown.stdout.splitlines()[1]


async def test_a_password_is_nowhere_in_the_log(db: Database, postgres: PostgresServer) -> None:
    secret = "correct horse battery staple"
    done = await beatline("users", "create", "vera", "--role", "operator", url=postgres.url, stdin=f"{secret}\n")
    assert done.exit_code == 0, done.output
    (row,) = await logged(db)
    assert row[4:] == ("beatline users create vera", {"name": "vera"}, 200, {"body": {"role": "operator"}})
    assert await logged(db, f"select 1 from operation_log l where l::text like '%{secret}%'") == []


@pytest.mark.parametrize(
    ("arguments", "status"), [(("set-role", "nobody", "admin"), 422), (("set-role", "nobody", "king"), None)]
)
async def test_what_is_refused_is_logged_and_what_is_misspelt_is_not(
    db: Database, postgres: PostgresServer, arguments: tuple[str, ...], status: int | None
) -> None:
    done = await beatline("users", *arguments, url=postgres.url)
    assert done.exit_code == 2
    assert [row[6] for row in await logged(db)] == ([status] if status else [])


async def test_a_question_that_nobody_answers_changes_nothing(db: Database, postgres: PostgresServer) -> None:
    asked = await beatline("recordings", "delete", "00000000-0000-0000-0000-000000000001", url=postgres.url, stdin="")
    assert (asked.exit_code, "Aborted" in asked.stderr) == (1, True)
    assert await logged(db) == []


async def test_a_change_that_cannot_be_logged_is_told(db: Database, postgres: PostgresServer) -> None:
    await add_user(db, "vera")
    async with db.transaction() as session:
        await (await session.connection()).execute(text("alter table audit_outbox rename to gone"))
    try:
        done = await beatline("users", "deactivate", "vera", url=postgres.url)
    finally:
        async with db.transaction() as session:
            await (await session.connection()).execute(text("alter table gone rename to audit_outbox"))
    assert (done.exit_code, done.stdout) == (1, "vera is deactivated\n")
    assert "done, but the log of operations has no entry of it: database" in done.stderr


@pytest.mark.parametrize(
    ("fault", "exit_codes"),
    [
        (typer.Exit(3), [3]),
        (KeyboardInterrupt(), [130]),
        (KeyError("x"), [130]),
        (typer.Abort(), []),
        (SystemExit(2), []),
    ],
)
def test_what_was_begun_is_told_however_it_ends(fault: BaseException, exit_codes: list[int]) -> None:
    told: list[Ran] = []
    app = typer.Typer(context_settings={"obj": told.append})

    @app.callback()
    def group() -> None:
        """Of one command."""

    @app.command("break", cls=Changing)
    def broken(what: str, *, loudly: bool = False, often: int = 1) -> None:
        raise fault

    CliRunner().invoke(app, ["break", "glass", "--loudly"], prog_name="python -m backend.cli")
    assert [ran.exit_code for ran in told] == exit_codes
    assert {(ran.command, *ran.arguments.items(), *ran.options.items()) for ran in told} <= {
        ("break", ("what", "glass"), ("loudly", True))
    }
