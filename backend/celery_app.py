"""The Celery application: broker, queues, routes and the system's schedule, by task name only.

`include`, `imports` and `autodiscover_tasks` must never stand here: `celery beat` imports whatever they name.
Workers import the task code by `--include=backend.tasks`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from celery import Celery
from celery.app.amqp import AMQP
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured, SecurityError
from celery.result import AsyncResult
from celery.schedules import crontab
from kombu import Exchange, Queue
from kombu.transport.native_delayed_delivery import (
    MAX_LEVEL,
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
    level_name,
)

from backend.config import Config, Tls, load_or_exit, stop
from backend.environment import ConfigError

# Above the longest hard time limit of any task: Redis hands a message out again once this has passed unacknowledged.
VISIBILITY_TIMEOUT = 7_200

# A message that workers die with is given out this often again, and then is a dead letter.
DELIVERY_LIMIT = 10

# The longest hard time limit of the tasks of each queue, seconds.
QUEUE_LIMITS = {"default": 300, "high_priority": 300, "low_priority": 3_600, "scheduled": 300, "audio": 5_400}

TASK_ROUTES = {
    "call_expiring_policies": {"queue": "scheduled"},
    "advance_calls": {"queue": "scheduled"},
    "sweep_recordings": {"queue": "scheduled"},
    "call_customer": {"queue": "high_priority"},
    "call_next_customers": {"queue": "scheduled"},
    "extract_call_outcome": {"queue": "default"},
    "transcribe_recording": {"queue": "audio"},
    "probe_recording": {"queue": "default"},
    "check_job_schedules": {"queue": "scheduled"},
    "send_job_alert": {"queue": "default"},
    "http_request": {"queue": "default"},
    "process_payment": {"queue": "high_priority"},
    "process_order": {"queue": "default"},
    "drain_dead_letters": {"queue": "scheduled"},
    "requeue_dead_letters": {"queue": "low_priority"},
    "worker_health_check": {"queue": "scheduled"},
    "health_check": {"queue": "scheduled"},
    "cleanup_celery_data": {"queue": "scheduled"},
    "cleanup_recordings": {"queue": "low_priority"},
    "remove_recording_files": {"queue": "low_priority"},
    "cleanup_uploads": {"queue": "low_priority"},
    "cleanup_expired_sessions": {"queue": "scheduled"},
    "sync_user_stats": {"queue": "scheduled"},
    "reset_daily_quotas": {"queue": "scheduled"},
    "backend.tasks.reset_daily_quotas_task": {"queue": "scheduled"},
    "sweep_quotas": {"queue": "scheduled"},
    "log_operation": {"queue": "default"},
    "log_login": {"queue": "default"},
    "sweep_audit_outbox": {"queue": "scheduled"},
    "send_notification": {"queue": "high_priority"},
    "send_email": {"queue": "high_priority"},
    "deliver_notification": {"queue": "high_priority"},
    "deliver_notifications": {"queue": "scheduled"},
    "send_bulk_email": {"queue": "low_priority"},
    "load_cache_schedules": {"queue": "scheduled"},
    "noop": {"queue": "default"},
    "sleep": {"queue": "low_priority"},
}


class ZonedCrontab(crontab):
    """A crontab in a time zone of its own, whatever the application's zone is.

    Celery's crontab is wrong at DST changes; it serves here only as notation for the system's entries.
    """

    def __init__(self, zone: str, **fields: str | int) -> None:
        self._zone = ZoneInfo(zone)
        super().__init__(**fields)

    @property
    def tz(self) -> tzinfo:  # type: ignore[override]  # celery-types says str, Celery compares a tzinfo
        return self._zone

    def __reduce__(self) -> tuple[Any, ...]:
        fields = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        return _zoned_crontab, (self._zone.key, {name: getattr(self, f"_orig_{name}") for name in fields})


def _zoned_crontab(zone: str, fields: dict[str, str | int]) -> ZonedCrontab:
    return ZonedCrontab(zone, **fields)


def _entry(task: str, when: crontab | float, *, expires: float) -> dict[str, Any]:
    return {"task": task, "schedule": when, "options": {"expires": expires}}


def beat_schedule(config: Config) -> dict[str, dict[str, Any]]:
    """The system's entries: task names as strings. `expires` keeps a stopped worker from finding a heap of ticks."""
    return {
        "call-expiring-policies-daily": _entry(
            "call_expiring_policies", ZonedCrontab("Asia/Kolkata", hour=10, minute=0), expires=6 * 3600
        ),
        "advance-calls": _entry(
            "advance_calls", config.calls_advance_seconds, expires=max(1.0, config.calls_advance_seconds * 0.9)
        ),
        "sweep-recordings": _entry("sweep_recordings", 120.0, expires=110),
        "check-job-schedules": _entry("check_job_schedules", ZonedCrontab("UTC"), expires=50),
        "drain-dead-letters": _entry("drain_dead_letters", ZonedCrontab("UTC"), expires=50),
        "sweep-audit-outbox": _entry("sweep_audit_outbox", ZonedCrontab("UTC"), expires=50),
        "deliver-notifications": _entry("deliver_notifications", ZonedCrontab("UTC"), expires=50),
        "load-cache-schedules": _entry("load_cache_schedules", ZonedCrontab("UTC"), expires=50),
        "worker-health-check": _entry("worker_health_check", ZonedCrontab("UTC", minute="*/5"), expires=240),
        "health-check": _entry("health_check", 300.0, expires=240),
        "cleanup-celery-data": _entry("cleanup_celery_data", ZonedCrontab("UTC", minute=0, hour="*/6"), expires=3600),
        "cleanup-recordings": _entry(
            "cleanup_recordings", ZonedCrontab("UTC", minute=30, hour="*/6"), expires=3 * 3600
        ),
        "cleanup-uploads": _entry("cleanup_uploads", ZonedCrontab("UTC", minute="10,40"), expires=1500),
        "cleanup-expired-sessions": _entry(
            "cleanup_expired_sessions", ZonedCrontab("UTC", minute=0, hour=0), expires=6 * 3600
        ),
        "sync-user-stats": _entry("sync_user_stats", ZonedCrontab("UTC", minute=0), expires=1800),
        "reset-daily-quotas": _entry("reset_daily_quotas", ZonedCrontab("UTC", minute=0, hour=0), expires=12 * 3600),
        "sweep-quotas": _entry("sweep_quotas", ZonedCrontab("UTC", minute="*/15"), expires=600),
    }


