"""Recordings that people upload: uploads, segments that can be searched and edited, speakers, summaries, links."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_CHECKS = {
    "kind": ("kind in ('call','note')", "kind in ('call')"),
    "state": (
        "state in ('registered','fetched','transcribing','ready','failed','cancelled')",
        "state in ('registered','fetched','transcribing','ready','failed')",
    ),
}
_NEW_CHECKS = {
    "stage": "stage in ('fetch','probe','decode','speech','words','speakers','summary','store')",
    "shared_role": "shared_role in ('viewer','operator','admin')",
}

# PostgreSQL's text search configurations by language.
_LANGUAGES = (
    "ar:arabic ca:catalan da:danish de:german el:greek en:english es:spanish eu:basque fi:finnish fr:french "
    "ga:irish hi:hindi hu:hungarian hy:armenian id:indonesian it:italian lt:lithuanian ne:nepali nl:dutch "
    "no:norwegian pt:portuguese ro:romanian ru:russian sr:serbian sv:swedish ta:tamil tr:turkish yi:yiddish"
)
_CONFIG = " ".join(f"when '{pair.split(':')[0]}' then '{pair.split(':')[1]}'" for pair in _LANGUAGES.split())

# What was heard before: by segment, with the words' language where PostgreSQL knows it, and the parties by channel.
_SEGMENTS = f"""
insert into transcript_segments
    (recording_id, number, start_ms, end_ms, speaker, channel, text, confidence, version, config)
select t.recording_id, s.number - 1, round((s.said->>'start')::numeric * 1000), round((s.said->>'end')::numeric * 1000),
    s.said->>'speaker', (s.said->>'channel')::integer, s.said->>'text', (s.said->>'confidence')::float, 1,
    cast(case t.language {_CONFIG} else 'simple' end as regconfig)
from transcripts t cross join lateral jsonb_array_elements(t.segments) with ordinality as s(said, number)
"""  # noqa: S608 - put together from the names above
_SPEAKERS = """
insert into recording_speakers (recording_id, label, position, spoken_ms)
select recording_id, speaker, row_number() over (partition by recording_id order by min(start_ms), speaker) - 1,
    sum(end_ms - start_ms)
