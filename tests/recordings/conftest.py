"""The real engine, loaded once, one call heard once, and a desk for the domain."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import FolderCheckpoints, Tools, run
from backend.recordings.speech.base import Transcript
from backend.recordings.speech.local import LocalSpeechEngine
from tests.fixtures.sent import Sent
from tests.recordings.desk import Desk, Scripted
from tests.recordings.sounds import CALL, noise, write_wav


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalSpeechEngine:
    return LocalSpeechEngine(cache=tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def tools(engine: LocalSpeechEngine) -> Tools:
    """The real engine and voice activity; nobody tells voices apart, nobody sums up."""
    others = Scripted()
    return Tools(engines={"local": lambda: engine}, open_diarizer=lambda: others, open_summarizer=lambda: others)


@dataclass(frozen=True)
class Hearing:
    """Transcribes with the real engine; language given, so that only the test of detection pays for it."""

    tools: Tools
    folder: Path

    def __call__(self, path: Path, *speakers: str, language: str | None = "en") -> Transcript:
        work = self.folder / path.stem
        return run(
            path,
            self.tools,
            options=TranscribeOptions(language=language, summary=False),
            channel_speakers=speakers,
            work=work,
            checkpoints=FolderCheckpoints(work / "checkpoints"),
            observe=lambda *_: None,
        ).transcript


@pytest.fixture(scope="session")
def hear(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Transcript]:
    return Hearing(tools, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="session")
def call(hear: Hearing) -> Transcript:
    """The recorded call, agent left and customer right, its language detected."""
    return hear(CALL, "agent", "customer", language=None)


@pytest.fixture
def desk(db: Database, sent: Sent, tmp_path: Path) -> Desk:
    (tmp_path / "egress").mkdir()
    return Desk(db, sent, tmp_path / "egress", FolderStorage(tmp_path / "recordings"), tmp_path / "work")


@pytest.fixture
def note(tmp_path: Path) -> Path:
    """Eight seconds of sound."""
    return write_wav(tmp_path / "note.wav", noise(8.0))
