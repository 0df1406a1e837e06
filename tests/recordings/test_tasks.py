"""The tasks as a worker runs them, with the real engine."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from backend.celery_app import TASK_ROUTES, app, settings
from backend.config import Config
from backend.core import delivery
from backend.core.data_plane import DataPlane
from backend.core.db import Database
from backend.core.delivery import Delivery
from backend.core.errors import TransientError
from backend.core.runs import Tracker
from backend.core.runtime import Runtime
from backend.core.storage import FolderStorage
from backend.recordings import service, tasks
from backend.recordings.pipeline import Tools
from devstack.environment import ROOT
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
        # What a killed worker of this machine has left of a recording that is deleted by now.
        (config.recordings.storage.work / str(uuid4())).mkdir(parents=True)
        assert await tasks.transcribe_recording(runtime, recording_id=str(note.id)) == "ready"
    assert len(loaded) == 1
    assert list(config.recordings.storage.work.iterdir()) == []


async def test_an_upload_that_cannot_be_looked_at_is_left_to_the_sweep_without_a_dead_letter(
    runtime: Runtime, db: Database, sent: Sent, config: Config
) -> None:
    storage = FolderStorage(config.recordings.storage.folder)
    desk = Desk(db, sent, config.egress_dir, storage, config.recordings.storage.work)
    note = await desk.note(write_wav(config.egress_dir / "one.wav", noise(2.0)))
    storage.path(note.blob_key or "").unlink()
    waits: list[float | None] = [5.0, None]
    token = delivery.current.set(Delivery("task-1", redelivered=False, retry_within=lambda _: waits.pop(0)))
    try:
        with pytest.raises(TransientError, match="not looked at"):
            await tasks.probe_recording(runtime, recording_id=str(note.id))
        # The last try.
        assert await tasks.probe_recording(runtime, recording_id=str(note.id)) is None
    finally:
        delivery.current.reset(token)
    assert (await desk.now()).state == "fetched"
    await desk.pass_time(timedelta(seconds=61))
    assert await tasks.sweep_recordings(runtime) == 1
    assert sent.named("transcribe_recording") == [{"recording_id": str(note.id)}]


def test_the_tasks_are_registered_and_have_a_queue() -> None:
    assert {"transcribe_recording", "probe_recording", "sweep_recordings"} <= set(app.tasks)
    assert TASK_ROUTES["transcribe_recording"] == {"queue": "audio"}
    assert TASK_ROUTES["probe_recording"] == {"queue": "default"}


@pytest.mark.parametrize("task", ["cleanup_recordings", "cleanup_uploads", "remove_recording_files"])
def test_what_is_deleted_never_waits_behind_hours_of_transcriptions(task: str) -> None:
    assert TASK_ROUTES[task] == {"queue": "low_priority"}
    worker = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["worker"]
    folders = {volume.rpartition(":")[2] for volume in worker["volumes"]}
    assert folders == {"/var/lib/beatline/egress", "/var/lib/beatline/recordings"}
