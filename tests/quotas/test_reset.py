"""The reset at midnight UTC: once a day, however often, late or at once it comes; and the sweep of what was left behind."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from backend.accounts.models import User
from backend.celery_app import app, beat_schedule
from backend.config import load
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import TransientError
from backend.queues import service as queues
from backend.quotas import service as quotas
from backend.quotas.repository.resetting import ResetRepository
from backend.quotas.resetting import reset
from backend.quotas.tasks import reset_daily_quotas, sweep_quotas
from backend.recordings.models import Recording, RecordingState
from devstack.servers import ValkeyServer
from tests.fixtures.people import add_user
from tests.fixtures.product import Product
from tests.quotas.conftest import change, counts, limit, pass_days, release, reserve, rows, settle, standing


async def used(db: Database, user: User, seconds: float) -> None:
    key = uuid4()
    await reserve(db, user, key, seconds)
    await settle(db, key, seconds)


async def counters(db: Database) -> int:
    ((number,),) = await rows(db, "select count(*) from quota_counters")
    return int(number)


async def test_the_task_closes_the_day_once_however_often_it_comes(product: Product) -> None:
    db = product.db
    vera, otto = await add_user(db, "vera"), await add_user(db, "otto")
    await used(db, vera, 90)
    await used(db, vera, 30)
    await used(db, otto, 600.5)
    await pass_days(db)
    today = utc_now().date().isoformat()
    figures = {"day": today, "users": 2, "used_seconds": 720.5, "used_files": 3, "kept": 0}
    assert await reset_daily_quotas(product.runtime) == {"reset": True, **figures}
    assert await counters(db) == 0
    await used(db, vera, 10)
    for _ in range(3):
        assert await reset_daily_quotas(product.runtime) == {"reset": False, **figures}
    assert await counts(db, vera) == (10, 1, 0, 0)
    assert len(await rows(db, "select day from quota_resets")) == 1


async def test_many_at_once_reset_once(db: Database) -> None:
    for number in range(20):
        await used(db, await add_user(db, f"user{number}"), 60)
    await pass_days(db)
    done = await asyncio.gather(*(quotas.reset(db) for _ in range(6)))
    assert sorted(each.reset for each in done) == [False] * 5 + [True]
    assert {(each.users, each.used_seconds, each.used_files) for each in done} == {(20, 1200, 20)}


async def test_a_worker_that_dies_in_the_middle_leaves_it_to_the_next_delivery(db: Database) -> None:
    await used(db, await add_user(db, "vera"), 60)
    await pass_days(db)
    async with db.engine.connect() as connection, db._sessions(bind=connection) as session:
        assert await ResetRepository(session).reset()
        await session.rollback()
    assert (await quotas.reset(db)).reset is True
    assert await counters(db) == 0


async def test_a_reset_that_comes_days_late_counts_every_user_once(db: Database) -> None:
    vera = await add_user(db, "vera")
    for ago in (1, 2, 3):
        await used(db, vera, 60)
        await change(
            db,
            "update quota_counters set day = day - cast(:ago as integer) where day > now() - interval '1 day'",
            ago=ago,
        )
    done = await quotas.reset(db)
    assert (done.users, done.used_seconds, done.used_files) == (1, 180, 3)


async def test_nobody_waits_for_a_reset_that_is_late(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1)
    await used(db, vera, 60)
    await pass_days(db)
    assert (await standing(db, vera)).left_seconds == 60
    await reserve(db, vera, uuid4(), 60)


async def test_nobody_waits_for_a_reset_that_is_under_way(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await used(db, vera, 60)
    await pass_days(db)
    async with db.transaction() as session:
        assert await ResetRepository(session).reset()
        async with asyncio.timeout(5):
            await reserve(db, vera, key, 30)
            await settle(db, key, 31)
    assert await counts(db, vera) == (31, 1, 0, 0)


async def test_what_is_open_at_midnight_is_kept_and_counted_by_the_next_reset(db: Database) -> None:
    vera, key, failed = await add_user(db, "vera"), uuid4(), uuid4()
    await reserve(db, vera, key, 60)
    await reserve(db, vera, failed, 60)
    await used(db, vera, 15)
    await pass_days(db)
    first = await quotas.reset(db)
    assert (first.users, first.used_seconds, first.kept) == (0, 0, 1)
    await settle(db, key, 45)
    await release(db, failed)
    await pass_days(db)
    second = await quotas.reset(db)
    assert (second.users, second.used_seconds, second.used_files, second.kept) == (1, 60, 2, 0)
    assert await counters(db) == 0


async def test_todays_counters_are_none_of_its_business(db: Database) -> None:
    vera = await add_user(db, "vera")
    await used(db, vera, 60)
    assert (await quotas.reset(db)).users == 0
    assert await counts(db, vera) == (60, 1, 0, 0)


async def test_a_clock_that_was_set_back_gives_the_same_day_again_and_not_another_allowance(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1)
    await used(db, vera, 60)
    # As if today had been reset by a clock that was a day ahead.
    await change(
        db,
        "insert into quota_resets (day) values ((now() at time zone 'UTC')::date), ((now() at time zone 'UTC')::date + 1)",
    )
    assert (await standing(db, vera)).left_seconds == 0
    with pytest.raises(quotas.QuotaExceeded):
        await reserve(db, vera, uuid4(), 1)


async def test_a_clock_ahead_of_the_databases_has_the_reset_come_again_after_midnight(db: Database) -> None:
    await quotas.reset(db)
    with pytest.raises(TransientError, match="not over yet by the database's clock") as told:
        await reset(db, apart=86_401)
    ((left,),) = await rows(
        db,
        "select extract(epoch from ((now() at time zone 'UTC')::date + 1)::timestamp at time zone 'UTC' - now())::float",
    )
    assert told.value.after == pytest.approx(left + 1, abs=30)


async def test_deactivated_people_are_reset_as_everybody_and_deleted_ones_are_gone(db: Database) -> None:
    for name in ("vera", "otto"):
        await used(db, await add_user(db, name), 60)
    await change(db, "update users set is_active = false where username = 'vera'")
    await change(db, "delete from users where username = 'otto'")
    await pass_days(db)
    assert (await quotas.reset(db)).users == 1


async def test_the_reset_is_one_statement_that_reads_the_counters_once(db: Database) -> None:
    await used(db, await add_user(db, "vera"), 60)
    await pass_days(db)
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    await quotas.reset(db)
    event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    assert len([each for each in statements if "quota_counters" in each]) == 1


async def test_fifty_thousand_users_are_reset_in_a_moment(db: Database) -> None:
    await change(
        db,
        "insert into users (id, username, role, password_hash)"
        " select gen_random_uuid(), 'user' || n, 'viewer', 'none' from generate_series(1, 50000) n",
    )
    await change(
        db,
        "insert into quota_counters (user_id, day, used_ms, used_files)"
        " select id, (now() at time zone 'UTC')::date - 1, 1000, 1 from users",
    )
    began = asyncio.get_running_loop().time()
    done = await quotas.reset(db)
    assert asyncio.get_running_loop().time() - began < 20
    assert (done.users, done.used_seconds) == (50_000, 50_000)
    assert await counters(db) == 0


@pytest.mark.parametrize(
    ("entry", "task", "hours", "minutes"),
    [
        ("reset-daily-quotas", "reset_daily_quotas", {0}, {0}),
        ("sweep-quotas", "sweep_quotas", set(range(24)), {0, 15, 30, 45}),
    ],
)
def test_beat_starts_them_by_name_on_the_scheduled_queue(
    entry: str, task: str, hours: set[int], minutes: set[int]
) -> None:
    found = beat_schedule(load({}))[entry]
    assert found["task"] == task
    assert (found["schedule"].hour, found["schedule"].minute, str(found["schedule"].tz)) == (hours, minutes, "UTC")
    assert app.conf.task_routes[task] == {"queue": "scheduled"}


async def add_recording(db: Database, owner: User, key: UUID, state: RecordingState, **fields: Any) -> None:
    row = Recording(
        id=key, kind="note", subject_id=key, owner_id=owner.id, state=state, source_path="note.wav", **fields
    )
    async with db.transaction() as session:
        session.add(row)


async def long_ago(db: Database) -> None:
    await change(db, "update quota_reservations set updated_at = updated_at - interval '61 minutes'")


async def test_the_sweep_settles_what_is_ready_and_releases_what_failed_or_is_gone(product: Product) -> None:
    db = product.db
    vera = await add_user(db, "vera")
    ready, failed, cancelled, gone, at_work = (uuid4() for _ in range(5))
    for key in (ready, failed, cancelled, gone, at_work):
        await reserve(db, vera, key, 60)
    await add_recording(db, vera, ready, RecordingState.READY, duration_ms=58_000)
    await add_recording(db, vera, failed, RecordingState.FAILED)
    await add_recording(db, vera, cancelled, RecordingState.CANCELLED)
    await add_recording(db, vera, at_work, RecordingState.TRANSCRIBING)
    assert await sweep_quotas(product.runtime) == {"settled": 0, "released": 0}
    await long_ago(db)
    assert await sweep_quotas(product.runtime) == {"settled": 1, "released": 3}
    assert await sweep_quotas(product.runtime) == {"settled": 0, "released": 0}
    assert await counts(db, vera) == (58, 1, 60, 1)


async def test_what_was_settled_long_ago_is_deleted_and_what_is_open_is_kept(
    db: Database, valkey: ValkeyServer
) -> None:
    vera, open_still = await add_user(db, "vera"), uuid4()
    await used(db, vera, 60)
    await reserve(db, vera, open_still, 60)
    await quotas.reset(db)
    await change(db, "update quota_reservations set updated_at = now() - interval '91 days'")
    await change(db, "update quota_resets set reset_at = now() - interval '91 days'")
    deleted = await queues.clean(db, load({}), app)
    assert (deleted["quota_reservations"], deleted["quota_resets"]) == (1, 1)
    assert await rows(db, "select key from quota_reservations") == [(open_still,)]
