"""Groups speaker vectors by speaker; memory and time stay bounded for any number of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.base import SpeakerCount

Vectors = NDArray[np.float32]
_Floats = NDArray[np.float64]

# So many vectors are compared with each other at a time: 32 MB.
_BLOCK = 2000
_ROUNDS = 20
# Three times as many as there may be speakers; the rest move to these.
_MOST_GROUPS = 60
# Nor is a speaker who says less than this part of everything.
_SPECK = 100
# A small group's own likeness counts as if it had this many pairs as alike as everybody's.
_PRIOR_PAIRS = 6.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`cut`: groups whose mean cosine distance is below are one. `alike`: so are groups whose likeness to each other is at least
    this share of their likeness within. `least`: fewer vectors than this are no speaker."""

    cut: float
    alike: float
    least: int


def speakers_of(vectors: Vectors, bounds: Bounds, count: SpeakerCount) -> Vectors:
    """The mean vector (length 1) of each speaker; at least one where there is a vector. `vectors` have length 1.

    1. Average linkage up to `cut`, which leaves speakers in several groups rather than two in one.
    2. Vectors move to the nearest group until none moves: groups become purer than linkage alone makes them.
    3. The two most alike groups are made one, or the smallest speck is dropped; then again from 2.
    """
    # The longer the recording, the more odd windows (laughter, noise, two at once) are alike by chance.
    bounds = replace(bounds, least=max(bounds.least, len(vectors) // _SPECK))
    means = _linked(vectors.astype(np.float64), bounds, count)
    while True:
        means, owner = _settled(vectors, means)
        groups = _groups(vectors, owner)
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
        joined = groups.sums[first] + groups.sums[second]
        means = np.delete(means, second, axis=0)
        means[first - (second < first)] = _unit(joined[None])[0]


@dataclass(frozen=True, slots=True)
class _Groups:
    sums: _Floats
    sizes: _Floats

    def likeness(self) -> _Floats:
        """Of each pair of groups: the mean cosine between them as a share of that within them.

        How alike one speaker's vectors are differs between lines and voices, so no absolute bound fits all recordings.
        """
        pairs = self.sizes * (self.sizes - 1.0) / 2.0
        within = (np.square(self.sums).sum(axis=1) - self.sizes) / 2.0
        usual = within.sum() / pairs.sum() if pairs.sum() else 1.0
        own = np.maximum((within + _PRIOR_PAIRS * usual) / (pairs + _PRIOR_PAIRS), 0.05)
        means = self.sums / self.sizes[:, None]
        result = means @ means.T / np.sqrt(np.outer(own, own))
        np.fill_diagonal(result, -np.inf)
        return np.asarray(result)


def _groups(vectors: Vectors, owner: NDArray[np.int64]) -> _Groups:
    """`owner` has every number from 0 to its greatest."""
    order = np.argsort(owner, kind="stable")
    sizes = np.bincount(owner)
    firsts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    return _Groups(np.add.reduceat(vectors[order], firsts, axis=0, dtype=np.float64), sizes.astype(np.float64))


def _settled(vectors: Vectors, means: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
    """Mean vectors and the owner of each vector, once none moves any more (or after 20 rounds); empty groups are gone."""
    owner = np.argmax(vectors @ means.T, axis=1)
    for _ in range(_ROUNDS):
        _, owner = np.unique(owner, return_inverse=True)
        means = _unit(_groups(vectors, owner).sums)
        nearest = np.argmax(vectors @ means.T, axis=1)
        if np.array_equal(nearest, owner):
            break
        owner = nearest
    return means[np.unique(owner)], np.unique(owner, return_inverse=True)[1]


def _linked(vectors: _Floats, bounds: Bounds, count: SpeakerCount) -> Vectors:
    """Mean vectors of the groups below the cut; a lower cut where these are fewer than the speakers."""
    cut = bounds.cut
    while True:
        sums, sizes = _linked_by_block(vectors, cut)
        real = sizes >= bounds.least
        if np.count_nonzero(real) >= count.low or not real.any() or cut < 0.1:
            break
        cut -= 0.05
    wanted = min(np.count_nonzero(real), _MOST_GROUPS) if real.any() else 1
    return _unit(sums[np.argsort(-sizes, kind="stable")[: max(wanted, count.low)]])


def _linked_by_block(vectors: _Floats, cut: float) -> tuple[_Floats, _Floats]:
    sums, sizes = vectors, np.ones(len(vectors))
    if len(vectors) > _BLOCK:
        blocks = [
            _joined(vectors[at : at + _BLOCK], np.ones(len(vectors[at : at + _BLOCK])), cut)
            for at in range(0, len(vectors), _BLOCK)
        ]
        sums, sizes = np.concatenate([block[0] for block in blocks]), np.concatenate([block[1] for block in blocks])
        most = np.argsort(-sizes, kind="stable")[:_BLOCK]
        sums, sizes = sums[most], sizes[most]
    return _joined(sums, sizes, cut)


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
