"""Which sentences stand for the others: LexRank (Erkan and Radev 2004, continuous form) without repeating itself."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_DAMPING, _ROUNDS, _CLOSE = 0.85, 50, 1e-6
# Two sentences this alike say the same.
_ALIKE = 0.5
# Shorter ones are answers, longer ones run on.
_GOOD_FROM, _GOOD_TO = 6, 30


def ranked(sentences: Sequence[Sequence[str]], language: str | None) -> list[int]:
    """Numbers of the sentences, best first, near repetitions left out. `sentences` are folded words."""
    if not sentences:
        return []
    alike = _similarity(sentences, _stopwords(language))
    scores = _centrality(alike) * [_length_factor(len(words)) for words in sentences]
    chosen: list[int] = []
    for number in np.argsort(-scores, kind="stable").tolist():
        if all(alike[number, other] < _ALIKE for other in chosen):
            chosen.append(number)
    return chosen


def _stopwords(language: str | None) -> frozenset[str]:
    import stopwordsiso

    return frozenset(stopwordsiso.stopwords(language)) if language and stopwordsiso.has_lang(language) else frozenset()


def _length_factor(length: int) -> float:
    return min(1.0, length / _GOOD_FROM, _GOOD_TO / max(1, length))


def _similarity(sentences: Sequence[Sequence[str]], stopwords: frozenset[str]) -> NDArray[np.float32]:
    """Cosines of the sentences' TF-IDF vectors."""
    counts = [Counter(word for word in words if word not in stopwords) for words in sentences]
    within = Counter(word for count in counts for word in count)
    # A word of one sentence alone tells nothing about the others.
    columns = {word: number for number, word in enumerate(word for word, times in within.items() if times > 1)}
    vectors = np.zeros((len(sentences), max(1, len(columns))), dtype=np.float32)
    for row, count in enumerate(counts):
        length = 0.0
        for word, times in count.items():
            weight = times * (math.log(len(sentences) / within[word]) + 0.1)
            length += weight * weight
            if word in columns:
                vectors[row, columns[word]] = weight
        vectors[row] /= math.sqrt(length) or 1.0
    return np.asarray(vectors @ vectors.T, dtype=np.float32)


def _centrality(alike: NDArray[np.float32]) -> NDArray[np.float64]:
    """The stationary share of a walk from sentence to similar sentence; the same for all where none are alike."""
    links = alike.astype(np.float64)
    np.fill_diagonal(links, 0.0)
    totals = links.sum(axis=1, keepdims=True)
    count = len(links)
    steps = np.where(totals > 0, links / np.maximum(totals, 1e-12), 1.0 / count)
    rank = np.full(count, 1.0 / count)
    for _ in range(_ROUNDS):
        following = (1 - _DAMPING) / count + _DAMPING * (rank @ steps)
        if np.abs(following - rank).sum() < _CLOSE:
            return np.asarray(following)
        rank = following
    return rank
