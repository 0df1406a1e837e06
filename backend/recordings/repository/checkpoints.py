"""The SQL of checkpoints."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from backend.core.db import Session
from backend.recordings.models import Checkpoint, Stage

Key = tuple[Stage, int]


class CheckpointRepository:
    """Inside the session's transaction, which holds the recording's row."""

    def __init__(self, session: Session) -> None:
        self.session = session

    async def all(self, recording_id: UUID) -> dict[Key, Any]:
        query = select(Checkpoint).where(Checkpoint.recording_id == recording_id)
        return {(Stage(row.stage), row.part): row.value for row in (await self.session.exec(query)).all()}

    async def write(self, recording_id: UUID, values: Mapping[Key, Any]) -> None:
        rows = [
            {"recording_id": recording_id, "stage": stage.value, "part": part, "value": value}
            for (stage, part), value in values.items()
        ]
        change = insert(Checkpoint).values(rows)
        await self.session.exec(
            change.on_conflict_do_update(
                index_elements=["recording_id", "stage", "part"], set_={"value": change.excluded.value}
            )
        )

    async def delete(self, recording_id: UUID) -> None:
        await self.session.exec(delete(Checkpoint).where(col(Checkpoint.recording_id) == recording_id))
