"""How good a transcript is: words that are wrong, time given to the wrong speaker, words given to the wrong speaker."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple, TypeVar

import jiwer

# Seconds each side of a change of speaker that do not count: nobody can say to the tenth when a word begins.
COLLAR = 0.25

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += [f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELT = {"mr": "mister", "mrs": "missus", "ok": "okay", "alright": "all right"}

R = TypeVar("R")
F = TypeVar("F")


class Spoken(NamedTuple):
    """Somebody speaks, in seconds."""

    start: float
    end: float
    speaker: str


def plain(text: str) -> list[str]:
    """Words in lower case without punctuation, numbers spelt."""
    lowered = re.sub(r"\$(\d[\d,]*)", r"\1 dollars", text.lower().replace("’", "'"))
    lowered = re.sub(r"\d[\d,]*", lambda found: f" {_number(int(found[0].replace(',', '')))} ", lowered)
    return [part for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", lowered) for part in _SPELT.get(word, word).split()]


def _number(value: int) -> str:
    if value < 20:
        return _ONES[value]
    if value < 100:
        return f"{_TENS[value // 10 - 2]} {_ONES[value % 10] if value % 10 else ''}".strip()
    size, name = next(
        (size, name) for size, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")) if value >= size
    )
    return f"{_number(value // size)} {name} {_number(value % size) if value % size else ''}".strip()


@dataclass(frozen=True, slots=True)
class WordErrors:
    """`rate` of substituted, deleted and inserted words to the reference's."""

    wrong: int
    words: int

    @property
    def rate(self) -> float:
        return self.wrong / self.words if self.words else 0.0


def word_errors(reference: str, said: str) -> WordErrors:
    expected, heard = plain(reference), plain(said)
    if not heard:
        return WordErrors(len(expected), len(expected))
    found = jiwer.process_words(" ".join(expected), " ".join(heard))
    return WordErrors(found.substitutions + found.deletions + found.insertions, len(expected))


@dataclass(frozen=True, slots=True)
class TurnErrors:
    """Seconds of speech missed, invented and given to another speaker, and of speech in the reference (overlap counts twice)."""

    missed: float
    invented: float
    confused: float
    spoken: float

    @property
    def rate(self) -> float:
        """The diarization error rate."""
        return (self.missed + self.invented + self.confused) / self.spoken if self.spoken else 0.0


def turn_errors(reference: Sequence[Spoken], found: Sequence[Spoken], collar: float = COLLAR) -> TurnErrors:
    """As NIST's md-eval counts: overlap is scored, `collar` seconds around each edge of the reference are not."""
    missed = invented = right_at_most = spoken = 0.0
    together: dict[tuple[str, str], float] = {}
    for length, truth, guess in _slices(reference, found, collar):
        spoken += length * len(truth)
        missed += length * max(0, len(truth) - len(guess))
        invented += length * max(0, len(guess) - len(truth))
        right_at_most += length * min(len(truth), len(guess))
        for pair in ((one, other) for one in truth for other in guess):
            together[pair] = together.get(pair, 0.0) + length
    return TurnErrors(missed, invented, right_at_most - sum(best_pairs(together).values()), spoken)


def _slices(
    reference: Sequence[Spoken], found: Sequence[Spoken], collar: float
) -> Iterator[tuple[float, set[str], set[str]]]:
    """Stretches in which nothing changes: their length, who speaks and who is said to."""
    edges = [edge for turn in reference for edge in (turn.start, turn.end)]
    cuts = {*edges, *(edge for turn in found for edge in (turn.start, turn.end))}
    cuts |= {edge + side for edge in edges for side in (-collar, collar)}
    for start, end in pairwise(sorted(cuts)):
        middle = (start + end) / 2
        if any(abs(middle - edge) < collar for edge in edges):
            continue
        yield end - start, _speaking(reference, middle), _speaking(found, middle)


def _speaking(turns: Sequence[Spoken], at: float) -> set[str]:
    return {turn.speaker for turn in turns if turn.start <= at < turn.end}


def best_pairs(together: Mapping[tuple[R, F], float]) -> dict[tuple[R, F], float]:
    """Of the pairs, those that give each left and each right one partner at most and have the greatest sum."""
    lefts = list(dict.fromkeys(left for left, _ in together))
    rights = list(dict.fromkeys(right for _, right in together))

    @cache
    def best(at: int, used: int) -> tuple[float, tuple[tuple[R, F], ...]]:
        if at == len(lefts):
            return 0.0, ()
        options = [best(at + 1, used)]
        for number, right in enumerate(rights):
            pair = (lefts[at], right)
            if not used >> number & 1 and pair in together:
                total, pairs = best(at + 1, used | 1 << number)
                options.append((total + together[pair], (*pairs, pair)))
        return max(options, key=lambda option: option[0])

    return {pair: together[pair] for pair in best(0, 0)[1]}


@dataclass(frozen=True, slots=True)
class SpeakerWords:
    """Of the words that were heard as the reference has them, how many stand with the right speaker."""

    right: float
    words: int

    @property
    def rate(self) -> float:
        return self.right / self.words if self.words else 0.0


def speaker_words(reference: Sequence[tuple[str, str]], said: Sequence[tuple[str, str]]) -> SpeakerWords:
    """Both are speakers and texts in order. Speakers are paired so that most words are right."""
    truth = [(word, speaker) for speaker, text in reference for word in plain(text)]
    guess = [(word, speaker) for speaker, text in said for word in plain(text)]
    if not truth or not guess:
        return SpeakerWords(0, 0)
    found = jiwer.process_words(" ".join(word for word, _ in truth), " ".join(word for word, _ in guess))
    together: dict[tuple[str, str], float] = {}
    words = 0
    for chunk in found.alignments[0]:
        if chunk.type == "equal":
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                pair = truth[chunk.ref_start_idx + offset][1], guess[chunk.hyp_start_idx + offset][1]
                together[pair] = together.get(pair, 0.0) + 1
                words += 1
    return SpeakerWords(sum(best_pairs(together).values()), words)
