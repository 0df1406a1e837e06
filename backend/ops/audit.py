"""The pages of the logs, for admins: what was done, and who signed in."""

from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from backend.accounts.words import Outcome
from backend.audit import service as audit
from backend.audit.schemas import Filter, LoginFilter, OperationFilter
from backend.config import Config
from backend.core.errors import Invalid
from backend.core.principal import Role
from backend.core.web import ConfigDep, SessionDep
from backend.ops.access import Needs
from backend.ops.context import render
from backend.ops.forms import Errors, instant, of_refusal, of_validation

router = APIRouter(prefix="/audit", dependencies=[Depends(Needs(Role.ADMIN))])

Wanted = TypeVar("Wanted", bound=Filter)

_ROWS = 50
_OF_OPERATIONS = ("who", "method", "path", "status", "address", "request_id", "from", "to")
_OF_LOGINS = ("who", "outcome", "address", "request_id", "from", "to")
_INSTANTS = {"from", "to"}
_METHODS = ("POST", "PUT", "PATCH", "DELETE")

Cursor = Annotated[str | None, Query(max_length=500)]


def _filter(kind: type[Wanted], request: Request, config: Config, names: tuple[str, ...]) -> tuple[Wanted, Errors]:
    """The filters of the address, and what is wrong with them, which leaves none."""
    given = {name: request.query_params.get(name, "").strip() for name in names}
    try:
        fields: dict[str, Any] = {
            name: instant(text, name, config) if name in _INSTANTS else text for name, text in given.items() if text
        }
        return kind.model_validate(fields), {}
    except Invalid as fault:
        return kind(), of_refusal(fault)
    except ValidationError as fault:
        return kind(), of_validation(fault)


def _context(request: Request, names: tuple[str, ...], errors: Errors, config: Config) -> dict[str, Any]:
    values = {name: text for name in names if (text := request.query_params.get(name, "").strip())}
    return {
        "values": values,
        "errors": errors,
        "first_fault": next(iter(errors), None),
        "query": urlencode(values),
        "zone": config.timezone,
    }


@router.get("")
async def show_operations(request: Request, session: SessionDep, config: ConfigDep, cursor: Cursor = None) -> Response:
    """What was asked for that may have changed something, newest first."""
    wanted, errors = _filter(OperationFilter, request, config, _OF_OPERATIONS)
    page = None if errors else await audit.list_operations(session, wanted, cursor=cursor, limit=_ROWS)
    context = _context(request, _OF_OPERATIONS, errors, config)
    context |= {
        "entries": page.items if page else [],
        "next_cursor": page.next_cursor if page else None,
        "methods": _METHODS,
    }
    return render(request, "audit.html", context, status=422 if errors else 200)


@router.get("/logins")
async def show_logins(request: Request, session: SessionDep, config: ConfigDep, cursor: Cursor = None) -> Response:
    """Who has signed in or out, or tried to, newest first."""
    wanted, errors = _filter(LoginFilter, request, config, _OF_LOGINS)
    page = None if errors else await audit.list_logins(session, wanted, cursor=cursor, limit=_ROWS)
    context = _context(request, _OF_LOGINS, errors, config)
    context |= {
        "entries": page.items if page else [],
        "next_cursor": page.next_cursor if page else None,
        "outcomes": list(Outcome),
    }
    return render(request, "logins.html", context, status=422 if errors else 200)
