"""`beatline runs …`, and following a run."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlmodel import select

from backend.core.clock import utc_now
from backend.core.db import Database
from backend.jobs.models import JobRun
from backend.scheduling import leases
from devstack.servers import PostgresServer
from tests.factories.jobs import add_event, add_run, add_schedule, add_template, run_row
from tests.fixtures.command import beatline
from tests.fixtures.product import eventually


@pytest.fixture
async def url(postgres: PostgresServer, db: Database) -> str:
    """The address of the migrated, empty database."""
    return postgres.url


async def test_runs_are_listed_newest_first_by_schedule_and_state(db: Database, url: str) -> None:
    assert (await beatline("runs", "list", url=url)).stdout.strip() == "no runs"
    schedule = await add_schedule(db, await add_template(db), name="Nightly")
    at = datetime(2026, 7, 1, 4, 30, tzinfo=UTC)
    first = await add_run(db, schedule, "succeeded", name="Nightly", created_at=at)
    second = await add_run(db, None, "dead", name="Other", error="no [red]route", created_at=utc_now())
    listed = await beatline("runs", "list", url=url)
    assert listed.exit_code == 0, listed.output
    lines = listed.stdout.splitlines()
    assert lines[0].startswith("made (Asia/Kolkata)")
    assert str(second) in lines[1]
    assert "no [red]route" in lines[1]
    assert lines[2].startswith(f"Wed 2026-07-01 10:00:00  {first}")
    for options in (["--schedule", "Nightly"], ["--state", "succeeded", "--state", "failed"]):
        only = (await beatline("runs", "list", *options, url=url)).stdout.splitlines()
        assert [line.split()[3] for line in only[1:]] == [str(first)]
    assert len((await beatline("runs", "list", "-n", "1", url=url)).stdout.splitlines()) == 2


async def test_a_run_is_shown_with_its_story_and_its_log(db: Database, url: str) -> None:
    run = await add_run(db, None, "failed", error="no route", arguments={"note": "x"})
    await add_event(db, run, "log", "dialing [bold]", level="INFO", attempt=1)
    shown = await beatline("runs", "show", str(run), url=url)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith(f"run {run} of Run: failed")
    assert '{"note": "x"}' in shown.stdout
    assert "created" in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("INFO dialing [bold]")


async def test_a_run_is_cancelled_at_once_or_by_its_worker(db: Database, url: str) -> None:
    queued = await add_run(db, None, "queued")
    running = await add_run(db, None, "running", lease_until=utc_now(), lease_owner="w")
    assert (await beatline("runs", "cancel", str(queued), url=url)).stdout == f"run {queued} is cancelled\n"
    assert "is being stopped by its worker" in (await beatline("runs", "cancel", str(running), url=url)).stdout
    assert (await run_row(db, queued)).state == "cancelled"
    assert (await run_row(db, running)).cancel_requested_at is not None


async def test_a_run_is_run_again_once_it_has_ended(db: Database, url: str) -> None:
    dead, running = await add_run(db, None, "dead"), await add_run(db, None, "running")
    again = await beatline("runs", "retry", str(dead), url=url)
    assert again.exit_code == 0, again.output
    new = await run_row(db, again.stdout.strip())
    assert (new.replay_of, new.trigger, new.triggered_by) == (dead, "replay", "cli")
    refused = await beatline("runs", "retry", str(running), url=url)
    assert (refused.exit_code, refused.stderr) == (2, f"beatline: run {running} has not ended: it is running\n")


@pytest.mark.parametrize("command", ["show", "cancel", "retry"])
async def test_an_unknown_run_ends_with_2(url: str, command: str) -> None:
    run = uuid4()
    done = await beatline("runs", command, str(run), url=url)
    assert (done.exit_code, done.stderr) == (2, f"beatline: run {run} does not exist\n")
    assert (await beatline("runs", command, "x", url=url)).exit_code == 2


async def finish_next(db: Database, url: str, state: str, error: str | None = None) -> None:
    """Be the worker: claim the run that waits to be sent, and end it."""

    async def pending() -> UUID | None:
        async with db.transaction() as session:
            return (await session.exec(select(JobRun.id).where(JobRun.state == "pending"))).first()

    run = await eventually(pending)
    assert isinstance(run, UUID)
    connection = await asyncpg.connect(url)
    try:
        claim = await leases.claim(connection, run, "noop", owner="test", lease_seconds=60, lost_attempts=3)
        assert claim is not None
        # Longer than the command looks away.
        await asyncio.sleep(0.7)
        await leases.finish(connection, claim, state, reason=None, result=None, error=error)
    finally:
        await connection.close()


async def test_waiting_for_a_run_follows_it_to_its_success(db: Database, url: str) -> None:
    await add_schedule(db, await add_template(db), name="Nightly")
    waiting = asyncio.create_task(beatline("schedules", "run", "Nightly", "--wait", url=url))
    await finish_next(db, url, "succeeded")
    ended = await waiting
    assert ended.exit_code == 0, ended.output
    assert (await run_row(db, ended.stdout.strip())).state == "succeeded"
    assert "running" in ended.stderr
    assert "succeeded after " in ended.stderr.splitlines()[-1]


async def test_waiting_for_a_run_that_fails_ends_with_1_and_its_error(db: Database, url: str) -> None:
    await add_schedule(db, await add_template(db), name="Nightly")
    waiting = asyncio.create_task(beatline("schedules", "run", "Nightly", "--wait", url=url))
    await finish_next(db, url, "failed", "no \x1b[31mroute")
    ended = await waiting
    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[-1].endswith("did not succeed: it is failed: no �[31mroute")


async def test_waiting_gives_up_when_told_to_and_the_run_goes_on(db: Database, url: str) -> None:
    await add_schedule(db, await add_template(db), name="Nightly")
    ended = await beatline("schedules", "run", "Nightly", "--wait", "--timeout", "0", url=url)
    assert ended.exit_code == 1
    assert "has not ended within 0 s: it is pending; it goes on" in ended.stderr
    assert (await run_row(db, ended.stdout.strip())).state == "pending"
