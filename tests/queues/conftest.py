"""A worker of the product's tasks and of tests' own, on Valkey."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from backend.celery_app import app, create_app
from backend.config import load
from backend.core.dead_letter_exchange import dead_letter_queue
from devstack.rabbitmq import RabbitServer
from devstack.servers import PostgresServer, ValkeyServer

ROOT = Path(__file__).parents[2]
QUEUES = "default,high_priority,low_priority,scheduled"


@contextmanager
def running_worker(folder: Path, *options: str, name: str = "tests", **environment: str) -> Iterator[Path]:
    """A ready worker; its log."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-l", "info", "-c", "2"]
    command += ["--include=backend.tasks,tests.queues.worker.sample_tasks", "-Q", QUEUES, "-n", f"{name}@test"]
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 60
        while " ready." not in log.read_text():
            assert worker.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield log
    finally:
        worker.terminate()
        worker.wait(40)


@pytest.fixture(scope="module")
def worker(valkey: ValkeyServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Reads every queue but audio; its log."""
    app.control.purge()
    with running_worker(tmp_path_factory.mktemp("worker"), DATABASE_URL=postgres.url) as log:
        yield log
    app.control.purge()


def publish_malformed(celery: Celery) -> None:
    """Messages to the queue `default` that are no task's, each wrong in its own way."""
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (b"{no json", {"task": "noop", "id": "bad-json"}),
        (b"[[], {}]", {"task": "noop", "id": "two-parts"}),
        (b"[1, 2, 3]", {"task": "noop", "id": "no-arguments"}),
        (b"[[], {}, {}]", {"task": "noop"}),
        (b"{}", {}),
    ]
    with celery.connection_for_write() as connection:
        producer: Any = connection.Producer()
        for body, headers in bodies:
            kinds = {"content_type": "application/json", "content_encoding": "utf-8"}
            producer.publish(body, exchange="beatline", routing_key="default", headers=headers, **kinds)


@pytest.fixture(scope="session")
def rabbit_app(rabbitmq: RabbitServer) -> Iterator[Celery]:
    """One for the session: applications of the same broker share Kombu's connections, and so the end of them."""
    made = create_app(load({"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_PORT": str(rabbitmq.port)}))
    yield made
    made.close()


@pytest.fixture
def rabbit(rabbit_app: Celery) -> Celery:
    """An application on RabbitMQ, its queues declared and empty."""
    with rabbit_app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        for queue in (*rabbit_app.amqp.queues.values(), dead_letter_queue()):
            queue(channel).declare()
            channel.queue_purge(queue.name)
    return rabbit_app
