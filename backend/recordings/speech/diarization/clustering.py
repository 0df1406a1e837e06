"""Groups speaker vectors by speaker; memory and time stay bounded for any number of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.base import SpeakerCount

Vectors = NDArray[np.float32]
_Floats = NDArray[np.float64]

# Two windows without common sound are at most 0.80 alike (eleven recordings; a book read in a studio 0.86). The same sound is 0.9
# and more so when decoded again, cut 0.1 s elsewhere or 40 dB above a noise; 0.81 to 0.95 when cut 0.3 s elsewhere or 30 dB above.
_OTHER_SOUND, _SAME_SOUND = 0.8, 0.9
# Minutes of speech, as long as the recordings that the bounds were chosen on; the same bounds on more of it leave a voice in parts.
_BLOCK = 200
# In a block, and in a whole recording, nobody is a speaker who says less than this part of it.
_BLOCK_SPECK, _SPECK = 20, 100
# Groups are one voice at this share of their likeness within (measured between blocks: another voice has at most 0.75, the
# same nearly always 0.82 and more); at half of it where the smaller has only so many vectors.
_SAME, _HALF_SURE = 0.78, 10.0
# A vector is like nobody at this share of the usual likeness; what such vectors have in common is a voice if it is this unlike all
# others and this coherent. Of them, so many are compared.
_ODD, _OTHER, _COHERENT, _MOST_ODD = 0.5, 0.3, 0.5, 1000
_ROUNDS = 20
# Three times as many as there may be speakers; the rest move to these.
_MOST_GROUPS = 60
# A small group's own likeness counts as if it had this many pairs as alike as everybody's.
_PRIOR_PAIRS = 6.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`cut`: groups whose mean cosine distance is below are one. `alike`: so are groups whose likeness to each other is at least
    this share of their likeness within. `least`: fewer vectors of different sound than this are no speaker."""

    cut: float
    alike: float
    least: float


