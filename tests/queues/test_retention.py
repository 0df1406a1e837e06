"""What grows is deleted by age, in batches; nothing grows for ever unseen."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy import text
from sqlmodel import col, select

from backend import models
from backend.calls.models import Call, CallEvent, DoNotCall, PolicyImport, PolicyImportError
from backend.celery_app import app
from backend.config import load
from backend.core.clock import utc_now
from backend.core.db import Base, Database
from backend.core.storage import FolderStorage
from backend.queues import service as queues
from backend.queues.retention import RULES
from backend.recordings.keeping import cleaning
from devstack.servers import ValkeyServer
from tests.factories.calls import add_call
from tests.factories.recordings import add_recording

__all__ = ["models"]

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "retention.md"
DAY = timedelta(days=1)

# Rows that go with those of another table.
WITH_OTHERS = {
    "policy_import_errors": "policy_imports",
    "job_run_events": "job_runs",
    **dict.fromkeys(("transcripts", "transcript_segments", "segment_versions"), "recordings"),
    **dict.fromkeys(("recording_speakers", "recording_summaries", "recording_checkpoints"), "recordings"),
    "notification_deliveries": "notifications",
}
# Tables that a task of their own domain cleans.
BY_OTHERS = {
    "job_runs": "check_job_schedules",
    "job_alerts": "check_job_schedules",
    **dict.fromkeys(("recordings", "recording_shares", "removed_files"), "cleanup_recordings"),
    "user_sessions": "cleanup_expired_sessions",
    "api_keys": "cleanup_expired_sessions",
    "login_throttles": "cleanup_expired_sessions",
    "quota_counters": "reset_daily_quotas",
    "uploads": "cleanup_uploads",
}
# Why nothing needs to go.
DOES_NOT_GROW = {
    "customers": "the agency's book: as many as it has customers",
    "policies": "the agency's book: as many as its customers have policies",
    "trunks": "one row per trunk",
    "cache_schedules": "one row per cache",
    "do_not_call": "must be kept: whom nobody may call, and since when",
    "job_templates": "made and deleted by people",
    "job_schedules": "made and deleted by people",
    "audit_outbox": "emptied into the logs every minute at the latest",
    "users": "people; rows everywhere say by name who did what",
    "user_stats": "one row per user",
    "notification_preferences": "one row per user",
    "recording_retention": "one row per user",
    "user_quotas": "one row per user",
    "quota_plans": "made and deleted by people",
}


def test_every_table_is_kept_for_a_time_or_said_not_to_grow() -> None:
    ruled = {rule.table for rule in RULES}
    lists = [ruled, set(WITH_OTHERS), set(BY_OTHERS), set(DOES_NOT_GROW)]
    assert set().union(*lists) == set(Base.metadata.tables)
    assert sum(len(each) for each in lists) == len(Base.metadata.tables), "each table stands in one list"


def test_the_page_names_every_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [table for table in Base.metadata.tables if f"`{table}`" not in page] == []


def test_every_rule_can_keep_for_ever_and_has_a_setting() -> None:
    names = {
        "BEATLINE_OPERATION_LOG_RETENTION_DAYS",
        "BEATLINE_LOGIN_LOG_RETENTION_DAYS",
        "BEATLINE_DEAD_LETTER_RETENTION_DAYS",
        "BEATLINE_SENT_TASK_RETENTION_DAYS",
        "BEATLINE_HEALTH_RETENTION_DAYS",
        "BEATLINE_IMPORT_RETENTION_DAYS",
        "CALLS_EVENT_RETENTION_DAYS",
        "CALLS_RETENTION_DAYS",
        "NOTIFY_RETENTION_DAYS",
        "QUOTA_RETENTION_DAYS",
    }
    keeping, short = load(dict.fromkeys(names, "0")), load(dict.fromkeys(names, "3"))
    assert {rule.days(keeping) for rule in RULES} == {0}
    assert {rule.days(short) for rule in RULES} == {3}


@pytest.fixture
def redis(valkey: ValkeyServer) -> Celery:
    return app


async def count(db: Database, table: str) -> int:
    async with db.engine.connect() as connection:
        return int((await connection.execute(text(f"select count(*) from {table}"))).scalar_one())


async def add(db: Database, *rows: Any) -> None:
    async with db.transaction() as session:
        for row in rows:
            session.add(row)
            await session.flush()


async def add_operations(db: Database, number: int, age: timedelta) -> None:
    async with db.transaction() as session:
        await (await session.connection()).execute(
            text(
                "insert into operation_log (id, at, actor_kind, method, path, status, duration_ms)"
                " select gen_random_uuid(), now() - cast(:age as interval), 'service', 'POST', '/x', 200, 1"
                " from generate_series(1, :number)"
            ),
            {"age": age, "number": number},
        )


async def test_ten_thousand_entries_of_a_log_go_in_batches_and_the_young_stay(db: Database, redis: Celery) -> None:
    await add_operations(db, 10_000, 401 * DAY)
    await add_operations(db, 5, 399 * DAY)
    transactions = await count_transactions(db)
    done = await queues.clean(db, load({}), app)
    assert done["operation_log"] == 10_000
    assert await count(db, "operation_log") == 5
    # Ten full batches and one that is not, and one for each other table.
    assert await count_transactions(db) - transactions >= 11


async def count_transactions(db: Database) -> int:
    """Ids of transactions that wrote something, so far."""
    async with db.engine.connect() as connection:
        return int((await connection.execute(text("select txid_current()"))).scalar_one())


async def test_what_is_not_done_in_time_is_left_to_the_next_run(db: Database, redis: Celery) -> None:
    await add_operations(db, 50, 401 * DAY)
    assert (await queues.clean(db, load({}), app, batch=10, within=0))["operation_log"] == 0
    assert (await queues.clean(db, load({}), app, batch=10))["operation_log"] == 50


async def test_a_retention_of_no_days_keeps_every_entry(db: Database, redis: Celery) -> None:
    await add_operations(db, 3, 4_000 * DAY)
    await queues.clean(db, load({"BEATLINE_OPERATION_LOG_RETENTION_DAYS": "0"}), app)
    assert await count(db, "operation_log") == 3


async def test_rows_that_somebody_holds_are_left_for_later(db: Database, redis: Celery) -> None:
    await add_operations(db, 3, 401 * DAY)
    async with db.engine.connect() as connection:
        await connection.execute(text("select id from operation_log limit 1 for update"))
        assert (await queues.clean(db, load({}), app))["operation_log"] == 2
    assert (await queues.clean(db, load({}), app))["operation_log"] == 1


async def test_an_import_goes_with_its_errors(db: Database, redis: Celery) -> None:
    for age in (91, 89):
        done = PolicyImport(filename="a.csv", failed=2, started_at=utc_now() - age * DAY)
        errors = [
            PolicyImportError(import_id=done.id, line=n, field="phone", value="x", problem="p", fix="f") for n in (2, 3)
        ]
        await add(db, done, *errors)
    assert (await queues.clean(db, load({}), app))["policy_imports"] == 1
    assert (await count(db, "policy_imports"), await count(db, "policy_import_errors")) == (1, 2)


async def add_old_call(db: Database, age: timedelta, **given: Any) -> UUID:
    """Its policy has long expired."""
    return await add_call(db, age, **({"expires_in_days": -90, "events": 2} | given))


async def test_calls_go_with_their_reports_and_plans_and_leave_the_do_not_call_list(
    db: Database, redis: Celery
) -> None:
    old = await add_old_call(db, 100 * DAY)
    await add(db, DoNotCall(phone_e164="+919800000200", source="call", call_id=old))
    young, live = await add_old_call(db, 98 * DAY), await add_old_call(db, 100 * DAY, status="dialing", ended_at=None)
    planned = await add_old_call(db, 100 * DAY, expires_in_days=5)
    done = await queues.clean(db, load({"CALLS_RETENTION_DAYS": "99"}), app)
    assert (done["calls"], done["scheduled_calls"]) == (2, 1)
    async with db.transaction() as session:
        assert set((await session.exec(select(Call.id))).all()) == {young, live}
        assert set((await session.exec(select(col(CallEvent.call_id)))).all()) == {young, live}
        assert (await session.exec(select(DoNotCall))).one().call_id is None
    # The plan of a policy that can still be planned for stays: its call must not be made again.
    assert planned not in {young, live}
    assert await count(db, "scheduled_calls") == 3


async def test_a_call_waits_for_its_recording_to_go_first(db: Database, redis: Celery, tmp_path: Path) -> None:
    config = load({"CALLS_RETENTION_DAYS": "99", "RECORDINGS_DIR": str(tmp_path), "EGRESS_DIR": str(tmp_path)})
    call = await add_old_call(db, 100 * DAY)
    await add_recording(db, kind="call", subject_id=call, age=100 * DAY)
    async with db.transaction() as session:
        await (await session.connection()).execute(text("update calls set recording_state = 'ready'"))
    assert (await queues.clean(db, config, app))["calls"] == 0
    assert (await cleaning.clean(db, FolderStorage(tmp_path), config))["deleted"] == 1
    async with db.transaction() as session:
        assert (await session.exec(select(Call.recording_state))).one() == "deleted"
    assert (await queues.clean(db, config, app))["calls"] == 1


async def test_reports_of_calls_go_by_their_own_age(db: Database, redis: Celery) -> None:
    await add_old_call(db, 401 * DAY)
    done = await queues.clean(db, load({}), app)
    assert (done["call_events"], done["calls"]) == (2, 0)
