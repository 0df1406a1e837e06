"""The real engine, loaded once, one call heard once, and a desk for the domain."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.core.db import Database
from backend.core.storage import FolderStorage
from backend.recordings.speech.base import Transcript
from backend.recordings.speech.local import LocalSpeechEngine
from backend.recordings.transcribe import transcribe_file
from tests.fixtures.sent import Sent
from tests.recordings.desk import Desk
from tests.recordings.sounds import CALL


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalSpeechEngine:
    return LocalSpeechEngine(cache=tmp_path_factory.mktemp("weights"))


@dataclass(frozen=True)
class Hearing:
    """Transcribes with the real engine; language given, so that only the test of detection pays for it."""

    engine: LocalSpeechEngine

    def __call__(self, path: Path, *speakers: str, language: str | None = "en") -> Transcript:
        return transcribe_file(self.engine, path, speakers, language=language)


@pytest.fixture(scope="session")
def hear(engine: LocalSpeechEngine) -> Callable[..., Transcript]:
    return Hearing(engine)


@pytest.fixture(scope="session")
def call(hear: Hearing) -> Transcript:
    """The recorded call, agent left and customer right, its language detected."""
    return hear(CALL, "agent", "customer", language=None)


@pytest.fixture
def desk(db: Database, sent: Sent, tmp_path: Path) -> Desk:
    (tmp_path / "egress").mkdir()
    return Desk(db, sent, tmp_path / "egress", FolderStorage(tmp_path / "recordings"))
