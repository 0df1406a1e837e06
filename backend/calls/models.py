"""Tables of the outreach: customers and policies, what is planned, every call with its facts, who must not be called.

Instants are UTC. State changes go through the repository as conditional updates.
"""

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, CheckConstraint, Column, Date, Identity, Index, Numeric, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from backend.calls.states import CallStatus, ScheduledCallStatus
from backend.core.clock import utc_now
from backend.core.db import Base

_LIVE_SQL = "status in ('queued','dialing','ringing','answered')"


class Customer(Base, table=True):
    """Somebody with a policy. The window, where set, narrows the agency's own, in the customer's zone."""

    __tablename__: ClassVar[str] = "customers"
    __table_args__ = (
        CheckConstraint("phone_e164 ~ '^\\+[1-9][0-9]{6,14}$'", name="phone_e164"),
        CheckConstraint("phone_status in ('ok','invalid')", name="phone_status"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    external_ref: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    full_name: str = Field(sa_type=Text)
    phone_e164: str = Field(sa_type=Text, index=True)
    phone_status: str = Field(default="ok", sa_type=Text)
    timezone: str = Field(sa_type=Text)
    language: str = Field(default="en-IN", sa_type=Text)
    window_start: time | None = None
    window_end: time | None = None
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class Policy(Base, table=True):
    """A policy; `premium` in the policy's own currency."""

    __tablename__: ClassVar[str] = "policies"
    __table_args__ = (
        CheckConstraint("status in ('active','renewed','lapsed','cancelled')", name="status"),
        Index("ix_policies_expiry_date_active", "expiry_date", postgresql_where=text("status = 'active'")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    customer_id: UUID = Field(foreign_key="customers.id", index=True)
    policy_number: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    insurer: str = Field(default="", sa_type=Text)
    product: str = Field(default="", sa_type=Text)
    premium: Decimal | None = Field(default=None, sa_column=Column(Numeric(14, 2)))
    expiry_date: date = Field(sa_column=Column(Date, nullable=False))
    status: str = Field(default="active", sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class DoNotCall(Base, table=True):
    """A number that must not be dialed, from the instant of the row until it is revoked."""

    __tablename__: ClassVar[str] = "do_not_call"
    __table_args__ = (
        Index(
            "uq_do_not_call_phone_e164_active", "phone_e164", unique=True, postgresql_where=text("revoked_at is null")
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    phone_e164: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    reason: str = Field(default="", sa_type=Text)
    call_id: UUID | None = Field(default=None, foreign_key="calls.id")
    created_at: datetime = Field(default_factory=utc_now)
    revoked_at: datetime | None = None


class PolicyImport(Base, table=True):
    """One CSV import and its counts of data rows."""

    __tablename__: ClassVar[str] = "policy_imports"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    filename: str = Field(sa_type=Text)
    created: int = 0
    changed: int = 0
    unchanged: int = 0
    failed: int = 0
    started_at: datetime = Field(default_factory=utc_now)
    finished_at: datetime | None = None


class PolicyImportError(Base, table=True):
    """What is wrong with one field of one row; `line` counts from 1 and the header is line 1."""

    __tablename__: ClassVar[str] = "policy_import_errors"

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    import_id: UUID = Field(foreign_key="policy_imports.id", index=True)
    line: int
    field: str = Field(sa_type=Text)
    value: str = Field(sa_type=Text)
    problem: str = Field(sa_type=Text)
    fix: str = Field(sa_type=Text)


class Trunk(Base, table=True):
    """A SIP trunk and its pace: `tokens` is a bucket that refills by `calls_per_second`."""

    __tablename__: ClassVar[str] = "trunks"

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    name: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    tokens: float = 0
    refilled_at: datetime = Field(default_factory=utc_now)


class ScheduledCall(Base, table=True):
    """One call that a policy's expiry asks for; unique per policy and cycle, so planning twice inserts nothing.

    `attempt_no` counts the rows in `calls`; `counted_attempts` those that use up the customer's patience.
    """

    __tablename__: ClassVar[str] = "scheduled_calls"
    __table_args__ = (
        UniqueConstraint("policy_id", "cycle_key"),
        CheckConstraint(
            "status in ('pending','claimed','in_progress','completed','exhausted','skipped')", name="status"
        ),
        Index(
            "ix_scheduled_calls_next_attempt_at_pending", "next_attempt_at", postgresql_where=text("status = 'pending'")
        ),
        Index("ix_scheduled_calls_claimed_until", "claimed_until", postgresql_where=text("status = 'claimed'")),
        Index("ix_scheduled_calls_created_at_id", "created_at", "id"),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    policy_id: UUID = Field(foreign_key="policies.id")
    customer_id: UUID = Field(foreign_key="customers.id", index=True)
    cycle_key: str = Field(sa_type=Text)
    status: str = Field(default=ScheduledCallStatus.PENDING, sa_type=Text)
    reason: str | None = Field(default=None, sa_type=Text)
    attempt_no: int = 0
    counted_attempts: int = 0
    next_attempt_at: datetime = Field(default_factory=utc_now)
    claimed_until: datetime | None = None
    outcome: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class Call(Base, table=True):
    """One dial at most. Facts are written once; `status` and `end_reason` are derived from them.

    `deadline_at` is when the reconciler must ask LiveKit what became of a live call.
    """

    __tablename__: ClassVar[str] = "calls"
    __table_args__ = (
        UniqueConstraint("scheduled_call_id", "attempt_no"),
        Index("uq_calls_customer_id_live", "customer_id", unique=True, postgresql_where=text(_LIVE_SQL)),
        Index("ix_calls_deadline_at_live", "deadline_at", postgresql_where=text(_LIVE_SQL)),
        Index("ix_calls_created_at_id", "created_at", "id"),
        Index(
            "ix_calls_left_at_unfinished",
            "ended_at",
            postgresql_where=text("recording_state = 'pending' or (recording_state = 'ready' and outcome is null)"),
        ),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    scheduled_call_id: UUID = Field(foreign_key="scheduled_calls.id")
    customer_id: UUID = Field(foreign_key="customers.id", index=True)
    policy_id: UUID = Field(foreign_key="policies.id")
    attempt_no: int
    idempotency_key: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    request_hash: str = Field(sa_type=Text)
    room_name: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    to_e164: str = Field(sa_type=Text)
    status: str = Field(default=CallStatus.QUEUED, sa_type=Text)
    end_reason: str | None = Field(default=None, sa_type=Text)
    deadline_at: datetime
    dial_claimed_at: datetime | None = None
    # Facts, filled in once and never cleared.
    dialing_at: datetime | None = None
    joined_at: datetime | None = None
    ringing_at: datetime | None = None
    answered_at: datetime | None = None
    left_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    sip_code: int | None = None
    sip_text: str | None = Field(default=None, sa_type=Text)
    dial_error: str | None = Field(default=None, sa_type=Text)
    dial_uncertain: bool | None = None
    dial_settled_at: datetime | None = None
    disconnect_reason: str | None = Field(default=None, sa_type=Text)
    amd_category: str | None = Field(default=None, sa_type=Text)
    sip_call_id: str | None = Field(default=None, sa_type=Text)
    # What follows from them.
    ended_at: datetime | None = None
    recording_state: str = Field(default="none", sa_type=Text)
    egress_id: str | None = Field(default=None, sa_type=Text)
    outcome: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    created_at: datetime = Field(default_factory=utc_now)
    updated_at: datetime = Field(default_factory=utc_now)


class CallEvent(Base, table=True):
    """What was reported of a call, append-only; unique by the reporter's event id, phone numbers left out."""

    __tablename__: ClassVar[str] = "call_events"
    __table_args__ = (Index("ix_call_events_received_at", "received_at"),)

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(), primary_key=True))
    event_id: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    call_id: UUID | None = Field(default=None, foreign_key="calls.id", index=True)
    source: str = Field(sa_type=Text)
    type: str = Field(sa_type=Text)
    body: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSONB, nullable=False))
    received_at: datetime = Field(default_factory=utc_now)


def talk_seconds(call: Call) -> float | None:
    """How long the two talked; None for a call that was not answered or has not ended."""
    if call.answered_at is None or call.left_at is None:
        return None
    return max(0.0, (call.left_at - call.answered_at).total_seconds())
