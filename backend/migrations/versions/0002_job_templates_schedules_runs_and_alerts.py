"""Job templates, schedules, runs and alerts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_table(
        "job_templates",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column(
            "parameters",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_templates")),
        sa.UniqueConstraint("name", name=op.f("uq_job_templates_name")),
    )
    op.create_table(
        "job_schedules",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job_template_id", sa.BigInteger(), nullable=True),
        sa.Column("credential_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "parameters",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("schedule_type", sa.Text(), nullable=False),
        sa.Column("cron_expression", sa.Text(), nullable=True),
        sa.Column("interval_seconds", sa.Float(), nullable=True),
        sa.Column("anchor", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_runs", sa.Integer(), nullable=True),
        sa.Column("jitter_seconds", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("misfire_policy", sa.Text(), server_default="coalesce", nullable=False),
        sa.Column("misfire_grace_seconds", sa.Integer(), server_default=sa.text("3600"), nullable=False),
        sa.Column("max_catchup", sa.Integer(), server_default=sa.text("100"), nullable=False),
        sa.Column("overlap_policy", sa.Text(), server_default="skip", nullable=False),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=True),
        sa.Column("retry_delay_seconds", sa.Float(), nullable=True),
        sa.Column("timeout_seconds", sa.Integer(), nullable=True),
        sa.Column("expires_seconds", sa.Integer(), nullable=True),
        sa.Column("alert_grace_seconds", sa.Integer(), nullable=True),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("next_run", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_run", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_state", sa.Text(), nullable=True),
        sa.Column("last_finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_success_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("consecutive_failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("alert_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("deferred_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tzdata_version", sa.Text(), server_default="", nullable=False),
        sa.Column("managed_by", sa.Text(), server_default="user", nullable=False),
        sa.Column("system_default", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_by", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(schedule_type = 'cron' and cron_expression is not null)"
            " or (schedule_type = 'interval' and interval_seconds >= 1 and anchor is not null)"
            " or (schedule_type = 'once' and run_at is not null)",
            name=op.f("ck_job_schedules_when"),
        ),
        sa.CheckConstraint("managed_by in ('user','system')", name=op.f("ck_job_schedules_managed_by")),
        sa.CheckConstraint(
            "jitter_seconds >= 0 and misfire_grace_seconds >= 0 and max_catchup >= 1",
            name=op.f("ck_job_schedules_policies"),
        ),
        sa.CheckConstraint(
            "(next_run is null or next_run between '1970-01-01Z' and '9000-01-01Z')"
            " and (run_at is null or run_at between '1970-01-01Z' and '9000-01-01Z')"
            " and (anchor is null or anchor between '1970-01-01Z' and '9000-01-01Z')"
            " and (start_at is null or start_at between '1970-01-01Z' and '9000-01-01Z')"
            " and (end_at is null or end_at between '1970-01-01Z' and '9000-01-01Z')",
            name=op.f("ck_job_schedules_instants"),
        ),
        sa.CheckConstraint(
            "misfire_policy in ('skip','coalesce','run_all')", name=op.f("ck_job_schedules_misfire_policy")
        ),
        sa.CheckConstraint(
            "overlap_policy in ('allow','skip','queue_one','queue_all','cancel_previous')",
            name=op.f("ck_job_schedules_overlap_policy"),
        ),
        sa.CheckConstraint("schedule_type in ('cron','interval','once')", name=op.f("ck_job_schedules_schedule_type")),
        sa.CheckConstraint(
            "(concurrency_key is null) = (concurrency_limit is null)", name=op.f("ck_job_schedules_concurrency")
        ),
        sa.ForeignKeyConstraint(
            ["job_template_id"], ["job_templates.id"], name=op.f("fk_job_schedules_job_template_id_job_templates")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_job_schedules_name")),
    )
    op.create_index(
        "ix_job_schedules_alert_after_active",
        "job_schedules",
        ["alert_after"],
        unique=False,
        postgresql_where=sa.text("is_active and alert_after is not null"),
    )
    op.create_index(op.f("ix_job_schedules_job_template_id"), "job_schedules", ["job_template_id"], unique=False)
    op.create_index(
        "ix_job_schedules_next_run_active",
        "job_schedules",
        ["next_run"],
        unique=False,
        postgresql_where=sa.text("is_active and next_run is not null"),
    )
    op.create_table(
        "job_alerts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("schedule_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("expected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind in ('late','missed','failing')", name=op.f("ck_job_alerts_kind")),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["job_schedules.id"],
            name=op.f("fk_job_alerts_schedule_id_job_schedules"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_alerts")),
    )
    op.create_index("ix_job_alerts_opened_at_id", "job_alerts", ["opened_at", "id"], unique=False)
    op.create_index(
        "uq_job_alerts_schedule_id_open",
        "job_alerts",
        ["schedule_id"],
        unique=True,
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("schedule_id", sa.BigInteger(), nullable=True),
        sa.Column("job_template_id", sa.BigInteger(), nullable=True),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("scheduled_for", sa.DateTime(timezone=True), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("triggered_by", sa.Text(), server_default="", nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("replay_of", sa.Uuid(), nullable=True),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column(
            "arguments",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("max_attempts", sa.Integer(), nullable=True),
        sa.Column("retry_delay_seconds", sa.Float(), nullable=True),
        sa.Column("timeout_seconds", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("serial", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("concurrency_limit", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("blocked_by", sa.Uuid(), nullable=True),
        sa.Column("covers_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("occurrences", sa.Integer(), server_default=sa.text("1"), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("publish_after", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("relay_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("relay_pid", sa.Integer(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("publish_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state in ('waiting','pending','queued','running','succeeded','failed','dead','cancelled','missed','skipped',"
            "'coalesced')",
            name=op.f("ck_job_runs_state"),
        ),
        sa.CheckConstraint(
            "trigger in ('schedule','manual','backfill','replay','alert')", name=op.f("ck_job_runs_trigger")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["job_schedules.id"],
            name=op.f("fk_job_runs_schedule_id_job_schedules"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_runs")),
    )
    op.create_index(
        "ix_job_runs_concurrency_key_active",
        "job_runs",
        ["concurrency_key"],
        unique=False,
        postgresql_where=sa.text("concurrency_key is not null and state in ('waiting','pending','queued','running')"),
    )
    op.create_index("ix_job_runs_created_at_id", "job_runs", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_job_runs_expires_at_unclaimed",
        "job_runs",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("expires_at is not null and state in ('waiting','pending','queued')"),
    )
    op.create_index(
        "ix_job_runs_finished_at",
        "job_runs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at is not null"),
    )
    op.create_index(
        "ix_job_runs_lease_until_running",
        "job_runs",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_job_runs_publish_after_pending",
        "job_runs",
        ["publish_after"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_job_runs_published_at_queued",
        "job_runs",
        ["published_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_job_runs_schedule_id_active",
        "job_runs",
        ["schedule_id"],
        unique=False,
        postgresql_where=sa.text("state in ('waiting','pending','queued','running')"),
    )
    op.create_index("ix_job_runs_schedule_id_created_at", "job_runs", ["schedule_id", "created_at"], unique=False)
    op.create_index(
        "ix_job_runs_scheduled_for_waiting",
        "job_runs",
        ["scheduled_for"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "uq_job_runs_idempotency_key",
        "job_runs",
        ["idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key is not null"),
    )
    op.create_index(
        "uq_job_runs_occurrence",
        "job_runs",
        ["schedule_id", "scheduled_for"],
        unique=True,
        postgresql_where=sa.text("trigger = 'schedule'"),
    )
    op.create_table(
        "job_run_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["job_runs.id"], name=op.f("fk_job_run_events_run_id_job_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_run_events")),
    )
    op.create_index("ix_job_run_events_run_id_id", "job_run_events", ["run_id", "id"], unique=False)


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    for table in ("job_run_events", "job_runs", "job_alerts", "job_schedules", "job_templates"):
        op.drop_table(table)
