"""A transcript as sentences."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from backend.recordings.speech.base import Transcript

_WORD = re.compile(r"\w+(?:['’]\w+)?")
# Scripts without spaces: pairs of signs stand for words.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
# A recogniser that writes no marks gives one endless sentence.
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class Sentence:
    """`number` counts from 0 in the order of speech; `words` are folded, for comparing."""

    number: int
    text: str
    words: tuple[str, ...]


def sentences_of(transcript: Transcript, language: str | None) -> list[Sentence]:
    """What one party says in a row is read as one text."""
    result: list[Sentence] = []
    for _, group in groupby(transcript.segments, key=lambda said: (said.speaker, said.channel)):
        for text in _split(" ".join(" ".join(said.text.split()) for said in group), language):
            result.append(Sentence(len(result), text, tuple(words_of(text))))
    return result


def words_of(text: str) -> list[str]:
    words: list[str] = []
    for word in _WORD.findall(text.casefold()):
        if _UNSPACED.fullmatch(word) and len(word) > 2:
            words += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            words.append(word)
    return words


def _split(text: str, language: str | None) -> Iterator[str]:
    import sentencex

    for sentence in sentencex.segment(language or "en", text):
        words = sentence.split()
        for start in range(0, len(words), _LONGEST):
            yield " ".join(words[start : start + _LONGEST])
