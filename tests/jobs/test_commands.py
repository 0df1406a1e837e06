"""`beatline schedules …`: what it prints, what it changes and how it ends."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from sqlmodel import col, select

from backend.celery_app import TASK_ROUTES, beat_schedule
from backend.config import load
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.jobs.models import JobRun, JobSchedule, JobTemplate
from backend.scheduling.system import sync_entries
from devstack.readiness import free_port
from devstack.servers import PostgresServer
from tests.factories.jobs import add_alert, add_run, add_schedule, add_template, run_row, schedule_row
from tests.fixtures.command import beatline

SYSTEM = sorted(beat_schedule(load({})))


@pytest.fixture
async def url(postgres: PostgresServer, db: Database) -> str:
    """The address of the migrated, empty database."""
    return postgres.url


async def done(*arguments: str, url: str) -> str:
    """What a command that must succeed prints."""
    ended = await beatline(*arguments, url=url)
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    return ended.stdout


async def refused(*arguments: str, url: str, code: int = 2) -> str:
    """The one line, or the pointed-at expression, of a command that must not succeed."""
    ended = await beatline(*arguments, url=url)
    assert ended.exit_code == code, ended.output
    assert ended.stdout == ""
    assert ended.stderr.startswith("beatline: ")
    return ended.stderr


async def by_name(db: Database, name: str) -> JobSchedule:
    async with db.transaction() as session:
        return (await session.exec(select(JobSchedule).where(JobSchedule.name == name))).one()


async def templates(db: Database) -> list[JobTemplate]:
    async with db.transaction() as session:
        return list((await session.exec(select(JobTemplate).order_by(JobTemplate.name))).all())


def line_with(text: str, part: str) -> str:
    return next(line for line in text.splitlines() if part in line)


async def test_an_empty_list_says_where_schedules_come_from(url: str) -> None:
    assert "reset-system" in await done("schedules", "list", url=url)
    assert (await done("schedules", "list", "--user", url=url)).strip() == "no schedules"


async def test_the_list_shows_kind_time_both_clocks_result_and_state(db: Database, url: str) -> None:
    template = await add_template(db)
    at = datetime(2031, 7, 1, 0, 0, tzinfo=UTC)
    berlin = {"cron_expression": "0 2 * * *", "timezone": "Europe/Berlin", "next_run": at}
    await add_schedule(db, template, name="Nightly", last_state="dead", consecutive_failures=3, **berlin)
    interval = {"schedule_type": "interval", "interval_seconds": 1_000_000.0, "anchor": at}
    await add_schedule(db, template, name="Often", is_active=False, next_run=at - timedelta(days=1), **interval)
    await add_schedule(db, template, name="Stuck", last_error="no such zone", next_run=at + timedelta(days=1))
    await add_schedule(db, name="advance-calls", task="advance_calls", next_run=at + timedelta(days=2))
    once = {"schedule_type": "once", "run_at": utc_now(), "next_run": None}
    await add_schedule(db, template, name="Over", **once)
    shown = await done("schedules", "list", url=url)
    names = ["Often", "Nightly", "Stuck", "advance-calls"]
    assert [line.split()[1] for line in shown.splitlines()[1:5]] == names
    nightly = line_with(shown, "Nightly")
    assert "0 2 * * * Europe/Berlin" in nightly
    assert "Tue 2031-07-01 02:00:00 Europe/Berlin" in nightly
    assert "Tue 2031-07-01 00:00:00" in nightly
    assert nightly.rstrip().endswith("active")
    assert "dead, 3 in a row" in nightly
    assert "every 1000000 s" in line_with(shown, "Often")
    assert [line_with(shown, name).split()[-1] for name in names] == ["paused", "active", "deferred", "active"]
    assert "advance_calls" in line_with(shown, "advance-calls")
    assert shown.splitlines()[5] == "1 finished, which --all shows"
    assert line_with(await done("schedules", "list", "--all", url=url), "Over").split()[-1] == "finished"
    system = await done("schedules", "list", "--system", url=url)
    assert [line.split()[1] for line in system.splitlines()[1:]] == ["advance-calls"]
    assert "Nightly" in await done("schedules", "list", "--kind", "noop", url=url)
    assert (await done("schedules", "list", "--kind", "sleep", url=url)).strip() == "no schedules"


async def test_a_schedule_is_shown_with_its_occurrences_and_its_open_alert(db: Database, url: str) -> None:
    schedule = await add_schedule(db, await add_template(db), name="Nightly", timezone="Europe/Berlin")
    at = datetime(2026, 7, 1, 0, 0, tzinfo=UTC)
    ran = await add_run(db, schedule, "succeeded", scheduled_for=at, trigger="schedule")
    skipped = {"reason": "overlap", "blocked_by": ran, "trigger": "schedule"}
    await add_run(db, schedule, "skipped", scheduled_for=at + timedelta(days=1), **skipped)
    for day in range(2, 12):
        await add_run(db, schedule, "missed", scheduled_for=at - timedelta(days=day), trigger="schedule")
    await add_alert(db, schedule)
    for reference in ("Nightly", str(schedule)):
        shown = await done("schedules", "show", reference, url=url)
        assert shown.startswith(f"schedule {schedule} (Nightly): active")
        assert line_with(shown, "cron_expression").split() == ["cron_expression", "0", "*", "*", "*", "*"]
        words = " ".join(line_with(shown, "Thu 2026-07-02").split())
        assert words.startswith(
            "Thu 2026-07-02 02:00:00 Thu 2026-07-02 00:00:00 skipped skipped skipped: the run before"
        )
        assert f"(run {ran})" in words
        assert len([line for line in shown.splitlines() if "missed " in line]) == 8
        assert "open alert 1, late: no run has started yet; expected Sat 2026-11-21 21:30:00 Europe/Berlin" in shown


@pytest.mark.parametrize("command", ["show", "pause", "resume", "run", "delete"])
async def test_an_unknown_schedule_is_answered_with_near_names(db: Database, url: str, command: str) -> None:
    await add_schedule(db, await add_template(db), name="Nightly backup")
    expected = "beatline: there is no schedule 'Nightly bakup'; did you mean 'Nightly backup'?\n"
    assert await refused("schedules", command, "Nightly bakup", url=url) == expected
    for reference in ("4711", "9" * 30, "", "%"):
        assert "there is no schedule" in await refused("schedules", command, reference, url=url)


async def test_a_name_that_is_a_number_is_found_where_no_id_is(db: Database, url: str) -> None:
    await add_schedule(db, await add_template(db), name="4711")
    assert "(4711)" in await done("schedules", "show", "4711", url=url)


async def test_adding_names_the_zone_and_the_next_run_in_both_clocks(db: Database, url: str) -> None:
    template = await add_template(db, name="Nightly")
    shown = await done("schedules", "add", "--template", "Nightly", "--at", "2031-07-01 10:00", url=url)
    assert shown.splitlines() == [
        "schedule 1: Nightly: 2031-07-01T10:00:00+05:30",
        f"template {template}: Nightly (noop)",
        "Once, at 2031-07-01T10:00:00+05:30 (Asia/Kolkata).",
        "next run Tue 2031-07-01 10:00:00 Asia/Kolkata (Tue 2031-07-01 04:30:00 UTC)",
    ]
    assert (await schedule_row(db, 1)).created_by == "cli"


async def test_every_option_of_adding_reaches_the_schedule(db: Database, url: str) -> None:
    template = await add_template(db, "sleep")
    options = ["--cron", "@daily", "--timezone", "Europe/Berlin", "--name", "Mine", "--start", "2031-01-01 00:00"]
    options += ["--end", "2032-01-01T00:00Z", "--overlap", "queue_one", "--misfire", "run_all", "--paused"]
    options += ["--param", "seconds=5", "--set", "max_attempts=4", "--set", "alert_grace_seconds=null"]
    assert "(paused)" in await done("schedules", "add", "--template", str(template), *options, url=url)
    made = await by_name(db, "Mine")
    assert (made.cron_expression, made.timezone, made.is_active) == ("0 0 * * *", "Europe/Berlin", False)
    assert made.start_at == datetime(2030, 12, 31, 23, 0, tzinfo=UTC)
    assert made.end_at == datetime(2032, 1, 1, tzinfo=UTC)
    assert (made.overlap_policy, made.misfire_policy) == ("queue_one", "run_all")
    assert (made.arguments, made.max_attempts, made.alert_grace_seconds) == ({"seconds": 5.0}, 4, None)


async def test_a_kind_makes_a_template_of_its_own(db: Database, url: str) -> None:
    for _ in range(2):
        await done("schedules", "add", "--kind", "noop", "--param", "note=5", "--every", "5m", url=url)
    assert [(one.name, one.parameters) for one in await templates(db)] == [
        ("noop", {"note": "5"}),
        ("noop (2)", {"note": "5"}),
    ]
    http = ["--param", "url=http://example.com", "--param", "expect_status=[200, 204]", "--param", 'body={"a": 1}']
    await done("schedules", "add", "--kind", "http_request", "--name", "Ping", *http, "--every", "1h", url=url)
    assert (await by_name(db, "Ping")).arguments == {
        "url": "http://example.com",
        "expect_status": [200, 204],
        "body": {"a": 1},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("2H", 7200.0), ("1h30m", 5400.0), ("1d", 86_400)],
)
async def test_intervals_have_units(db: Database, url: str, text: str, expected: float) -> None:
    await done("schedules", "add", "--kind", "noop", "--name", "Often", "--every", text, url=url)
    assert (await by_name(db, "Often")).interval_seconds == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give one of --template and --kind"),
        (["--kind", "noop", "--template", "1", "--every", "5m"], "--template and --kind, not both"),
        (["--kind", "noop"], "give one of --cron, --every and --at"),
        (["--kind", "noop", "--cron", "@daily", "--every", "5m"], "--cron, --every and --at, not two"),
        (["--kind", "noop", "--every", "often"], "--every: 'often' is not a duration"),
        (["--kind", "noop", "--every", "5m5"], "--every: '5m5' is not a duration"),
        (["--kind", "noop", "--every", "0"], "--every: An interval of 0.0 seconds is out of range"),
        (["--kind", "noop", "--at", "soon"], "--at: must be an instant such as"),
        (["--kind", "noop", "--at", "2020-01-01 10:00"], "--at: 2020-01-01T04:30:00+00:00 is in the past"),
        (["--kind", "noop", "--every", "5m", "--timezone", "Berlin"], "--timezone: 'Berlin' is not a time zone"),
        (["--kind", "noop", "--every", "5m", "--param", "note"], "--param: 'note' is not KEY=VALUE"),
        (["--kind", "noop", "--every", "5m", "--param", "nte=1"], "parameters.nte: "),
        (["--kind", "noop", "--every", "5m", "--set", "odd=1"], "odd: is not a field of a schedule"),
        (["--kind", "noop", "--every", "5m", "--set", "max_runs=0"], "max_runs: "),
        (["--kind", "nop", "--every", "5m"], "--kind: 'nop' is not a kind of job; use one of "),
        (["--template", "Night", "--every", "5m"], "there is no template 'Night'; did you mean 'Nightly'?"),
    ],
)
async def test_a_wrong_wish_is_one_line_and_changes_nothing(
    db: Database, url: str, options: list[str], said: str
) -> None:
    await add_template(db, name="Nightly")
    error = await refused("schedules", "add", *options, url=url)
    assert said in error
    assert error.count("\n") == 1
    assert [one.name for one in await templates(db)] == ["Nightly"]


async def test_a_faulty_expression_is_pointed_at(url: str) -> None:
    lines = (await refused("schedules", "preview", "0 25 * * *", url=url)).splitlines()
    assert lines == ["beatline: EXPR: Hour: 25 is outside 0-23.", "  0 25 * * *", "    ^"]
    lines = (await refused("schedules", "add", "--kind", "noop", "--cron", "0 2 * x *", url=url)).splitlines()
    assert lines[0].startswith("beatline: --cron: Month: ")
    assert lines[1:] == ["  0 2 * x *", "        ^"]


async def test_a_preview_shows_both_clocks_and_what_a_change_of_the_clock_moves(url: str) -> None:
    options = ["--timezone", "Europe/Berlin", "--after", "2027-03-27 12:00", "-n", "2"]
    shown = (await done("schedules", "preview", "30 2 * * *", *options, url=url)).splitlines()
    assert shown[0] == "At 02:30 every day. (Europe/Berlin)"
    assert shown[1].startswith("local (Europe/Berlin)")
    assert shown[2].startswith(
        "Sun 2027-03-28 03:00:00  +0200   Sun 2027-03-28 01:00:00  02:30 does not exist on 2027-03-28"
    )
    assert shown[3].split()[:6] == ["Mon", "2027-03-29", "02:30:00", "+0200", "Mon", "2027-03-29"]
    assert len(shown) == 4


async def test_an_interval_is_previewed_and_not_both(url: str) -> None:
    shown = await done("schedules", "preview", "--every", "2h", url=url)
    assert shown.startswith("Every 7200 seconds from ")
    assert len(shown.splitlines()) == 12
    for arguments in ([], ["0 2 * * *", "--every", "5m"]):
        assert "give one of EXPR and --every" in await refused("schedules", "preview", *arguments, url=url)


async def test_a_schedule_is_edited_by_name(db: Database, url: str) -> None:
    await add_schedule(db, await add_template(db), name="Nightly", timezone="Europe/Berlin")
    shown = await done("schedules", "edit", "Nightly", "--at", "2031-07-01 02:00", "--set", "max_attempts=2", url=url)
    assert "next run Tue 2031-07-01 02:00:00 Europe/Berlin (Tue 2031-07-01 00:00:00 UTC)" in shown
    edited = await by_name(db, "Nightly")
    assert (edited.schedule_type, edited.cron_expression, edited.max_attempts) == ("once", None, 2)
    assert "nothing to change" in await refused("schedules", "edit", "Nightly", url=url)


async def test_pausing_and_resuming_say_whether_anything_changed(db: Database, url: str) -> None:
    schedule = await add_schedule(db, await add_template(db), name="Nightly")
    head = f"schedule {schedule} (Nightly)"
    assert await done("schedules", "pause", "Nightly", url=url) == f"{head} is paused\n"
    assert await done("schedules", "pause", str(schedule), url=url) == f"{head} was paused already\n"
    assert not (await schedule_row(db, schedule)).is_active
    resumed = (await done("schedules", "resume", "Nightly", url=url)).splitlines()
    assert resumed[0] == f"{head} is active again"
    assert resumed[1].startswith("next run ")
    assert (await done("schedules", "resume", "Nightly", url=url)).startswith(f"{head} was active already")


async def test_resuming_catches_up_only_when_asked_to(db: Database, url: str) -> None:
    due = utc_now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
    for name in ("Forgets", "Catches up"):
        await add_schedule(db, await add_template(db), name=name, is_active=False, next_run=due)
    await done("schedules", "resume", "Forgets", url=url)
    await done("schedules", "resume", "--catch-up", "Catches up", url=url)
    forgets, catches_up = await by_name(db, "Forgets"), await by_name(db, "Catches up")
    assert forgets.next_run is not None
    assert forgets.next_run > utc_now()
    assert catches_up.next_run == due


async def test_the_systems_schedules_cannot_be_deleted_and_others_can(db: Database, url: str) -> None:
    await add_schedule(db, name="advance-calls")
    await add_schedule(db, await add_template(db), name="Nightly")
    assert "belongs to the system: pause it instead" in await refused("schedules", "delete", "advance-calls", url=url)
    assert "is deleted" in await done("schedules", "delete", "Nightly", url=url)
    assert "Nightly" not in await done("schedules", "list", "--all", url=url)


async def test_run_prints_the_runs_id_alone_and_the_overlap_policy_holds(db: Database, url: str) -> None:
    schedule = await add_schedule(db, await add_template(db), name="Nightly", is_active=False)
    run = await run_row(db, (await done("schedules", "run", "Nightly", url=url)).strip())
    assert (run.schedule_id, run.trigger, run.triggered_by, run.state) == (schedule, "manual", "cli", "pending")
    assert "overlap policy is skip" in await refused("schedules", "run", "Nightly", url=url)


async def test_a_backfill_counts_once_and_reads_times_in_the_schedules_zone(db: Database, url: str) -> None:
    cron = {"cron_expression": "0 2 * * *", "timezone": "Europe/Berlin"}
    schedule = await add_schedule(db, await add_template(db), name="Nightly", **cron)
    span = ["--from", "2026-07-01 02:00", "--to", "2026-07-05T00:00Z"]
    shown = await done("schedules", "backfill", "Nightly", *span, "--limit", "3", url=url)
    assert "Europe/Berlin where no offset is given" in shown
    assert "3 occurrences, 3 runs made, 0 had one" in shown
    assert "go on with --from 2026-07-04T00:00:00+00:00" in shown
    again = await done("schedules", "backfill", str(schedule), *span, url=url)
    assert "5 occurrences, 2 runs made, 3 had one" in again
    async with db.transaction() as session:
        made = (await session.exec(select(JobRun).order_by(col(JobRun.scheduled_for)))).all()
    assert made[0].scheduled_for == datetime(2026, 7, 1, 0, 0, tzinfo=UTC)
    assert {run.triggered_by for run in made} == {"cli"}
    for span, said in (
        (["--from", "x", "--to", "y"], "--from: must be"),
        (["--from", "2026-07-01", "--to", "2099-01-01"], "--to: "),
    ):
        assert said in await refused("schedules", "backfill", "Nightly", *span, url=url)


async def test_the_systems_schedules_are_restored_and_what_was_edited_is_listed(db: Database, url: str) -> None:
    connection = await asyncpg.connect(url)
    await sync_entries(connection, beat_schedule(load({})), TASK_ROUTES)
    await connection.close()
    await add_schedule(db, name="old-entry")
    await done("schedules", "edit", "advance-calls", "--every", "5m", url=url)
    await done("schedules", "pause", "advance-calls", url=url)
    async with db.transaction() as session:
        gone = (await session.exec(select(JobSchedule).where(JobSchedule.name == "sweep-recordings"))).one()
        await session.delete(gone)
    shown = (await done("schedules", "reset-system", url=url)).splitlines()
    changed = {
        "advance-calls": ["restored", "interval_seconds,", "is_active"],
        "old-entry": ["deleted"],
        "sweep-recordings": ["made"],
    }
    assert [line.split() for line in shown[1:]] == [
        [name, *changed.get(name, ["unchanged"])] for name in sorted([*SYSTEM, "old-entry"])
    ]
    restored = await by_name(db, "advance-calls")
    assert (restored.interval_seconds, restored.is_active) == (120.0, True)
    listed = await done("schedules", "list", url=url)
    assert sorted(line.split()[1] for line in listed.splitlines()[1:]) == SYSTEM


COMMANDS = [
    ["schedules", "list"],
    ["schedules", "run", "x"],
    ["schedules", "preview", "@daily"],
    ["schedules", "reset-system"],
    ["schedules", "add", "--kind", "noop", "--every", "5m"],
    ["runs", "list"],
]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_database_that_is_away_is_one_line_and_exit_code_1(command: list[str]) -> None:
    port = free_port()
    error = await refused(*command, url=f"postgresql://beatline:secret@127.0.0.1:{port}/beatline", code=1)
    assert error.startswith(f"beatline: database 127.0.0.1:{port}/beatline does not answer: ")
    assert error.count("\n") == 1
    assert "secret" not in error
    assert "DATABASE_URL must be set" in await refused(*command, url="")
