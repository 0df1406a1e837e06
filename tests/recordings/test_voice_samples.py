"""The short clips by which people know a speaker."""

import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.recordings.speech.base import Turn
from backend.recordings.voice_samples import MAX_SECONDS, voice_samples
from tests.recordings.sounds import RATE, Sound, silence, tone

LOW, HIGH = 300.0, 1200.0


def read(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def seconds(path: Path) -> float:
    return len(read(path)) / RATE


def share(sound: NDArray[np.int16], pitch: float) -> float:
    """Of the energy, within 50 Hz of a pitch."""
    power = np.abs(np.fft.rfft(sound.astype(np.float64))) ** 2
    near = np.abs(np.fft.rfftfreq(len(sound), 1 / RATE) - pitch) < 50
    return float(power[near].sum() / power.sum())


def dialogue() -> Sound:
    """Low 0 to 4 s, both 4 to 5 s, high 5 to 20 s, low 20 to 22 s."""
    low, high = tone(22.0, pitch=LOW, level=0.1), tone(22.0, pitch=HIGH, level=0.1)
    at = np.arange(len(low)) / RATE
    return (
        np.where(at < 5, low, 0)
        + np.where((at >= 4) & (at < 20), high, 0)
        + np.where(at >= 20, low, 0).astype(np.int16)
    )


TURNS = [Turn(0.0, 5.0, 0), Turn(4.0, 20.0, 1), Turn(20.0, 22.0, 0)]


def test_each_speaker_gets_seconds_in_which_nobody_else_speaks(tmp_path: Path) -> None:
    found = voice_samples(dialogue().astype(np.int16), TURNS, tmp_path)
    assert sorted(found) == [0, 1]
    assert share(read(found[0]), LOW) > 0.98
    assert share(read(found[1]), HIGH) > 0.98


def test_a_clip_is_six_seconds_at_most(tmp_path: Path) -> None:
    found = voice_samples(dialogue().astype(np.int16), TURNS, tmp_path)
    assert seconds(found[1]) == pytest.approx(MAX_SECONDS, abs=0.01)
    assert 5.0 < seconds(found[0]) < MAX_SECONDS, "two turns together"


def test_a_clip_begins_and_ends_softly_and_is_as_loud_as_the_others(tmp_path: Path) -> None:
    quiet = (dialogue() // 4).astype(np.int16)
    clip = read(voice_samples(quiet, TURNS, tmp_path)[1]).astype(np.int32)
    peak = int(np.abs(clip).max())
    assert 20 * np.log10(peak / 32768) == pytest.approx(-3.0, abs=0.2)
    assert np.abs(clip[:80]).max() < peak / 5
    assert np.abs(clip[-80:]).max() < peak / 5


def test_noise_is_not_blown_up(tmp_path: Path) -> None:
    hiss = np.random.default_rng(1).normal(0.0, 3.0, 10 * RATE).astype(np.int16)
    clip = read(voice_samples(hiss, [Turn(0.0, 10.0, 0)], tmp_path)[0])
    assert np.abs(clip.astype(np.int32)).max() < 1000


def test_who_only_ever_speaks_at_the_same_time_as_others_gets_a_clip_all_the_same(tmp_path: Path) -> None:
    found = voice_samples(dialogue().astype(np.int16), [Turn(0.0, 5.0, 0), Turn(0.0, 5.0, 1)], tmp_path)
    assert sorted(found) == [0, 1]


def test_who_never_speaks_for_half_a_second_gets_none(tmp_path: Path) -> None:
    found = voice_samples(dialogue().astype(np.int16), [*TURNS, Turn(21.0, 21.3, 2)], tmp_path)
    assert sorted(found) == [0, 1]


@pytest.mark.parametrize("turns", [[], [Turn(0.0, 0.1, 0)]])
def test_nobody_to_hear_gives_no_clips(tmp_path: Path, turns: list[Turn]) -> None:
    assert voice_samples(silence(3.0), turns, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_digital_silence_and_turns_beyond_the_end_are_no_trouble(tmp_path: Path) -> None:
    found = voice_samples(silence(3.0), [Turn(0.0, 9.0, 0), Turn(20.0, 30.0, 1)], tmp_path)
    assert seconds(found[0]) <= 3.0
    assert read(found[0]).max() == 0
