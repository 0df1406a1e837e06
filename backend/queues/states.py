"""The states of letters and of tasks that the API has sent."""

from collections.abc import Iterable
from enum import StrEnum


class LetterState(StrEnum):
    """Of a dead letter: somebody has to decide, or has decided."""

    OPEN = "open"
    REQUEUED = "requeued"
    DISCARDED = "discarded"


class TaskState(StrEnum):
    """Of a task: Celery's own, and EXPIRED for one whose result is kept no longer."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"


def sql_list(values: Iterable[str]) -> str:
    return "(" + ",".join(f"'{value}'" for value in values) + ")"
