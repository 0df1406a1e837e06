"""Instants that requests give."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def _in_range(at: datetime) -> datetime:
    if not 1970 <= at.year <= 9000:
        raise ValueError("must be from the year 1970 to 9000")
    return at


# PostgreSQL's instants reach further, Python's conversions between zones do not: 9999-12-31T23:59:59-12:00 has no UTC.
Instant = Annotated[AwareDatetime, AfterValidator(_in_range)]
