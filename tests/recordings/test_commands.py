"""`beatline transcribe`: what it writes, what it refuses, how it is stopped and goes on."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backend import cli
from backend.recordings.library.exporting import Abstract, Document
from backend.recordings.terminal.transcribing import as_text, clock

SOUNDS = Path(__file__).parents[1] / "fixtures" / "audio"
AUSTEN, JFK, CALL = SOUNDS / "read_austen_2.wav", SOUNDS / "speech_jfk.flac", SOUNDS / "call_two_channel.wav"
# What a person's shell has: nothing of Beatline's.
BARE = {name: os.environ[name] for name in ("PATH", "HOME", "BEATLINE_CACHE_DIR") if name in os.environ}


def transcribe(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": ""}).invoke(cli.app, ["transcribe", *map(str, arguments)])


@pytest.fixture
def austen(tmp_path: Path) -> Path:
    """A short recording that no other test works at."""
    return Path(shutil.copy(AUSTEN, tmp_path / "note.wav"))


def test_files_are_written_once_in_every_format_that_was_asked_for(tmp_path: Path, austen: Path) -> None:
    output = tmp_path / "out"
    (tmp_path / "broken.wav").write_text("this is no sound")
    done = transcribe(tmp_path / "broken.wav", austen, "-f", "json", "-f", "srt", "-f", "txt", "-o", output)
    assert done.exit_code == 3, done.output
    assert f"{tmp_path / 'broken.wav'}: the file is no recording" in done.stderr
    assert sorted(path.name for path in output.iterdir()) == ["note.json", "note.srt", "note.txt"]
    written = json.loads((output / "note.json").read_text())
    assert written["language"] == "en"
    assert written["segments"][0]["words"]
    assert written["summary"]["backend"] == "extractive"
    assert "-->" in (output / "note.srt").read_text()
    assert written["segments"][0]["text"] in (output / "note.txt").read_text()
    assert "note.wav: 0:03, 1 speaker, en by faster-whisper whisper-base-int8; took" in done.stderr
    assert done.stdout == ""
    (output / "note.srt").write_text("corrected by hand")
    again = transcribe(austen, "-f", "json", "-f", "srt", "-f", "txt", "-o", output)
    assert (again.exit_code, (output / "note.srt").read_text()) == (0, "corrected by hand")
    assert "note.srt" in again.stderr
    assert "is there already; --overwrite replaces it" in again.stderr


def test_without_an_output_the_words_go_to_standard_output_and_nothing_else_does(austen: Path) -> None:
    done = transcribe(austen, "-q", "--language", "en", "--no-diarization")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("[0:00:00] ")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_needs_no_server_and_reads_standard_input(austen: Path) -> None:
    with austen.open("rb") as sound:
        done = subprocess.run(
            [sys.executable, "-m", "backend.cli", "transcribe", "-", "--no-diarization"],
            stdin=sound, env=BARE, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[0:00:00] ")
    assert "standard input: 0:03" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_one_leaves_nothing_half_written_and_goes_on_from_there(
    tmp_path: Path, number: signal.Signals
) -> None:
    cache, output = tmp_path / "cache", tmp_path / "call.json"
    cache.mkdir()
    weights = Path(os.environ["BEATLINE_CACHE_DIR"])
    for folder in weights.glob("whisper-*"):
        (cache / folder.name).symlink_to(folder)
    command = [
        sys.executable,
        "-m",
        "backend.cli",
        "transcribe",
        str(CALL),
        "-o",
        str(output),
        "--channels",
        "agent,customer",
    ]
    environ = BARE | {"BEATLINE_CACHE_DIR": str(cache)}
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    words = _wait_for(cache, "words-1.json")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "the same command goes on from there" in said
    assert not output.exists()
    before = words.stat().st_mtime_ns
    assert json.loads(words.read_text())
    resumed = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    while words.exists() and resumed.poll() is None:
        assert words.stat().st_mtime_ns == before
        time.sleep(0.05)
    _, said = resumed.communicate(timeout=100)
    assert resumed.returncode == 0, said
    names = {each["name"] for each in json.loads(output.read_text())["speakers"]}
    assert names == {"agent", "customer"}
    assert [path for path in (cache / "transcribe").iterdir() if path.is_dir()] == []


def _wait_for(cache: Path, name: str, within: float = 90.0) -> Path:
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = list(cache.glob(f"transcribe/*/checkpoints/{name}"))
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no {name} within {within} s")


def test_two_at_the_same_file_do_not_disturb_each_other(austen: Path) -> None:
    root = Path(os.environ["BEATLINE_CACHE_DIR"]) / "transcribe"
    transcribe(austen, "-q", "--hints", "first")
    locks = sorted(root.glob("*.lock"), key=lambda path: path.stat().st_mtime)
    with locks[-1].open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = transcribe(austen, "-q", "--hints", "first")
    assert done.exit_code == 1
    assert "another beatline is at this file; the same command goes on later" in done.stderr


def test_where_the_workers_libraries_are_missing_it_says_where_they_are(austen: Path) -> None:
    code = f"import sys; sys.modules['numpy'] = None; from backend.cli import app; app(['transcribe', {str(austen)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=BARE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("beatline: numpy is not installed here. Transcribing needs the worker's libraries")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.wav"], "nothing.wav does not exist"),
        (["."], ". is a folder; name the files in it, such as ./*"),
        (["a.wav", "-f", "srt", "-f", "vtt"], "several formats need --output FOLDER"),
        (["a.wav", "b.wav", "-f", "srt"], "several files as srt need --output FOLDER"),
        (["a.wav", "a.mp3", "-o", "out"], "several files are called a; transcribe them into folders of their own"),
        (["a.wav", "-o", "a.docx"], "a.docx does not end in .txt, .srt, .vtt or .json: name the format by --format"),
        (["a.wav", "-o", "there.txt"], "there.txt is there already; --overwrite replaces it"),
        (["a.wav", "b.wav", "-o", "there.txt"], "there.txt is a file; several files or formats need a folder"),
        (["a.wav", "-o", "no/such/folder.txt"], "no/such is not a folder"),
        (["a.wav", "--language", "English"], "--language: must be a code of two or three letters such as en"),
        (["a.wav", "--speakers", "2", "--max-speakers", "3"], "speakers is exact: leave out min_speakers"),
        (["a.wav", "--min-speakers", "4", "--max-speakers", "3"], "min_speakers is more than max_speakers"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "a.mp3", "there.txt"):
        Path(name).write_bytes(b"x")
    done = transcribe(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp3", "a.wav", "b.wav", "there.txt"]


def test_several_files_on_standard_output_are_told_apart(tmp_path: Path, austen: Path) -> None:
    other = Path(shutil.copy(AUSTEN, tmp_path / "other.wav"))
    done = transcribe(austen, other, "--no-diarization")
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if line.startswith("==>")] == [
        "==> note.wav <==",
        "==> other.wav <==",
    ]


def test_text_with_a_summary_says_who_wrote_it() -> None:
    document = Document(
        title="Cabinets",
        language="en",
        duration_seconds=3.0,
        backend="faster-whisper",
        model="base",
        diarizer=None,
        parties=(),
        lines=(),
        abstract=Abstract("Cabinets", "They came.", ("Call Anika",), "openai", "some-model"),
    )
    assert as_text(document) == "Cabinets\n\nThey came. (summary: openai, some-model)\n\n- Call Anika\n\n"


def test_lengths_are_written_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3_599, 3_600, 86_399)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "23:59:59",
    ]
