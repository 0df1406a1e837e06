"""Keeps a worker alive when its broker dies under it, and whatever a message holds; keeps messages that Redis hands out.

kombu 5.7, Redis transport: what it has popped and not yet written down is lost with the server or the worker (`ForgivingChannel`).
A channel that is closed after its connection is gone tries to give unacknowledged messages back, finds no connection parameters,
and the AttributeError ends the worker. Said as a lost connection instead, it is passed over (`Connection.maybe_close_channel`), the
worker connects again and then gives them back. Nothing there ends a message whose workers die; here it is counted.

Celery 5.7: what is no JSON in a Redis list, lacks kombu's frame, or names an unknown task without an id, ends the worker, too.
Here it is logged and dropped (on RabbitMQ: handed to the dead-letter exchange).
"""

import logging
from collections.abc import Callable
from queue import Empty
from time import monotonic, time
from typing import Any

from celery.signals import task_rejected
from celery.worker.consumer import Consumer
from kombu.transport import redis as transport
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

from backend.celery_app import DELIVERY_LIMIT

log = logging.getLogger(__name__)

LOST = (RedisError, OSError)
# How long one of several empty lists is watched; a message for another waits that long times their number at most.
_WATCH_SECONDS = 0.05

# Of the first list that holds something: its name, the message, its delivery tag. The tag is empty, and nothing written down, where
# the message is none of kombu's: whoever reads it drops it.
_CLAIM = """
for i = 1, #KEYS - 2 do
  local item = redis.call('rpop', KEYS[i])
  if item then
    local read, message = pcall(cjson.decode, item)
    local told = read and type(message) == 'table' and message.properties
    local info = type(told) == 'table' and told.delivery_info
    if type(info) ~= 'table' or type(told.delivery_tag) ~= 'string' or type(info.exchange) ~= 'string'
        or type(info.routing_key) ~= 'string' then
      return {KEYS[i], item, ''}
    end
    local kept = '[' .. item .. ',' .. cjson.encode(info.exchange) .. ',' .. cjson.encode(info.routing_key) .. ']'
    redis.call('hset', KEYS[#KEYS - 1], told.delivery_tag, kept)
    redis.call('zadd', KEYS[#KEYS], ARGV[1], told.delivery_tag)
    return {KEYS[i], item, told.delivery_tag}
  end
end
return nil
"""

# RabbitMQ's quorum queues count in this header, and put aside by themselves what goes beyond the limit.
_COUNT = "x-delivery-count"

# Delivery tags of messages that this process could not give back when it lost the broker.
_stranded: set[str] = set()


class DeliveredTooOften(Exception):
    """A message that came back as often as it may: workers died with it, or refused it."""


