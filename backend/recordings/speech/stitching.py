"""Neighbouring pieces of a channel made one where both heard the same seconds."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from backend.recordings.speech.base import Segment, Word, said

_MARKS = re.compile(r"[^\w]+")
# Of the same word in two pieces: times that a service measured differ by less, those spread locally by more.
_SAME_SECONDS = 6.0
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "।", "؟")
_LONGEST_JOINED = 1.0


def stitched(left: Sequence[Segment], right: Sequence[Segment], start: float, end: float) -> list[Segment]:
    """Segments of both, what lies from `start` to `end` taken from both only once.

    1. A run of words that both heard: the left side up to its middle, the right side from there. Times need not agree.
    2. Else words before the overlap's middle are the left side's, the others the right side's.
    """
    first = [word for segment in left for word in segment.words]
    second = [word for segment in right for word in segment.words]
    kept, dropped = _seam(first, second, start, end)
    before, after = _first_words(left, kept), _last_words(right, dropped)
    if before and after and _one_sentence(before[-1], after[0]):
        return [*before[:-1], said([*before[-1].words, *after[0].words]), *after[1:]]
    return [*before, *after]


def _seam(first: Sequence[Word], second: Sequence[Word], start: float, end: float) -> tuple[int, int]:
    """How many words of the left side are kept, and how many of the right side dropped."""
    if end <= start:
        return len(first), 0
    tail = next((at for at, word in enumerate(first) if word.end > start - _SAME_SECONDS), len(first))
    head = next((at for at, word in enumerate(second) if word.start > end + _SAME_SECONDS), len(second))
    match = SequenceMatcher(
        None, [_bare(word) for word in first[tail:]], [_bare(word) for word in second[:head]], autojunk=False
    ).find_longest_match()
    middle = (start + end) / 2
    if _believable(match.size, first[tail:][match.a :], second[match.b :]):
        half = match.size // 2
        return tail + match.a + half, match.b + half
    return (
        sum(1 for word in first if (word.start + word.end) / 2 < middle),
        sum(1 for word in second if (word.start + word.end) / 2 < middle),
    )


def _bare(word: Word) -> str:
    return _MARKS.sub("", word.text).casefold()


def _believable(size: int, first: Sequence[Word], second: Sequence[Word]) -> bool:
    """Two words in a row, or one long one, at about the same time."""
    if not size or abs(first[0].start - second[0].start) > _SAME_SECONDS:
        return False
    return size > 1 or len(_bare(first[0])) > 4


def _first_words(segments: Sequence[Segment], count: int) -> list[Segment]:
    result = []
    for segment in segments:
        words = segment.words[: max(0, count)]
        count -= len(segment.words)
        if words:
            result.append(segment if len(words) == len(segment.words) else said(words))
    return result


def _last_words(segments: Sequence[Segment], dropped: int) -> list[Segment]:
    result = []
    for segment in segments:
        words = segment.words[max(0, dropped) :]
        dropped -= len(segment.words)
        if words:
            result.append(segment if len(words) == len(segment.words) else said(words))
    return result


def _one_sentence(before: Segment, after: Segment) -> bool:
    return not before.text.endswith(SENTENCE_ENDS) and after.start - before.end < _LONGEST_JOINED
