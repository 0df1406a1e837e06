"""Reservations: taken off the day's allowance, settled by what was used, released when nothing came of it."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.errors import NotFound
from backend.quotas import service as quotas
from backend.quotas.allowance import STANDARD_FILES, STANDARD_MINUTES, milliseconds
from backend.quotas.service import QuotaExceeded
from tests.fixtures.people import add_user
from tests.quotas.conftest import adjust, change, counts, limit, pass_days, release, reserve, rows, settle, standing


async def test_somebody_new_has_the_limits_of_the_standard_plan(db: Database) -> None:
    vera = await add_user(db, "vera")
    now = await standing(db, vera)
    assert (now.plan, now.limit_seconds, now.limit_files) == ("standard", STANDARD_MINUTES * 60, STANDARD_FILES)
    assert (now.left_seconds, now.left_files) == (STANDARD_MINUTES * 60, STANDARD_FILES)
    midnight = datetime.combine(utc_now().date() + timedelta(days=1), datetime.min.time(), UTC)
    assert now.reset_at == midnight
    assert 0 < now.reset_in <= 86_400


async def test_a_reservation_is_settled_by_what_was_used(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 90)
    assert await counts(db, vera) == (0, 0, 90, 1)
    await settle(db, key, 61.25)
    assert await counts(db, vera) == (61.25, 1, 0, 0)


async def test_a_settlement_may_be_more_than_was_reserved_and_more_than_is_left(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await limit(db, vera, minutes=1)
    await reserve(db, vera, key, 30)
    await settle(db, key, 100)
    now = await standing(db, vera)
    assert (now.used_seconds, now.reserved_seconds, now.left_seconds) == (100, 0, 0)


async def test_a_release_gives_everything_back(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 90)
    await release(db, key)
    assert await counts(db, vera) == (0, 0, 0, 0)


async def test_every_step_may_come_twice(db: Database) -> None:
    vera, used, failed = await add_user(db, "vera"), uuid4(), uuid4()
    for _ in range(2):
        await reserve(db, vera, used, 60)
        await reserve(db, vera, failed, 60)
    assert await counts(db, vera) == (0, 0, 120, 2)
    for _ in range(2):
        await adjust(db, used, 70)
    assert await counts(db, vera) == (0, 0, 130, 2)
    for _ in range(2):
        await settle(db, used, 65)
        await release(db, failed)
    assert await counts(db, vera) == (65, 1, 0, 0)


async def test_what_is_settled_is_neither_reserved_adjusted_nor_released_again(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 60)
    await settle(db, key, 60)
    await reserve(db, vera, key, 60)
    await adjust(db, key, 600)
    await release(db, key)
    assert await counts(db, vera) == (60, 1, 0, 0)


async def test_what_was_released_is_reserved_anew_when_it_is_tried_again(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 60)
    await release(db, key)
    await settle(db, key, 60)
    assert await counts(db, vera) == (0, 0, 0, 0)
    await pass_days(db)
    await reserve(db, vera, key, 45)
    assert await counts(db, vera) == (0, 0, 45, 1)
    assert await rows(db, "select count(*) from quota_reservations") == [(1,)]


async def test_a_refusal_says_when_the_next_day_begins_and_what_is_left(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=10, files=5)
    await reserve(db, vera, uuid4(), 500)
    with pytest.raises(QuotaExceeded, match=r"recording takes 2 minutes; left of today's 10 minutes: 1\.6;") as told:
        await reserve(db, vera, uuid4(), 120)
    fault, now = told.value, await standing(db, vera)
    assert (fault.status, fault.problem) == (429, "quota_exceeded")
    assert fault.retry_after == pytest.approx(now.reset_in, abs=30)
    assert fault.extra == {
        "reset_at": now.reset_at.strftime("%Y-%m-%dT00:00:00Z"),
        "left_seconds": 100,
        "left_files": 4,
        "limit_seconds": 600,
        "limit_files": 5,
        "plan": "standard",
    }
    await reserve(db, vera, uuid4(), 100)
    assert await counts(db, vera) == (0, 0, 600, 2)


async def test_the_last_file_of_the_day_is_the_last(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, files=2)
    await reserve(db, vera, uuid4(), 1)
    await reserve(db, vera, uuid4(), 1)
    with pytest.raises(QuotaExceeded, match="today's limit of files is reached: 2 files;"):
        await reserve(db, vera, uuid4(), 1)


@pytest.mark.parametrize(
    ("minutes", "files", "used", "asked", "said"),
    [
        (
            1,
            None,
            0,
            65,
            "takes 1.1 minutes, longer than a whole day's limit of 1 minute; an administrator may raise it",
        ),
        (None, 0, 0, 60, "the limit of files a day is 0; an administrator may raise it"),
        (None, 1, 1, 60, "today's limit of files is reached: 1 file;"),
        (0, None, 0, 60, "the limit of minutes a day is 0; an administrator may raise it"),
        (1_000_000, None, 60_000_000 - 60, 61, "takes 1.1 minutes; left of today's 1000000 minutes: 1;"),
        (2, None, 60, 61, "takes 1.1 minutes; left of today's 2 minutes: 1;"),
    ],
)
async def test_a_refusal_counts_as_people_do(
    db: Database, minutes: int | None, files: int | None, used: float, asked: float, said: str
) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=minutes, files=files)
    await reserve(db, vera, uuid4(), min(used, 1), files=1 if used else 0)
    await change(db, "update quota_counters set reserved_ms = :ms", ms=int(used * 1000))
    with pytest.raises(QuotaExceeded, match=re.escape(said)):
        await reserve(db, vera, uuid4(), asked)


async def test_a_recording_that_no_day_has_room_for_is_told_so(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=10)
    with pytest.raises(QuotaExceeded, match="takes 60 minutes, longer than a whole day's limit of 10 minutes;"):
        await reserve(db, vera, uuid4(), 3600)


async def test_a_refusal_that_is_caught_leaves_nothing_behind(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await limit(db, vera, minutes=1)
    async with db.transaction() as session:
        with pytest.raises(QuotaExceeded):
            await quotas.reserve(session, user_id=vera.id, key=key, seconds=61)
    assert await counts(db, vera) == (0, 0, 0, 0)
    await reserve(db, vera, key, 60)
    assert await counts(db, vera) == (0, 0, 60, 1)


async def test_an_unknown_length_needs_something_to_be_left_and_is_adjusted_later(db: Database) -> None:
    vera, key, refused = await add_user(db, "vera"), uuid4(), uuid4()
    await limit(db, vera, minutes=2)
    await reserve(db, vera, key, 0)
    await reserve(db, vera, refused, 0)
    await adjust(db, key, 120)
    with pytest.raises(QuotaExceeded, match="today's limit of minutes is reached: 2 minutes;"):
        await adjust(db, refused, 5)
    assert await counts(db, vera) == (0, 0, 120, 2)
    await release(db, refused)
    with pytest.raises(QuotaExceeded, match="today's limit of minutes is reached: 2 minutes;"):
        await reserve(db, vera, uuid4(), 0)


async def test_what_is_held_for_a_recording_is_left_for_it(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await limit(db, vera, minutes=2)
    await reserve(db, vera, key, 110)
    await adjust(db, key, 120)
    with pytest.raises(QuotaExceeded, match="a whole day's limit of 2 minutes"):
        await adjust(db, key, 121)
    await adjust(db, key, 15)
    assert await counts(db, vera) == (0, 0, 15, 1)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_a_day_is_a_utc_day_wherever_the_database_thinks_it_is(db: Database, zone: str) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    async with db.transaction() as session:
        await (await session.connection()).execute(text(f"set local time zone '{zone}'"))
        await quotas.reserve(session, user_id=vera.id, key=key, seconds=1)
        now = await quotas.standing(session, vera.id)
        assert (now.day, now.reset_at.astimezone(UTC).hour) == (utc_now().date(), 0)
        assert now.reset_in < 86_400
    assert await counts(db, vera) == (0, 0, 1, 1)


async def test_no_limit_is_no_limit(db: Database) -> None:
    vera = await add_user(db, "vera")
    await change(db, "insert into quota_plans (name, updated_by) values ('free', 'ada')")
    await change(db, "insert into user_quotas (user_id, plan, updated_by) values (:u, 'free', 'ada')", u=vera.id)
    for _ in range(3):
        await reserve(db, vera, uuid4(), 1e9)
    now = await standing(db, vera)
    assert (now.plan, now.limit_seconds, now.left_seconds, now.limit_files, now.left_files) == ("free", *[None] * 4)
    assert now.reserved_files == 3


async def test_limits_of_ones_own_come_before_the_plans_one_by_one(db: Database) -> None:
    vera = await add_user(db, "vera")
    await change(
        db, "insert into quota_plans (name, minutes_per_day, files_per_day, updated_by) values ('pro', 7, 9, '')"
    )
    await change(
        db, "insert into user_quotas (user_id, plan, files_per_day, updated_by) values (:u, 'pro', 0, '')", u=vera.id
    )
    now = await standing(db, vera)
    assert (now.limit_seconds, now.limit_files) == (420, 0)
    with pytest.raises(QuotaExceeded):
        await reserve(db, vera, uuid4(), 1)


async def test_what_was_given_for_today_counts_on_top(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1, files=1)
    await reserve(db, vera, uuid4(), 60)
    await change(db, "update quota_counters set extra_minutes = 2, extra_files = 1")
    await reserve(db, vera, uuid4(), 120)
    with pytest.raises(QuotaExceeded):
        await reserve(db, vera, uuid4(), 1)
    await pass_days(db)
    now = await standing(db, vera)
    assert (now.limit_seconds, now.limit_files) == (60, 1)


async def test_the_team_is_not_limited(db: Database) -> None:
    key = uuid4()
    async with db.transaction() as session:
        await quotas.reserve(session, user_id=None, key=key, seconds=1e6)
        await quotas.adjust(session, key=key, seconds=2e6)
        await quotas.settle(session, key=key, seconds=2e6)
        await quotas.release(session, key=key)
    assert await rows(db, "select count(*) from quota_reservations") == [(0,)]


async def test_nobody_has_no_quota(db: Database) -> None:
    stranger = uuid4()
    async with db.transaction() as session:
        with pytest.raises(NotFound):
            await quotas.reserve(session, user_id=stranger, key=uuid4(), seconds=1)
        with pytest.raises(NotFound):
            await quotas.standing(session, stranger)


@pytest.mark.parametrize("seconds", [-0.1, float("nan"), float("-inf")])
def test_what_is_no_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="no length"):
        milliseconds(seconds)


def test_what_a_header_makes_up_counts_as_a_year() -> None:
    assert milliseconds(float("inf")) == milliseconds(1e300) == 366 * 86_400_000


async def test_midnight_between_reservation_and_settlement(db: Database) -> None:
    vera, used, failed, longer = await add_user(db, "vera"), uuid4(), uuid4(), uuid4()
    await limit(db, vera, minutes=1)
    for key in (used, failed, longer):
        await reserve(db, vera, key, 20)
    await pass_days(db)
    assert await counts(db, vera) == (0, 0, 0, 0)
    await reserve(db, vera, uuid4(), 60)
    with pytest.raises(QuotaExceeded):
        await adjust(db, longer, 21)
    await settle(db, used, 20)
    await release(db, failed)
    await adjust(db, longer, 40)
    assert await counts(db, vera) == (0, 0, 60, 1)
    yesterday = "select used_ms, reserved_ms, used_files, reserved_files from quota_counters where day < :today"
    assert await rows(db, yesterday, today=utc_now().date()) == [(20_000, 40_000, 1, 1)]


async def test_a_length_that_is_known_after_the_day_was_cleared_is_held_against_that_days_limit(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await limit(db, vera, minutes=1)
    await reserve(db, vera, key, 0, files=0)
    await pass_days(db)
    await change(db, "delete from quota_counters")
    with pytest.raises(QuotaExceeded):
        await adjust(db, key, 61)
    await adjust(db, key, 60)
    await settle(db, key, 60)
    assert await counts(db, vera) == (0, 0, 0, 0)


async def test_of_many_at_once_as_many_get_through_as_there_is_room_for(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1, files=100)
    answers = await asyncio.gather(*(reserve(db, vera, uuid4(), 10) for _ in range(15)), return_exceptions=True)
    assert [answer for answer in answers if answer is not None and not isinstance(answer, QuotaExceeded)] == []
    assert answers.count(None) == 6
    assert await counts(db, vera) == (0, 0, 60, 6)


async def test_two_uploads_at_once_wait_for_each_other_and_the_second_counts_with_the_first(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1)
    async with db.transaction() as session:
        await quotas.reserve(session, user_id=vera.id, key=uuid4(), seconds=40)
        second = asyncio.create_task(reserve(db, vera, uuid4(), 40))
        await asyncio.sleep(0.2)
        assert not second.done()
    with pytest.raises(QuotaExceeded):
        await second
    assert await counts(db, vera) == (0, 0, 40, 1)


async def test_the_room_of_a_reservation_that_is_rolled_back_goes_to_the_one_that_waited(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=1)
    async with db.engine.connect() as connection, db._sessions(bind=connection) as session:
        await quotas.reserve(session, user_id=vera.id, key=uuid4(), seconds=40)
        second = asyncio.create_task(reserve(db, vera, uuid4(), 40))
        await asyncio.sleep(0.2)
        await session.rollback()
    await second
    assert await counts(db, vera) == (0, 0, 40, 1)


async def test_one_recording_sent_many_times_at_once_is_reserved_and_settled_once(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await asyncio.gather(*(reserve(db, vera, key, 10) for _ in range(8)))
    assert await counts(db, vera) == (0, 0, 10, 1)
    await asyncio.gather(*(settle(db, key, 9) for _ in range(4)), *(adjust(db, key, 11) for _ in range(4)))
    assert await counts(db, vera) == (9, 1, 0, 0)


async def test_counters_stay_the_sums_of_what_is_reserved_whatever_comes_at_once(db: Database) -> None:
    vera = await add_user(db, "vera")
    await limit(db, vera, minutes=3)
    keys = [uuid4() for _ in range(12)]

    async def story(number: int) -> None:
        key = keys[number % len(keys)]
        steps = (
            lambda: reserve(db, vera, key, 10 + number),
            lambda: adjust(db, key, 20),
            lambda: release(db, key),
            lambda: settle(db, key, 15),
        )
        for step in range(6):
            try:
                await steps[(number * 7 + step * 3) % 4]()
            except QuotaExceeded:
                continue

    await asyncio.gather(*(story(number) for number in range(36)))
    sums = """select coalesce(sum(ms) filter (where state = 'open'), 0), count(*) filter (where state = 'open'),
        coalesce(sum(ms) filter (where state = 'settled'), 0), count(*) filter (where state = 'settled')
        from quota_reservations"""
    counted = "select reserved_ms, reserved_files, used_ms, used_files from quota_counters"
    assert await rows(db, sums) == await rows(db, counted)
    (row,) = await rows(db, counted)
    assert row[0] + row[2] <= 180_000


async def test_a_user_who_is_gone_takes_the_counters_along_and_late_steps_do_nothing(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await limit(db, vera, minutes=1)
    await reserve(db, vera, key, 10)
    await change(db, "delete from users")
    await adjust(db, key, 20)
    await settle(db, key, 20)
    await release(db, key)
    assert await rows(db, "select count(*) from quota_counters") == [(0,)]


async def test_what_a_deactivated_user_has_reserved_is_settled_all_the_same(db: Database) -> None:
    vera, key = await add_user(db, "vera"), uuid4()
    await reserve(db, vera, key, 10)
    await change(db, "update users set is_active = false")
    await settle(db, key, 10)
    assert await counts(db, vera) == (10, 1, 0, 0)


async def test_another_users_limit_is_another(db: Database) -> None:
    vera, otto = await add_user(db, "vera"), await add_user(db, "otto")
    await limit(db, vera, minutes=1)
    await reserve(db, vera, uuid4(), 60)
    await reserve(db, otto, uuid4(), 600)
    assert (await counts(db, vera), await counts(db, otto)) == ((0, 0, 60, 1), (0, 0, 600, 1))
