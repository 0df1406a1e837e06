"""Task messages with an id that the sender has chosen. Blocking; they raise kombu's OperationalError while the broker is away."""

from typing import Any
from uuid import UUID

from celery import Celery

from backend.core.dead_letters import LETTER_HEADER


def send_wanted(app: Celery, name: str, arguments: dict[str, Any], *, task_id: UUID, expires: int) -> None:
    """Send a task whose result somebody will ask for by its id; no worker starts it once `expires` seconds have passed."""
    # `ignore_result=False` would subscribe this process to the result. The header, which the worker obeys, does not.
    headers = {"ignore_result": False}
    app.send_task(name, kwargs=arguments, task_id=str(task_id), expires=expires, ignore_result=True, headers=headers)


def send_again(
    app: Celery, name: str, args: list[Any], kwargs: dict[str, Any], *, task_id: str, queue: str, letter: UUID
) -> None:
    """Send what a dead letter holds; should it end for good again, it is the same letter."""
    headers = {LETTER_HEADER: str(letter)}
    app.send_task(name, args=args, kwargs=kwargs, task_id=task_id, queue=queue, ignore_result=True, headers=headers)
