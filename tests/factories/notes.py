"""Notes of requests for tests."""

from typing import Any

from backend.audit.noting import Noted
from backend.core.clock import utc_now
from backend.core.principal import SERVICE


def noted(**fields: Any) -> Noted:
    """A request of the service's."""
    given: dict[str, Any] = {
        "at": utc_now(),
        "principal": SERVICE,
        "method": "POST",
        "route": "",
        "path": "/api/things",
        "params": {},
        "query": "",
        "status": 200,
        "duration_ms": 1.5,
        "address": "192.0.2.1",
        "user_agent": "tests/1",
        "request_id": "",
        "content_type": "application/json",
        "body": None,
        "size": 0,
    }
    return Noted(**(given | fields))
