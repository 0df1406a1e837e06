from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.recordings.speech.clips import blocks
from backend.recordings.speech.voice_activity import Run, joined, level_runs, union
from tests.recordings.sounds import noise, silence, tone


def _clips(runs: list[Run], *, gap: float = 1.0, limit: float = 30.0) -> list[list[tuple[float, float]]]:
    return [[(clip.start, clip.end) for clip in block.clips] for block in blocks(runs, gap=gap, limit=limit)]


def test_no_speech_makes_no_block() -> None:
    assert _clips([]) == []


def test_runs_with_short_pauses_become_one_clip() -> None:
    assert _clips([Run(0, 2), Run(2.5, 4), Run(6, 7)]) == [[(0, 4), (6, 7)]]


def test_a_block_ends_before_it_would_be_too_long() -> None:
    assert _clips([Run(0, 10), Run(12, 25), Run(28, 40)]) == [[(0, 10), (12, 25)], [(28, 40)]]


def test_a_clip_that_is_too_long_is_cut_at_its_longest_pause() -> None:
    runs = [Run(0, 12), Run(12.2, 20), Run(20.9, 30), Run(30.3, 38)]
    assert _clips(runs) == [[(0, 20)], [(20.9, 38)]]


def test_speech_without_any_pause_is_cut_evenly() -> None:
    assert _clips([Run(0, 75)]) == [[(0, 25)], [(25, 50)], [(50, 75)]]


@st.composite
def _runs(draw: st.DrawFn) -> list[Run]:
    at, runs = 0.0, []
    for pause, length in draw(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.1, 90)), max_size=25)):
        runs.append(Run(at + pause, at + pause + length))
        at = runs[-1].end
    return runs


@given(_runs(), st.floats(0.1, 6))
def test_every_run_is_heard_once_and_no_block_is_too_long(runs: list[Run], gap: float) -> None:
    made = blocks(runs, gap=gap, limit=30.0)
    clips = [clip for block in made for clip in block.clips]
    assert all(block.end - block.start <= 30.001 for block in made)
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(clips))
    for run in runs:
        heard = sum(max(0.0, min(run.end, clip.end) - max(run.start, clip.start)) for clip in clips)
        assert abs(heard - (run.end - run.start)) < 1e-6


def test_what_only_the_level_found_stays_marked_until_a_voice_is_found_there() -> None:
    level, voice = Run(1, 3, by_level_only=True), Run(2, 4)
    assert union([voice], [level]) == [Run(1, 4)]
    assert union([voice], [Run(5, 6, by_level_only=True)]) == [Run(2, 4), Run(5, 6, by_level_only=True)]
    assert joined([level, Run(3.1, 4, by_level_only=True)], 0.3) == [Run(1, 4, by_level_only=True)]


def test_on_a_clean_line_whatever_is_loud_is_speech() -> None:
    (run,) = level_runs(np.concatenate([silence(2.0), tone(1.0), silence(2.0)]))
    assert (round(run.start, 1), round(run.end, 1), run.by_level_only) == (1.9, 3.1, True)


def test_clicks_are_no_speech() -> None:
    assert level_runs(np.concatenate([silence(2.0), tone(0.05), silence(2.0)])) == []


def test_a_noisy_line_has_no_gate() -> None:
    assert level_runs(np.concatenate([noise(2.0, level=0.005), tone(1.0), noise(2.0, level=0.005)])) == []
