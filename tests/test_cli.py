"""The `beatline` command: what it prints and how it ends."""

import asyncio
import contextlib
import csv
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlmodel import select

from backend.calls.models import Call, Policy, ScheduledCall
from backend.core.clock import utc_now
from backend.core.db import Database
from devstack.readiness import free_port
from devstack.servers import PostgresServer
from tests.factories.people import add_customer
from tests.fixtures.command import beatline

HEADER = "customer_ref,full_name,phone,policy_number,expiry_date"
GOOD = "C-1,Asha Rao,9876543210,P-1,2026-12-31"


@pytest.fixture
async def url(postgres: PostgresServer, db: Database) -> str:
    """The address of the migrated, empty database."""
    return postgres.url


@pytest.fixture
async def bare(postgres: PostgresServer) -> AsyncIterator[str]:
    """The address of a database without tables."""
    name = f"bare_{uuid4().hex}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"create database {name}")
    yield postgres.url.rpartition("/")[0] + f"/{name}"
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


def book(folder: Path, *rows: str) -> str:
    path = folder / "book.csv"
    path.write_text("\n".join([HEADER, *rows, ""]))
    return str(path)


async def test_good_rows_alone_end_with_0_and_a_summary(url: str, tmp_path: Path) -> None:
    done = await beatline("import-policies", book(tmp_path, GOOD), url=url)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].endswith("of book.csv")
    assert [line.split() for line in lines[1:3]] == [
        ["created", "changed", "unchanged", "failed", "rows"],
        ["1", "0", "0", "0", "1"],
    ]
    assert done.stderr == ""
    again = await beatline("import-policies", book(tmp_path, GOOD), url=url)
    assert again.stdout.splitlines()[2].split() == ["0", "0", "1", "0", "1"]


async def test_failed_rows_end_with_3_the_first_errors_and_a_file_of_all(url: str, tmp_path: Path) -> None:
    rows = [f"C-{n},[red]Name,not a phone,P-{n},2026-12-31" for n in range(30)]
    errors = tmp_path / "errors.csv"
    done = await beatline("import-policies", book(tmp_path, GOOD, *rows), "--errors-to", str(errors), url=url)
    assert done.exit_code == 3
    listed = [line for line in done.stdout.splitlines() if "not a phone" in line]
    assert len(listed) == 20
    assert listed[0].split()[:2] == ["3", "phone"]
    assert "write the whole number as text, such as +919876543210" in listed[0]
    assert "The first 20 errors" in done.stdout
    with errors.open(encoding="utf-8-sig", newline="") as written:
        stored = list(csv.DictReader(written))
    assert len(stored) == 30
    assert stored[29] == {
        "line": "32",
        "field": "phone",
        "value": "not a phone",
        "problem": "has characters that are not part of a phone number",
        "fix": "write the whole number as text, such as +919876543210; one number, no extension",
    }


async def test_columns_can_be_mapped(url: str, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text("Kunde;Name;Handy;Policy No;Ende\nC-1;Asha;9876543210;P-1;31.12.2026\n")
    maps = ["--map", "Kunde=customer_ref", "--map", "Handy=phone", "--map", "Ende=expiry_date"]
    done = await beatline("import-policies", str(path), *maps, url=url)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        ("", [], "the file is empty"),
        ("a,b\n1,2\n", [], "no column for customer_ref (accepted headers: Customer ref"),
        ("PK\x03\x04", [], "an Excel workbook"),
        (HEADER, ["--map", "Mobile=phone"], "the file has no header 'Mobile'"),
        (HEADER, ["--map", "Mobile"], "is not HEADER=COLUMN"),
        (HEADER, ["--errors-to", "/nonexistent/errors.csv"], "No such file or directory"),
        (HEADER, ["--unknown"], "No such option"),
    ],
)
async def test_a_wrong_file_or_usage_ends_with_2_and_says_why(
    url: str, tmp_path: Path, content: str, arguments: list[str], said: str
) -> None:
    path = tmp_path / "book.csv"
    path.write_text(content)
    done = await beatline("import-policies", str(path), *arguments, url=url)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.replace("│", "").split())
    assert done.stdout == ""


async def test_a_missing_file_ends_with_2(url: str, tmp_path: Path) -> None:
    done = await beatline("import-policies", str(tmp_path / "none.csv"), url=url)
    assert done.exit_code == 2
    assert "does not exist" in done.stderr


async def test_a_header_alone_is_said_to_be_one(url: str, tmp_path: Path) -> None:
    done = await beatline("import-policies", book(tmp_path), url=url)
    assert done.exit_code == 0
    assert "the file has a header and no rows" in done.stdout


@pytest.mark.parametrize("command", [["calls"], ["migrate"], ["import-policies", __file__]])
async def test_a_missing_database_url_is_one_line_and_exit_code_2(command: list[str]) -> None:
    done = await beatline(*command, url="")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["beatline: configuration: DATABASE_URL must be set; .env.example says how"]


async def test_a_database_that_is_away_is_one_line_and_exit_code_1() -> None:
    port = free_port()
    done = await beatline("calls", url=f"postgresql://beatline:secret@127.0.0.1:{port}/beatline")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"beatline: database 127.0.0.1:{port}/beatline does not answer: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.output


async def test_a_database_that_does_not_exist_is_a_configuration_error(postgres: PostgresServer) -> None:
    wrong = postgres.url.rpartition("/")[0] + "/nowhere"
    for command in ("calls", "migrate"):
        done = await beatline(command, url=wrong)
        assert done.exit_code == 2, done.output
        assert 'database "nowhere" does not exist; check DATABASE_URL' in done.stderr


