"""Vectors put into groups, with vectors made up so that the truth is known."""

import time
from collections import Counter

import numpy as np
import pytest

from backend.recordings.speech.base import SpeakerCount
from backend.recordings.speech.diarization.clustering import Bounds, Vectors, speakers_of

BOUNDS = Bounds(cut=0.65, alike=0.6, least=3)


def voices(*sizes: int, noise: float = 1.0, seed: int = 3) -> tuple[Vectors, list[int]]:
    """Vectors of length 1 around one random direction per size, in random order, and whose they are."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(len(sizes), 192))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    owner = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    spread = random.normal(size=(len(owner), 192)) * noise / np.sqrt(192)
    found = directions[owner] + spread
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32), owner.tolist()


def purity(vectors: Vectors, owner: list[int], speakers: Vectors) -> float:
    """The share of vectors whose nearest speaker is that of most vectors of their owner."""
    nearest = np.argmax(vectors @ speakers.T, axis=1).tolist()
    pairs = Counter(zip(owner, nearest, strict=True))
    return sum(max(pairs[one, other] for other in range(len(speakers))) for one in set(owner)) / len(owner)


@pytest.mark.parametrize("sizes", [(40,), (40, 30), (20, 8, 60), (12, 12, 12, 12, 12)])
def test_as_many_speakers_are_found_as_there_are(sizes: tuple[int, ...]) -> None:
    vectors, owner = voices(*sizes)
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount())
    assert len(speakers) == len(sizes)
    assert purity(vectors, owner, speakers) == 1.0
    assert np.linalg.norm(speakers, axis=1) == pytest.approx(np.ones(len(sizes)), abs=1e-5)


def test_a_speck_is_no_speaker() -> None:
    vectors, _ = voices(40, 30, 2)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount())) == 2


def test_odd_windows_of_a_long_recording_are_no_speaker() -> None:
    vectors, _ = voices(900, 600, 12)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount())) == 2


def test_speakers_who_say_little_count_where_that_many_are_known_to_be_there() -> None:
    vectors, owner = voices(2, 2)
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount(2, 2))
    assert len(speakers) == 2
    assert purity(vectors, owner, speakers) == 1.0


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_speakers_are_found_than_there_may_be(most: int) -> None:
    vectors, _ = voices(40, 30, 20, 10)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount(1, most))) == most


def test_one_voice_is_divided_where_more_are_known_to_be_there() -> None:
    vectors, _ = voices(40)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount(2, 2))) == 2


def test_no_more_speakers_are_found_than_vectors() -> None:
    vectors, _ = voices(1)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount(5, 5))) == 1


def test_noisier_voices_are_still_told_apart() -> None:
    vectors, owner = voices(60, 50, noise=1.3)
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount())
    assert len(speakers) == 2
    assert purity(vectors, owner, speakers) > 0.97


@pytest.mark.parametrize("repeats", [3, 40])
def test_more_of_the_same_voices_are_not_more_speakers(repeats: int) -> None:
    first, _ = voices(40, 30, noise=1.5)
    random = np.random.default_rng(4)
    again = np.tile(first, (repeats, 1)) + random.normal(size=(repeats * len(first), 192)) * 0.3 / np.sqrt(192)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    assert len(speakers_of(again.astype(np.float32), BOUNDS, SpeakerCount())) == 2


@pytest.mark.parametrize("sizes", [(12,), (20, 15), (25, 40, 20)])
@pytest.mark.parametrize("times", [5, 100])
def test_what_is_played_again_and_again_has_the_speakers_of_the_first_time(sizes: tuple[int, ...], times: int) -> None:
    first, owner = voices(*sizes, noise=1.4)
    random = np.random.default_rng(4)
    again = np.tile(first, (times, 1)) + random.normal(size=(times * len(first), 192)) * 0.1 / np.sqrt(192)
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    speakers = speakers_of(again.astype(np.float32), BOUNDS, SpeakerCount())
    assert len(speakers) == len(sizes)
    assert purity(first, owner, speakers) == 1.0


def test_an_announcement_played_all_the_time_hides_nobody() -> None:
    said, owner = voices(500, 400, 10, noise=1.5)
    random = np.random.default_rng(4)
    played = np.repeat(said[np.array(owner) == 2], 90, axis=0)
    played += random.normal(size=played.shape).astype(np.float32) * 0.1 / np.sqrt(192)
    played /= np.linalg.norm(played, axis=1, keepdims=True)
    everything = np.concatenate([said, played])[random.permutation(len(said) + len(played))]
    speakers = speakers_of(everything, BOUNDS, SpeakerCount())
    assert len(speakers) == 3
    assert purity(said, owner, speakers) == 1.0


def test_who_speaks_in_a_part_of_a_long_recording_only_is_found() -> None:
    often, owner = voices(600, 500, 200, seed=6)
    late = np.array(owner) == 2
    vectors = np.concatenate([often[~late], often[late]])
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount())
    assert len(speakers) == 3
    assert purity(often, owner, speakers) == 1.0


def test_who_says_little_all_the_time_is_found() -> None:
    vectors, owner = voices(1200, 800, 40)
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount())
    assert len(speakers) == 3
    assert purity(vectors, owner, speakers) == 1.0


@pytest.mark.parametrize(("low", "high", "expected"), [(2, 2, 2), (1, 3, 3), (6, 6, 6), (1, 1, 1)])
def test_what_is_known_of_the_number_holds_for_hours_too(low: int, high: int, expected: int) -> None:
    vectors, _ = voices(600, 500, 400, 300)
    assert len(speakers_of(vectors, BOUNDS, SpeakerCount(low, high))) == expected


def test_hours_of_vectors_are_grouped_within_seconds() -> None:
    vectors, owner = voices(6000, 4000, 800, 200)
    start = time.process_time()
    speakers = speakers_of(vectors, BOUNDS, SpeakerCount())
    assert time.process_time() - start < 30.0
    assert len(speakers) == 4
    assert purity(vectors, owner, speakers) == 1.0


def test_hours_of_sound_that_is_no_voice_end_too() -> None:
    random = np.random.default_rng(5).normal(size=(6000, 192)).astype(np.float32)
    start = time.process_time()
    speakers = speakers_of(random / np.linalg.norm(random, axis=1, keepdims=True), BOUNDS, SpeakerCount())
    assert time.process_time() - start < 60.0
    assert 1 <= len(speakers) <= 20
