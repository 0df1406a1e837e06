"""The scorer of benchmarks/speech.py, against cases whose result is known."""

import pytest

from benchmarks.speech_scores import Spoken, plain, speaker_words, turn_errors, word_errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Okay, I'm here.", ["okay", "i'm", "here"]),
        ("It costs $20,000!", ["it", "costs", "twenty", "thousand", "dollars"]),
        ("In 2018, 45 of 101", ["in", "two", "thousand", "eighteen", "forty", "five", "of", "one", "hundred", "one"]),
        ("high-end — all right", ["high", "end", "all", "right"]),
    ],
)
def test_words_are_compared_in_lower_case_without_marks_and_with_numbers_spelt(text: str, words: list[str]) -> None:
    assert plain(text) == words


@pytest.mark.parametrize(
    ("said", "wrong"),
    [("one two three four", 0), ("one too three four", 1), ("one three four", 1), ("", 4), ("one two x three four", 1)],
)
def test_word_errors_are_substitutions_deletions_and_insertions(said: str, wrong: int) -> None:
    found = word_errors("One, two, three, four.", said)
    assert (found.wrong, found.words, found.rate) == (wrong, 4, wrong / 4)


def test_the_same_turns_under_other_names_are_right() -> None:
    truth = [Spoken(0, 5, "a"), Spoken(6, 9, "b")]
    assert turn_errors(truth, [Spoken(0, 5, "2"), Spoken(6, 9, "1")]).rate == 0.0


def test_missed_invented_and_confused_seconds_are_counted_apart() -> None:
    truth = [Spoken(0, 10, "a"), Spoken(10, 20, "b"), Spoken(30, 40, "a")]
    found = [Spoken(0, 10, "1"), Spoken(10, 15, "2"), Spoken(22, 25, "1"), Spoken(30, 40, "2")]
    errors = turn_errors(truth, found, collar=0.0)
    assert (errors.missed, errors.invented, errors.confused, errors.spoken) == pytest.approx((5, 3, 10, 30))
    # a is 1 for ten seconds and 2 for ten, b is 2 for five: a is paired with 1 and b with 2.
    assert errors.rate == pytest.approx(18 / 30)


def test_overlap_counts_for_each_who_speaks() -> None:
    truth = [Spoken(0, 10, "a"), Spoken(5, 10, "b")]
    errors = turn_errors(truth, [Spoken(0, 10, "1")], collar=0.0)
    assert (errors.missed, errors.spoken) == pytest.approx((5, 15))


def test_a_quarter_of_a_second_around_each_change_does_not_count() -> None:
    truth = [Spoken(0, 10, "a"), Spoken(10, 20, "b")]
    errors = turn_errors(truth, [Spoken(0.2, 10.2, "1"), Spoken(10.2, 20, "2")])
    assert errors.rate == 0.0
    assert errors.spoken == pytest.approx(19.0)


def test_words_count_for_the_speaker_whom_most_of_them_name() -> None:
    truth = [("A", "how are you"), ("B", "fine thanks"), ("A", "good")]
    found = speaker_words(truth, [("Speaker 1", "How are you? Fine"), ("Speaker 2", "thanks."), ("Speaker 1", "Good.")])
    assert (found.right, found.words) == (5, 6)
