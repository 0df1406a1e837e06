"""What a schedule's runs are sent as: task, queue and arguments, from its template's kind and both their parameters."""

from typing import Any

from pydantic import ValidationError

from backend.config import Config
from backend.jobs.kinds import KINDS, PRIORITY_QUEUES, Kind, longest_timeout
from backend.jobs.models import JobSchedule, JobTemplate
from backend.jobs.refusals import invalid, of_parameters


def kind_named(name: str) -> Kind:
    """Invalid (422) with the names there are."""
    if name not in KINDS:
        raise invalid("kind", f"{name!r} is not a kind of job; use one of {', '.join(KINDS)}")
    return KINDS[name]


def checked(kind: Kind, parameters: dict[str, Any], config: Config) -> dict[str, Any]:
    """The arguments that parameters mean: only what was given, as JSON. Invalid (422) names each fault."""
    try:
        found = kind.parameters.model_validate(parameters)
    except ValidationError as fault:
        raise of_parameters(fault) from fault
    if kind.check is not None:
        try:
            kind.check(found, config)
        except ValueError as fault:
            field, _, problem = str(fault).partition(": ")
            raise invalid(f"parameters.{field}", problem) from fault
    return found.model_dump(mode="json", exclude_unset=True)


def apply(schedule: JobSchedule, template: JobTemplate, config: Config) -> None:
    """Write task, queue and arguments of a schedule anew; a queue that was chosen by priority stays."""
    kind = kind_named(template.kind)
    schedule.arguments = checked(kind, {**template.parameters, **schedule.parameters}, config)
    schedule.task = kind.task
    if kind.queue != "default" or schedule.queue not in PRIORITY_QUEUES.values():
        schedule.queue = kind.queue


def choose_queue(schedule: JobSchedule, kind: Kind, priority: str | None) -> None:
    """Invalid (422) for a kind that has a queue of its own."""
    if priority is None:
        schedule.queue = kind.queue
        return
    if kind.queue != "default":
        raise invalid("priority", f"{kind.label} runs on the queue {kind.queue}; leave priority out")
    schedule.queue = PRIORITY_QUEUES[priority]


def check_timeout(schedule: JobSchedule) -> None:
    longest = longest_timeout(schedule.task, schedule.queue)
    if schedule.timeout_seconds is not None and schedule.timeout_seconds > longest:
        raise invalid("timeout_seconds", f"{schedule.timeout_seconds} is more than {longest}, the most for this kind")
