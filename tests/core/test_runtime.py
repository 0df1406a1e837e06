"""Async tasks in a real worker, on a real broker, on each pool."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from backend.celery_app import app
from backend.core.runtime import backoff
from devstack.servers import PostgresServer, ValkeyServer

ROOT = Path(__file__).parents[2]
Run = Callable[..., AsyncResult[Any]]


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def run(
    request: pytest.FixtureRequest,
    valkey: ValkeyServer,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    """Sends a task to a worker of the parameter's pool."""
    app.control.purge()
    log = tmp_path_factory.mktemp("worker") / "worker.log"
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "backend.celery_app",
        "worker",
        "--include=tests.core.worker.sample_tasks",
    ]
    command += ["-P", request.param, "-c", "2", "-Q", "default", "-l", "info", "--without-mingle", "--without-gossip"]
    with log.open("w") as output:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"DATABASE_URL": postgres.url}, stdout=output, stderr=subprocess.STDOUT
        )

    def send(name: str, **arguments: str) -> AsyncResult[Any]:
        return app.send_task(name, kwargs=arguments, queue="default")

    try:
        yield send
    finally:
        worker.terminate()
        worker.wait(30)
        with app.connection_or_acquire():
            app.control.purge()


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


def test_a_soft_time_limit_cancels_the_coroutine(run: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["run"] != "prefork":
        # Celery knows time limits on prefork alone; the other pools let the task end by itself.
        assert run("reach_the_database").get(timeout=30) == "reached"
        return
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        run("sleep_too_long", marker=str(tmp_path / "cancelled")).get(timeout=30)
    assert (tmp_path / "cancelled").exists()


def test_backoff_grows_to_a_minute_and_heeds_the_other_sides_wish() -> None:
    assert all(0.5 <= backoff(0) <= 1 for _ in range(50))
    assert all(4 <= backoff(3) <= 8 for _ in range(50))
    assert all(30 <= backoff(20) <= 60 for _ in range(50))
    assert backoff(0, after=90) == 90
