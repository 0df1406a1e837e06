"""What the broker tells of its queues. Blocking; each call makes a connection of its own, with short time limits."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import amqp
from celery import Celery
from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from backend.core.dead_letter_exchange import QUEUE

FAULTS = (OSError, RedisError, KombuError, amqp.AMQPError)

_TIMEOUT_SECONDS = 4
# Each is a whole message; workers hold about one per process.
_MOST_UNACKNOWLEDGED = 2_000


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages of one queue; None where the broker does not tell."""

    ready: int
    unacknowledged: int | None
    consumers: int | None


@contextmanager
def connected(app: Celery) -> Iterator[Connection]:
    """A connection that gives up after _TIMEOUT_SECONDS of silence."""
    options = {"connect_timeout": _TIMEOUT_SECONDS, "read_timeout": _TIMEOUT_SECONDS, "write_timeout": _TIMEOUT_SECONDS}
    if app.connection_for_read().transport.driver_type == "redis":
        options = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _TIMEOUT_SECONDS}
    with app.connection_for_read(transport_options=options, heartbeat=0) as connection:
        connection.ensure_connection(max_retries=1, timeout=_TIMEOUT_SECONDS, reraise_as_library_errors=False)
        yield connection


def ping(app: Celery) -> None:
    """Raises one of FAULTS while the broker is away."""
    with connected(app) as connection:
        connection.channel()


def depths(app: Celery, names: Sequence[str]) -> dict[str, Depth]:
    """By queue; on RabbitMQ also of the queue of dead letters. A queue that nobody has declared yet is empty."""
    with connected(app) as connection:
        if connection.transport.driver_type == "redis":
            return _of_redis(connection, names)
        return {name: _of_rabbitmq(connection, name) for name in (*names, QUEUE)}


def _of_redis(connection: Connection, names: Sequence[str]) -> dict[str, Depth]:
    channel: Any = connection.default_channel
    with channel.conn_or_acquire() as client:
        ready = {name: int(client.llen(name)) for name in names}
        held = _unacknowledged(client, channel)
    return {name: Depth(ready[name], None if held is None else held[name], None) for name in names}


def _unacknowledged(client: Any, channel: Any) -> Counter[str] | None:
    """Messages that workers hold, by queue; None for more than anybody wants to look at."""
    if client.hlen(channel.unacked_key) > _MOST_UNACKNOWLEDGED:
        return None
    # Kombu prefixes the keys of the commands that it uses itself, and HVALS is none of them.
    values = client.execute_command("HVALS", f"{channel.global_keyprefix}{channel.unacked_key}")
    return Counter(str(json.loads(value)[2]) for value in values)


def _of_rabbitmq(connection: Connection, name: str) -> Depth:
    """RabbitMQ tells unacknowledged messages through its management plug-in alone."""
    # A passive declaration of what does not exist closes the channel.
    channel: Any = connection.channel()
    try:
        found = channel.queue_declare(name, passive=True)
    except amqp.NotFound:
        return Depth(0, None, 0)
    channel.close()
    return Depth(found.message_count, None, found.consumer_count)