def _queues(config: Config) -> list[Queue]:
    exchange = Exchange("beatline", type="topic", durable=True)
    if config.broker_is_redis:
        return [Queue(name, exchange, routing_key=name, durable=True) for name in QUEUE_LIMITS]
    return [
        Queue(
            name,
            exchange,
            routing_key=name,
            durable=True,
            queue_arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": "beatline.dlx",
                "x-dead-letter-routing-key": name,
                "x-consumer-timeout": (limit + 300) * 1000,
            },
        )
        for name, limit in QUEUE_LIMITS.items()
    ]


def _redis_tls(tls: Tls | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED if tls.verify else ssl.CERT_NONE,
        "ssl_check_hostname": tls.verify,
        "ssl_ca_certs": tls.ca,
        "ssl_certfile": tls.certificate,
        "ssl_keyfile": tls.key,
    }


def _broker_tls(config: Config) -> dict[str, Any] | None:
    """`broker_use_ssl`. RabbitMQ's certificate is compared with the host of the URL; Redis's client does that by itself."""
    tls = config.broker_tls
    if tls is None or config.broker_is_redis:
        return _redis_tls(tls)
    files = {"ca_certs": tls.ca, "certfile": tls.certificate, "keyfile": tls.key}
    if not tls.verify:
        return {"cert_reqs": ssl.CERT_NONE, **files}
    return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": urlsplit(config.broker_url).hostname, **files}


def _signing(config: Config) -> dict[str, Any]:
    """Celery's `auth` serializer: the arguments of a message are signed, and nothing unsigned is accepted."""
    if config.signing is None:
        return {"task_serializer": "json", "event_serializer": "json", "accept_content": ["json"]}
    return {
        "task_serializer": "auth",
        "event_serializer": "auth",
        "accept_content": ["auth"],
        "security_key": config.signing.key,
        "security_certificate": config.signing.certificate,
        "security_cert_store": config.signing.store,
    }


def _transport_options(config: Config) -> dict[str, Any]:
    if not config.broker_is_redis:
        return {"confirm_publish": True, "connect_timeout": 4, "read_timeout": 30, "write_timeout": 30}
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "unacked_restore_limit": 500,
        "global_keyprefix": "beatline:",
        "health_check_interval": 25,
        # Without a socket timeout a publish to a dead peer blocks for ever.
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "priority_steps": [0],
        "queue_order_strategy": "priority",
    }


