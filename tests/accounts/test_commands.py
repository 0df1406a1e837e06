"""`beatline users …`, as it is typed."""

import asyncio
import os
import pty
import subprocess
import sys
import time

import pytest

from backend.core.db import Database
from backend.core.principal import Role
from devstack.servers import PostgresServer
from tests.accounts.conftest import problem, rows
from tests.fixtures.command import beatline
from tests.fixtures.people import PASSWORD, People, add_user


async def test_a_first_admin_is_made_with_a_password_from_standard_input(
    people: People, postgres: PostgresServer
) -> None:
    empty = await beatline("users", "list", url=postgres.url)
    assert "create-admin" in empty.stdout
    made = await beatline(
        "users", "create-admin", "ada", "--email", "ada@example.net", url=postgres.url, stdin=f"{PASSWORD}\n"
    )
    assert (made.exit_code, made.stdout) == (0, "ada is admin\n")
    client = await people.client(None)
    for name in ("ada", "ada@example.net"):
        assert (await client.post("/api/auth/login", json={"username": name, "password": PASSWORD})).status_code == 200
    again = await beatline("users", "create-admin", "ADA", url=postgres.url, stdin=f"{PASSWORD}\n")
    assert again.exit_code == 2
    assert "ADA" in again.stderr
    assert await rows(people.product.db, "select username, created_by from users") == [("ada", "cli")]


@pytest.mark.parametrize(
    ("arguments", "stdin", "why"),
    [
        (("create", "vera"), "", "no password"),
        (("create", "vera"), "short\n", "12 to 256"),
        (("create", "ve ra"), f"{PASSWORD}\n", "username"),
        (("create", "service"), f"{PASSWORD}\n", "reserved"),
        (("create", "vera", "--email", "nonsense"), f"{PASSWORD}\n", "email"),
        (("create", "vera", "--role", "root"), f"{PASSWORD}\n", "root"),
        (("create", "vera", PASSWORD), "", "unexpected"),
        (("set-role", "nobody", "admin"), None, "nobody"),
        (("set-password", "nobody"), f"{PASSWORD}\n", "nobody"),
        (("deactivate", "nobody"), None, "nobody"),
        (("sessions", "nobody"), None, "nobody"),
        (("revoke", "nobody"), None, "nobody"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line(
    db: Database, postgres: PostgresServer, arguments: tuple[str, ...], stdin: str | None, why: str
) -> None:
    answer = await beatline("users", *arguments, url=postgres.url, stdin=stdin)
    assert answer.exit_code == 2
    assert why in answer.stderr
    assert "Traceback" not in answer.stderr
    assert await rows(db, "select * from users") == []


async def test_roles_activity_and_sessions_are_changed_at_once(people: People, postgres: PostgresServer) -> None:
    ada = await people.admin()
    otto = await people.person("otto", Role.OPERATOR, password=PASSWORD)
    listed = await beatline("users", "list", "--role", "operator", url=postgres.url)
    assert "otto" in listed.stdout
    assert "ada" not in listed.stdout
    assert "127.0.0.1" not in (await beatline("users", "sessions", "otto", url=postgres.url)).stdout
    assert (await beatline("users", "set-role", "OTTO", "viewer", url=postgres.url)).stdout == "otto is viewer\n"
    assert problem(await otto.client.post("/api/job-templates", json={})) == (403, "role_needed")
    assert str(otto.session.id) in (await beatline("users", "sessions", "otto", url=postgres.url)).stdout
    for ended in (1, 0):
        assert (await beatline("users", "revoke", "otto", url=postgres.url)).stdout == f"{ended} sessions ended\n"
    assert (await otto.client.get("/api/auth/me")).status_code == 401
    assert (await beatline("users", "sessions", "otto", url=postgres.url)).stdout == "no sessions\n"
    for _ in range(2):
        assert (await beatline("users", "deactivate", "otto", url=postgres.url)).exit_code == 0
    client = await people.client(None)
    body = {"username": "otto", "password": PASSWORD}
    assert (await client.post("/api/auth/login", json=body)).status_code == 401
    assert (await beatline("users", "activate", "otto", url=postgres.url)).exit_code == 0
    fresh = "another walrus eats it all"
    changed = await beatline("users", "set-password", "otto", url=postgres.url, stdin=f"{fresh}\n")
    assert changed.stdout == "otto has a new password; 0 sessions ended\n"
    assert (await client.post("/api/auth/login", json=body | {"password": fresh})).status_code == 200
    last = await beatline("users", "deactivate", "ada", url=postgres.url)
    assert (last.exit_code, "last active admin" in last.stderr) == (2, True)
    assert (await ada.client.get("/api/users")).status_code == 200


def typed(command: list[str], environment: dict[str, str], *answers: tuple[bytes, str]) -> tuple[int, bytes]:
    """Run a command at a terminal, typing each answer at its prompt; exit code and all that was shown."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as asked:
        os.close(theirs)
        shown = b""
        for prompt, answer in answers:
            while prompt not in shown:
                shown += os.read(ours, 1000)
            # The terminal shows what is typed before the command has told it not to.
            time.sleep(0.2)
            os.write(ours, answer.encode())
        try:
            while chunk := os.read(ours, 1000):
                shown += chunk
        except OSError:
            # Linux says so once nobody is at the other end.
            pass
        code = asked.wait(20)
    os.close(ours)
    return code, shown


async def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(
    db: Database, postgres: PostgresServer
) -> None:
    command = [sys.executable, "-m", "backend.cli", "users", "create-admin", "ada"]
    answers = ((b"Password", f"{PASSWORD}\n"), (b"Repeat", f"{PASSWORD}\n"))
    environment = dict(os.environ) | {"DATABASE_URL": postgres.url}
    code, shown = await asyncio.to_thread(typed, command, environment, *answers)
    assert (code, b"ada is admin" in shown) == (0, True)
    assert PASSWORD.encode() not in shown
    assert await rows(db, "select username from users") == [("ada",)]


async def test_a_name_cannot_write_to_the_terminal(db: Database, postgres: PostgresServer) -> None:
    await add_user(db, "vera", display_name="\x1b[31mred", email="v@example.net")
    assert "\x1b" not in (await beatline("users", "list", url=postgres.url)).stdout
