"""Words and turns put together."""

import time

from backend.recordings.speech.base import Segment, Turn, Word, said
from backend.recordings.speech.merging import label, with_speakers


def words(text: str, start: float, each: float = 0.4, gap: float = 0.0) -> tuple[Word, ...]:
    return tuple(
        Word(round(start + at * (each + gap), 3), round(start + at * (each + gap) + each, 3), f" {word}", 0.9)
        for at, word in enumerate(text.split())
    )


def told(segments: list[Segment]) -> list[tuple[str | None, str]]:
    return [(segment.speaker, segment.text) for segment in segments]


def test_a_segment_is_cut_where_the_speaker_changes() -> None:
    segment = said(words("How are you? Fine, thank you.", 0.0))
    assert told(with_speakers([segment], [Turn(0.0, 1.25, 0), Turn(1.25, 3.0, 1)])) == [
        ("Speaker 1", "How are you?"),
        ("Speaker 2", "Fine, thank you."),
    ]


def test_pieces_of_a_segment_keep_its_words_times_and_channel() -> None:
    spoken = words("Yes. No.", 2.0)
    found = with_speakers([said(spoken, channel=1)], [Turn(2.0, 2.4, 4), Turn(2.4, 2.8, 2)])
    assert [(piece.start, piece.end, piece.channel, piece.words) for piece in found] == [
        (2.0, 2.4, 1, spoken[:1]),
        (2.4, 2.8, 1, spoken[1:]),
    ]
    assert [piece.speaker for piece in found] == [label(4), label(2)] == ["Speaker 5", "Speaker 3"]


def test_a_word_outside_every_turn_goes_to_the_nearest() -> None:
    found = with_speakers([said(words("Well", 5.0)), said(words("Bye", 9.0))], [Turn(0.0, 4.5, 0), Turn(6.0, 8.0, 1)])
    assert told(found) == [("Speaker 1", "Well"), ("Speaker 2", "Bye")]


def test_a_long_turn_is_near_to_words_after_shorter_turns_inside_it() -> None:
    turns = [Turn(0.0, 20.0, 0), Turn(2.0, 3.0, 1), Turn(4.0, 5.0, 1), Turn(30.0, 31.0, 1)]
    assert told(with_speakers([said(words("Right", 20.5))], turns)) == [("Speaker 1", "Right")]


def test_a_word_that_two_speak_over_goes_to_the_one_who_covers_most_of_it() -> None:
    found = with_speakers([said(words("Indeed", 1.0))], [Turn(0.0, 1.1, 0), Turn(1.05, 3.0, 1)])
    assert told(found) == [("Speaker 2", "Indeed")]


def test_a_word_that_two_cover_whole_goes_to_the_one_whose_turn_reaches_further() -> None:
    found = with_speakers([said(words("Indeed", 1.0))], [Turn(0.9, 1.5, 0), Turn(0.2, 2.4, 1)])
    assert told(found) == [("Speaker 2", "Indeed")]


def test_a_stray_word_within_a_sentence_is_the_sentences() -> None:
    segment = said(words("I would like to buy a ticket.", 0.0))
    found = with_speakers([segment], [Turn(0.0, 1.2, 0), Turn(1.2, 1.6, 1), Turn(1.6, 3.0, 0)])
    assert told(found) == [("Speaker 1", "I would like to buy a ticket.")]


def test_a_sentence_that_two_share_stays_cut() -> None:
    found = with_speakers([said(words("and then we no wait", 0.0))], [Turn(0.0, 1.2, 0), Turn(1.2, 2.0, 1)])
    assert told(found) == [("Speaker 1", "and then we"), ("Speaker 2", "no wait")]


def test_a_short_answer_is_a_sentence_of_its_own() -> None:
    segment = said(words("Is that all right with you? Yes. Then I send it to you now.", 0.0))
    turns = [Turn(0.0, 2.35, 0), Turn(2.35, 2.85, 1), Turn(2.85, 9.0, 0)]
    assert [text for speaker, text in told(with_speakers([segment], turns)) if speaker == "Speaker 2"] == ["Yes."]


def test_a_pause_ends_a_sentence_without_a_mark() -> None:
    segments = [said(words("one two three four five six seven eight", 0.0)), said(words("nine", 6.0))]
    found = with_speakers(segments, [Turn(0.0, 4.0, 0), Turn(6.0, 7.0, 1)])
    assert [speaker for speaker, _ in told(found)] == ["Speaker 1", "Speaker 2"]


def test_without_turns_nobody_is_named() -> None:
    segment = said(words("Hello there", 0.0))
    assert with_speakers([segment], []) == [segment]


def test_every_word_of_hours_is_kept_once_and_in_time() -> None:
    segments = [said(words("so this goes on and on.", at * 3.0)) for at in range(2400)]
    turns = [Turn(at * 1.5, at * 1.5 + 1.6, at % 5) for at in range(4800)]
    start = time.process_time()
    found = with_speakers(segments, turns)
    assert time.process_time() - start < 5.0
    assert [word for piece in found for word in piece.words] == [word for piece in segments for word in piece.words]
