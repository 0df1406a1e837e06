"""Runs to the broker: in batches, each message confirmed, with the run's id and nothing else.

A message is a Celery task message (protocol 2) without arguments and without a result; its task id is the run's id and its
header `beatline-run` is 1. A bound task reads the header as `self.request.get("beatline-run")`, which is None for a
message that somebody else sent and for a direct call. The worker reads everything else from PostgreSQL.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID, uuid4

import amqp
from celery import Celery
from kombu import Connection, Queue
from kombu.exceptions import KombuError
from kombu.serialization import dumps
from redis.exceptions import RedisError

RUN_HEADER = "beatline-run"

# A broker that is dead or frozen costs an attempt this long at every step that waits, and the first such step ends it.
TIMEOUT_SECONDS = 4.0

# Redis takes this many messages in one command: it serves nobody else meanwhile, and half a megabyte needs 1 ms.
REDIS_BATCH = 500

# RabbitMQ's quorum queues confirm in bulk, once per write to the disk: more in flight, fewer writes.
RABBITMQ_IN_FLIGHT = 500

# Stands for the run's id in a message made in advance.
_BLANK = str(UUID(int=0))

_FAULTS = (OSError, RedisError, KombuError, amqp.AMQPError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A tracked run: no arguments travel, the worker reads them from PostgreSQL."""

    run_id: UUID
    task: str
    queue: str


class BrokerAway(Exception):
    """The broker did not answer, or refused.

    `confirmed` holds the ids it had taken before. Nothing is known about the others: publish them again later, their run
    ids make that harmless.
    """

    def __init__(self, why: str, confirmed: list[UUID]) -> None:
        super().__init__(why)
        self.confirmed = confirmed


class _Line(Protocol):
    """One connection to a broker; useless after its first fault."""

    def open(self) -> None:
        """Connect, once."""

    def hung_up(self) -> bool:
        """Whether the other side has closed the connection while it was idle."""

    def send(self, messages: Sequence[Message], confirmed: set[UUID]) -> None:
        """Send and wait, adding to `confirmed` as the broker answers."""

    def close(self) -> None:
        """Drop the connection without asking the other side."""


class Publisher:
    """Publishes runs to the broker of `app`, in batches, each confirmed.

    Not thread-safe: one thread at a time. Blocking. Connects lazily and reconnects after a fault.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._line: _Line | None = None

    def publish(self, messages: Sequence[Message]) -> list[UUID]:
        """The ids that the broker has confirmed, in order.

        Those of an unknown queue, and those that RabbitMQ returned or refused, are missing. Raises BrokerAway when the
        connection fails, about 5 s after the broker's last answer at most.
        """
        known = [message for message in messages if message.queue in self._app.amqp.queues]
        for queue in {message.queue for message in messages if message.queue not in self._app.amqp.queues}:
            log.error("no queue is named %s; its runs are not published", queue)
        confirmed: set[UUID] = set()
        if known:
            try:
                self._connected().send(known, confirmed)
            except _FAULTS as fault:
                self.close()
                raise BrokerAway(f"{type(fault).__name__}: {fault}", _in_order(known, confirmed)) from fault
        return _in_order(known, confirmed)

    def close(self) -> None:
        """Drop the connection; the next `publish` makes a new one."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _connected(self) -> _Line:
        if self._line is not None and self._line.hung_up():
            self.close()
        if self._line is None:
            self._line = _line(self._app)
            self._line.open()
        return self._line


def _in_order(messages: Sequence[Message], confirmed: set[UUID]) -> list[UUID]:
    return [message.run_id for message in messages if message.run_id in confirmed]


