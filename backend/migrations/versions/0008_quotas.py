"""Quotas: plans, limits, what is used and reserved by day, and the resets."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_table(
        "quota_plans",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("minutes_per_day", sa.Integer(), nullable=True),
        sa.Column("files_per_day", sa.Integer(), nullable=True),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("minutes_per_day >= 0 and files_per_day >= 0", name=op.f("ck_quota_plans_limits")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_quota_plans")),
    )
    op.create_table(
        "quota_resets",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("users", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used_files", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("kept", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reset_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_quota_resets")),
    )
    op.create_table(
        "quota_counters",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reserved_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("used_files", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reserved_files", sa.Integer(), server_default="0", nullable=False),
        sa.Column("extra_minutes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("extra_files", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("extra_minutes >= 0 and extra_files >= 0", name=op.f("ck_quota_counters_extra")),
        sa.CheckConstraint(
            "used_ms >= 0 and reserved_ms >= 0 and used_files >= 0 and reserved_files >= 0",
            name=op.f("ck_quota_counters_counts"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_quota_counters_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "day", name=op.f("pk_quota_counters")),
    )
    op.create_table(
        "quota_reservations",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("files", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state in ('open','settled','released')", name=op.f("ck_quota_reservations_state")),
        sa.CheckConstraint("ms >= 0 and files >= 0", name=op.f("ck_quota_reservations_amount")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_quota_reservations_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_quota_reservations")),
    )
    op.create_index(
        "ix_quota_reservations_open",
        "quota_reservations",
        ["updated_at"],
        unique=False,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_quota_reservations_updated_at", "quota_reservations", ["updated_at"], unique=False)
    op.create_index("ix_quota_reservations_user_id_day", "quota_reservations", ["user_id", "day"], unique=False)
    op.create_table(
        "user_quotas",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("minutes_per_day", sa.Integer(), nullable=True),
        sa.Column("files_per_day", sa.Integer(), nullable=True),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("minutes_per_day >= 0 and files_per_day >= 0", name=op.f("ck_user_quotas_limits")),
        sa.ForeignKeyConstraint(
            ["plan"], ["quota_plans.name"], name=op.f("fk_user_quotas_plan_quota_plans"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_quotas_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_quotas")),
    )
    op.create_index("ix_user_quotas_plan", "user_quotas", ["plan"], unique=False)


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for table in ("user_quotas", "quota_reservations", "quota_counters", "quota_resets", "quota_plans"):
        op.drop_table(table)
