"""Voice notes as their owners meet them: the whole stack runs, and everything goes through HTTP or the command line."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from rapidfuzz.fuzz import partial_ratio

from devstack.environment import ROOT
from tests.acceptance.conftest import ENVIRONMENT, run

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

CALL = ROOT / "tests/fixtures/audio/call_two_channel.wav"
AUSTEN = ROOT / "tests/fixtures/audio/read_austen_2.wav"
# Said by the agent and by the customer of the recorded call.
PHRASES = ("thank you for calling platinum motors", "from your dealership")
_FINAL = {"ready", "failed", "cancelled"}


@dataclass(frozen=True)
class Desk:
    """A running stack and somebody with an account, signed in."""

    state: Path
    client: httpx.Client
    environment: dict[str, str]
    # What `make up` has printed.
    said: str

    def upload(self, path: Path, **options: str) -> httpx.Response:
        with path.open("rb") as file:
            return self.client.post(
                "/api/recordings",
                params={"filename": path.name, **options},
                content=iter(lambda: file.read(65536), b""),
            )

    def recording(self, recording_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/recordings/{recording_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, recording_id: str, seconds: float = 300) -> tuple[dict[str, Any], set[str]]:
        """Until it is final: the recording, and the stages that were seen."""
        end = time.monotonic() + seconds
        stages = set()
        while (found := self.recording(recording_id))["state"] not in _FINAL:
            assert time.monotonic() < end, found
            stages.add(found["stage"])
            time.sleep(0.3)
        return found, stages

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "backend.cli", *arguments],
            cwd=ROOT,
            env={**ENVIRONMENT, **self.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    state = tmp_path_factory.mktemp("notes")
    password = secrets.token_urlsafe(16)
    wishes = {"BEATLINE_ADMIN_USERNAME": "owner", "BEATLINE_ADMIN_PASSWORD": password, "TRANSCRIPTION_LANGUAGE": "en"}
    try:
        up = run(
            state, "up", "--api-port", "0", *(part for wish in wishes.items() for part in ("--set", "=".join(wish)))
        )
        assert up.code == 0, up.stdout + up.stderr
        environment = dict(line.split("=", 1) for line in (state / "stack.env").read_text().splitlines())
        with httpx.Client(base_url=environment["BEATLINE_API_URL"], timeout=60, trust_env=False) as client:
            signed_in = client.post("/api/auth/login", json={"username": "owner", "password": password})
            assert signed_in.status_code == 200, signed_in.text
            client.headers["Authorization"] = f"Bearer {signed_in.json()['access_token']}"
            yield Desk(state, client, environment, up.stdout)
    finally:
        assert run(state, "reset").code == 0


@dataclass(frozen=True)
class Told:
    recording: dict[str, Any]
    stages: set[str]
    standing_before: dict[str, Any]
    standing_after: dict[str, Any]


@pytest.fixture(scope="module")
def told(desk: Desk) -> Told:
    """The recorded call, uploaded as a note and transcribed."""
    before = desk.client.get("/api/quotas/me").json()
    answer = desk.upload(CALL)
    assert answer.status_code == 201, answer.text
    recording, stages = desk.wait(answer.json()["id"])
    assert recording["state"] == "ready", recording
    return Told(recording, stages, before, desk.client.get("/api/quotas/me").json())


def test_an_uploaded_note_becomes_a_transcript_with_a_party_per_channel(desk: Desk, told: Told) -> None:
    segments = desk.client.get(f"/api/recordings/{told.recording['id']}/transcript", params={"format": "json"}).json()
    speakers = {segment["speaker"] for segment in segments["segments"]}
    assert len(speakers) == 2
    heard = " ".join(segment["text"] for segment in segments["segments"]).lower()
    assert all(partial_ratio(phrase, heard) > 80 for phrase in PHRASES), heard


def test_its_progress_can_be_seen_while_it_runs(told: Told) -> None:
    assert "words" in told.stages


def test_it_costs_its_own_length_and_one_file(told: Told) -> None:
    before, after = told.standing_before, told.standing_after
    assert after["used_files"] - before["used_files"] == 1
    assert after["used_seconds"] - before["used_seconds"] == pytest.approx(told.recording["duration_seconds"], abs=1)


def test_the_same_file_again_is_the_same_recording_and_costs_nothing(desk: Desk, told: Told) -> None:
    before = desk.client.get("/api/quotas/me").json()
    again = desk.upload(CALL)
    assert (again.status_code, again.json()["id"], again.json()["duplicate"]) == (200, told.recording["id"], True)
    assert desk.client.get("/api/quotas/me").json() == before


def test_what_was_said_is_found_with_the_time_at_which_it_was_said(desk: Desk, told: Told) -> None:
    answer = desk.client.get("/api/recordings/search", params={"q": "calling"})
    assert answer.status_code == 200, answer.text
    assert told.recording["id"] in json.dumps(answer.json())


@pytest.mark.parametrize(("kind", "start"), [("srt", "1\n00:"), ("vtt", "WEBVTT"), ("txt", "")])
def test_it_can_be_taken_away_in_every_form(desk: Desk, told: Told, kind: str, start: str) -> None:
    answer = desk.client.get(f"/api/recordings/{told.recording['id']}/transcript", params={"format": kind})
    assert answer.status_code == 200
    assert answer.text.lstrip("\ufeff").startswith(start)
    assert partial_ratio("thank you for calling", answer.text.lower().replace("\n", " ")) > 80


def test_the_page_shows_it_to_its_owner_alone(desk: Desk, told: Told) -> None:
    stranger = httpx.get(
        f"{desk.environment['BEATLINE_API_URL']}/api/recordings/{told.recording['id']}", trust_env=False
    )
    assert stranger.status_code == 401


def test_a_link_shares_it_until_it_is_taken_back(desk: Desk, told: Told) -> None:
    shares = f"/api/recordings/{told.recording['id']}/shares"
    made = desk.client.post(shares, json={"hours": 1})
    assert made.status_code == 201, made.text
    address = f"{desk.environment['BEATLINE_API_URL']}/api/shared/{made.json()['token']}"
    assert httpx.get(address, trust_env=False).status_code == 200
    assert desk.client.delete(f"{shares}/{made.json()['id']}").status_code == 200
    assert httpx.get(address, trust_env=False).status_code in {404, 410}


def test_a_file_that_is_no_recording_is_refused_with_the_reason(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "note.wav").write_bytes(b"%PDF-1.7 not a voice at all" * 100)
    refused = desk.upload(tmp_path / "note.wav")
    assert refused.status_code == 422, refused.text


def test_a_recording_that_ends_too_early_fails_within_seconds_and_costs_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "cut.wav").write_bytes(CALL.read_bytes()[:200_000])
    before = desk.client.get("/api/quotas/me").json()
    answer = desk.upload(tmp_path / "cut.wav")
    if answer.status_code == 201:
        failed, _ = desk.wait(answer.json()["id"], seconds=30)
        assert (failed["state"], failed["error_code"]) == ("failed", "truncated_audio")
    else:
        assert answer.status_code == 422, answer.text
    assert desk.client.get("/api/quotas/me").json()["used_files"] == before["used_files"]


def test_a_note_that_is_cancelled_stops_within_seconds(desk: Desk, tmp_path: Path) -> None:
    # Other bytes than the note above, the same sound.
    (tmp_path / "again.wav").write_bytes(CALL.read_bytes() + os.urandom(8))
    answer = desk.upload(tmp_path / "again.wav")
    assert answer.status_code == 201, answer.text
    end = time.monotonic() + 60
    while desk.recording(answer.json()["id"])["stage"] not in {"speech", "words"}:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert desk.client.post(f"/api/recordings/{answer.json()['id']}/cancel").status_code == 202
    cancelled, _ = desk.wait(answer.json()["id"], seconds=20)
    assert cancelled["state"] == "cancelled"


def test_deleting_takes_the_sound_and_the_words_with_it(desk: Desk) -> None:
    answer = desk.upload(AUSTEN)
    assert answer.status_code == 201, answer.text
    recording, _ = desk.wait(answer.json()["id"])
    assert recording["state"] == "ready", recording
    kept = {path for path in (desk.state / "recordings").rglob("*") if recording["id"] in str(path)}
    assert kept
    assert desk.client.delete(f"/api/recordings/{recording['id']}").status_code == 200
    assert not [path for path in kept if path.is_file()]
    assert desk.client.get(f"/api/recordings/{recording['id']}").status_code == 404


def test_the_command_line_hears_the_same_without_any_server(desk: Desk, tmp_path: Path) -> None:
    cache = {"BEATLINE_CACHE_DIR": desk.environment["BEATLINE_CACHE_DIR"]}
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", "transcribe", str(AUSTEN), "--format", "txt"],
        cwd=ROOT,
        env={**ENVIRONMENT, **cache, "RECORDINGS_WORK_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = (ROOT / "tests/fixtures/audio/read_austen_2.txt").read_text().lower().strip()
    assert partial_ratio(expected, done.stdout.lower()) > 75, done.stdout


def test_make_up_says_how_to_make_an_account_and_it_is_so(desk: Desk) -> None:
    (line,) = [line.strip() for line in desk.said.splitlines() if "users create-admin ada" in line]
    password = secrets.token_urlsafe(16)
    made = subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env=ENVIRONMENT,
        input=f"{password}\n{password}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout) == (0, "ada is admin\n"), made.stderr
    login = {"username": "ada", "password": password}
    with httpx.Client(base_url=desk.environment["BEATLINE_API_URL"], trust_env=False) as client:
        assert client.post("/api/auth/login", json=login).status_code == 200
