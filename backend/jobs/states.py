"""The words of schedules and runs. The database's CHECK constraints and the engine's SQL use the same ones."""

from enum import StrEnum


class ScheduleType(StrEnum):
    CRON = "cron"
    INTERVAL = "interval"
    ONCE = "once"


class MisfirePolicy(StrEnum):
    """What becomes of occurrences that could not be dispatched on time; those past the grace are always missed."""

    SKIP = "skip"
    COALESCE = "coalesce"
    RUN_ALL = "run_all"


class OverlapPolicy(StrEnum):
    """What becomes of an occurrence that is due while a run of its schedule is still under way."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    QUEUE_ALL = "queue_all"
    CANCEL_PREVIOUS = "cancel_previous"


class RunState(StrEnum):
    """`waiting`: for another run to end. `pending`: to be sent. `failed`: no retry can help. `dead`: tries used up, or lost.

    `coalesced`, `skipped` and `missed` are occurrences without a run of their own; `reason` says why.
    """

    WAITING = "waiting"
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    MISSED = "missed"
    SKIPPED = "skipped"
    COALESCED = "coalesced"


class RunTrigger(StrEnum):
    SCHEDULE = "schedule"
    MANUAL = "manual"
    BACKFILL = "backfill"
    REPLAY = "replay"
    ALERT = "alert"


ACTIVE = (RunState.WAITING, RunState.PENDING, RunState.QUEUED, RunState.RUNNING)


def sql_list(words: type[StrEnum] | tuple[StrEnum, ...]) -> str:
    """The words as the right side of an SQL `in`."""
    return "(" + ",".join(f"'{word}'" for word in words) + ")"
