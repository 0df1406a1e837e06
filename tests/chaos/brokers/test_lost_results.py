"""The Redis of results and idempotency records loses everything it holds, under load."""

import sys
import time
from typing import Any

import httpx
import pytest
import redis

from devstack.environment import ROOT
from devstack.processes import Service
from devstack.readiness import free_port, when_http
from tests.chaos.brokers.conftest import Begin
from tests.chaos.brokers.scene import Scene

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

TASKS = 400


def _api(scene: Scene) -> httpx.Client:
    """A client of an API process of the scene's."""
    port = free_port()
    argv = (sys.executable, "-m", "uvicorn", "backend.main:app", "--host", "127.0.0.1", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    scene.supervisor.start(Service("api", argv, scene.environment, when_http(f"{url}/healthz"), cwd=ROOT, stage=1))
    scene.supervisor.wait_ready("api")
    key = scene.environment["BEATLINE_SERVICE_KEY"]
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20)


def _forget_results(scene: Scene) -> None:
    """The broker's messages are in another database."""
    with redis.Redis(port=scene.valkey.port, db=1) as client:
        client.flushdb()


def test_tasks_finish_and_the_api_answers_when_the_results_are_gone(begin: Begin) -> None:
    scene = begin("redis")
    scene.workers(2)
    with _api(scene) as api:
        producers = scene.produce("take_effect", range(TASKS))
        before = [_send(api) for _ in range(20)]
        scene.wait_for("an end", lambda: _states(api, before) == {"SUCCESS"})
        _forget_results(scene)
        # What has ended is not told apart from what nobody has begun; see dead-letters.md.
        assert _states(api, before) == {"PENDING"}
        for _ in range(5):
            under_way = [_send(api) for _ in range(10)]
            _forget_results(scene)
            assert _states(api, under_way) <= {"PENDING", "STARTED", "SUCCESS"}
        after = [_send(api) for _ in range(10)]
        scene.wait_for("an end", lambda: _states(api, after) == {"SUCCESS"})
    producers.join(30)
    scene.wait_for_effects(TASKS, within=60)
    scene.supervisor.stop("api")
    ledger = scene.check()
    assert len(ledger.booked) == TASKS
    assert ledger.letters == set()


def _send(api: httpx.Client) -> str:
    answer = api.post("/api/tasks/noop")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _states(api: httpx.Client, tasks: list[str]) -> set[str]:
    answers = [api.get(f"/api/tasks/{task}") for task in tasks]
    assert {answer.status_code for answer in answers} == {200}
    return {str(answer.json()["state"]) for answer in answers}


def test_idempotency_loses_what_was_completed_and_keeps_what_is_in_progress(begin: Begin) -> None:
    scene = begin("rabbitmq")
    scene.workers(1, "--concurrency=3")

    def call(**arguments: Any) -> None:
        scene.app.send_task("book", kwargs=arguments, queue="default", ignore_result=True)

    def booked(number: int) -> int:
        return int(scene.value("select count(*) from book where number = $1", number))

    call(number=1)
    scene.wait_for("a booking", lambda: booked(1) == 1)
    call(number=1)
    call(number=2, seconds=6)
    scene.wait_for("the duplicate's answer", lambda: "book:1: task" in scene.logs())
    scene.wait_for("the second's beginning", lambda: scene.executions()[2] == 1)
    assert booked(1) == 1
    with redis.Redis(port=scene.valkey.port) as client:
        client.flushall()
    # The holder writes its record again within a third of its lease.
    time.sleep(1.5)
    call(number=2, seconds=6)
    call(number=1)
    scene.wait_for("a second booking", lambda: booked(1) == 2)
    scene.wait_for("the holder's end", lambda: booked(2) == 1)
    scene.wait_for("the duplicate's answer", lambda: "book:2: task" in scene.logs())
    time.sleep(6)
    assert (scene.executions()[2], booked(2)) == (1, 1)