from transcript_segments where speaker is not null group by recording_id, speaker
"""


def upgrade() -> None:
    # A migration must not queue in front of the calls: it gives up and can be started again.
    op.execute("set local lock_timeout = '5s'")
    op.create_table(
        "removed_files",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("place in ('storage','egress')", name=op.f("ck_removed_files_place")),
        sa.PrimaryKeyConstraint("place", "path", name=op.f("pk_removed_files")),
    )
    op.create_index("ix_removed_files_next_attempt_at", "removed_files", ["next_attempt_at"], unique=False)
    op.create_table(
        "recording_retention",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("updated_by", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_recording_retention_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "kind", name=op.f("pk_recording_retention")),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.Column(
            "progress", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("recording_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("offset_bytes >= 0 and offset_bytes <= size_bytes", name=op.f("ck_uploads_offset")),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_uploads_owner_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"], unique=False)
    op.create_index("ix_uploads_owner_id", "uploads", ["owner_id"], unique=False)
    op.create_table(
        "recording_checkpoints",
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("value", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_recording_checkpoints_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recording_id", "stage", "part", name=op.f("pk_recording_checkpoints")),
    )
    op.create_table(
        "recording_shares",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("with_audio", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_recording_shares_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recording_shares")),
    )
    op.create_index("ix_recording_shares_expires_at", "recording_shares", ["expires_at"], unique=False)
    op.create_index("ix_recording_shares_recording_id", "recording_shares", ["recording_id"], unique=False)
    op.create_index("uq_recording_shares_token_hash", "recording_shares", ["token_hash"], unique=True)
    op.create_table(
        "recording_speakers",
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("spoken_ms", sa.Integer(), nullable=False),
        sa.Column("sample_key", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_recording_speakers_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recording_id", "label", name=op.f("pk_recording_speakers")),
    )
    op.create_table(
        "recording_summaries",
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column(
            "action_items",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Numeric(precision=12, scale=6), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_recording_summaries_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recording_id", name=op.f("pk_recording_summaries")),
    )
    op.create_table(
        "segment_versions",
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("speaker", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("written_by", sa.Text(), nullable=True),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_segment_versions_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recording_id", "number", "version", name=op.f("pk_segment_versions")),
    )
    op.create_table(
        "transcript_segments",
        sa.Column("recording_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_ms", sa.Integer(), nullable=False),
        sa.Column("end_ms", sa.Integer(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=True),
        sa.Column("channel", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("config", postgresql.REGCONFIG(), server_default=sa.text("'simple'"), nullable=False),
        sa.Column(
            "search", postgresql.TSVECTOR(), sa.Computed("to_tsvector(config, text)", persisted=True), nullable=True
        ),
        sa.Column("updated_by", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["recording_id"],
            ["recordings.id"],
            name=op.f("fk_transcript_segments_recording_id_recordings"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("recording_id", "number", name=op.f("pk_transcript_segments")),
    )
    op.create_index(
        "ix_transcript_segments_search", "transcript_segments", ["search"], unique=False, postgresql_using="gin"
    )
    op.add_column("recordings", sa.Column("owner_id", sa.Uuid(), nullable=True))
    op.add_column("recordings", sa.Column("shared_role", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("title", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("filename", sa.Text(), nullable=True))
    op.add_column(
        "recordings",
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
    )
    op.add_column("recordings", sa.Column("stage", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("percent", sa.Integer(), nullable=True))
    op.add_column("recordings", sa.Column("seconds_left", sa.Integer(), nullable=True))
    op.add_column("recordings", sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("recordings", sa.Column("codec", sa.Text(), nullable=True))
    op.add_column("recordings", sa.Column("tries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("recordings", sa.Column("error_code", sa.Text(), nullable=True))
    op.create_index(
        "ix_recordings_common",
        "recordings",
        ["created_at", "id"],
        unique=False,
        postgresql_where=sa.text("owner_id is null or shared_role is not null"),
    )
    op.create_index(
        "ix_recordings_owner_id_created_at_id", "recordings", ["owner_id", "created_at", "id"], unique=False
    )
    op.create_index(
        "ix_recordings_team_sha256",
        "recordings",
        ["sha256"],
        unique=False,
        postgresql_where=sa.text("kind = 'note' and owner_id is null"),
    )
    op.create_index(
        "uq_recordings_owner_id_sha256",
        "recordings",
        ["owner_id", "sha256"],
        unique=True,
        postgresql_where=sa.text("kind = 'note' and owner_id is not null"),
    )
    op.create_foreign_key(
        op.f("fk_recordings_owner_id_users"), "recordings", "users", ["owner_id"], ["id"], ondelete="RESTRICT"
    )
    op.add_column("transcripts", sa.Column("diarizer", sa.Text(), nullable=True))
    op.add_column(
        "transcripts",
        sa.Column(
            "usage", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
    )
    op.add_column("transcripts", sa.Column("cost_usd", sa.Numeric(precision=12, scale=6), nullable=True))
    for name, (new, _) in _CHECKS.items():
        op.drop_constraint(op.f(f"ck_recordings_{name}"), "recordings", type_="check")
        op.create_check_constraint(op.f(f"ck_recordings_{name}"), "recordings", new)
    for name, new in _NEW_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_recordings_{name}"), "recordings", new)
    op.execute(_SEGMENTS)
    op.execute(_SPEAKERS)


def downgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    # What this version alone knows; the files stay in the storage.
    op.execute("delete from recordings where kind = 'note'")
    op.execute("update recordings set state = 'failed' where state = 'cancelled'")
    for name, (_, old) in _CHECKS.items():
        op.drop_constraint(op.f(f"ck_recordings_{name}"), "recordings", type_="check")
        op.create_check_constraint(op.f(f"ck_recordings_{name}"), "recordings", old)
    for name in _NEW_CHECKS:
        op.drop_constraint(op.f(f"ck_recordings_{name}"), "recordings", type_="check")
    op.drop_column("transcripts", "cost_usd")
    op.drop_column("transcripts", "usage")
    op.drop_column("transcripts", "diarizer")
    op.drop_constraint(op.f("fk_recordings_owner_id_users"), "recordings", type_="foreignkey")
    op.drop_index("uq_recordings_owner_id_sha256", table_name="recordings")
    op.drop_index("ix_recordings_team_sha256", table_name="recordings")
    op.drop_index("ix_recordings_owner_id_created_at_id", table_name="recordings")
    op.drop_index("ix_recordings_common", table_name="recordings")
    op.drop_column("recordings", "error_code")
    op.drop_column("recordings", "tries")
    op.drop_column("recordings", "codec")
    op.drop_column("recordings", "cancel_requested_at")
    op.drop_column("recordings", "seconds_left")
    op.drop_column("recordings", "percent")
    op.drop_column("recordings", "stage")
    op.drop_column("recordings", "options")
    op.drop_column("recordings", "filename")
    op.drop_column("recordings", "title")
    op.drop_column("recordings", "shared_role")
    op.drop_column("recordings", "owner_id")
    for table in (
        "transcript_segments",
        "segment_versions",
        "recording_summaries",
        "recording_speakers",
        "recording_shares",
        "recording_checkpoints",
        "uploads",
        "recording_retention",
        "removed_files",
    ):
        op.drop_table(table)
