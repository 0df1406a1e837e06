"""Runs published to real brokers: what arrives, what counts as confirmed, and what a broken broker costs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery
from kombu import Queue, pools

from backend.celery_app import app as product
from backend.celery_app import create_app
from backend.config import load
from backend.scheduling.publisher import RUN_HEADER, BrokerAway, Message, Publisher
from devstack.rabbitmq import RabbitServer
from devstack.servers import Server, ValkeyServer, embedded_valkey

ROOT = Path(__file__).parents[2]
QUEUES = ("default", "high_priority", "low_priority", "scheduled", "audio")

# What a frozen broker may cost, seconds.
PATIENCE = 5.0


@dataclass
class Broker:
    """A broker that the test may break, and an application that knows it."""

    server: Server
    environment: dict[str, str]
    app: Celery


@pytest.fixture(scope="module")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with embedded_valkey(tmp_path_factory.mktemp("own-valkey")) as server:
        yield server


@pytest.fixture
def on_redis(own_valkey: ValkeyServer) -> Broker:
    environment = {"REDIS_PORT": str(own_valkey.port)}
    app = create_app(load(environment))
    with redis.Redis(port=own_valkey.port) as client:
        # The queues alone: pooled connections believe that their bindings are still there.
        client.delete(*(f"beatline:{name}" for name in QUEUES))
    return Broker(own_valkey, environment, app)


@pytest.fixture
def on_rabbitmq(rabbitmq: RabbitServer, own_valkey: ValkeyServer) -> Broker:
    environment = {
        "CELERY_BROKER": "rabbitmq",
        "CELERY_RABBITMQ_PORT": str(rabbitmq.port),
        "REDIS_PORT": str(own_valkey.port),
    }
    app = create_app(load(environment))
    remove_queues(app, *QUEUES)
    return Broker(rabbitmq, environment, app)


@pytest.fixture(params=["on_redis", "on_rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    found: Broker = request.getfixturevalue(request.param)
    yield found
    # Kombu shares them between applications, and the next test's would meet connections that this one broke. The product's own
    # application keeps what it was given, as in a forked child.
    pools.reset()
    product._after_fork()  # type: ignore[attr-defined]  # celery-types does not know it


@pytest.fixture
def publishers() -> Iterator[Callable[[Broker], Publisher]]:
    made: list[Publisher] = []

    def make(broker: Broker) -> Publisher:
        made.append(Publisher(broker.app))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close()


@pytest.fixture
def publisher(broker: Broker, publishers: Callable[[Broker], Publisher]) -> Publisher:
    return publishers(broker)


def runs(count: int, queue: str = "default", task: str = "tell_what_arrived") -> list[Message]:
    return [Message(uuid4(), task, queue) for _ in range(count)]


def ids(messages: list[Message]) -> list[UUID]:
    return [message.run_id for message in messages]


def waiting(app: Celery, queue: str) -> list[Any]:
    """Takes every message out of `queue`, oldest first."""
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        taken = iter(lambda: channel.basic_get(queue, no_ack=True), None)
        return [channel.message_to_python(raw) for raw in taken]


def remove_queues(app: Celery, *queues: str) -> int:
    """Removes them from RabbitMQ; returns how many messages they held."""
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        return sum(channel.queue_delete(queue) for queue in queues)


def test_every_run_arrives_once_and_is_confirmed_in_order(broker: Broker, publisher: Publisher) -> None:
    messages = [message for pair in zip(runs(1200), runs(1200, "audio"), strict=True) for message in pair]
    assert publisher.publish(messages) == ids(messages)
    for queue in ("default", "audio"):
        arrived = [UUID(message.headers["id"]) for message in waiting(broker.app, queue)]
        assert arrived == [message.run_id for message in messages if message.queue == queue]


def test_a_message_is_the_one_celery_would_send_with_the_header_added(broker: Broker, publisher: Publisher) -> None:
    (run,) = runs(1)
    publisher.publish([run])
    with broker.app.producer_or_acquire() as producer:
        broker.app.send_task(run.task, task_id=str(run.run_id), queue="default", ignore_result=True, producer=producer)
    ours, celerys = waiting(broker.app, "default")
    assert ours.headers.pop(RUN_HEADER) == 1
    assert ours.headers.pop("origin") == celerys.headers.pop("origin")
    assert ours.headers == celerys.headers
    assert ours.decode() == celerys.decode() == [[], {}, ours.decode()[2]]
    assert (ours.content_type, ours.content_encoding) == (celerys.content_type, celerys.content_encoding)
    for name in ("correlation_id", "delivery_mode", "priority"):
        assert ours.properties[name] == celerys.properties[name]


def test_a_worker_runs_it_and_sees_the_header(broker: Broker, publisher: Publisher, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-c", "1", "-Q", "default"]
    command += ["--include=tests.scheduling.worker.sample_tasks", "--without-mingle", "--without-gossip"]
    (run,) = runs(1)
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | broker.environment | {"SEEN_FOLDER": str(tmp_path)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        assert publisher.publish([run]) == [run.run_id]
        tracked = json.loads(_eventually(tmp_path / str(run.run_id)))
        (pong,) = broker.app.control.ping(timeout=10, limit=1) or [{}]
        plain = broker.app.send_task("tell_what_arrived", queue="default")
        assert plain.get(timeout=30) == "a result"
        assert json.loads(_eventually(tmp_path / plain.id))["header"] is None
        assert [*pong.values()] == [{"ok": "pong"}]
    finally:
        worker.terminate()
        worker.wait(30)
    assert tracked == {"header": 1, "args": [], "kwargs": {}, "ignore_result": True, "queue": "default"}
    assert not _results_of(broker, run.run_id)


def test_a_run_of_an_unknown_queue_is_not_confirmed(broker: Broker, publisher: Publisher) -> None:
    stray, (good,) = runs(2, "defualt"), runs(1)
    assert publisher.publish([stray[0], good, stray[1]]) == [good.run_id]
    assert publisher.publish(stray) == []
    assert publisher.publish([]) == []


def test_a_frozen_broker_costs_seconds_and_is_used_again_later(broker: Broker, publisher: Publisher) -> None:
    messages = runs(3)
    publisher.publish(messages)
    broker.server.pause()
    try:
        for _ in ("while connected", "while connecting"):
            began = time.monotonic()
            with pytest.raises(BrokerAway):
                publisher.publish(messages)
            assert time.monotonic() - began < PATIENCE
    finally:
        broker.server.resume()
    assert publisher.publish(messages) == ids(messages)


def test_a_broker_that_came_back_while_nothing_was_sent_costs_nothing(broker: Broker, publisher: Publisher) -> None:
    messages = runs(3)
    publisher.publish(messages)
    broker.server.stop()
    with pytest.raises(BrokerAway):
        publisher.publish(messages)
    broker.server.start()
    assert publisher.publish(messages) == ids(messages)
    broker.server.stop()
    broker.server.start()
    assert publisher.publish(messages) == ids(messages)


def test_a_closed_publisher_connects_again(publisher: Publisher) -> None:
    messages = runs(2)
    publisher.close()
    assert publisher.publish(messages[:1]) == ids(messages[:1])
    publisher.close()
    publisher.close()
    assert publisher.publish(messages[1:]) == ids(messages[1:])


def test_what_redis_took_before_a_fault_is_known(on_redis: Broker, publishers: Callable[[Broker], Publisher]) -> None:
    taken, refused = runs(2), runs(2, "audio")
    with redis.Redis(port=on_redis.server.port) as client:
        client.set("beatline:audio", "not a list")
        with pytest.raises(BrokerAway, match="WRONGTYPE") as fault:
            publishers(on_redis).publish(taken + refused)
    assert fault.value.confirmed == ids(taken)


def test_a_second_delivery_of_a_run_has_a_tag_of_its_own_on_redis(
    on_redis: Broker, publishers: Callable[[Broker], Publisher]
) -> None:
    publishers(on_redis).publish(runs(1) * 2)
    first, second = waiting(on_redis.app, "default")
    assert first.headers["id"] == second.headers["id"]
    assert first.delivery_tag != second.delivery_tag


def test_runs_that_rabbitmq_returns_are_not_confirmed_and_the_queue_is_made_again(
    on_rabbitmq: Broker, publishers: Callable[[Broker], Publisher]
) -> None:
    publisher, messages = publishers(on_rabbitmq), runs(1)
    publisher.publish(messages)
    remove_queues(on_rabbitmq.app, "default")
    assert publisher.publish(messages) == []
    assert publisher.publish(messages) == ids(messages)
    assert len(waiting(on_rabbitmq.app, "default")) == 1


def test_runs_that_rabbitmq_refuses_are_not_confirmed(
    on_rabbitmq: Broker, publishers: Callable[[Broker], Publisher]
) -> None:
    full = {"x-max-length": 2, "x-overflow": "reject-publish"}
    on_rabbitmq.app.conf.task_queues = [Queue("full", durable=True, queue_arguments=full)]
    publisher, messages = publishers(on_rabbitmq), runs(5, "full")
    confirmed = publisher.publish(messages)
    assert len(confirmed) == remove_queues(on_rabbitmq.app, "full") < len(messages)


def _eventually(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never ran"
        time.sleep(0.05)
    return path.read_text()


def _results_of(broker: Broker, run_id: UUID) -> list[Any]:
    with redis.Redis(port=int(broker.environment["REDIS_PORT"]), db=1) as client:
        return list(client.scan_iter(f"*{run_id}*"))