class ForgivingQoS(transport.QoS):
    """The transport's bookkeeping of unacknowledged messages."""

    channel: Any
    _delivered: Any
    _remove_from_indices: Callable[[str], Any]

    def append(self, message: Any, delivery_tag: str) -> None:
        if self.channel.claimed != delivery_tag:
            super().append(message, delivery_tag)
            return
        # Redis has written it down already.
        self.channel.claimed = None
        virtual.QoS.append(self, message, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        try:
            if self.channel.connection is None or self.channel.connection.client is None:
                raise ConnectionLost("the broker's connection is gone; its unacknowledged messages stay there")
            super().restore_unacked(client)
        except LOST:
            _stranded.update(self._delivered)
            raise

    def write_off(self, tag: str) -> None:
        """Forget a message that was claimed and that no consumer has."""
        self._remove_from_indices(tag).execute()

    def restore_stranded(self) -> None:
        """Give back what this process held when it lost the broker: otherwise it waits for the visibility timeout."""
        for tag in tuple(_stranded):
            self.restore_by_tag(tag)
            _stranded.discard(tag)


class ForgivingChannel(transport.Channel):
    """Takes messages so that none is nowhere, and reads lists into which others may have written.

    Kombu pops a message (BRPOP) and then writes down that it is unacknowledged; what Redis has popped and cannot deliver any more,
    because it or the worker ends, is lost. Here a script does both at once. It cannot wait; where it found nothing, a BLMOVE that
    moves the last message of a list to where it is does. It knows one list, so of several each is watched for a moment in turn.
    """

    QoS = ForgivingQoS
    # Kombu's, which its stubs leave out.
    qos: ForgivingQoS
    connection: Any
    client: Any
    connection_errors: tuple[type[Exception], ...]
    _queue_cycle: Any
    _q_for_pri: Callable[[str, int], str]
    _flush_brpop_reauth: Callable[[], None]
    # The message that was claimed and is not with a consumer yet; whether the lists were empty; which one is watched.
    claimed: str | None = None
    _empty = False
    _watched = 0

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        if _stranded:
            self.qos.restore_stranded()
        lists = [self._prefixed(self._q_for_pri(queue, step)) for step in self.priority_steps for queue in queues]
        self._in_poll, self._brpop_sent_at = self.client.connection, monotonic()
        if self._empty:
            self._watched = (self._watched + 1) % len(lists)
            watched = lists[self._watched]
            wait = (timeout or self.brpop_timeout) if len(lists) == 1 else _WATCH_SECONDS
            order: tuple[Any, ...] = ("BLMOVE", watched, watched, "RIGHT", "RIGHT", wait)
        else:
            keys = (*lists, self._prefixed(self.unacked_key), self._prefixed(self.unacked_index_key))
            order = ("EVAL", _CLAIM, len(keys), *keys, time())
        self.client.connection.send_command(*order)

    def _do_restore_message(
        self, payload: Any, exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        headers = payload.get("headers") if isinstance(payload, dict) else None
        if isinstance(headers, dict):
            headers[_COUNT] = _count(headers) + 1
        super()._do_restore_message(payload, exchange, routing_key, pipe, leftmost)  # type: ignore[misc]  # not in the stubs

    def _prefixed(self, key: str) -> str:
        return f"{self.global_keyprefix}{key}"

    def _brpop_read(self, **options: Any) -> bool:
        try:
            connection, waited = self.client.connection, self._empty
            try:
                answer = self.client.parse_response(connection, "BLMOVE" if waited else "EVAL", **options)
            except self.connection_errors:
                # The next pass connects again, and claims.
                connection.disconnect()
                self._empty = False
                raise
            self._empty = not waited and answer is None
            if waited or answer is None:
                raise Empty
            self._hand_on(*(bytes_to_str(part) for part in answer))
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _hand_on(self, key: str, item: str, tag: str) -> None:
        queue = key.removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        self.claimed = tag or None
        try:
            self.connection._deliver(loads(item), queue)  # noqa: SLF001 - as the transport does
        except ValueError as fault:
            log.critical("dropped a message that is not JSON: %s", fault)
        finally:
            if self.claimed is not None:
                # Dropped, or for a consumer that acknowledges nothing.
                self.qos.write_off(self.claimed)
                self.claimed = None


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
                why = _unfit(message.headers)
                if why is None:
                    handle(message)
                    return
            except lost:
                raise
            except Exception as fault:  # noqa: BLE001 - whatever a stranger's message makes Celery raise
                why = fault
            kind = "malformed" if not isinstance(why, DeliveredTooOften) else "deadly"
            log.critical("dropped a %s message: %r: %r", kind, why, message.headers)
            if not message.acknowledged:
                message.reject_log_error(log, self.connection_errors)
                # As Celery says it of those that it finds malformed itself.
                task_rejected.send(sender=self, message=message, exc=why)

        return handle_any

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Celery acknowledges such a message, which leaves nothing of it; refused, it becomes a dead letter."""
        log.critical("dropped a message that cannot be decoded: %s: %r", exc, message.headers)
        if _is_over(message):
            return
        message.reject_log_error(log, self.connection_errors)
        task_rejected.send(sender=self, message=message, exc=exc)


def _is_over(message: Any) -> bool:
    """Whether the broker has forgotten it: remote control takes messages so, and to refuse one would end the connection."""
    told_nothing = getattr(message.channel, "no_ack_consumers", None) or ()
    return message.delivery_info.get("consumer_tag") in told_nothing


def _unfit(headers: Any) -> Exception | None:
    """Why no task is to be begun for a message."""
    if not _well_formed(headers):
        return TypeError("headers of the wrong kind")
    if isinstance(headers, dict) and _count(headers) > DELIVERY_LIMIT:
        return DeliveredTooOften(f"given back {_count(headers)} times: it may kill whoever takes it")
    return None


def _count(headers: dict[str, Any]) -> int:
    """How often a message was given back; anybody may have written its headers."""
    count = headers.get(_COUNT)
    return count if isinstance(count, int) else 0


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
