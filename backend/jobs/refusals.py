"""Refusals that name the field at fault, and the check of versions."""

from typing import Any

from pydantic import BaseModel, ValidationError

from backend.core.errors import AppError, Invalid
from backend.scheduling.recurrence import RecurrenceError


class Stale(AppError):
    status, code = 412, "stale"


def invalid(field: str, problem: str, **extra: Any) -> Invalid:
    """A 422 about one field."""
    return Invalid(f"{field}: {problem}", field=field, errors=[{"field": field, "problem": problem}], **extra)


def of_recurrence(fault: RecurrenceError) -> Invalid:
    """A 422 about a time; `position` is the 1-based column of the fault, where there is one."""
    extra = {} if fault.position is None else {"position": fault.position}
    return invalid(fault.field, str(fault), **extra)


def of_parameters(fault: ValidationError) -> Invalid:
    """A 422 about parameters that their kind does not take; `errors` has a line for each."""
    errors = [
        {"field": ".".join(["parameters", *(str(part) for part in error["loc"])]), "problem": error["msg"]}
        for error in fault.errors()
    ]
    detail = "; ".join(f"{error['field']}: {error['problem']}" for error in errors)
    return Invalid(detail, field=errors[0]["field"], errors=errors)


def check_version(what: str, current: int, expected: int | None) -> None:
    """Stale (412) when somebody else has changed it since the caller read it; None: the caller does not mind."""
    if expected is not None and expected != current:
        raise Stale(f"{what} is at version {current}, not {expected}: read it again, then edit", version=current)


def given(body: BaseModel) -> dict[str, Any]:
    """The fields that a partial update names, without the version it expects."""
    return body.model_dump(exclude_unset=True, exclude={"version"})