async def test_migrate_waits_for_a_database_that_starts_later(bare: str, postgres: PostgresServer) -> None:
    port = free_port()
    running = asyncio.create_task(
        beatline("migrate", "--wait", "30", url=bare.replace(f":{postgres.port}/", f":{port}/"))
    )
    await asyncio.sleep(1.5)
    async with await asyncio.start_server(lambda *streams: _forward(postgres.port, *streams), "127.0.0.1", port):
        done = await running
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("waiting for the database at ")
    assert done.stdout.strip().endswith("(before: empty)")


async def _forward(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_migrate_says_once_what_it_waits_for_and_gives_up() -> None:
    port = free_port()
    start = time.monotonic()
    done = await beatline("migrate", "--wait", "2", url=f"postgresql://beatline@127.0.0.1:{port}/beatline")
    assert done.exit_code == 1
    assert time.monotonic() - start < 10
    lines = done.stderr.splitlines()
    assert lines[0].startswith(f"waiting for the database at 127.0.0.1:{port}/beatline: ")
    assert lines[1].startswith(f"beatline: database 127.0.0.1:{port}/beatline did not answer within 2 seconds: ")
    assert len(lines) == 2


async def test_migrate_makes_the_tables_once_and_other_commands_ask_for_it(bare: str) -> None:
    early = await beatline("calls", url=bare)
    assert early.exit_code == 1
    assert "run `beatline migrate`" in early.stderr
    first, second = await beatline("migrate", url=bare), await beatline("migrate", url=bare)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert first.stdout.strip().endswith("(before: empty)")
    assert second.stdout.strip().endswith("already")
    assert (await beatline("calls", url=bare)).stdout.strip() == "no calls yet"


async def test_a_database_of_a_newer_version_is_left_alone(bare: str) -> None:
    await beatline("migrate", url=bare)
    connection = await asyncpg.connect(bare)
    await connection.execute("update alembic_version set version_num = '9999'")
    await connection.close()
    done = await beatline("migrate", url=bare)
    assert done.exit_code == 1
    assert "is at revision 9999, which this version does not know" in done.stderr


async def test_calls_lists_the_latest_first(db: Database, url: str) -> None:
    customer_id = await add_customer(db)
    async with db.transaction() as session:
        policy_id = (await session.exec(select(Policy.id).where(Policy.customer_id == customer_id))).one()
        planned = ScheduledCall(policy_id=policy_id, customer_id=customer_id, cycle_key="2026-12-31")
        session.add(planned)
        await session.flush()
        for number, status in ((1, "no_answer"), (2, "completed")):
            session.add(
                Call(
                    scheduled_call_id=planned.id,
                    customer_id=customer_id,
                    policy_id=policy_id,
                    attempt_no=number,
                    idempotency_key=f"key-{number}",
                    request_hash="",
                    room_name=f"call-{number}",
                    to_e164="+919876543210",
                    status=status,
                    deadline_at=utc_now(),
                    created_at=utc_now(),
                    outcome={"intent": "renew_interested"} if number == 2 else None,
                )
            )
            await session.flush()
    done = await beatline("calls", url=url)
    assert done.exit_code == 0, done.output
    assert [line.split()[2] for line in done.stdout.splitlines()[1:]] == ["completed", "no_answer"]
    assert "renew_interested" in done.stdout
    assert len((await beatline("calls", "--limit", "1", url=url)).stdout.splitlines()) == 2


def test_a_malformed_environment_is_one_line_and_exit_code_2() -> None:
    environ = os.environ | {"CALLS_MAX_ATTEMPTS": "many"}
    run = subprocess.run(
        [sys.executable, "-m", "backend.cli", "calls"], env=environ, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        "beatline: configuration: CALLS_MAX_ATTEMPTS='many' must be a whole number from 1 to 20"
    ]


def test_without_a_terminal_lines_are_whole_and_plain(postgres: PostgresServer, db: Database, tmp_path: Path) -> None:
    path = book(tmp_path, *(f"C-{n},Asha,{'x' * 120},P-{n},2026-12-31" for n in range(3)))
    run = subprocess.run(
        [sys.executable, "-m", "backend.cli", "import-policies", path],
        env=os.environ | {"DATABASE_URL": postgres.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    assert run.stderr == ""
    assert "\x1b" not in run.stdout
    errors = [line for line in run.stdout.splitlines() if "not part of a phone number" in line]
    assert len(errors) == 3
    assert all(line.rstrip().endswith("no extension") for line in errors)


async def test_a_user_without_rights_and_one_without_room_are_one_line_each(url: str) -> None:
    role = f"stranger_{uuid4().hex}"
    connection = await asyncpg.connect(url)
    await connection.execute(f"create role {role} login")
    try:
        theirs = url.replace("//beatline@", f"//{role}@")
        done = await beatline("calls", url=theirs)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.output
        assert "permission denied for table calls; check DATABASE_URL" in done.stderr
        await connection.execute(f"alter role {role} connection limit 0")
        for command in (["calls"], ["schedules", "reset-system"]):
            done = await beatline(*command, url=theirs)
            assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
            assert "does not answer: too many connections for role" in done.stderr
    finally:
        await connection.execute(f"drop role {role}")
        await connection.close()


async def test_what_the_database_refuses_otherwise_is_one_line(url: str) -> None:
    connection = await asyncpg.connect(url)
    role = f"reader_{uuid4().hex}"
    await connection.execute(f"create role {role} login superuser")
    await connection.execute(f"alter role {role} set default_transaction_read_only = on")
    try:
        done = await beatline("schedules", "reset-system", url=url.replace("//beatline@", f"//{role}@"))
        assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
        assert "refused: cannot execute INSERT in a read-only transaction" in done.stderr
    finally:
        await connection.execute(f"drop role {role}")
        await connection.close()
