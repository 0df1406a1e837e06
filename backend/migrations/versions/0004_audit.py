"""The operation log and the login log, and the way into them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# PostgreSQL keeps the logs append-only; deletion by age says so first.
_REFUSAL = """
create or replace function refuse_change_of_log() returns trigger language plpgsql as $$
begin
    if tg_op in ('DELETE', 'TRUNCATE') and current_setting('beatline.retention', true) = 'on' then
        return null;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = 'table ' || tg_table_name || ' is append-only: ' || tg_op || ' refused',
        hint = 'docs/operations/audit.md says how entries leave the log';
end
$$
"""
_TRIGGER = """
create trigger {table}_append_only before update or delete or truncate on {table}
for each statement execute function refuse_change_of_log()
"""


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_table(
        "audit_outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("batch", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "body",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.CheckConstraint("kind in ('operation','login')", name=op.f("ck_audit_outbox_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_outbox")),
    )
    op.create_index("ix_audit_outbox_at", "audit_outbox", ["at"], unique=False)
    op.create_index("ix_audit_outbox_batch", "audit_outbox", ["batch"], unique=False)
    op.create_table(
        "login_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), server_default="", nullable=False),
        sa.Column("request_id", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_log")),
    )
    op.create_index("ix_login_log_address_at_id", "login_log", ["address", "at", "id"], unique=False)
    op.create_index("ix_login_log_at_id", "login_log", ["at", "id"], unique=False)
    op.create_index("ix_login_log_outcome_at_id", "login_log", ["outcome", "at", "id"], unique=False)
    op.create_index("ix_login_log_request_id_at_id", "login_log", ["request_id", "at", "id"], unique=False)
    op.create_index("ix_login_log_user_id_at_id", "login_log", ["user_id", "at", "id"], unique=False)
    op.create_index("ix_login_log_username_at_id", "login_log", ["username", "at", "id"], unique=False)
    op.create_table(
        "operation_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("credential_id", sa.Uuid(), nullable=True),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), server_default="", nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column(
            "params",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("duration_ms", sa.Float(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("user_agent", sa.Text(), server_default="", nullable=False),
        sa.Column("request_id", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "request",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation_log")),
    )
    op.create_index("ix_operation_log_actor_at_id", "operation_log", ["actor", "at", "id"], unique=False)
    op.create_index("ix_operation_log_address_at_id", "operation_log", ["address", "at", "id"], unique=False)
    op.create_index("ix_operation_log_at_id", "operation_log", ["at", "id"], unique=False)
    op.create_index("ix_operation_log_path_at_id", "operation_log", ["path", "at", "id"], unique=False)
    op.create_index("ix_operation_log_request_id_at_id", "operation_log", ["request_id", "at", "id"], unique=False)
    op.create_index("ix_operation_log_route_at_id", "operation_log", ["route", "at", "id"], unique=False)
    op.create_index("ix_operation_log_status_at_id", "operation_log", ["status", "at", "id"], unique=False)
    op.create_index("ix_operation_log_user_id_at_id", "operation_log", ["user_id", "at", "id"], unique=False)
    op.execute(_REFUSAL)
    for table in ("operation_log", "login_log"):
        op.execute(_TRIGGER.format(table=table))


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for table in ("operation_log", "login_log", "audit_outbox"):
        op.drop_table(table)
    op.execute("drop function refuse_change_of_log()")
