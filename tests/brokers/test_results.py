"""Where results are kept: Redis or PostgreSQL, chosen by a variable that the `celery` command also takes for its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import pools

from backend.celery_app import create_app
from backend.config import load
from devstack.rabbitmq import RabbitServer
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer
from tests.brokers.site import ROOT, Site


@pytest.fixture
def without_redis(rabbitmq: RabbitServer, postgres: PostgresServer, tmp_path: Path) -> Iterator[Site]:
    """RabbitMQ and PostgreSQL; nobody listens where Redis would be."""
    environment = {
        "CELERY_BROKER": "rabbitmq",
        "CELERY_RABBITMQ_PORT": str(rabbitmq.port),
        "CELERY_RESULT_BACKEND": "postgresql",
        "DATABASE_URL": postgres.url,
        "REDIS_PORT": str(free_port()),
    }
    site = Site("rabbitmq", rabbitmq, environment, create_app(load(environment)), tmp_path)
    yield site
    site.forget()
    pools.reset()


def celery(site: Site, *arguments: str) -> str:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | site.environment, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_with_rabbitmq_and_postgresql_a_worker_needs_no_redis(without_redis: Site) -> None:
    worker = without_redis.start(DATABASE_URL=without_redis.environment["DATABASE_URL"])
    result = without_redis.app.send_task("leave_a_mark", kwargs={"name": "stored"})
    assert result.get(timeout=30) == "stored"
    assert result.state == "SUCCESS"
    assert worker.said("results:     postgresql+psycopg://")
    assert celery(without_redis, "result", str(result.id)) == "stored"


def test_the_celery_command_heeds_the_choice_of_redis(site: Site, durable_valkey: ValkeyServer) -> None:
    site.environment["CELERY_RESULT_BACKEND"] = "redis"
    worker = site.start()
    task = celery(site, "call", "leave_a_mark", '--kwargs={"name": "stored"}', "--queue=default")
    site.marked("stored")
    assert site.app.AsyncResult(task).get(timeout=10) == "stored"
    assert celery(site, "result", task) == "stored"
    assert worker.said(f"redis://127.0.0.1:{durable_valkey.port}/1")


_PRODUCER = """
import sys
from backend.celery_app import app
app.send_task("leave_a_mark", kwargs={"name": "unasked"}, ignore_result=True)
print(sorted({"sqlalchemy", "psycopg", "redis.asyncio"} & set(sys.modules)))
"""


def test_a_producer_that_wants_no_result_loads_no_driver(without_redis: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PRODUCER],
        cwd=ROOT,
        env=os.environ | without_redis.environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "sqlalchemy" not in done.stdout
    assert "psycopg" not in done.stdout


def test_beats_image_which_has_no_driver_sends_all_the_same(without_redis: Site) -> None:
    hidden = 'import sys; sys.modules["sqlalchemy"] = None; from backend.celery_app import app; '
    send = 'print(app.send_task("leave_a_mark", kwargs={"name": "from-beat"}).id)'
    subprocess.run(
        [sys.executable, "-c", hidden + send],
        cwd=ROOT,
        env=os.environ | without_redis.environment,
        check=True,
        timeout=60,
    )
    without_redis.start(DATABASE_URL=without_redis.environment["DATABASE_URL"])
    without_redis.marked("from-beat")
