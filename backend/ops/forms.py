"""What pages with forms share: what was typed, and what is wrong with it beside each field."""

from datetime import datetime
from zoneinfo import ZoneInfo

from fastapi import Request
from pydantic import ValidationError

from backend.config import Config
from backend.core.errors import AppError, Invalid

Errors = dict[str, str]

# Of fields whose form is a pattern: what people can do about it.
_FORMS = {
    "username": "use 2 to 64 letters, digits, dots, dashes and underscores; begin with a letter or a digit",
    "email": "must be an address such as ada@example.org",
    "name": "use 1 to 64 letters, digits, spaces, dots, dashes and underscores; begin with a letter or a digit",
    "display_name": "must be one line of text",
    "status": "must be a status such as 404, or a class such as 4xx",
    "method": "must be one word such as POST",
}


async def typed(request: Request) -> dict[str, str]:
    """The form's fields as they were typed; of one that came twice the last."""
    form = await request.form()
    return {name: text for name, text in form.items() if isinstance(text, str)}


def of_validation(fault: ValidationError) -> Errors:
    """By field; `form` for what concerns no single one."""
    return {str(error["loc"][0] if error["loc"] else "form"): _plain(error) for error in fault.errors()}


def _plain(error: object) -> str:
    found = error if isinstance(error, dict) else {}
    field = str((found.get("loc") or ["form"])[0])
    if found.get("type") == "string_pattern_mismatch" and field in _FORMS:
        return _FORMS[field]
    return str(found.get("msg", "")).removeprefix("Value error, ")


def of_refusal(fault: AppError, renamed: dict[str, str] | None = None) -> Errors:
    """A refusal beside the field that it names: `parameters.url` is part of the field `parameters`.

    `renamed` says which field of the page a field of the domain is.
    """
    listed = fault.extra.get("errors") or [{"field": fault.extra.get("field", "form"), "problem": fault.detail}]
    errors: Errors = {}
    for error in listed:
        field, _, part = error["field"].partition(".")
        problem = f"{part}: {error['problem']}" if part else error["problem"]
        errors[field] = f"{errors[field]}; {problem}" if field in errors else problem
    return {(renamed or {}).get(field, field): problem for field, problem in errors.items()}


def instant(text: str, field: str, config: Config) -> datetime:
    """What a field for day and time holds; without an offset it is by the clock of the installation. Invalid (422)."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as fault:
        problem = "must be a day and time such as 2026-11-21T10:00"
        raise Invalid(f"{field}: {problem}", errors=[{"field": field, "problem": problem}]) from fault
    return at if at.tzinfo else at.replace(tzinfo=ZoneInfo(config.timezone))
