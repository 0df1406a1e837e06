"""Who asks: a user's session, an API key, or a process that holds the service key."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID


class Role(StrEnum):
    """What somebody may do: a viewer reads, an operator changes what the team works with, an admin manages people too."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        """Whether this role may do all that `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Principal:
    """The one who asks. `name` is what logs and `created_by` show; `scopes` of an API key narrow its role, None does not."""

    kind: Literal["user", "api_key", "service"]
    name: str
    role: Role
    user_id: UUID | None = None
    session_id: UUID | None = None
    scopes: frozenset[str] | None = None


# Processes with the service key do operators' work; people are none of their business.
SERVICE = Principal("service", "service", Role.OPERATOR)