def _line(app: Celery) -> _Line:
    options = {"connect_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS, "confirm_publish": False}
    if app.connection_for_write().transport.driver_type == "redis":
        # Without checks of its own: what is sent is the check. A command that is tried again could be doubled.
        options = {
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "health_check_interval": 0,
            "retry_on_timeout": False,
        }
        return _RedisLine(app, app.connection_for_write(transport_options=options))
    # Nobody would send heartbeats between two publishes; TCP's keepalive finds a lost peer.
    return _RabbitLine(app, app.connection_for_write(transport_options=options, heartbeat=0))


def _task_message(app: Celery, task: str, run_id: str, channel: Any) -> Any:
    """A message of `channel`'s kind, as `send_task` would make it, signed where messages are."""
    parts = app.amqp.as_task_v2(run_id, task, args=(), kwargs={}, ignore_result=True)
    content_type, encoding, body = _body(app.conf.task_serializer, json.dumps(parts.body))
    return channel.prepare_message(
        body, 0, content_type, encoding, parts.headers | {RUN_HEADER: 1}, parts.properties | {"delivery_mode": 2}
    )


@lru_cache(maxsize=16)
def _body(serializer: str, body: str) -> tuple[str, str, Any]:
    """Runs have no arguments, so that all bodies are the same: a signature costs a millisecond, once."""
    content_type, encoding, text = dumps(json.loads(body), serializer=serializer)
    return content_type, encoding, text


def _chunks(messages: Sequence[Message], size: int) -> Iterator[Sequence[Message]]:
    return (messages[start : start + size] for start in range(0, len(messages), size))


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What Kombu would push for one task and queue, with blanks for the ids of the run and of the delivery."""

    key: str
    text: str
    tag: str

    def filled(self, run_id: UUID) -> str:
        # A delivery tag of its own: a second delivery of the run must not share the first one's entry in `unacked`.
        return self.text.replace(_BLANK, str(run_id)).replace(self.tag, str(uuid4()))


class _Recorder:
    """Stands where Kombu's batch would, and keeps the one command that a message becomes."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []

    def add(self, *command: str) -> None:
        self.commands.append(command)


class _RedisLine:
    """One LPUSH per queue and batch, of envelopes made in advance; its answer is the confirmation."""

    def __init__(self, app: Celery, link: Connection) -> None:
        self._app = app
        self._transport = link.transport
        self._connection: Any = None
        self._channel: Any = None
        self._envelopes: dict[tuple[str, str], _Envelope] = {}

    def open(self) -> None:
        self._connection = self._transport.establish_connection()
        self._channel = self._transport.create_channel(self._connection)

    def hung_up(self) -> bool:
        return False  # redis-py looks before each use, and connects again

    def send(self, messages: Sequence[Message], confirmed: set[UUID]) -> None:
        with self._channel.conn_or_acquire() as client:
            for chunk in _chunks(messages, REDIS_BATCH):
                pushes: dict[str, list[Message]] = {}
                for message in chunk:
                    pushes.setdefault(self._envelope(message).key, []).append(message)
                for key, together in pushes.items():
                    client.lpush(key, *(self._envelope(message).filled(message.run_id) for message in together))
                    confirmed.update(message.run_id for message in together)

    def close(self) -> None:
        if self._connection is not None:
            self._transport.close_connection(self._connection)

    def _envelope(self, message: Message) -> _Envelope:
        made = self._envelopes.get((message.task, message.queue))
        if made is None:
            made = self._envelopes[message.task, message.queue] = self._make(message)
        return made

    def _make(self, message: Message) -> _Envelope:
        prepared = _task_message(self._app, message.task, _BLANK, self._channel)
        recorder = _Recorder()
        # The empty exchange leads straight to the queue, without a look at the bindings.
        self._channel.basic_publish(prepared, exchange="", routing_key=message.queue, _publish_batch=recorder)
        ((command, key, text),) = recorder.commands
        if command != "lpush":
            raise RuntimeError(f"Kombu sends {command} where LPUSH was expected")
        return _Envelope(key, text, prepared["properties"]["delivery_tag"])


class _RabbitLine:
    """A channel in confirm mode with many messages in flight; a message without a queue comes back and is not confirmed."""

    def __init__(self, app: Celery, link: Connection) -> None:
        self._app = app
        self._transport = link.transport
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[str] = set()
        self._tag = 0
        self._in_flight: dict[int, UUID] = {}
        self._returned: set[UUID] = set()
        self._confirmed: set[UUID] = set()

    def open(self) -> None:
        self._connection = self._transport.establish_connection()
        # Nothing after the handshake may wait for ever either.
        self._connection.transport.sock.settimeout(TIMEOUT_SECONDS)
        self._channel = self._connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)

    def hung_up(self) -> bool:
        try:
            self._connection.drain_events(timeout=0)
        except TimeoutError:
            return False
        except (OSError, amqp.AMQPError):
            return True
        return False

    def send(self, messages: Sequence[Message], confirmed: set[UUID]) -> None:
        self._confirmed = confirmed
        self._returned.clear()
        for message in messages:
            self._declare(message.queue)
            while len(self._in_flight) >= RABBITMQ_IN_FLIGHT:
                self._connection.drain_events(timeout=TIMEOUT_SECONDS)
            self._tag += 1
            self._in_flight[self._tag] = message.run_id
            prepared = _task_message(self._app, message.task, str(message.run_id), self._channel)
            self._channel.basic_publish(prepared, exchange="", routing_key=message.queue, mandatory=True)
        while self._in_flight:
            self._connection.drain_events(timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.collect()

    def _declare(self, name: str) -> None:
        if name not in self._declared:
            queue: Queue = self._app.amqp.queues[name]
            queue(self._channel).declare()
            self._declared.add(name)

    def _settle(self, tag: int, multiple: bool) -> list[UUID]:
        # Tags grow, and so does the order of the keys.
        if not multiple:
            return [self._in_flight.pop(tag)]
        settled = []
        while self._in_flight and (first := next(iter(self._in_flight))) <= tag:
            settled.append(self._in_flight.pop(first))
        return settled

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._confirmed.update(run_id for run_id in self._settle(tag, multiple) if run_id not in self._returned)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        refused = self._settle(tag, multiple)
        log.error("RabbitMQ refused %d runs", len(refused))

    def _on_return(self, why: Exception, _exchange: str, queue: str, message: amqp.Message) -> None:
        """Comes before the confirmation of the same message. Someone has removed the queue: declare it next time."""
        log.error("RabbitMQ has no queue %s: %s", queue, why)
        self._declared.discard(queue)
        self._returned.add(UUID(message.properties["correlation_id"]))
