"""Cursor pages over (instant, id), newest first."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import tuple_
from sqlmodel.sql.expression import SelectOfScalar

from backend.core.errors import Invalid

T = TypeVar("T")
Position = tuple[datetime, UUID]


class Page(BaseModel, Generic[T]):
    """One page; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = None


def encode_cursor(position: Position) -> str:
    at, key = position
    return base64.urlsafe_b64encode(f"{at.isoformat()}|{key}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> Position | None:
    """The position after which to go on; `Invalid` (422) for a cursor that this service did not make."""
    if cursor is None:
        return None
    try:
        at, _, key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition("|")
        instant, row = datetime.fromisoformat(at), UUID(key)
        # One that leaves the calendar on its way to UTC is none of ours.
        position = instant.astimezone(UTC), row
    except (binascii.Error, UnicodeError, ValueError, OverflowError) as fault:
        raise Invalid("cursor: not one that this API gave; leave it out to start from the newest") from fault
    return position


def newest_first(query: "SelectOfScalar[T]", at: Any, key: Any, after: Position | None) -> "SelectOfScalar[T]":
    """`query` by the columns `at` and `key`, from after the position; compared as rows, for which their index serves."""
    page = query.order_by(at.desc(), key.desc())
    return page if after is None else page.where(tuple_(at, key) < after)
