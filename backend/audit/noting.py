"""What is kept of a request: who, what, from where, with what end, and a summary of what was sent.

Never kept: values whose names say that they are secrets, what looks like a credential or a phone number, lists of e-mail addresses,
the content of uploads.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

from backend.core.principal import Principal
from backend.core.redaction import REDACTED, Redactor, storable

# Of a body, bytes: longer ones are named by their size alone.
LONGEST_BODY = 8_192
_LONGEST_SUMMARY = 4_096
_LONGEST_TEXT, _LONGEST_NAME, _MOST_MEMBERS, _MOST_ITEMS = 200, 100, 50, 20
# An index entry of PostgreSQL holds 2,704 bytes, a character takes up to four.
_LONGEST_PATH, _LONGEST_AGENT, _LONGEST_WHO, _LONGEST_ADDRESS = 500, 300, 255, 64

_PHONE_NAME = re.compile(r"phone|mobile|msisdn|e164", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@<>,;]+@[^\s@<>,;]+")
# With a plus and perhaps separators, or ten digits and more in one piece.
_PHONE = re.compile(r"\+\d(?:[ ().-]?\d){6,14}|(?<![\w.+-])\d{10,15}(?![\w.-])")


@dataclass(slots=True)
class Noted:
    """A request that was answered. `body`: what came, None where it is not to be read; `size` in bytes; `private`: its members
    whose values are nobody's business.
    """

    at: datetime
    principal: Principal | None
    method: str
    route: str
    path: str
    params: dict[str, Any]
    query: str
    status: int
    duration_ms: float
    address: str | None
    user_agent: str
    request_id: str
    content_type: str
    body: bytes | None
    size: int
    private: frozenset[str] = frozenset()
    id: UUID = field(default_factory=uuid4)

    def __str__(self) -> str:
        who = self.principal.name if self.principal else "anonymous"
        return f"{self.at.isoformat()} {who} {self.method} {self.route or self.path} {self.status} {self.request_id}"


def is_readable(content_type: str) -> bool:
    """Whether a body of this type is summarized, rather than named by its size."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind in {"application/x-www-form-urlencoded", "application/json"} or kind.endswith("+json")


def columns(noted: Noted) -> dict[str, Any]:
    """The columns of the log, but for `id` and `at`; as JSON holds them."""
    redactor = Redactor()
    who = noted.principal
    query = _query(redactor, noted) if noted.query else None
    body = _body(redactor, noted)
    credential = who and (who.api_key_id or who.session_id)
    params = _summary(redactor, noted.params)
    return {
        "actor_kind": who.kind if who else "anonymous",
        "actor": storable(who.name)[:_LONGEST_WHO] if who else "",
        "user_id": str(who.user_id) if who and who.user_id else None,
        "credential_id": str(credential) if credential else None,
        "method": storable(noted.method)[:_LONGEST_ADDRESS],
        "route": noted.route,
        "path": _path(redactor, noted, params),
        "params": params,
        "status": noted.status,
        "duration_ms": round(noted.duration_ms, 3),
        "address": storable(noted.address)[:_LONGEST_ADDRESS] if noted.address else None,
        "user_agent": redactor.text(noted.user_agent)[:_LONGEST_AGENT],
        "request_id": noted.request_id,
        "request": {name: value for name, value in (("query", query), ("body", body)) if value is not None},
    }


def _path(redactor: Redactor, noted: Noted, params: object) -> str:
    path = noted.path
    for name, value in noted.params.items():
        if not isinstance(params, dict) or params.get(name) == REDACTED:
            path = path.replace(str(value), REDACTED)
    return _masked(redactor.text(path))[:_LONGEST_PATH]


def _query(redactor: Redactor, noted: Noted) -> object:
    query = noted.query
    try:
        return _summary(redactor, _public(noted, _pairs(query)))
    except ValueError:
        return {"omitted": "too many members", "bytes": len(query)}


def _body(redactor: Redactor, noted: Noted) -> object:
    if not noted.size:
        return None
    if noted.body is None:
        return _omitted(noted)
    try:
        if "json" in noted.content_type.lower():
            return _summary(redactor, _public(noted, json.loads(noted.body)))
        return _summary(redactor, _public(noted, _pairs(noted.body.decode())))
    except (ValueError, RecursionError):
        return _omitted(noted)


def _public(noted: Noted, body: Any) -> Any:
    """Without what is private; nothing at all of a body that has no members to tell apart."""
    if not noted.private:
        return body
    if not isinstance(body, dict):
        return _omitted(noted)
    return {name: REDACTED if name in noted.private else value for name, value in body.items()}


def _omitted(noted: Noted) -> dict[str, object]:
    kind = storable(noted.content_type.partition(";")[0])[:_LONGEST_NAME]
    return {"omitted": kind or "no content type", "bytes": noted.size}


def _pairs(text: str) -> dict[str, Any]:
    """A query or a form; a name that comes more than once has a list."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_MEMBERS * 4):
        before = found.get(name)
        found[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
    return found


def _summary(redactor: Redactor, value: object) -> object:
    short = _short(redactor.value(value))
    size = len(json.dumps(short))
    return short if size <= _LONGEST_SUMMARY else {"omitted": "long", "bytes": size}


def _short(value: object, *, listed: bool = False) -> object:
    """`listed`: within a list, where an e-mail address is one of many people's."""
    if isinstance(value, dict):
        members = list(value.items())[:_MOST_MEMBERS]
        kept = {name[:_LONGEST_NAME]: _member(name, inner, listed=listed) for name, inner in members}
        return kept | ({"…": f"{len(value) - _MOST_MEMBERS} more"} if len(value) > _MOST_MEMBERS else {})
    if isinstance(value, list):
        more = [f"… {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else []
        return [_short(inner, listed=True) for inner in value[:_MOST_ITEMS]] + more
    if isinstance(value, str):
        masked = _EMAIL.sub(REDACTED, _masked(value)) if listed else _masked(value)
        return masked if len(masked) <= _LONGEST_TEXT else f"{masked[:_LONGEST_TEXT]}…"
    return value


def _member(name: str, inner: object, *, listed: bool) -> object:
    return REDACTED if _PHONE_NAME.search(name) and inner not in (None, "") else _short(inner, listed=listed)


def _masked(text: str) -> str:
    return _PHONE.sub(REDACTED, text)
