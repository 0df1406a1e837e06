"""Migrations lead to the tables of the code, and back."""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from alembic import command

from backend import migrations
from backend.core.db import Base, Database
from backend.migrations.running import alembic_config, current_revision, newest_revision, upgrade, wait_for_database
from devstack.readiness import free_port
from devstack.servers import PostgresServer

# Everything that a schema holds, as PostgreSQL itself describes it.
_SHAPE = """
select 'column', table_name, column_name, concat_ws(' ', data_type, is_nullable, column_default, is_identity,
       numeric_precision, numeric_scale)
from information_schema.columns where table_schema = 'public' and table_name <> 'alembic_version'
union all
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
from pg_constraint where connamespace = 'public'::regnamespace and conrelid::regclass::text <> 'alembic_version'
union all
select 'index', tablename, indexname, indexdef from pg_indexes where schemaname = 'public' and tablename <> 'alembic_version'
union all
select 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all
select 'function', '', proname, pg_get_functiondef(oid) from pg_proc where pronamespace = 'public'::regnamespace
order by 1, 2, 3
"""


async def run_sql(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


@pytest.fixture
async def empty(postgres: PostgresServer) -> AsyncIterator[str]:
    """The URL of a database without tables."""
    name = f"migrating_{uuid4().hex}"
    await run_sql(postgres.url, f"create database {name}")
    yield postgres.url.rpartition("/")[0] + f"/{name}"
    await run_sql(postgres.url, f"drop database {name} with (force)")


async def test_the_newest_revision_has_the_tables_of_the_code_to_the_last_index(empty: str) -> None:
    await asyncio.to_thread(upgrade, empty)
    migrated = await run_sql(empty, _SHAPE)
    assert await asyncio.to_thread(current_revision, empty) == newest_revision()
    await run_sql(empty, "drop schema public cascade")
    await run_sql(empty, "create schema public")
    database = Database(empty)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await database.close()
    assert migrated == await run_sql(empty, _SHAPE)
    assert len(migrated) > 100


async def test_autogeneration_finds_nothing_left_to_migrate(empty: str) -> None:
    await asyncio.to_thread(upgrade, empty)
    await asyncio.to_thread(command.check, alembic_config(empty))


async def test_going_back_to_the_start_leaves_no_table_and_forward_again_works(empty: str) -> None:
    await asyncio.to_thread(upgrade, empty)
    await asyncio.to_thread(command.downgrade, alembic_config(empty), "base")
    assert await run_sql(empty, _SHAPE) == []
    await asyncio.to_thread(upgrade, empty)
    assert await run_sql(empty, _SHAPE) != []


async def test_migrators_at_once_wait_for_each_other(empty: str) -> None:
    # Processes: Alembic keeps its context in globals, so threads would disturb each other.
    program = f"from backend.migrations.running import upgrade; upgrade({empty!r})"
    runs = [await asyncio.create_subprocess_exec(sys.executable, "-c", program) for _ in range(3)]
    assert [await run.wait() for run in runs] == [0, 0, 0]
    assert await asyncio.to_thread(current_revision, empty) == newest_revision()
    locks = await run_sql(empty, "select count(*) from pg_locks where locktype = 'advisory'")
    assert locks == [(0,)]


def test_waiting_for_a_database_says_why_once_and_ends() -> None:
    reasons: list[str] = []
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        wait_for_database(f"postgresql://beatline@127.0.0.1:{free_port()}/beatline", 2.5, reasons.append)
    assert len(reasons) == 1
    assert time.monotonic() - start < 10


def test_the_migrations_work_from_a_folder_with_an_unusual_name(postgres: PostgresServer, tmp_path: Path) -> None:
    assert migrations.__file__ is not None
    home = tmp_path / "100% ours, truly"
    shutil.copytree(
        Path(migrations.__file__).parent.parent, home / "backend", ignore=shutil.ignore_patterns("__pycache__")
    )
    program = "from backend.migrations.running import newest_revision; print(newest_revision())"
    run = subprocess.run([sys.executable, "-c", program], cwd=home, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == newest_revision()


_HEARD_BEFORE = """
with call as (
    insert into recordings
        (id, kind, subject_id, state, source_path, channel_speakers, next_attempt_at, attempts, created_at, updated_at)
    values (gen_random_uuid(), 'call', gen_random_uuid(), 'ready', 'a.ogg', '["agent","customer"]', now(), 1, now(), now())
    returning id
)
insert into transcripts (recording_id, language, text, segments, backend, model, created_at)
select id, 'en', 'agent: Good morning', '[
    {"start": 0.5, "end": 1.25, "speaker": "agent", "channel": 0, "text": "Good mornings", "confidence": 0.9, "words": []},
    {"start": 1.5, "end": 2.0, "speaker": "customer", "channel": 1, "text": "Yes?", "confidence": 0.8, "words": []}
]', 'faster-whisper', 'base', now() from call
"""


async def test_what_calls_said_before_can_be_searched_and_edited_after(empty: str) -> None:
    config = alembic_config(empty)
    await asyncio.to_thread(command.upgrade, config, "0008")
    await run_sql(empty, _HEARD_BEFORE)
    await asyncio.to_thread(command.upgrade, config, "head")
    segments = (
        "select number, start_ms, end_ms, speaker, config::text, version from transcript_segments order by number"
    )
    assert await run_sql(empty, segments) == [
        (0, 500, 1250, "agent", "english", 1),
        (1, 1500, 2000, "customer", "english", 1),
    ]
    found = "select number from transcript_segments where search @@ websearch_to_tsquery('english', 'morning')"
    assert await run_sql(empty, found) == [(0,)]
    speakers = "select label, position, spoken_ms from recording_speakers order by position"
    assert await run_sql(empty, speakers) == [("agent", 0, 750), ("customer", 1, 500)]


async def test_going_back_takes_notes_away_and_keeps_calls(empty: str) -> None:
    config = alembic_config(empty)
    await asyncio.to_thread(command.upgrade, config, "head")
    await run_sql(empty, _HEARD_BEFORE)
    await run_sql(
        empty,
        "insert into recordings (id, kind, subject_id, state, source_path, channel_speakers, next_attempt_at, attempts, created_at,"
        " updated_at) values (gen_random_uuid(), 'note', gen_random_uuid(), 'cancelled', '', '[]', now(), 0, now(), now())",
    )
    await asyncio.to_thread(command.downgrade, config, "0008")
    assert await run_sql(empty, "select kind, state from recordings") == [("call", "ready")]