def _settings(config: Config) -> dict[str, Any]:
    return {
        "enable_utc": True,
        "timezone": "UTC",
        **_signing(config),
        "result_serializer": "json",
        "result_accept_content": ["json"],
        "task_queues": _queues(config),
        "task_routes": TASK_ROUTES,
        # A misspelt queue name must fail, not make a queue that nobody reads.
        "task_create_missing_queues": False,
        "task_default_queue": "default",
        "task_default_queue_type": "classic" if config.broker_is_redis else "quorum",
        "task_default_exchange": "beatline",
        "task_default_exchange_type": "topic",
        "task_default_routing_key": "default",
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 3,
            "interval_start": 0.1,
            "interval_step": 0.3,
            "interval_max": 1.0,
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_soft_time_limit": 270,
        "task_time_limit": 300,
        "result_expires": config.result_expires,
        "result_backend_transport_options": {"global_keyprefix": "beatline:"},
        # A database that is away is given up, as Redis is; celery asks a pooled connection before it uses it.
        "database_engine_options": {
            "pool_pre_ping": True,
            "pool_recycle": 3600,
            "connect_args": {"connect_timeout": 5, "keepalives_idle": 10, "tcp_user_timeout": 10_000},
        },
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "redis_backend_use_ssl": _redis_tls(config.redis_tls),
        "broker_use_ssl": _broker_tls(config),
        "broker_transport_options": _transport_options(config),
        "broker_pool_acquire_timeout": 5,
        "broker_connection_timeout": 4,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "backend.core.broker:ForgivingConsumer",
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "beat_scheduler": "backend.beat:DatabaseScheduler",
        "beat_max_loop_interval": 1,
        "beat_enable_remote_control": True,
        # A database that is frozen is given up after 15 s, which still counts as ticking.
        "beat_remote_control_max_tick_age": 30,
        "beat_schedule": beat_schedule(config),
    }


class Topology(AMQP):
    """Queues and what delays messages exist before anybody needs them, whichever process comes first to a fresh RabbitMQ."""

    _delays_declared = False

    def TaskConsumer(self, channel: Any, *args: Any, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """Celery declares the queues that this worker reads, and then binds all of them to the delays: those must exist."""
        for queue in self.queues.values():
            queue(channel).declare()
        return super().TaskConsumer(channel, *args, **options)

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()  # type: ignore[misc]  # celery-types leaves it out

        def send_declared(producer: Any, name: str, message: Any, exchange: Any = None, **options: Any) -> Any:
            if getattr(exchange, "name", "") != level_name(MAX_LEVEL):
                return send(producer, name, message, exchange=exchange, **options)
            self._declare_delays()
            try:
                return send(producer, name, message, exchange=exchange, **options)
            except producer.connection.channel_errors:
                # Not found: the broker was replaced since.
                self._delays_declared = False
                self._declare_delays()
                return send(producer, name, message, exchange=exchange, **options)

        return send_declared

    def _declare_delays(self) -> None:
        """What a worker declares at its start, for a producer that comes first; once per process, about 100 round trips."""
        if self._delays_declared:
            return
        with self.app.connection_for_write() as connection:
            kind = self.app.conf.broker_native_delayed_delivery_queue_type
            declare_native_delayed_delivery_exchanges_and_queues(connection, kind)
            for queue in self.queues.values():
                queue(connection.default_channel).declare()
                bind_queue_to_native_delayed_delivery_exchange(connection, queue)
        self._delays_declared = True


class Application(Celery):
    """A producer that wants no result does not load the result store: its driver stays out of Beat."""

    amqp_cls = Topology  # type: ignore[assignment]  # celery-types knows its name alone

    def send_task(self, name: str, *args: Any, **options: Any) -> AsyncResult[Any]:
        if options.get("ignore_result"):
            options.setdefault("result_cls", partial(self.AsyncResult, backend=DisabledBackend(app=self)))
        return super().send_task(name, *args, **options)


def create_app(config: Config) -> Celery:
    """An application for `config`; `app` below is the one that `celery -A backend.celery_app` finds.

    Signing settings count for the whole process. Raises ConfigError when their files cannot be used.
    """
    # Results in PostgreSQL are for those who have SQLAlchemy; Beat's image has not.
    stored = config.result_backend and (config.result_backend.startswith("redis") or find_spec("sqlalchemy"))
    celery = Application("beatline", broker=config.broker_url)
    # Not the setting: Celery takes the variable CELERY_RESULT_BACKEND, which says `redis` or `postgresql` here, for its value.
    celery.backend_cls = config.result_backend if stored else "disabled"
    celery.conf.update(_settings(config))
    if config.signing is not None:
        try:
            celery.setup_security()
        except ImproperlyConfigured as fault:
            raise ConfigError("CELERY_SIGNING_KEY needs the Python package cryptography") from fault
        except (SecurityError, ValueError, TypeError) as fault:
            raise ConfigError(f"CELERY_SIGNING_KEY and its certificates cannot be used: {fault}") from fault
    return celery


# The celery command takes CELERY_<OPTION> for its option: it reads CELERY_BROKER=rabbitmq as `--broker rabbitmq` and hands
# that on in CELERY_BROKER_URL, which would stand above every setting here.
if os.environ.get("CELERY_BROKER_URL") in {"redis", "rabbitmq"}:
    del os.environ["CELERY_BROKER_URL"]

settings = load_or_exit()
try:
    app = create_app(settings)
except ConfigError as fault:
    stop(fault)
    raise
