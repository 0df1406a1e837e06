"""The only reader of the wall clock."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The current instant, zone-aware, in UTC."""
    return datetime.now(UTC)
