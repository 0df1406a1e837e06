"""Subtitles: cues that can be read, whatever was said and in which script."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from backend.recordings.library.captions import COLUMNS, LINES, LONGEST, as_srt, as_vtt, cues
from backend.recordings.speech.base import Word

LONG = " ".join(f"word{number}" for number in range(400))


@dataclass(frozen=True)
class Said:
    start: float
    end: float
    text: str
    name: str | None = None
    words: Sequence[Word] = ()


def spoken(text: str, *, start: float = 0.0, step: float = 0.4, name: str | None = None) -> Said:
    words = [
        Word(start + step * index, start + step * (index + 1), f" {part}", 0.9)
        for index, part in enumerate(text.split())
    ]
    return Said(start, words[-1].end, text, name, words)


def columns(line: str) -> int:
    return sum(
        0
        if unicodedata.category(each) in {"Mn", "Me", "Cf"}
        else 1 + (unicodedata.east_asian_width(each) in {"W", "F"})
        for each in line
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (LONG, 200.0),
        (LONG, 20.0),
        (LONG, 2000.0),
        ("天地玄黃宇宙洪荒" * 40, 120.0),
        ("สวัสดีครับยินดีต้อนรับ" * 20, 60.0),
        ("שלום עולם, מה שלומך היום? " * 20, 60.0),
        ("e\u0301" * 300, 60.0),
        ("👩‍👩‍👧‍👦 " * 60, 60.0),
        ("x" * 1000, 30.0),
        ("a", 0.0),
    ],
)
@pytest.mark.parametrize("timed", [True, False])
def test_every_cue_fits_on_two_lines_and_stands_for_seven_seconds_at_most(
    text: str, seconds: float, *, timed: bool
) -> None:
    step = seconds / len(text.split())
    said = spoken(text, step=step, name="Anna") if timed else Said(0.0, seconds, text, "Anna")
    for named in (True, False):
        made = cues([said], named=named)
        assert made
        for cue in made:
            assert len(cue.lines) <= LINES
            assert max(columns(line) for line in cue.lines) <= COLUMNS, cue
            assert 0 < cue.end - cue.start <= LONGEST + 0.001, cue
        shown = "".join("".join(cue.lines) for cue in made).replace(" ", "").removeprefix("Anna:" if named else "")
        assert shown == "".join(text.split())


def test_no_letter_is_parted_from_its_accent_and_no_family_from_its_members() -> None:
    for text in ("e\u0301" * 300, "👩‍👩‍👧‍👦" * 40):
        for cue in cues([Said(0.0, 60.0, text)], named=False):
            for line in cue.lines:
                assert unicodedata.category(line[0]) not in {"Mn", "Me", "Cf"}
                assert not line.endswith("\u200d")


def test_two_lines_are_about_even_and_a_short_text_stays_on_one() -> None:
    (cue,) = cues([spoken("I would like to know when the policy of my old car expires", step=0.2)], named=False)
    assert cue.lines == ("I would like to know when the", "policy of my old car expires")
    (short,) = cues([spoken("Yes, of course.")], named=False)
    assert short.lines == ("Yes, of course.",)


def test_a_long_pause_begins_a_new_cue_with_the_times_of_its_words() -> None:
    words = [Word(0.0, 0.5, " Hello.", 0.9), Word(9.0, 9.5, " Anybody", 0.9), Word(9.5, 10.0, " there?", 0.9)]
    first, second = cues([Said(0.0, 10.0, "Hello. Anybody there?", None, words)], named=False)
    assert (first.start, first.end, second.start, second.end) == (0.0, 1.0, 9.0, 10.0)


def test_a_cue_of_no_length_is_shown_for_a_second_or_until_the_next_begins() -> None:
    alone, *_ = cues([Said(1.0, 1.0, "Hm."), Said(5.0, 6.0, "What?")], named=False)
    followed, *_ = cues([Said(1.0, 1.0, "Hm."), Said(1.4, 2.0, "What?")], named=False)
    crowded, other = cues([Said(1.0, 1.0, "Hm."), Said(1.0, 1.0, "What?")], named=False)
    assert (alone.end, followed.end, crowded.end, other.end) == (2.0, 1.4, 1.1, 2.0)
    backwards, *_ = cues([Said(3.0, 2.0, "Hm.")], named=False)
    assert backwards.end > backwards.start


def test_what_has_no_text_has_no_cue() -> None:
    nothing = [Said(0.0, 1.0, ""), Said(1.0, 2.0, "  \n ")]
    assert (as_srt(nothing), as_vtt(nothing)) == ("", "WEBVTT\n")


def test_subrip_names_who_begins_to_speak_and_numbers_from_one() -> None:
    talk = [
        spoken("Good morning.", name="Anna"),
        spoken("How are you?", start=2.0, name="Anna"),
        spoken("Well.", start=4.0, name="Ben"),
    ]
    assert as_srt(talk) == (
        "1\n00:00:00,000 --> 00:00:01,000\nAnna: Good morning.\n\n"
        "2\n00:00:02,000 --> 00:00:03,200\nHow are you?\n\n"
        "3\n00:00:04,000 --> 00:00:05,000\nBen: Well.\n"
    )


def test_webvtt_gives_each_cue_its_speakers_voice() -> None:
    talk = [spoken("Good morning.", name="Anna"), spoken("Hm.", start=3661.5)]
    assert as_vtt(talk) == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.000\n<v Anna>Good morning.</v>\n\n2\n01:01:01.500 --> 01:01:02.500\nHm.\n"
    )


def test_markup_in_words_and_names_is_text_in_webvtt() -> None:
    made = as_vtt([Said(0.0, 1.0, "<script>x</script> & --> 1\n\n2", "<b>A & B</b>")])
    assert "<script>" not in made
    assert "&lt;script&gt;x&lt;/script&gt; &amp; --&gt; 1 2" in made
    assert "<v &lt;b&gt;A &amp; B&lt;/b&gt;>" in made
    assert made.count("-->") == 1


def test_an_arrow_in_subrip_is_none_and_no_blank_line_ends_a_cue_early() -> None:
    made = as_srt([Said(0.0, 1.0, "left --> right\n\n99\n\nend", "A\n\nB")])
    assert made.count("-->") == 1
    assert "\n\n" not in made
    assert "left -> right 99 end" in " ".join(made.splitlines())


def test_voices_that_overlap_come_by_their_starts_each_with_its_name() -> None:
    one = spoken(" ".join(["one"] * 40), step=0.5, name="Anna")
    other = spoken(" ".join(["two"] * 40), start=0.2, step=0.5, name="Ben")
    made = cues([one, other], named=True)
    assert [cue.start for cue in made] == sorted(cue.start for cue in made)
    for before, cue in zip([None, *made], made, strict=False):
        begins = before is None or before.name != cue.name
        assert cue.lines[0].startswith(f"{cue.name}: ") == begins


def test_a_long_name_leaves_room_for_words() -> None:
    for name in ("N" * 100, "Maximiliane " * 8, "名" * 60):
        for cue in cues([spoken(LONG, name=name)], named=True):
            assert len(cue.lines) <= LINES
            assert max(columns(line) for line in cue.lines) <= COLUMNS


def test_a_name_that_makes_two_cues_of_one_leaves_no_word_alone() -> None:
    text = "and so my fellow Americans ask not what your country can do for you ask what"
    (whole,) = cues([spoken(text, step=0.3, name="Speaker 1")], named=False)
    first, second = cues([spoken(text, step=0.3, name="Speaker 1")], named=True)
    assert " ".join(whole.lines) == text
    assert " ".join(first.lines + second.lines) == f"Speaker 1: {text}"
    assert abs(sum(map(len, first.lines)) - sum(map(len, second.lines))) < 15
    assert first.end <= second.start


def test_right_to_left_text_keeps_its_order() -> None:
    text = "مرحبا بكم في مكتب التأمين"
    (cue,) = cues([spoken(text, name="سارة")], named=False)
    assert cue.lines == (text,)
    assert f"<v سارة>{text}</v>" in as_vtt([spoken(text, name="سارة")])


def test_words_without_spaces_between_them_stay_so() -> None:
    pieces = ["今日", "は", "良い", "天気", "です", "。"]
    words = [Word(index * 0.3, index * 0.3 + 0.3, piece, 0.9) for index, piece in enumerate(pieces)]
    (cue,) = cues([Said(0.0, 1.8, "".join(pieces), None, words)], named=False)
    assert cue.lines == ("今日は良い天気です。",)
    hyphened = [Word(0.0, 0.3, " rock", 0.9), Word(0.3, 0.6, "-n-roll", 0.9)]
    assert cues([Said(0.0, 0.6, "rock-n-roll", None, hyphened)], named=False)[0].lines == ("rock-n-roll",)


def test_ten_thousand_segments_are_written_in_seconds() -> None:
    talk = [spoken("This is what somebody said in a very long meeting", start=number * 5.0) for number in range(10_000)]
    text = as_srt(talk)
    assert len(re.findall(r"^\d+$", text, re.MULTILINE)) == 10_000
    assert "13:53:15,000" in text
