"""The tasks as a worker runs them, with the real engine."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from backend.celery_app import TASK_ROUTES, app, settings
from backend.config import Config
from backend.core.data_plane import DataPlane
from backend.core.db import Database
from backend.core.runs import Tracker
from backend.core.runtime import Runtime
from backend.recordings import service, tasks
from backend.recordings.speech.local import LocalSpeechEngine
from tests.fixtures.sent import Sent
from tests.recordings.sounds import AUSTEN


@pytest.fixture
def config(tmp_path: Path) -> Config:
    kept = settings.recordings
    return replace(
        settings,
        egress_dir=tmp_path / "egress",
        recordings=replace(
            kept,
            storage=replace(kept.storage, folder=tmp_path / "recordings", work=tmp_path / "work"),
            speech=replace(kept.speech, language="en"),
        ),
    )


async def test_a_recording_becomes_a_transcript(
    db: Database, sent: Sent, config: Config, engine: LocalSpeechEngine
) -> None:
    config.egress_dir.mkdir()
    (config.egress_dir / "call.wav").write_bytes(AUSTEN.read_bytes())
    call = uuid4()
    async with db.transaction() as session:
        recording = await service.register(
            session,
            kind="call",
            subject_id=call,
            source_path=str(config.egress_dir / "call.wav"),
            duration_ms=None,
            channel_speakers=["agent", "customer"],
            then_task="extract_call_outcome",
        )
    api = DataPlane(config.api_url, config.service_key)
    # The engine of this session stands in the process's place for it, so that it is not loaded twice.
    runs = Tracker(config.database_url, config.run_lease_seconds)
    runtime = Runtime(config=config, db=db, api=api, send=sent, runs=runs, resources={"recordings.engine": engine})
    try:
        assert await tasks.transcribe_recording(runtime, recording_id=str(recording.id)) == "ready"
        assert await tasks.transcribe_recording(runtime, recording_id=str(recording.id)) is None
        assert await tasks.sweep_recordings(runtime) == 0
    finally:
        await api.close()
    async with db.transaction() as session:
        transcript = await service.transcript_of(session, kind="call", subject_id=call)
    assert transcript is not None
    assert "young man" in transcript.text
    assert sent.named("extract_call_outcome") == [{"call_id": str(call)}]


def test_the_tasks_are_registered_and_have_a_queue() -> None:
    assert {"transcribe_recording", "sweep_recordings"} <= set(app.tasks)
    assert TASK_ROUTES["transcribe_recording"] == {"queue": "audio"}
