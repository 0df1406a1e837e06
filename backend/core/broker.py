"""Keeps a worker alive when its broker dies under it, and whatever a message holds.

kombu 5.7, Redis transport: a channel that is closed after its connection is gone tries to give unacknowledged messages back,
finds no connection parameters, and the AttributeError ends the worker. Said as a lost connection instead, it is passed over
(`Connection.maybe_close_channel`) and the worker connects again. The messages stay with the broker; claims and sweeps send what
they stood for before the visibility timeout does.

Celery 5.7: what is no JSON in a Redis list, lacks kombu's frame, or names an unknown task without an id, ends the worker, too.
Here it is logged and dropped (on RabbitMQ: handed to the dead-letter exchange).
"""

import logging
from collections.abc import Callable
from typing import Any

from celery.signals import task_rejected
from celery.worker.consumer import Consumer
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as ConnectionLost

log = logging.getLogger(__name__)


class ForgivingQoS(transport.QoS):
    """The transport's bookkeeping of unacknowledged messages."""

    def restore_unacked(self, client: Any = None) -> None:
        if self.channel.connection is None or self.channel.connection.client is None:
            raise ConnectionLost("the broker's connection is gone; its unacknowledged messages stay there")
        super().restore_unacked(client)


class ForgivingChannel(transport.Channel):
    """Reads lists into which others may have written."""

    QoS = ForgivingQoS

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # kombu's stubs leave it out
        except ValueError as fault:
            log.critical("dropped a message that is not JSON: %s", fault)
            return True


class ForgivingTransport(transport.Transport):
    """Hands on what has the frame of a message."""

    Channel = ForgivingChannel

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except (AttributeError, LookupError, TypeError, ValueError) as fault:
            log.critical("dropped a message without kombu's frame from %s: %r", queue, fault)


class ForgivingConsumer(Consumer):
    """Celery's, but for a message that makes it raise. Named by `worker_consumer`."""

    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **options)
        # A KeyError, which kombu counts among Redis's lost connections, comes from the message here.
        lost = tuple(kind for kind in (*self.connection_errors, *self.channel_errors) if kind is not KeyError)

        def handle_any(message: Any) -> None:
            try:
                if _well_formed(message.headers):
                    handle(message)
                    return
                why: Exception = TypeError("headers of the wrong kind")
            except lost:
                raise
            except Exception as fault:  # noqa: BLE001 - whatever a stranger's message makes Celery raise
                why = fault
            log.critical("dropped a malformed message: %r: %r", why, message.headers)
            if not message.acknowledged:
                message.reject_log_error(log, self.connection_errors)
                # As Celery says it of those that it finds malformed itself.
                task_rejected.send(sender=self, message=message, exc=why)

        return handle_any

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Celery acknowledges such a message, which leaves nothing of it; refused, it becomes a dead letter."""
        log.critical("dropped a message that cannot be decoded: %s: %r", exc, message.headers)
        message.reject_log_error(log, self.connection_errors)
        task_rejected.send(sender=self, message=message, exc=exc)


def _well_formed(headers: Any) -> bool:
    """Whether what Celery uses unchecked is what it takes it for: a wrong limit would cost a place of the pool for good."""
    if not isinstance(headers, dict) or "task" not in headers:
        return True  # Celery knows these
    limits = headers.get("timelimit") or (None, None)
    return (
        isinstance(headers["task"], str)
        and isinstance(headers.get("id"), str)
        and isinstance(headers.get("retries") or 0, int)
        and isinstance(limits, list | tuple)
        and len(limits) == 2
        and all(limit is None or isinstance(limit, int | float) for limit in limits)
    )


def install() -> None:
    """For every Redis connection that this process opens from now on."""
    transport.Transport = ForgivingTransport  # type: ignore[misc]  # kombu finds it by this name
