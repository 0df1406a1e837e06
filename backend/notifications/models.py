"""Tables of notifications: what was said, each way out of it, what users prefer. Instants are UTC."""

from datetime import datetime, time
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import Boolean, CheckConstraint, Column, DateTime, ForeignKey, Index, Integer, Text, Time, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.core.clock import utc_now
from backend.core.db import Base
from backend.notifications.states import Channel, DeliveryState, Digest, Kind, sql_list


def _now() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _instant() -> Column[Any]:
    return Column(DateTime(timezone=True), nullable=True)


def _text() -> Column[Any]:
    return Column(Text, nullable=False, server_default="")


def _switch(default: str = "false") -> Column[Any]:
    return Column(Boolean, nullable=False, server_default=text(default))


class Notification(Base, table=True):
    """Something that was said, as it was rendered then. With a `user_id` it stands in that user's inbox (digests do not).

    `payload` is what webhooks are given instead of our own frame. `accepted_at` of a bulk: its task was last sent then, so
    that the sweep watches it.
    """

    __tablename__: ClassVar[str] = "notifications"
    __table_args__ = (
        CheckConstraint(f"kind in {sql_list(Kind)}", name="kind"),
        Index("uq_notifications_dedup_key", "dedup_key", unique=True, postgresql_where=text("dedup_key is not null")),
        Index("ix_notifications_user_id_created_at_id", "user_id", "created_at", "id"),
        Index("ix_notifications_created_at_id", "created_at", "id"),
        Index("ix_notifications_accepted_at_bulk", "accepted_at", postgresql_where=text("kind = 'bulk'")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    kind: str = Field(default=Kind.MESSAGE, sa_column=Column(Text, nullable=False, server_default="message"))
    user_id: UUID | None = Field(
        default=None, sa_column=Column(Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=True)
    )
    template: str = Field(default="", sa_column=_text())
    subject: str = Field(sa_type=Text)
    text: str = Field(sa_type=Text)
    html: str | None = Field(default=None, sa_type=Text)
    payload: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True), nullable=True))
    urgent: bool = Field(default=False, sa_column=_switch())
    dedup_key: str | None = Field(default=None, sa_type=Text)
    created_by: str = Field(default="", sa_column=_text())
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    read_at: datetime | None = Field(default=None, sa_column=_instant())
    accepted_at: datetime | None = Field(default=None, sa_column=_instant())


class NotificationDelivery(Base, table=True):
    """One notification on one channel: the outbox.

    Whoever sends it holds it until `lease_until` and has raised `epoch`; a result of an older epoch is not recorded. `address` is
    an e-mail address, the name of an apprise target, or whose webhook it is: addresses that are secrets stand elsewhere.
    `digest_for` is the instant of the digest that a held one waits for, `digest_id` the notification that told it.
    """

    __tablename__: ClassVar[str] = "notification_deliveries"
    __table_args__ = (
        CheckConstraint(f"channel in {sql_list(Channel)}", name="channel"),
        CheckConstraint(f"state in {sql_list(DeliveryState)}", name="state"),
        CheckConstraint("(state = 'held') = (digest_for is not null)", name="held"),
        Index("uq_notification_deliveries_address", "notification_id", "channel", "address", unique=True),
        Index(
            "ix_notification_deliveries_due", "due_at", "id", postgresql_where=text("state = 'pending' and not bulk")
        ),
        Index(
            "ix_notification_deliveries_bulk",
            "notification_id",
            "due_at",
            postgresql_where=text("state = 'pending' and bulk"),
        ),
        Index("ix_notification_deliveries_held", "digest_for", "user_id", postgresql_where=text("state = 'held'")),
        Index(
            "ix_notification_deliveries_user_id_waiting",
            "user_id",
            postgresql_where=text("state in ('pending','held')"),
        ),
        Index("ix_notification_deliveries_created_at_id", "created_at", "id"),
        Index(
            "ix_notification_deliveries_created_at_id_dead", "created_at", "id", postgresql_where=text("state = 'dead'")
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    notification_id: UUID = Field(
        sa_column=Column(Uuid, ForeignKey("notifications.id", ondelete="CASCADE"), nullable=False)
    )
    user_id: UUID | None = Field(default=None, sa_type=Uuid)
    channel: str = Field(sa_type=Text)
    address: str = Field(sa_type=Text)
    bulk: bool = Field(default=False, sa_column=_switch())
    state: str = Field(default=DeliveryState.PENDING, sa_column=Column(Text, nullable=False, server_default="pending"))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    epoch: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    due_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    lease_until: datetime | None = Field(default=None, sa_column=_instant())
    digest_for: datetime | None = Field(default=None, sa_column=_instant())
    digest_id: UUID | None = Field(default=None, sa_type=Uuid)
    receipt: str = Field(default="", sa_column=_text())
    last_error: str = Field(default="", sa_column=_text())
    created_at: datetime = Field(default_factory=utc_now, sa_column=_now())
    ended_at: datetime | None = Field(default=None, sa_column=_instant())


class NotificationPreferences(Base, table=True):
    """How a user wants to be told. Without a row: by e-mail, at once, at any hour. Times are wall-clock times in `timezone`."""

    __tablename__: ClassVar[str] = "notification_preferences"
    __table_args__ = (
        CheckConstraint(f"digest in {sql_list(Digest)}", name="digest"),
        CheckConstraint("(quiet_start is null) = (quiet_end is null)", name="quiet_together"),
        CheckConstraint("quiet_start <> quiet_end", name="quiet_span"),
        CheckConstraint("not webhook or webhook_url <> ''", name="webhook"),
    )

    user_id: UUID = Field(sa_column=Column(Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True))
    email: bool = Field(default=True, sa_column=_switch("true"))
    webhook: bool = Field(default=False, sa_column=_switch())
    webhook_url: str = Field(default="", sa_column=_text())
    timezone: str = Field(sa_type=Text)
    digest: str = Field(default=Digest.OFF, sa_column=Column(Text, nullable=False, server_default="off"))
    digest_at: time = Field(default=time(9), sa_column=Column(Time, nullable=False, server_default="09:00"))
    quiet_start: time | None = Field(default=None, sa_type=Time)
    quiet_end: time | None = Field(default=None, sa_type=Time)
    updated_at: datetime = Field(default_factory=utc_now, sa_column=_now())
