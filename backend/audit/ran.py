"""Noting commands of the server's own command line."""

import getpass
import json
import os
import platform
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from backend.audit.models import Kind
from backend.audit.noting import Noted, columns
from backend.audit.repository.outbox import OutboxRepository
from backend.core.changing import Ran
from backend.core.db import Session

_METHOD, _ACTOR_KIND, _ACTOR = "CLI", "command", "cli"
# By exit code: done, refused, some of it left out. All else went wrong on the way.
_STATUSES = {0: 200, 2: 422, 3: 207}


async def record_command(session: Session, ran: Ran) -> None:
    """Put a command into the log of operations, within the caller's transaction: no worker has to be there for it."""
    options = json.dumps(_plain(ran.options)).encode() if ran.options else b""
    arguments = _plain(ran.arguments)
    route = f"beatline {ran.command}"
    noted = Noted(
        at=ran.at,
        principal=None,
        method=_METHOD,
        route=route,
        path=" ".join([route, *(_words(value) for value in arguments.values())]),
        params=arguments,
        query="",
        status=_STATUSES.get(ran.exit_code, 500),
        duration_ms=ran.duration_ms,
        address=None,
        user_agent=_typist(),
        request_id="",
        content_type="application/json",
        body=options,
        size=len(options),
    )
    body = columns(noted) | {"actor_kind": _ACTOR_KIND, "actor": _ACTOR}
    outbox, batch = OutboxRepository(session), uuid4()
    await outbox.add_many(Kind.OPERATION, batch, [{"id": str(noted.id), "at": noted.at.isoformat(), "body": body}])
    await outbox.move_batch(Kind.OPERATION, batch)


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON holds it; paths, ids and instants as text."""
    found: dict[str, Any] = json.loads(json.dumps(dict(given), default=str))
    return found


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _typist() -> str:
    """The account of the operating system, and the machine or container."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        name = str(os.getuid())
    return f"{name} on {platform.node()}"
