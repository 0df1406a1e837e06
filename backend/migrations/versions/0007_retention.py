"""Indices for what is deleted by age."""

from collections.abc import Sequence

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_index("ix_call_events_received_at", "call_events", ["received_at"], unique=False)
    op.create_index("ix_recordings_created_at_id", "recordings", ["created_at", "id"], unique=False)


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.drop_index("ix_call_events_received_at", table_name="call_events")
    op.drop_index("ix_recordings_created_at_id", table_name="recordings")
