"""`beatline recordings …`."""

from pathlib import Path
from uuid import uuid4

import pytest

from backend.core.db import Database
from devstack.servers import PostgresServer
from tests.fixtures.command import beatline
from tests.fixtures.people import add_user
from tests.ops.recordings.scene import add_ready, add_recording


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The storage's."""
    monkeypatch.setenv("RECORDINGS_DIR", str(tmp_path))
    return tmp_path


async def test_lists_what_is_there_and_how_far_it_is(db: Database, postgres: PostgresServer, folder: Path) -> None:
    assert (await beatline("recordings", "list", url=postgres.url)).stdout == "no recordings\n"
    ready = await add_ready(db, folder, owner_id=None)
    working = await add_recording(db, owner_id=None, state="transcribing", stage="words", percent=42)
    done = await beatline("recordings", "list", url=postgres.url)
    assert done.exit_code == 0
    assert str(ready) in done.stdout
    assert "Renewal of the policy" in done.stdout
    assert "words 42 %" in done.stdout
    only = await beatline("recordings", "list", "--state", "ready", url=postgres.url)
    assert str(working) not in only.stdout
    assert "there are more" in (await beatline("recordings", "list", "-n", "1", url=postgres.url)).stdout


async def test_shows_and_exports_one(db: Database, postgres: PostgresServer, folder: Path) -> None:
    ready = await add_ready(db, folder, owner_id=None)
    shown = (await beatline("recordings", "show", str(ready), url=postgres.url)).stdout
    for fact in ("title:      Renewal", "speaker:    Speaker 2, 6 s", "to do:      Send the new form", "(extractive)"):
        assert fact in shown, fact
    words = await beatline("recordings", "export", str(ready), "-f", "vtt", url=postgres.url)
    assert words.stdout.startswith("WEBVTT")
    missing = await beatline("recordings", "show", str(uuid4()), url=postgres.url)
    assert (missing.exit_code, "does not exist" in missing.stderr) == (2, True)
    early = await beatline("recordings", "export", str(await add_recording(db, owner_id=None)), url=postgres.url)
    assert (early.exit_code, "has no transcript" in early.stderr) == (2, True)


async def test_has_the_teams_transcribed_again(db: Database, postgres: PostgresServer, folder: Path) -> None:
    ready, owner = await add_ready(db, folder, owner_id=None), await add_user(db, "olga")
    done = await beatline("recordings", "transcribe", str(ready), "--language", "de", url=postgres.url)
    assert (done.exit_code, done.stdout) == (0, f"{ready} is transcribed again\n")
    shown = (await beatline("recordings", "show", str(ready), url=postgres.url)).stdout
    assert "state:      fetched" in shown
    other = await beatline("recordings", "transcribe", str(ready), "--speakers", "2", url=postgres.url)
    assert (other.exit_code, "cancel that first" in other.stderr) == (2, True)
    wrong = await beatline("recordings", "transcribe", str(ready), "--backend", "else", url=postgres.url)
    assert (wrong.exit_code, "backend: " in wrong.stderr) == (2, True)
    private = await add_ready(db, folder, owner_id=owner.id)
    refused = await beatline("recordings", "transcribe", str(private), url=postgres.url)
    assert (refused.exit_code, "only the owner" in refused.stderr) == (2, True)


async def test_deletes_for_good_and_goes_on_after_one_that_is_not_there(
    db: Database, postgres: PostgresServer, folder: Path
) -> None:
    ready = await add_ready(db, folder, owner_id=None)
    asked = await beatline("recordings", "delete", str(ready), url=postgres.url, stdin="n\n")
    assert asked.exit_code == 2
    assert list(folder.rglob("*.wav"))
    done = await beatline("recordings", "delete", "--yes", str(uuid4()), str(ready), url=postgres.url)
    assert done.exit_code == 2
    assert f"{ready} is deleted: 4 segments, 1 file" in done.stdout
    assert "does not exist" in done.stderr
    assert list(folder.rglob("*.wav")) == []
    assert (await beatline("recordings", "list", url=postgres.url)).stdout == "no recordings\n"
