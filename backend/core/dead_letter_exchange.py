"""What no worker could end, as the broker and the worker's parent process see it.

RabbitMQ puts refused messages on an exchange with a queue, which every worker declares when it connects: without them the broker
would throw such messages away. Redis has no such thing; what a worker refuses there becomes a dead letter at once.
"""

import hashlib
import logging
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from kombu import Exchange, Queue

from backend.celery_app import settings
from backend.config import Config
from backend.core import dead_letters
from backend.core.dead_letters import Kind, Letter
from backend.scheduling.publisher import RUN_HEADER

log = logging.getLogger(__name__)

EXCHANGE, QUEUE = "beatline.dlx", "dead_letters"
_MAX_BODY = 16_384


def dead_letter_queue() -> Queue:
    """Of every queue's dead messages; their routing key is the name of the queue they come from."""
    exchange = Exchange(EXCHANGE, type="topic", durable=True)
    return Queue(QUEUE, exchange, routing_key="#", durable=True, queue_arguments={"x-queue-type": "quorum"})


class _Declare(bootsteps.StartStopStep):
    """Once the worker has its connection; again after each reconnection, since the broker may be a new one."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        if parent.connection.transport.driver_type == "amqp":
            with parent.connection.channel() as channel:
                dead_letter_queue()(channel).declare()


class WatchedRequest(Request):
    """A request whose hard time limit, which kills the process that works on it, leaves a dead letter.

    Arguments that are none are refused at once; in the pool they would cost the message its acknowledgement.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not isinstance(self.args, list | tuple) or not isinstance(self.kwargs, dict):
            raise InvalidTaskError("its arguments are not a list and a mapping")

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        """Celery tells the result store first; where that is away, too, it takes the request for a revoked one and acknowledges."""
        self._already_cancelled = True
        super()._announce_cancelled(emit_retry)  # type: ignore[misc]  # celery-types leaves it out

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft and not self.request_dict.get(RUN_HEADER):
            found = dead_letters.letter(
                self.name,
                self.id,
                dead_letters.queue_of(dict(self.delivery_info)),
                kind=Kind.TIMED_OUT,
                args=self.args,
                kwargs=self.kwargs,
                error=f"not done within its hard time limit of {timeout:g} s; its process was killed",
                retries=self.request_dict.get("retries") or 0,
                again=self.request_dict.get(dead_letters.LETTER_HEADER),
            )
            dead_letters.record_apart(settings.database_url, found)
        super().on_timeout(soft, timeout)


def of_message(message: Any, queue: str, why: str, death: str | None = None) -> Letter | None:
    """The letter of a message that was refused; None for a tracked run's, which is sent again from its row.

    `message` is Kombu's; what it may hold (JSON, signed or not) follows from the connection's `accept`.
    """
    headers = dict(message.headers or {})
    if headers.get(RUN_HEADER):
        return None
    args, kwargs = _arguments(message)
    task, task_id, retries = headers.get("task"), headers.get("id"), headers.get("retries")
    if not isinstance(task, str) or not isinstance(task_id, str) or args is None:
        return _malformed(headers, message.body, queue, why, death)
    return dead_letters.letter(
        task,
        task_id,
        queue,
        kind=Kind.REJECTED,
        args=args,
        kwargs=kwargs,
        error=why,
        retries=retries if isinstance(retries, int) else 0,
        death=death,
        again=headers.get(dead_letters.LETTER_HEADER),
    )


def _arguments(message: Any) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Of a task message of protocol 2; None and None for anything else."""
    try:
        args, kwargs, _ = message.decode()
    # Whoever wrote the body may have made any codec fail in any way.
    except Exception as fault:  # noqa: BLE001
        log.warning("a dead message cannot be read: %s: %s", type(fault).__name__, fault)
        return None, None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else (None, None)


def _malformed(headers: dict[str, Any], body: object, queue: str, why: str, death: str | None) -> Letter:
    raw = body if isinstance(body, bytes) else str(body).encode(errors="replace")
    # Messages of the same content are one letter, whose count grows.
    digest = hashlib.sha256(raw + repr(sorted(headers)).encode()).hexdigest()[:32]
    found = dead_letters.letter(
        str(headers.get("task") or ""),
        f"malformed:{digest}",
        queue,
        kind=Kind.MALFORMED,
        args=[],
        kwargs={"body": raw[:_MAX_BODY].decode(errors="replace"), "headers": {k: str(v) for k, v in headers.items()}},
        error=why,
        death=death,
    )
    return dead_letters.unsendable(found)


def install(app: Celery, config: Config) -> None:
    """For the worker that this process becomes, if it becomes one."""
    app.steps["consumer"].add(_Declare)

    def refused(message: Any, exc: Exception | None = None, **_: object) -> None:
        why = f"refused by the worker: {f'{type(exc).__name__}: {exc}' if exc else 'not a task message'}"
        found = of_message(message, dead_letters.queue_of(message.delivery_info), why)
        if found is not None:
            dead_letters.record_apart(config.database_url, found)

    if config.broker_is_redis:
        signals.task_unknown.connect(refused, weak=False)
        signals.task_rejected.connect(refused, weak=False)
