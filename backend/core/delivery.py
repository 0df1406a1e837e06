"""The message that a handler works for, and work that was put off."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from backend.core.errors import TransientError


class Postponed(TransientError):
    """The work was not begun: it comes again after `after` seconds (None: with backoff), and does not count as a try."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """`task_id` is the same for every try of a message, and for every copy of it that the broker hands out.

    `retry_within` tells of an error the longest wait in seconds until the next try; None when there will be none.
    """

    task_id: str
    redelivered: bool
    retry_within: Callable[[BaseException], float | None]


current: ContextVar[Delivery | None] = ContextVar("delivery", default=None)
