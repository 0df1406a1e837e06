"""Words and turns -> who said what."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from operator import itemgetter

from backend.recordings.speech.base import Segment, Turn, Word, said

# A sentence belongs to one speaker when that speaker has at least this share of it.
_MAJORITY = 0.7
_ENDS = (".", "?", "!", "…", "。", "？", "！", "۔", "।")
# Without a mark, a pause this long ends a sentence too.
_SENTENCE_PAUSE = 1.0
# Of two who speak at once, the word is whose turn reaches further around it.
_AROUND = 0.5


def label(speaker: int) -> str:
    """What a speaker is called until somebody gives a name; `speaker` as in Turn."""
    return f"Speaker {speaker + 1}"


def with_speakers(segments: Sequence[Segment], turns: Sequence[Turn]) -> list[Segment]:
    """The segments of one channel, cut where the speaker changes and labelled, by start time.

    A word belongs to the turn that covers most of it, else to the nearest; then a sentence of which one speaker has 70 %
    becomes that speaker's. Without turns the segments stay as they are.
    """
    if not turns:
        return list(segments)
    line = _Line(turns)
    words = [(number, word) for number, segment in enumerate(segments) for word in segment.words]
    speakers = [line.speaker(word) for _, word in words]
    for first, last in _sentences([word for _, word in words]):
        speakers[first:last] = _smoothed([word for _, word in words[first:last]], speakers[first:last])
    told = [(number, speaker, word) for (number, word), speaker in zip(words, speakers, strict=True)]
    result = [
        said([word for _, _, word in piece], speaker=label(speaker), channel=segments[number].channel)
        for (number, speaker), piece in groupby(told, key=itemgetter(0, 1))
    ]
    return sorted(result, key=lambda piece: (piece.start, piece.end))


class _Line:
    """Turns in the order of time, for looking up which of them lie near a word."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self._turns]
        # The latest end so far grows with the index, so it can be searched although turns overlap.
        self._ends = list(accumulate((turn.end for turn in self._turns), max))

    def speaker(self, word: Word) -> int:
        shares: dict[int, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for turn in self._touching(word.start - _AROUND, word.end + _AROUND):
            inside, around = shares[turn.speaker]
            shares[turn.speaker] = (
                inside + max(0.0, _overlap(turn, word.start, word.end)),
                around + max(0.0, _overlap(turn, word.start - _AROUND, word.end + _AROUND)),
            )
        best = max(shares, key=lambda speaker: (round(shares[speaker][0], 3), shares[speaker][1]), default=None)
        if best is None or shares[best][0] <= 0.0:
            return self._nearest((word.start + word.end) / 2).speaker
        return best

    def _touching(self, start: float, end: float) -> Sequence[Turn]:
        return self._turns[bisect_left(self._ends, start) : bisect_right(self._starts, end)]

    def _nearest(self, at: float) -> Turn:
        after = min(bisect_left(self._starts, at), len(self._turns) - 1)
        # The turn before that reaches furthest is the first one with that latest end.
        before = bisect_left(self._ends, self._ends[max(0, after - 1)])
        return min(self._turns[before], self._turns[after], key=lambda turn: max(turn.start - at, at - turn.end))


def _overlap(turn: Turn, start: float, end: float) -> float:
    return min(turn.end, end) - max(turn.start, start)


def _sentences(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) index of each sentence."""
    first = 0
    for at in range(1, len(words) + 1):
        if (
            at == len(words)
            or words[at - 1].text.rstrip().endswith(_ENDS)
            or words[at].start - words[at - 1].end > _SENTENCE_PAUSE
        ):
            yield first, at
            first = at


def _smoothed(words: Sequence[Word], speakers: Sequence[int]) -> list[int]:
    """All the majority's, where there is one."""
    spoken: dict[int, float] = defaultdict(float)
    for word, speaker in zip(words, speakers, strict=True):
        # Whisper gives some words no length at all.
        spoken[speaker] += max(word.end - word.start, 0.05)
    winner = max(spoken, key=lambda speaker: spoken[speaker])
    if spoken[winner] >= _MAJORITY * sum(spoken.values()):
        return [winner] * len(words)
    return list(speakers)
