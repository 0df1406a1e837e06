"""The example's table."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Column, DateTime, Identity, Text, text
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base


class ExampleCharge(Base, table=True):
    """One charge of an order's customer: stands for the payment provider's book, which takes whatever is sent.

    Without a unique key on purpose, so that charging twice shows.
    """

    __tablename__: ClassVar[str] = "example_charges"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    order_id: str = Field(sa_column=Column(Text, nullable=False, index=True))
    charged_at: datetime = Field(
        default_factory=utc_now, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))
    )