def speakers_of(vectors: Vectors, bounds: Bounds, count: SpeakerCount) -> Vectors:
    """The mean vector (length 1) of each speaker; at least one where there is a vector. `vectors` have length 1, by time.

    1. Each block of a few minutes of speech has its own speakers.
    2. Speakers of all blocks who are the same voice are made one; the less speech is behind a group, the sooner.
    3. Vectors of the whole recording move to the nearest speaker; specks go, then again from 2, until nothing changes.
    4. Whoever says too little in every block, but enough in all, is looked for among the vectors that are like nobody.
    """
    if len(vectors) <= _BLOCK:
        return _speakers_in_block(vectors, bounds, count)
    least = max(bounds.least, len(vectors) // _SPECK)
    speakers = _unit(_voices(vectors, bounds, least, count).sums)
    if len(speakers) == count.high:
        return speakers
    rare = _rare(vectors, speakers, replace(bounds, least=least))[: count.high - len(speakers)]
    return _settled(vectors, np.concatenate([speakers, rare]))[0] if len(rare) else speakers


def _voices(vectors: Vectors, bounds: Bounds, least: float, count: SpeakerCount) -> _Groups:
    """Who says at least `least` in the whole recording."""
    groups = _joined_voices(_by_block(vectors, bounds, 1), SpeakerCount(1, count.high))
    if len(groups.sizes) < count.low:
        groups = _joined_voices(_by_block(vectors, bounds, count.low), count)
    while True:
        groups = _regrouped(vectors, groups.without_specks(least, count.low))
        joined = _joined_voices(groups, count)
        if len(joined.sizes) == len(groups.sizes) and (len(groups.sizes) <= count.low or groups.sizes.min() >= least):
            return groups
        groups = joined


def _by_block(vectors: Vectors, bounds: Bounds, low: int) -> _Groups:
    """The speakers of each block, at least `low`, one block's after the other's."""
    found = []
    for block in np.array_split(vectors, -(-len(vectors) // _BLOCK)):
        speakers = _speakers_in_block(block, bounds, SpeakerCount(low), _BLOCK_SPECK)
        owner = np.argmax(block @ speakers.T, axis=1)
        found.append(_groups(block, np.unique(owner, return_inverse=True)[1]))
    return _Groups(np.concatenate([each.sums for each in found]), np.concatenate([each.sizes for each in found]))


def _joined_voices(groups: _Groups, count: SpeakerCount) -> _Groups:
    """Without two groups that are one voice, nor more groups than there may be speakers."""
    while len(groups.sizes) > count.low:
        fewer = np.square(np.minimum.outer(groups.sizes, groups.sizes))
        beyond = groups.likeness() - _SAME * fewer / (fewer + _HALF_SURE**2)
        first, second = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        if beyond[first, second] < 0.0 and len(groups.sizes) <= count.high:
            break
        groups = groups.with_one(int(first), int(second))
    return groups


def _regrouped(vectors: Vectors, groups: _Groups) -> _Groups:
    return _groups(vectors, _settled(vectors, _unit(groups.sums))[1])


def _rare(vectors: Vectors, speakers: Vectors, bounds: Bounds) -> Vectors:
    """Further speakers, unlike all of `speakers`; the one who says most first."""
    near = (vectors @ speakers.T).max(axis=1)
    usual = float(np.median(near))
    odd = vectors[near < _ODD * usual]
    step = max(1, -(-len(odd) // _MOST_ODD))
    odd, least = odd[::step], bounds.least // step
    if len(odd) < max(least, 1):
        return speakers[:0]
    found = _speakers_in_block(odd, replace(bounds, least=least), SpeakerCount())
    groups = _groups(odd, _settled(odd, found)[1])
    means: Vectors = _unit(groups.sums)
    coherence = np.linalg.norm(groups.sums, axis=1) / groups.sizes
    real = (groups.sizes >= least) & (coherence >= _COHERENT**0.5 * usual)
    real &= (means @ speakers.T).max(axis=1) < _OTHER
    return np.asarray(means[real][np.argsort(-groups.sizes[real], kind="stable")])


def _speakers_in_block(vectors: Vectors, bounds: Bounds, count: SpeakerCount, parts: float = math.inf) -> Vectors:
    """As `speakers_of`, of as many vectors as can all be compared with each other.

    Nobody is a speaker who says less than one of `parts`.

    1. Average linkage up to `cut`, which leaves speakers in several groups rather than two in one.
    2. Vectors move to the nearest group until none moves: groups become purer than linkage alone makes them.
    3. The two most alike groups are made one, or the smallest speck is dropped; then again from 2.
    """
    weights = _weights(vectors)
    bounds = replace(bounds, least=max(bounds.least, float(weights.sum() // parts)))
    means = _linked(vectors, weights, bounds, count)
    while True:
        means, owner = _settled(vectors, means, weights)
        groups = _groups(vectors, owner, weights)
        if len(means) <= count.low:
            return means
        smallest = int(np.argmin(groups.sizes))
        if groups.sizes[smallest] < bounds.least:
            means = np.delete(means, smallest, axis=0)
            continue
        likeness = groups.likeness()
        first, second = np.unravel_index(int(np.argmax(likeness)), likeness.shape)
        if likeness[first, second] < bounds.alike and len(means) <= count.high:
            return means
        means = _unit(groups.with_one(int(first), int(second)).sums)


def _weights(vectors: Vectors) -> _Floats:
    """What each counts: 1, and of a sound that is heard n times, an nth.

    Of a prompt played again and again, every sentence would otherwise be a voice of its own: as good as equal within, and far less
    alike to the next sentence. Neighbours share half of their sound in every recording, which the bounds know.
    """
    again = np.clip((vectors @ vectors.T - _OTHER_SOUND) / (_SAME_SOUND - _OTHER_SOUND), 0.0, 1.0)
    again = np.triu(again, 2) + np.tril(again, -2)
    return np.asarray(1.0 / (1.0 + again.sum(axis=1)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Groups:
    """`sums` of the weighted vectors of each, `sizes` of the weights."""

    sums: _Floats
    sizes: _Floats

    def likeness(self) -> _Floats:
        """Of each pair of groups: the mean cosine between them as a share of that within them.

        How alike one speaker's vectors are differs between lines and voices, so no absolute bound fits all recordings.
        """
        pairs = np.maximum(self.sizes * (self.sizes - 1.0) / 2.0, 0.0)
        within = np.where(pairs > 0.0, (np.square(self.sums).sum(axis=1) - self.sizes) / 2.0, 0.0)
        usual = within.sum() / pairs.sum() if pairs.sum() else 1.0
        own = np.maximum((within + _PRIOR_PAIRS * usual) / (pairs + _PRIOR_PAIRS), 0.05)
        means = self.sums / self.sizes[:, None]
        result = means @ means.T / np.sqrt(np.outer(own, own))
        np.fill_diagonal(result, -np.inf)
        return np.asarray(result)

    def with_one(self, first: int, second: int) -> _Groups:
        """The two made one."""
        sums, sizes = self.sums.copy(), self.sizes.copy()
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        return _Groups(np.delete(sums, second, axis=0), np.delete(sizes, second))

    def without_specks(self, least: float, low: int) -> _Groups:
        """Those of at least `least` vectors, and of the others the largest until there are `low`."""
        largest = np.argsort(-self.sizes, kind="stable")
        kept = np.sort(largest[: max(low, int(np.count_nonzero(self.sizes >= least)), 1)])
        return _Groups(self.sums[kept], self.sizes[kept])


def _groups(vectors: Vectors, owner: NDArray[np.int64], weights: _Floats | None = None) -> _Groups:
    """`owner` has every number from 0 to its greatest."""
    order = np.argsort(owner, kind="stable")
    firsts = np.concatenate(([0], np.cumsum(np.bincount(owner))[:-1]))
    sizes = np.bincount(owner, weights).astype(np.float64)
    weighted = vectors if weights is None else vectors * weights[:, None]
    return _Groups(np.add.reduceat(weighted[order], firsts, axis=0, dtype=np.float64), sizes)


def _settled(vectors: Vectors, means: Vectors, weights: _Floats | None = None) -> tuple[Vectors, NDArray[np.int64]]:
    """Mean vectors and the owner of each vector, once none moves any more (or after 20 rounds); empty groups are gone."""
    owner = np.argmax(vectors @ means.T, axis=1)
    for _ in range(_ROUNDS):
        _, owner = np.unique(owner, return_inverse=True)
        means = _unit(_groups(vectors, owner, weights).sums)
        nearest = np.argmax(vectors @ means.T, axis=1)
        if np.array_equal(nearest, owner):
            break
        owner = nearest
    return means[np.unique(owner)], np.unique(owner, return_inverse=True)[1]


def _linked(vectors: Vectors, weights: _Floats, bounds: Bounds, count: SpeakerCount) -> Vectors:
    """Mean vectors of the groups below the cut; a lower cut where these are fewer than the speakers."""
    cut = bounds.cut
    while True:
        sums, sizes = _joined(vectors * weights[:, None], weights, cut)
        real = sizes >= bounds.least
        if np.count_nonzero(real) >= count.low or not real.any() or cut < 0.1:
            break
        cut -= 0.05
    wanted = min(np.count_nonzero(real), _MOST_GROUPS) if real.any() else 1
    return _unit(sums[np.argsort(-sizes, kind="stable")[: max(wanted, count.low)]])


def _joined(sums: _Floats, sizes: _Floats, cut: float) -> tuple[_Floats, _Floats]:
    """Groups whose mean distance is below `cut` made one: their sums and sizes.

    The mean cosine distance of two groups is 1 less the product of their means, so sums are all that is needed. Follows
    chains of nearest neighbours (Murtagh 1983): average linkage, exact, in the square of the number.
    """
    leader = np.arange(len(sums))
    # A chain finds merges out of order; each lies above those inside it.
    for first, second, height in sorted(_merges(sums, sizes), key=lambda merge: merge[2]):
        if height > cut:
            break
        leader[leader == leader[second]] = leader[first]
    members = (leader[:, None] == np.unique(leader)).astype(np.float64)
    return members.T @ sums, members.T @ sizes


def _merges(sums: _Floats, sizes: _Floats) -> list[tuple[int, int, float]]:
    means, sizes = sums / sizes[:, None], sizes.copy()
    far = 1.0 - means @ means.T
    np.fill_diagonal(far, np.inf)
    merges: list[tuple[int, int, float]] = []
    chain: list[int] = []
    alive = set(range(len(sums)))
    while len(alive) > 1:
        if not chain:
            chain.append(min(alive))
        nearest = int(np.argmin(far[chain[-1]]))
        if len(chain) < 2 or far[chain[-1], chain[-2]] > far[chain[-1], nearest]:
            chain.append(nearest)
            continue
        second, first = chain.pop(), chain.pop()
        merges.append((first, second, float(far[first, second])))
        share = sizes[first] / (sizes[first] + sizes[second])
        row = share * far[first] + (1.0 - share) * far[second]
        row[[first, second]] = np.inf
        far[first], far[:, first] = row, row
        far[second], far[:, second] = np.inf, np.inf
        sizes[first] += sizes[second]
        alive.remove(second)
    return merges


def _unit(sums: NDArray[np.floating]) -> Vectors:
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(length, 1e-12), dtype=np.float32)
