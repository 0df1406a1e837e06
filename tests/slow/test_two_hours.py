"""A file of two hours with everything real: bounded memory, a kill in the middle, and no part heard twice."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from backend.recordings.sound.decoding import decoded
from devstack.environment import ROOT
from tests.recordings.sounds import JFK, RATE, Sound, noise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2_700)]

SECONDS = 2 * 3600
EVERY = 60
# reference: a 40 s clip needs about as much, for the models alone.
MOST_MB = 1_500


def _minutes() -> Iterator[Sound]:
    """A minute each: eleven seconds of a speech, then a quiet room."""
    with decoded(JFK) as audio:
        speech = np.array(audio.channels[0])
    for number in range(SECONDS // EVERY):
        yield np.concatenate([speech, noise(EVERY - len(speech) / RATE, level=0.0005, seed=number)])


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp3"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        assert isinstance(stream, AudioStream)
        for minute in _minutes():
            frame = AudioFrame.from_ndarray(minute.reshape(1, -1), format="s16p", layout="mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _listener(path: Path, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.slow.listener", str(path), str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _parts(folder: Path) -> dict[str, int]:
    """The checkpoints of words, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "checkpoints").glob("words-*.json")}


def test_two_hours_are_transcribed_in_bounded_memory_and_never_twice(long: Path, tmp_path: Path) -> None:
    killed = _listener(long, tmp_path)
    while len(_parts(tmp_path)) < 8:
        assert killed.poll() is None, "ended by itself"
        time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = _parts(tmp_path)

    answer, _ = _listener(long, tmp_path).communicate()
    done: dict[str, Any] = json.loads(answer.splitlines()[-1])
    print(done)  # noqa: T201 - the numbers are worth reading, too
    after = _parts(tmp_path)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    assert done["seconds"] == pytest.approx(SECONDS, abs=2)
    # Something of every minute is there, to the last.
    assert done["segments"] >= SECONDS // EVERY
    assert done["last"] > SECONDS - EVERY
    assert "my fellow americans" in done["text"].lower()
    assert done["speakers"] == 1
    assert done["peak_mb"] < MOST_MB
    # Whoever cancels, waits no longer than this.
    assert done["longest_silence"] < 60
