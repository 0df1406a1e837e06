"""The tasks as a worker runs them, with the real engine."""

from collections.abc import AsyncIterator
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
from backend.core.storage import FolderStorage
from backend.recordings import service, tasks
from backend.recordings.pipeline import Tools
from tests.fixtures.sent import Sent
from tests.recordings.desk import Desk, Scripted
from tests.recordings.sounds import AUSTEN, noise, write_wav


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


@pytest.fixture
async def runtime(db: Database, sent: Sent, config: Config) -> AsyncIterator[Runtime]:
    config.egress_dir.mkdir()
    api = DataPlane(config.api_url, config.service_key)
    runs = Tracker(config.database_url, config.run_lease_seconds)
    yield Runtime(config=config, db=db, api=api, send=sent, runs=runs)
    await api.close()


async def test_a_recording_becomes_a_transcript(
    runtime: Runtime, db: Database, sent: Sent, config: Config, tools: Tools
) -> None:
    # The tools of this session stand in the process's place for them, so that nothing is loaded twice.
    runtime.resources[tasks.TOOLS] = tools
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
    assert await tasks.transcribe_recording(runtime, recording_id=str(recording.id)) == "ready"
    assert await tasks.transcribe_recording(runtime, recording_id=str(recording.id)) is None
    assert await tasks.sweep_recordings(runtime) == 0
    async with db.transaction() as session:
        transcript = await service.transcript_of(session, kind="call", subject_id=call)
    assert transcript is not None
    assert "young man" in transcript.text
    assert sent.named("extract_call_outcome") == [{"call_id": str(call)}]


async def test_an_upload_is_looked_at_and_then_transcribed_by_models_that_are_loaded_once(
    runtime: Runtime, db: Database, sent: Sent, config: Config
) -> None:
    storage = FolderStorage(config.recordings.storage.folder)
    desk = Desk(db, sent, config.egress_dir, storage, config.recordings.storage.work)
    loaded: list[Scripted] = []

    def load() -> Scripted:
        loaded.append(Scripted(script=[[]]))
        return loaded[-1]

    runtime.resources[tasks.TOOLS] = replace(Scripted().tools(), engines={"local": load})
    for name in ("one", "two"):
        note = await desk.note(write_wav(config.egress_dir / f"{name}.wav", noise(2.0, seed=len(name) + len(loaded))))
        assert await tasks.probe_recording(runtime, recording_id=str(note.id)) == "fetched"
        assert sent.named("transcribe_recording")[-1] == {"recording_id": str(note.id)}
        assert await tasks.transcribe_recording(runtime, recording_id=str(note.id)) == "ready"
    assert len(loaded) == 1


def test_the_tasks_are_registered_and_have_a_queue() -> None:
    assert {"transcribe_recording", "probe_recording", "sweep_recordings"} <= set(app.tasks)
    assert TASK_ROUTES["transcribe_recording"] == {"queue": "audio"}
    assert TASK_ROUTES["probe_recording"] == {"queue": "default"}
