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


class Scope(StrEnum):
    """What an API key may be used for: as much as a viewer, an operator, an admin may do; each holds the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def role(self) -> Role:
        return list(Role)[list(Scope).index(self)]


@dataclass(frozen=True, slots=True)
class Principal:
    """The one who asks. `name` is what logs and `created_by` show; `role` is what they may do.

    An API key has its owner's name and `user_id`, and of the owner's role what its `scopes` let through; they are None for others.
    A user's name never changes and is never given to somebody else.
    """

    kind: Literal["user", "api_key", "service"]
    name: str
    role: Role
    user_id: UUID | None = None
    session_id: UUID | None = None
    api_key_id: UUID | None = None
    scopes: frozenset[str] | None = None

    def scoped(self, role: Role) -> bool:
        """Whether the scopes, where there are any, let through what needs `role`."""
        return self.scopes is None or any(Scope(scope).role.covers(role) for scope in self.scopes)


# Processes with the service key do operators' work; people are none of their business.
SERVICE = Principal("service", "service", Role.OPERATOR)
