"""The pipeline on real sound, with tools that are told what to hear."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.recordings.models import Stage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import FolderCheckpoints, Pace, Result, run
from backend.recordings.speech.base import Cancelled, Segment, SpeakerCount, Tick, Turn, Word, said
from tests.recordings.desk import Scripted, two_parties
from tests.recordings.sounds import noise, silence, write_wav


def _spoken(*words: tuple[float, float, str]) -> Segment:
    return said([Word(start, end, f" {text}", 0.9) for start, end, text in words])


def _run(path: Path, scripted: Scripted, names: Sequence[str] = (), **asked: Any) -> Result:
    observe = asked.pop("observe", lambda *_: None)
    settings = {name: asked.pop(name) for name in ("language", "max_seconds") if name in asked}
    return run(
        path,
        scripted.tools(**settings),
        options=TranscribeOptions(**asked),
        channel_speakers=names,
        work=path.parent / "work",
        checkpoints=FolderCheckpoints(path.parent / "checkpoints"),
        observe=observe,
    )


@pytest.fixture
def mono(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "note.wav", noise(8.0))


def test_what_one_party_says_in_the_others_pause_comes_between(tmp_path: Path) -> None:
    agent = _spoken((0.0, 0.5, "Your"), (0.5, 1.0, "policy"), (2.5, 3.0, "ends"), (3.0, 3.4, "Friday."))
    customer = _spoken((1.2, 1.6, "Yes?"))
    done = _run(two_parties(tmp_path / "call.wav", 4.0), Scripted(script=[[agent], [customer]]), ["agent", "customer"])
    assert done.transcript.text == "agent: Your policy\ncustomer: Yes?\nagent: ends Friday."
    assert [segment.channel for segment in done.transcript.segments] == [0, 1, 0]
    assert [(label, round(seconds, 1)) for label, seconds in done.speakers] == [("agent", 1.9), ("customer", 0.4)]
    assert done.diarizer is None


def test_parties_without_names_are_told_apart_by_their_channel(tmp_path: Path) -> None:
    script = [[_spoken((0.0, 1.0, "One"))], [_spoken((2.0, 3.0, "two"))]]
    done = _run(two_parties(tmp_path / "call.wav", 4.0), Scripted(script=script), ["agent"])
    assert [(piece.speaker, piece.channel) for piece in done.transcript.segments] == [("agent", 0), ("Speaker 2", 1)]


def test_where_channels_were_mixed_voices_tell_who_speaks(tmp_path: Path) -> None:
    both = noise(2.0)
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Hello."))]], told=[Turn(0.0, 1.0, 1)])
    done = _run(write_wav(tmp_path / "x.wav", both, both), scripted, ["agent", "customer"])
    assert [(piece.speaker, piece.channel) for piece in done.transcript.segments] == [("Speaker 2", None)]
    assert (done.transcript.channels, done.diarizer) == (2, "none")
    # Two parties are known, so there are no more.
    assert scripted.counts == [SpeakerCount(1, 2)]


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, SpeakerCount(1, 20)),
        ({"speakers": 3}, SpeakerCount(3, 3)),
        ({"min_speakers": 2}, SpeakerCount(2, 20)),
        ({"min_speakers": 2, "max_speakers": 4}, SpeakerCount(2, 4)),
    ],
)
def test_hints_bound_the_number_of_speakers(mono: Path, asked: dict[str, Any], count: SpeakerCount) -> None:
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Hello."))]])
    _run(mono, scripted, **asked)
    assert scripted.counts == [count]


def test_the_only_speaker_of_a_voice_note_is_named(mono: Path) -> None:
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Remember"), (5.0, 6.0, "milk."))]])
    done = _run(mono, scripted, ["me"], language="de")
    assert done.transcript.text == "me: Remember milk."
    assert (done.transcript.language, scripted.languages, scripted.counts) == ("de", ["de"], [])


def test_without_diarization_nobody_is_named(mono: Path) -> None:
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Hello."))]], told=[Turn(0.0, 1.0, 0)])
    done = _run(mono, scripted, diarization=False)
    assert (done.transcript.text, done.speakers, scripted.counts) == ("Hello.", (), [])


def test_segments_without_words_belong_to_who_talks_meanwhile(mono: Path) -> None:
    bare = replace(_spoken((1.0, 3.0, "Hello.")), words=())
    done = _run(mono, Scripted(script=[[bare]], told=[Turn(0.0, 1.5, 0), Turn(1.5, 3.0, 1)]))
    assert done.transcript.text == "Speaker 2: Hello."


def test_a_language_that_was_asked_for_is_not_looked_for(mono: Path) -> None:
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Hallo."))]])
    assert _run(mono, scripted, language="nl").transcript.language == "nl"
    assert scripted.languages == ["nl"]


def test_a_room_in_which_nobody_speaks_is_an_empty_transcript(mono: Path) -> None:
    scripted = Scripted(script=[[]])
    done = _run(mono, scripted)
    assert (done.transcript.segments, done.transcript.language, done.summary) == ((), "en", None)
    assert (scripted.counts, scripted.summed_up) == ([], 0)


def test_usage_of_all_parts_has_a_cost_and_a_summary_says_who_wrote_it(mono: Path) -> None:
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "One.")), _spoken((4.5, 5.0, "Two."))]], length=4.0)
    done = _run(mono, scripted)
    assert (done.usage, done.cost) == ({"parts": 2.0}, 0.5)
    assert done.summary is not None
    assert (done.summary.title, done.summary.backend, done.summary.action_items) == (
        "A greeting",
        "scripted",
        ("Answer.",),
    )


def _stop(_: Tick) -> None:
    raise Cancelled


@pytest.mark.parametrize(
    ("stage", "again"),
    [
        ("speech", {"listened": 1, "heard": 2, "counts": 1, "summed_up": 1}),
        ("words", {"listened": 0, "heard": 2, "counts": 1, "summed_up": 1}),
        ("speakers", {"listened": 0, "heard": 0, "counts": 1, "summed_up": 1}),
        ("summary", {"listened": 0, "heard": 0, "counts": 0, "summed_up": 1}),
    ],
)
def test_what_is_done_is_not_done_again(mono: Path, stage: str, again: dict[str, int]) -> None:
    script = [[_spoken((0.0, 1.0, "One.")), _spoken((4.5, 5.0, "Two."))]]
    turns = [Turn(0.0, 8.0, 0)]
    with pytest.raises(Cancelled):
        _run(mono, Scripted(script=script, told=turns, length=4.0).acting(stage, _stop))
    scripted = Scripted(script=script, told=turns, length=4.0)
    done = _run(mono, scripted)
    assert done.transcript.text == "Speaker 1: One.\nSpeaker 1: Two."
    assert {
        "listened": scripted.listened,
        "heard": len(scripted.heard),
        "counts": len(scripted.counts),
        "summed_up": scripted.summed_up,
    } == again


def test_each_part_of_the_words_is_kept(mono: Path) -> None:
    calls: list[int] = []

    def stop_at_the_third(_: Tick) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Cancelled

    script = [[_spoken((at, at + 0.5, f"{at}.")) for at in range(8)]]
    with pytest.raises(Cancelled):
        _run(mono, Scripted(script=script, length=2.0, words=stop_at_the_third))
    scripted = Scripted(script=script, length=2.0)
    assert len(_run(mono, scripted).transcript.segments) == 8
    assert [part.start for part in scripted.heard] == [4.0, 6.0]


@pytest.mark.parametrize(
    ("change", "listened", "heard"),
    [({"hints": "Ada"}, 0, 1), ({"speakers": 2}, 0, 0), ({"language": "de"}, 0, 1)],
    ids=["hints", "speakers", "language"],
)
def test_other_options_begin_again_where_they_matter(
    mono: Path, change: dict[str, Any], listened: int, heard: int
) -> None:
    script = [[_spoken((0.0, 1.0, "One."))]]
    _run(mono, Scripted(script=script))
    scripted = Scripted(script=script)
    _run(mono, scripted, **change)
    assert (scripted.listened, len(scripted.heard), len(scripted.counts)) == (listened, heard, 1)


def test_another_model_or_another_file_begins_again(mono: Path) -> None:
    script = [[_spoken((0.0, 1.0, "One."))]]
    _run(mono, Scripted(script=script))
    other = Scripted(script=script, model="larger")
    assert _run(mono, other).transcript.model == "larger"
    assert (other.listened, len(other.heard)) == (0, 1)
    write_wav(mono, noise(8.0, seed=9))
    changed = Scripted(script=script, model="larger")
    _run(mono, changed)
    assert (changed.listened, len(changed.heard)) == (1, 1)


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_decoded_sound_that_is_not_there_is_made_again(mono: Path, damage: str) -> None:
    script = [[_spoken((0.0, 1.0, "One."))]]
    with pytest.raises(Cancelled):
        _run(mono, Scripted(script=script, words=_stop))
    sound = mono.parent / "work" / "0.s16"
    if damage == "gone":
        sound.unlink()
    else:
        sound.write_bytes(sound.read_bytes()[:1000])
    scripted = Scripted(script=script)
    assert _run(mono, scripted).transcript.text == "One."
    assert (scripted.listened, sound.stat().st_size) == (0, 8 * 16_000 * 2)


def test_a_checkpoint_that_cannot_be_read_is_as_good_as_none(mono: Path) -> None:
    script = [[_spoken((0.0, 1.0, "One."))]]
    _run(mono, Scripted(script=script))
    for path in (mono.parent / "checkpoints").iterdir():
        path.write_text('{"way":')
    scripted = Scripted(script=script)
    assert _run(mono, scripted).transcript.text == "One."
    assert scripted.listened == 1


def test_stages_come_in_their_order_and_shares_never_leave_their_bounds(mono: Path) -> None:
    seen: list[tuple[Stage, float]] = []
    pace = Pace()

    def observe(stage: Stage, share: float) -> None:
        before = pace.share
        seen.append((stage, share))
        pace.seen(stage, share)
        assert before <= pace.share <= 1.0

    script = [[_spoken((at, at + 0.5, f"{at}.")) for at in range(8)]]
    _run(mono, Scripted(script=script, length=2.0), observe=observe)
    assert list(dict.fromkeys(stage for stage, _ in seen)) == [
        Stage.PROBE,
        Stage.DECODE,
        Stage.SPEECH,
        Stage.WORDS,
        Stage.SPEAKERS,
        Stage.SUMMARY,
    ]
    assert all(0.0 <= share <= 1.0 for _, share in seen)
    assert [share for stage, share in seen if stage is Stage.WORDS][1:5] == [0.0, 0.25, 0.5, 0.75]


def test_the_time_left_follows_from_the_speed_of_this_run() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.seconds_left is None
    # Half of it was done before.
    pace.seen(Stage.PROBE, 0.0)
    pace.seen(Stage.WORDS, 0.5)
    half = pace.share
    assert pace.seconds_left is None
    now[0] = 60.0
    pace.seen(Stage.WORDS, 1.0)
    assert pace.seconds_left == pytest.approx(60.0 * (1.0 - pace.share) / (pace.share - half))
    pace.seen(Stage.DECODE, 0.0)
    assert pace.percent == 83


def test_nobody_promises_a_time_by_the_speed_of_what_comes_before_the_words() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    told = []
    # A tenth of the whole in six seconds, then five minutes of words.
    work = [(Stage.PROBE, 0.0, 0.5), (Stage.DECODE, 0.5, 3.0), (Stage.DECODE, 1.0, 1.0), (Stage.SPEECH, 1.0, 1.5)]
    work += [(Stage.WORDS, part / 30, 10.0) for part in range(30)]
    for stage, share, seconds in work:
        pace.seen(stage, share)
        told.append(pace.seconds_left)
        now[0] += seconds
    guessed = [(at, left) for at, left in enumerate(told) if left is not None]
    assert guessed[0][0] == 5
    # What follows the words is 0.17 of the whole, they are 0.72.
    for at, left in guessed:
        assert left == pytest.approx(10.0 * (34 - at) + 300.0 * 0.17 / 0.72), at


def test_parts_of_a_file_of_two_channels_are_numbered_over_both(tmp_path: Path) -> None:
    path = two_parties(tmp_path / "call.wav", 4.0)
    scripted = Scripted(length=2.0)
    _run(path, scripted, ["a", "b"])
    assert [(part.channel, part.start) for part in scripted.heard] == [(0, 0.0), (0, 2.0), (1, 0.0), (1, 2.0)]
    assert np.fromfile(tmp_path / "work" / "1.s16", dtype="<i2").size == 64_000


def test_a_dead_channel_of_a_note_leaves_the_voices_to_be_told_apart(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", noise(4.0), silence(4.0))
    scripted = Scripted(script=[[_spoken((0.0, 1.0, "Hello."))]], told=[Turn(0.0, 1.0, 0)])
    done = _run(path, scripted)
    assert [(piece.speaker, piece.channel) for piece in done.transcript.segments] == [("Speaker 1", 0)]
