"""Which stretches of a channel the recogniser hears at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.recordings.speech.voice_activity import Run, joined

# Features of one block are held as floats: 200 MB at the peak.
BLOCK_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Block:
    """Clips to be heard in one pass, in seconds from the channel's start."""

    clips: tuple[Run, ...]

    @property
    def start(self) -> float:
        return self.clips[0].start

    @property
    def end(self) -> float:
        return self.clips[-1].end


def blocks(runs: Sequence[Run], *, gap: float, limit: float = BLOCK_SECONDS) -> list[Block]:
    """Join runs less than `gap` apart into clips, and clips into blocks of at most `limit` seconds.

    A clip that is too long is cut at the longest pause between its runs; one run that is too long is cut at the limit.
    """
    result: list[Block] = []
    gathered: list[Run] = []
    for clip in _bounded(runs, gap, limit):
        if gathered and clip.end - gathered[0].start > limit:
            result.append(Block(tuple(gathered)))
            gathered = []
        gathered.append(clip)
    return [*result, Block(tuple(gathered))] if gathered else result


def _bounded(runs: Sequence[Run], gap: float, limit: float) -> list[Run]:
    clips: list[Run] = []
    pending = _members(runs, gap)[::-1]
    while pending:
        members = pending.pop()
        whole = joined(members, float("inf"))[0]
        if whole.end - whole.start <= limit:
            clips.append(whole)
        elif len(members) == 1:
            clips.extend(_sliced(whole, limit))
        else:
            cut = max(range(1, len(members)), key=lambda at: members[at].start - members[at - 1].end)
            pending += [members[cut:], members[:cut]]
    return clips


def _members(runs: Sequence[Run], gap: float) -> list[list[Run]]:
    """The runs that make up each clip."""
    groups: list[list[Run]] = []
    for run in runs:
        if groups and run.start - groups[-1][-1].end < gap:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _sliced(run: Run, limit: float) -> list[Run]:
    count = -int(-(run.end - run.start) // limit)
    step = (run.end - run.start) / count
    return [Run(run.start + step * at, run.start + step * (at + 1), run.by_level_only) for at in range(count)]
