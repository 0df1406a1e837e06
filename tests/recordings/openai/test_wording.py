"""Words from text, with measured times and without."""

import pytest

from backend.recordings.speech.base import Segment, Word, said
from backend.recordings.speech.languages import code_of, language_of
from backend.recordings.speech.stitching import stitched
from backend.recordings.speech.wording import phrases, spread, tokens, worded


@pytest.mark.parametrize(
    "text",
    [
        "Well, it's high-end: isn't it?  Yes!",
        " «Ça va», dit-il.",
        "今天我们讨论。好！",
        "สวัสดีครับ OK",
        "",
        "   ",
    ],
)
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text.rstrip()


def test_bare_words_get_the_marks_of_the_text() -> None:
    text = "Well, it's 5 %: \"high-end\", isn't it?"
    bare = ["Well", "it's", "5", "high", "end", "isn't", "it"]
    assert worded(text, bare) == ["Well,", " it's", " 5", ' %: "high-', 'end",', " isn't", " it?"]


def test_a_bare_word_that_the_text_does_not_have_stands_alone() -> None:
    assert worded("Hello world.", ["Hello", "wide", "world"]) == ["Hello", " wide", " world."]


def test_repeated_words_are_found_one_after_the_other() -> None:
    assert worded("No, no, no.", ["no", "no", "no"]) == ["No,", " no,", " no."]


def test_no_word_reaches_over_a_pause() -> None:
    words = spread("One two three four five six seven", [(1.0, 2.0), (5.0, 6.0)], 0.5)
    assert all(1.0 <= word.start < word.end <= 2.0 or 5.0 <= word.start < word.end <= 6.0 for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)


def test_a_sentence_begins_after_the_pause_that_is_near() -> None:
    # By letters alone the first sentence would end in the middle of the second run.
    words = spread("A long sentence that is spoken quickly. Short one.", [(0.0, 2.0), (3.0, 5.0)], 0.5)
    second = next(word for word in words if word.text == " Short")
    assert second.start == 3.0


def test_a_mark_far_from_every_pause_moves_nothing() -> None:
    words = spread("Yes. " + "word " * 30, [(0.0, 10.0), (11.0, 21.0)], 0.5)
    assert words[1].start < 1.0


@pytest.mark.parametrize(("text", "spans"), [("", [(0.0, 1.0)]), ("word", [])])
def test_no_words_or_no_speech_give_nothing(text: str, spans: list[tuple[float, float]]) -> None:
    assert spread(text, spans, 0.5) == []


def test_phrases_end_with_sentences_and_pauses() -> None:
    words = [
        Word(0.0, 0.4, "Hello.", 1.0),
        Word(0.5, 0.9, " I", 1.0),
        Word(2.5, 2.9, " am", 1.0),
        Word(3.0, 3.2, " Anna", 1.0),
    ]
    assert [segment.text for segment in phrases(words)] == ["Hello.", "I", "am Anna"]


def test_endless_phrases_are_cut() -> None:
    words = [Word(float(at), at + 0.9, " word", 1.0) for at in range(100)]
    assert max(segment.end - segment.start for segment in phrases(words)) < 25


def line(text: str, start: float, step: float = 0.5) -> list[Segment]:
    words = [Word(start + step * at, start + step * at + 0.4, f" {word}", 0.9) for at, word in enumerate(text.split())]
    return [said(words)] if words else []


def joined(left: list[Segment], right: list[Segment], start: float, end: float) -> str:
    return " ".join(segment.text for segment in stitched(left, right, start, end))


def test_the_overlap_is_taken_once_though_its_times_disagree() -> None:
    left = line("we will meet again on Monday at noon sharp pl", 0.0)
    right = line("gain on Monday at noon sharp please bring the papers", 3.1)
    assert joined(left, right, 2.0, 5.0) == "we will meet again on Monday at noon sharp please bring the papers"


def test_without_a_common_word_the_overlaps_middle_decides() -> None:
    assert joined(line("a b c d e f", 0.0), line("u v w x y z", 2.0), 2.0, 3.0) == "a b c d e v w x y z"


def test_one_short_word_in_common_is_no_seam() -> None:
    left, right = line("so we take the bus", 0.0), line("the very old tram home", 1.0)
    assert joined(left, right, 1.0, 3.0) == "so we take the old tram home"


def test_pieces_without_an_overlap_are_put_one_after_the_other() -> None:
    left, right = line("yes yes yes.", 0.0), line("Yes yes yes.", 5.0)
    assert stitched(left, right, 5.0, 4.0) == [*left, *right]


def test_a_sentence_cut_in_two_becomes_one() -> None:
    left, right = line("I will send", 0.0), line("the papers tomorrow.", 1.5)
    (segment,) = stitched(left, right, 1.5, 1.5)
    assert segment.text == "I will send the papers tomorrow."


@pytest.mark.parametrize(("left", "right"), [("", "hello there"), ("hello there", ""), ("", "")])
def test_a_piece_in_which_nobody_spoke_is_no_trouble(left: str, right: str) -> None:
    assert joined(line(left, 0.0), line(right, 4.0), 2.0, 3.0) == (left + right)


@pytest.mark.parametrize(
    ("named", "code"),
    [
        ("english", "en"),
        ("English", "en"),
        ("en", "en"),
        ("pt-BR", "pt"),
        ("zh_CN", "zh"),
        ("klingon", None),
        ("", None),
    ],
)
def test_languages_by_name_and_code(named: str, code: str | None) -> None:
    assert code_of(named) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Your policy expires next week, and I will send you the papers.", "en"),
        ("Ihre Versicherung läuft nächste Woche ab, ich schicke die Unterlagen.", "de"),
        ("आपकी बीमा पॉलिसी अगले हफ्ते समाप्त हो रही है।", "hi"),
        ("Okay.", None),
    ],
)
def test_languages_by_text(text: str, code: str | None) -> None:
    assert language_of(text) == code
