"""The tasks that POST /api/tasks/{name} sends: an allow-list, filled by the domains that own them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from backend.celery_app import TASK_ROUTES
from backend.config import Config
from backend.core.errors import Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Offer:
    """A task that people may send. `check` looks at parameters that are well formed; its ValueError refuses."""

    name: str
    description: str
    parameters: type[BaseModel]
    check: Callable[[Any, Config], None] | None = None

    @property
    def queue(self) -> str:
        queue: str = TASK_ROUTES[self.name]["queue"]
        return queue


_OFFERS: dict[str, Offer] = {}


def offer(made: Offer) -> None:
    """Let people send this task; a second offer of the same name replaces the first."""
    _OFFERS[made.name] = made


def every_offer() -> list[Offer]:
    return sorted(_OFFERS.values(), key=lambda one: one.name)


def offered(name: str) -> Offer:
    """NotFound (404) with the names there are."""
    if name not in _OFFERS:
        raise NotFound(f"no task {name!r} can be sent; there are {', '.join(sorted(_OFFERS))}", code="unknown_task")
    return _OFFERS[name]


def checked(wish: Offer, parameters: dict[str, Any], config: Config) -> dict[str, Any]:
    """The arguments that parameters mean: only what was given, as JSON. Invalid (422) names each fault."""
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        raise Invalid("body: holds half of a surrogate pair, which is no text") from fault
    try:
        found = wish.parameters.model_validate(parameters)
    except ValidationError as fault:
        errors = [
            {"field": ".".join(str(part) for part in error["loc"]), "problem": error["msg"]} for error in fault.errors()
        ]
        detail = "; ".join(f"{error['field'] or 'body'}: {error['problem']}" for error in errors)
        raise Invalid(detail, errors=errors) from fault
    if wish.check is not None:
        try:
            wish.check(found, config)
        except ValueError as fault:
            raise Invalid(str(fault)) from fault
    return found.model_dump(mode="json", exclude_unset=True)
