"""Async tasks in a real worker, on a real broker, on each pool."""

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from backend.core.db import Database
from backend.core.runtime import backoff
from devstack.servers import PostgresServer, ValkeyServer
from tests.core.worker.running import Run, worker

# A dead letter needs its table.
pytestmark = pytest.mark.usefixtures("db")


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def run(
    request: pytest.FixtureRequest,
    valkey: ValkeyServer,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """Sends a task to a worker of the parameter's pool."""
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    with worker(log, postgres.url, "-P", request.param) as send:
        yield send


def test_an_async_task_runs_on_one_loop_per_process(run: Run) -> None:
    answers = [run("describe_process").get(timeout=30) for _ in range(6)]
    assert {answer["thread"] for answer in answers} == {"beatline-loop"}
    loops: dict[int, set[int]] = {}
    for answer in answers:
        loops.setdefault(answer["pid"], set()).add(answer["loop"])
    assert all(len(seen) == 1 for seen in loops.values())


def test_a_transient_error_is_tried_again(run: Run, tmp_path: Path) -> None:
    assert run("succeed_at_second_try", marker=str(tmp_path / "tried")).get(timeout=30) == "done"


def test_a_transient_error_without_tries_left_fails_the_task(run: Run) -> None:
    with pytest.raises(Exception, match="still away"):
        run("never_succeed").get(timeout=30)


def test_a_permanent_error_is_not_tried_again(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no retry can help"):
        run("fail_for_good", marker=str(tmp_path / "tries")).get(timeout=30)
    assert (tmp_path / "tries").read_text() == "x"


def test_a_task_reaches_the_database(run: Run) -> None:
    assert run("reach_the_database").get(timeout=30) == "reached"


def test_a_soft_time_limit_cancels_the_coroutine(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        run("sleep_too_long", marker=str(tmp_path / "cancelled")).get(timeout=30)
    assert (tmp_path / "cancelled").exists()


def test_a_hard_time_limit_ends_what_will_not_be_cancelled(
    run: Run, tmp_path: Path, db: Database, postgres: PostgresServer
) -> None:
    turns = tmp_path / "turns"
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        run("refuse_to_end", marker=str(turns)).get(timeout=30)
    time.sleep(0.3)
    ended = turns.stat().st_size
    assert run("reach_the_database").get(timeout=30) == "reached"
    time.sleep(0.5)
    assert turns.stat().st_size == ended
    assert letters(postgres) == [("refuse_to_end", "timed_out")]


def test_code_that_blocks_the_loop_holds_up_no_later_task(run: Run, db: Database, postgres: PostgresServer) -> None:
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        run("block_the_loop").get(timeout=30)
    began = time.monotonic()
    assert run("reach_the_database").get(timeout=30) == "reached"
    assert time.monotonic() - began < 4
    assert letters(postgres) == [("block_the_loop", "timed_out")]


def letters(postgres: PostgresServer) -> list[tuple[str, str]]:
    """Task and kind of each dead letter, once there is one."""
    end = time.monotonic() + 15
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        while not (found := connection.execute("select task, kind from dead_letters").fetchall()):
            assert time.monotonic() < end
            time.sleep(0.1)
    return found


def test_backoff_grows_to_a_minute_and_heeds_the_other_sides_wish() -> None:
    assert all(0.5 <= backoff(0) <= 1 for _ in range(50))
    assert all(4 <= backoff(3) <= 8 for _ in range(50))
    assert all(30 <= backoff(20) <= 60 for _ in range(50))
    assert backoff(0, after=90) == 90
