"""From what stands on a command line to what the jobs domain is asked for, and back: refusals in the words of the options."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from backend.core.console import fail
from backend.core.errors import AppError
from backend.jobs import service as jobs

M = TypeVar("M", bound=BaseModel)

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_OPTIONS = {
    "cron_expression": "--cron",
    "interval_seconds": "--every",
    "run_at": "--at",
    "start_at": "--start",
    "end_at": "--end",
    "overlap_policy": "--overlap",
    "misfire_policy": "--misfire",
    "timezone": "--timezone",
    "name": "--name",
    "kind": "--kind",
    "from": "--from",
    "to": "--to",
    "limit": "--limit",
    "after": "--after",
    "count": "-n",
}


def seconds(text: str) -> float:
    """Of `90`, `90s`, `5m`, `2h`, `1d` or `1h30m`; anything else ends the command with exit code 2."""
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        fail(f"--every: {text!r} is not a duration; write seconds, or 90s, 5m, 2h, 1d, 1h30m", 2)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """`key=value` texts; exit code 2 for anything else."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            fail(f"{option}: {text!r} is not KEY=VALUE", 2)
        found[key.strip()] = value
    return found


def parameters(texts: Sequence[str], kind: str) -> dict[str, Any]:
    """A kind's parameters: a value is text where the kind takes nothing else, JSON where it is JSON, text otherwise."""
    found = next((one for one in jobs.list_kinds() if one.name == kind), None)
    fields = found.parameters.get("properties", {}) if found else {}
    return {key: _value(value, fields.get(key, {})) for key, value in pairs(texts, "--param").items()}


def _value(text: str, field: Mapping[str, Any]) -> Any:
    types = {option.get("type") for option in field.get("anyOf", [field])}
    if types <= {"string", "null"} and types:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def settings(texts: Sequence[str]) -> dict[str, str | None]:
    """Fields of a schedule by their names in the API; `null` is none."""
    return {key: None if value == "null" else value for key, value in pairs(texts, "--set").items()}


def given(**fields: object) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def wish(model: type[M], fields: Mapping[str, object]) -> M:
    """The request that the fields make; exit code 2 with a line that names each fault."""
    try:
        return model.model_validate(dict(fields))
    except ValidationError as fault:
        problems = [f"{_option(str(error['loc'][0]))}: {_words(error['msg'])}" for error in fault.errors()]
        fail("; ".join(dict.fromkeys(problems)), 2)


def _option(field: str) -> str:
    return _OPTIONS.get(field, field)


def _words(message: str) -> str:
    if message == "Extra inputs are not permitted":
        return "is not a field of a schedule"
    return message.removeprefix("Value error, ")


@contextmanager
def refusals(expression: str | None = None, *, given_as: str = "--cron") -> Iterator[None]:
    """A refusal becomes one line and exit code 2; a fault in the cron expression, which was `given_as`, is pointed at below."""
    try:
        yield
    except AppError as fault:
        field, position = str(fault.extra.get("field", "")), fault.extra.get("position")
        text = fault.detail
        option = given_as if field == "cron_expression" else _option(field)
        if text.startswith(f"{field}: "):
            text = option + text.removeprefix(field)
        if expression is not None and position is not None:
            shown = "".join(sign if sign.isprintable() else " " for sign in expression)
            text += f"\n  {shown}\n  {' ' * (position - 1)}^"
        fail(text, 2)
