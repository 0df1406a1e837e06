"""`beatline audit` as an administrator types it."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.audit.test_api import add, login, operation
from tests.fixtures.command import beatline


async def test_the_newest_entries_are_shown_in_local_time(db: Database, postgres: PostgresServer) -> None:
    await add(db, *(operation(number, path=f"/api/things/{number}") for number in range(30)))
    await add(db, login(outcome="wrong_password"))
    shown = await beatline("audit", "operations", url=postgres.url)
    lines = shown.stdout.splitlines()
    assert (shown.exit_code, len(lines)) == (0, 21)
    assert lines[1].split()[:6] == ["2026-11-21", "17:59:00", "ana", "POST", "/api/things/29", "200"]
    logins = (await beatline("audit", "logins", url=postgres.url)).stdout.splitlines()
    assert logins[1].split()[:5] == ["2026-11-21", "17:30:00", "ana", "wrong_password", "192.0.2.1"]


@pytest.mark.parametrize(
    "options",
    [
        ["--who", "bea"],
        ["--method", "delete"],
        ["--status", "4xx"],
        ["--path", "/api/things/2"],
        ["--address", "192.0.2.9"],
        ["--from", "2026-11-21 17:31"],
        ["--who", "bea", "--to", "2026-11-22"],
    ],
)
async def test_operations_are_filtered(db: Database, postgres: PostgresServer, options: list[str]) -> None:
    odd = operation(1, actor="bea", method="DELETE", status=404, path="/api/things/2", address="192.0.2.9")
    await add(db, operation(), odd)
    shown = (await beatline("audit", "operations", *options, url=postgres.url)).stdout.splitlines()
    assert [line.split()[2] for line in shown[1:]] == ["bea"]


async def test_a_file_holds_every_entry_or_as_many_as_asked_for(db: Database, postgres: PostgresServer) -> None:
    await add(db, *(login(number, username=f"user-{number}") for number in range(50)))
    lines = (await beatline("audit", "logins", "--as", "jsonl", url=postgres.url)).stdout.splitlines()
    assert [json.loads(line)["username"] for line in lines] == [f"user-{number}" for number in range(49, -1, -1)]
    lines = (await beatline("audit", "logins", "--as", "csv", "-n", "3", url=postgres.url)).stdout.splitlines()
    assert (len(lines), lines[0].split(",")[0]) == (4, "id")


async def test_a_reader_who_has_seen_enough_is_no_error(db: Database, postgres: PostgresServer) -> None:
    await add(db, *(operation(number, user_agent="x" * 300) for number in range(3_000)))
    command = f"{sys.executable} -m backend.cli audit operations --as csv | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"DATABASE_URL": postgres.url}
    done = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("id,at,actor_kind")


async def test_nothing_found_is_said(db: Database, postgres: PostgresServer) -> None:
    shown = await beatline("audit", "logins", "--outcome", "success", url=postgres.url)
    assert (shown.exit_code, shown.stdout) == (0, "no entries\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--status", "fine"], "--status: "),
        (["--from", "2026-11-22", "--to", "2026-11-21"], "from must be before to"),
    ],
)
async def test_a_bad_filter_is_one_line_and_exit_code_2(
    db: Database, postgres: PostgresServer, options: list[str], said: str
) -> None:
    shown = await beatline("audit", "operations", *options, url=postgres.url)
    assert shown.exit_code == 2
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
