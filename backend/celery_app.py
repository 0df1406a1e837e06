"""The Celery application: broker, queues, routes and the system's schedule, by task name only.

`include`, `imports` and `autodiscover_tasks` must never stand here: `celery beat` imports whatever they name.
Workers import the task code by `--include=backend.tasks`.
"""

from __future__ import annotations

import os
from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from celery import Celery
from celery.schedules import crontab
from kombu import Exchange, Queue

from backend.config import Config, load_or_exit

# Above the longest hard time limit of any task: Redis hands a message out again once this has passed unacknowledged.
VISIBILITY_TIMEOUT = 7_200

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
    "check_job_schedules": {"queue": "scheduled"},
    "send_job_alert": {"queue": "default"},
    "http_request": {"queue": "default"},
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


def beat_schedule(config: Config) -> dict[str, dict[str, Any]]:
    """The system's entries: task names as strings. `expires` keeps a stopped worker from finding a heap of ticks."""
    return {
        "call-expiring-policies-daily": {
            "task": "call_expiring_policies",
            "schedule": ZonedCrontab("Asia/Kolkata", hour=10, minute=0),
            "options": {"expires": 6 * 3600},
        },
        "advance-calls": {
            "task": "advance_calls",
            "schedule": config.calls_advance_seconds,
            "options": {"expires": max(1.0, config.calls_advance_seconds * 0.9)},
        },
        "sweep-recordings": {"task": "sweep_recordings", "schedule": 120.0, "options": {"expires": 110}},
        "check-job-schedules": {
            "task": "check_job_schedules",
            "schedule": ZonedCrontab("UTC"),
            "options": {"expires": 50},
        },
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
                "x-delivery-limit": 10,
                "x-dead-letter-exchange": "beatline.dlx",
                "x-dead-letter-routing-key": name,
                "x-consumer-timeout": (limit + 300) * 1000,
            },
        )
        for name, limit in QUEUE_LIMITS.items()
    ]


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
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
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
        "redis_socket_timeout": 10,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "broker_transport_options": _transport_options(config),
        "broker_pool_acquire_timeout": 5,
        "broker_connection_timeout": 4,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_prefetch_multiplier": 1,
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


def create_app(config: Config) -> Celery:
    """An application for `config`; `app` below is the one that `celery -A backend.celery_app` finds."""
    celery = Celery("beatline", broker=config.broker_url, backend=config.result_backend)
    celery.conf.update(_settings(config))
    return celery


# The celery command takes CELERY_<OPTION> for its option: it reads CELERY_BROKER=rabbitmq as `--broker rabbitmq` and hands
# that on in CELERY_BROKER_URL, which would stand above every setting here.
if os.environ.get("CELERY_BROKER_URL") in {"redis", "rabbitmq"}:
    del os.environ["CELERY_BROKER_URL"]

settings = load_or_exit()
app = create_app(settings)
