"""Words out of text: with the times that a service measured, or spread over the speech where it measured none."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from backend.recordings.speech.base import Segment, Word, said
from backend.recordings.speech.stitching import SENTENCE_ENDS

Span = tuple[float, float]

# A word with the space before it; scripts without spaces are taken sign by sign.
_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"\s*(?:[{_WITHOUT_SPACES}][^\w\s]*|[^\s{_WITHOUT_SPACES}]+)")
_CLAUSE_ENDS = (",", ";", ":", "、", "，", "—")

# Measured with speech read from books: a sentence's end lies within this many seconds of its pause.
_SENTENCE_NEAR, _CLAUSE_NEAR = 2.0, 0.8
_PAUSE = 0.25
_PHRASE_PAUSE, _PHRASE_SECONDS, _PHRASE_CLAUSE_SECONDS = 1.0, 20.0, 8.0


def tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def worded(text: str, bare: Sequence[str]) -> list[str]:
    """Words as they stand in `text`, with the space before and the marks after them; `bare` are the same without marks."""
    result, at, folded = [], 0, text.casefold()
    # Case folding may change lengths, as of "ß"; then the positions are those of another text.
    aligned = len(folded) == len(text)
    for word in bare:
        plain = word.strip()
        found = folded.find(plain.casefold(), at) if aligned and plain else -1
        if found < 0 or found - at > 20:
            result.append(f" {plain}")
            continue
        end = found + len(plain)
        while end < len(text) and not text[end].isspace() and not text[end].isalnum():
            end += 1
        result.append(text[at:end] if text[at:end].strip() else f" {plain}")
        at = end
    return result


def spread(text: str, spans: Sequence[Span], confidence: float) -> list[Word]:
    """Words of which only the order is known, over the speech in `spans`.

    1. A word takes time by its letters.
    2. Ends of sentences and clauses are moved to the pauses nearest to them, longest pauses first.
    3. Between those, time is shared out evenly. No word reaches over a pause.
    """
    words = tokens(text)
    if not words or not spans:
        return []
    weights = list(accumulate((_weight(word) for word in words), initial=0.0))
    talk = list(accumulate((end - start for start, end in spans), initial=0.0))
    anchors = _anchors(words, [weight * talk[-1] / weights[-1] for weight in weights], spans, talk)
    edges = _between_anchors(weights, anchors, talk[-1])
    return [
        Word(*_placed(edges[number], edges[number + 1], spans, talk), word, confidence)
        for number, word in enumerate(words)
    ]


def _weight(word: str) -> float:
    return len(word.strip()) + (2.0 if word.endswith((*SENTENCE_ENDS, *_CLAUSE_ENDS)) else 1.0)


def _anchors(
    words: Sequence[str], edges: Sequence[float], spans: Sequence[Span], talk: Sequence[float]
) -> dict[int, float]:
    """Numbers of words and the second of talk at which each begins, in the same order both."""
    pauses = sorted(
        ((spans[number][0] - spans[number - 1][1], number) for number in range(1, len(spans))),
        key=lambda pause: -pause[0],
    )
    found: dict[int, float] = {}
    for length, number in pauses:
        at = talk[number]
        near = [
            (abs(edges[place] - at) - (1.0 if sentence else 0.0), place)
            for place in range(1, len(words))
            if (sentence := words[place - 1].endswith(SENTENCE_ENDS)) or words[place - 1].endswith(_CLAUSE_ENDS)
            if abs(edges[place] - at) <= (_SENTENCE_NEAR if sentence else _CLAUSE_NEAR)
            if all((other < place) == (when < at) and other != place for other, when in found.items())
        ]
        if length >= _PAUSE and near:
            found[min(near)[1]] = at
    return found


def _between_anchors(weights: Sequence[float], anchors: dict[int, float], whole: float) -> list[float]:
    places = sorted({0: 0.0, **anchors, len(weights) - 1: whole}.items())
    edges = [0.0]
    for (first, start), (last, end) in pairwise(places):
        scale = (end - start) / (weights[last] - weights[first])
        edges += [start + (weights[number] - weights[first]) * scale for number in range(first + 1, last + 1)]
    return edges


def _placed(start: float, end: float, spans: Sequence[Span], talk: Sequence[float]) -> Span:
    """Seconds of talk as seconds of the recording, inside the span that holds their middle."""
    number = min(len(spans) - 1, bisect_right(talk, (start + end) / 2) - 1)
    first, last = spans[number]
    begin = first + start - talk[number]
    finish = first + end - talk[number]
    return round(min(max(begin, first), last), 2), round(min(max(finish, first), last), 2)


def phrases(words: Sequence[Word], *, pause: float = _PHRASE_PAUSE) -> list[Segment]:
    """Words as segments: to the end of a sentence, a pause (seconds), or where it gets long."""
    segments: list[Segment] = []
    gathered: list[Word] = []
    for word in words:
        if gathered and _ends(gathered, word, pause):
            segments.append(said(gathered))
            gathered = []
        gathered.append(word)
    return [*segments, said(gathered)] if gathered else segments


def _ends(gathered: Sequence[Word], following: Word, pause: float) -> bool:
    last, seconds = gathered[-1], gathered[-1].end - gathered[0].start
    return (
        last.text.endswith(SENTENCE_ENDS)
        or following.start - last.end > pause
        or seconds > _PHRASE_SECONDS
        or (seconds > _PHRASE_CLAUSE_SECONDS and last.text.endswith(_CLAUSE_ENDS))
    )
