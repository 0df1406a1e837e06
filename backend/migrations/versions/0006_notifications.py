"""Notifications, their deliveries, and what each user wants of them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_table(
        "notification_preferences",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("webhook", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("webhook_url", sa.Text(), server_default="", nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), server_default="off", nullable=False),
        sa.Column("digest_at", sa.Time(), server_default="09:00", nullable=False),
        sa.Column("quiet_start", sa.Time(), nullable=True),
        sa.Column("quiet_end", sa.Time(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("digest in ('off','hourly','daily')", name=op.f("ck_notification_preferences_digest")),
        sa.CheckConstraint("not webhook or webhook_url <> ''", name=op.f("ck_notification_preferences_webhook")),
        sa.CheckConstraint(
            "(quiet_start is null) = (quiet_end is null)", name=op.f("ck_notification_preferences_quiet_together")
        ),
        sa.CheckConstraint("quiet_start <> quiet_end", name=op.f("ck_notification_preferences_quiet_span")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_notification_preferences_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_notification_preferences")),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="message", nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("template", sa.Text(), server_default="", nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("urgent", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("dedup_key", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind in ('message','digest','bulk')", name=op.f("ck_notifications_kind")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_notifications_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index(
        "ix_notifications_accepted_at_bulk",
        "notifications",
        ["accepted_at"],
        unique=False,
        postgresql_where=sa.text("kind = 'bulk'"),
    )
    op.create_index("ix_notifications_created_at_id", "notifications", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_notifications_user_id_created_at_id", "notifications", ["user_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "uq_notifications_dedup_key",
        "notifications",
        ["dedup_key"],
        unique=True,
        postgresql_where=sa.text("dedup_key is not null"),
    )
    op.create_table(
        "notification_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("bulk", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digest_for", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digest_id", sa.Uuid(), nullable=True),
        sa.Column("receipt", sa.Text(), server_default="", nullable=False),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'held') = (digest_for is not null)", name=op.f("ck_notification_deliveries_held")),
        sa.CheckConstraint("channel in ('email','webhook','apprise')", name=op.f("ck_notification_deliveries_channel")),
        sa.CheckConstraint(
            "state in ('pending','held','sent','digested','skipped','dead')",
            name=op.f("ck_notification_deliveries_state"),
        ),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notifications.id"],
            name=op.f("fk_notification_deliveries_notification_id_notifications"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_deliveries")),
    )
    op.create_index(
        "ix_notification_deliveries_bulk",
        "notification_deliveries",
        ["notification_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and bulk"),
    )
    op.create_index(
        "ix_notification_deliveries_created_at_id", "notification_deliveries", ["created_at", "id"], unique=False
    )
    op.create_index(
        "ix_notification_deliveries_created_at_id_dead",
        "notification_deliveries",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'dead'"),
    )
    op.create_index(
        "ix_notification_deliveries_due",
        "notification_deliveries",
        ["due_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'pending' and not bulk"),
    )
    op.create_index(
        "ix_notification_deliveries_held",
        "notification_deliveries",
        ["digest_for", "user_id"],
        unique=False,
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index(
        "ix_notification_deliveries_user_id_waiting",
        "notification_deliveries",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("state in ('pending','held')"),
    )
    op.create_index(
        "uq_notification_deliveries_address",
        "notification_deliveries",
        ["notification_id", "channel", "address"],
        unique=True,
    )


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for table in ("notification_deliveries", "notifications", "notification_preferences"):
        op.drop_table(table)
