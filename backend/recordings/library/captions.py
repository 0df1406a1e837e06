"""Segments as subtitles: cut into cues that can be read, at most two lines of 42 columns and seven seconds each.

The limits are those of the Netflix Timed Text Style Guide (42 characters, 2 lines, 7 s); a wide East Asian character takes two
columns. SubRip has no standard; WebVTT is https://www.w3.org/TR/webvtt1/.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from typing import Protocol

from backend.recordings.speech.base import Word

COLUMNS, LINES, LONGEST = 42, 2, 7.0
# What is shorter nobody can read, unless the next cue begins.
SHORTEST = 1.0
_LEAST = 0.1
_PAUSE = 1.5
_LONGEST_NAME = 30
_ENDS = tuple(".!?…。！？؟۔।")


class Spoken(Protocol):
    """A segment; `words` only where their text is the segment's."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def name(self) -> str | None: ...
    @property
    def text(self) -> str: ...
    @property
    def words(self) -> Sequence[Word]: ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """What stands on one line; `glued` without a space before it."""

    text: str
    start: float
    end: float
    glued: bool
    columns: int


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle. Instants are seconds."""

    start: float
    end: float
    name: str | None
    lines: tuple[str, ...]


def as_srt(spoken: Iterable[Spoken]) -> str:
    """SubRip; whoever begins to speak is named first. There is no way to escape anything in it."""
    blocks = [
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n"
        + "\n".join(cue.lines).replace("-->", "->")
        + "\n"
        for number, cue in enumerate(cues(spoken, named=True), 1)
    ]
    return "\n".join(blocks)


def as_vtt(spoken: Iterable[Spoken]) -> str:
    """WebVTT, each cue in its speaker's voice."""
    blocks = ["WEBVTT\n"]
    for number, cue in enumerate(cues(spoken, named=False), 1):
        text = escape("\n".join(cue.lines), quote=False)
        voiced = f"<v {escape(cue.name, quote=False)}>{text}</v>" if cue.name else text
        blocks.append(f"{number}\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n{voiced}\n")
    return "\n".join(blocks)


def cues(spoken: Iterable[Spoken], *, named: bool) -> list[Cue]:
    """By start. `named`: the name stands in the text where another one begins to speak."""
    groups = [(said.name, group) for said in spoken for group in _groups(_pieces(said))]
    groups.sort(key=lambda found: found[1][0].start)
    if named:
        groups = list(_with_names(groups))
    made = []
    for index, (name, group) in enumerate(groups):
        following = groups[index + 1][1][0].start if index + 1 < len(groups) else float("inf")
        start, end = group[0].start, min(group[-1].end, group[0].start + LONGEST)
        end = max(end, min(start + SHORTEST, max(following, start + _LEAST)))
        made.append(Cue(start, end, name, _wrapped(group)))
    return made


def _with_names(groups: Iterable[tuple[str | None, list[_Piece]]]) -> Iterator[tuple[str | None, list[_Piece]]]:
    before: str | None = None
    for name, group in groups:
        if name is None or name == before:
            yield name, group
        else:
            at = group[0].start
            label = [_piece(part, at, at, glued=False) for part in f"{_short(name)}:".split()]
            for part in _evened([*label, replace(group[0], glued=False), *group[1:]], len(label)):
                yield name, part
        before = name


def _evened(pieces: list[_Piece], label: int) -> list[list[_Piece]]:
    """The cues of a group that has grown by the `label` pieces at its start: two about even ones, not a full one and a word."""
    parts = list(_groups(pieces))
    if len(parts) != 2 or parts[0][-1].text.endswith(_ENDS):
        return parts
    cuts = [
        at
        for at in range(label + 1, len(pieces))
        if all(len(_filled(half)) <= LINES for half in (pieces[:at], pieces[at:]))
    ]
    at = min(cuts, key=lambda cut: abs(_length(pieces[:cut]) - _length(pieces[cut:])), default=len(parts[0]))
    return [pieces[:at], pieces[at:]]


def _short(name: str) -> str:
    while _columns(name) > _LONGEST_NAME:
        name = name[:-2].rstrip() + "…"
    return name


def _pieces(said: Spoken) -> list[_Piece]:
    """What may stand alone on a line, with times: the words' own, else by their share of the text."""
    return _by_words(said.words) if said.words else _by_share(" ".join(said.text.split()), said.start, said.end)


def _by_words(words: Sequence[Word]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for word in words:
        glued = not word.text[:1].isspace()
        for part in " ".join(word.text.split()).split():
            last = pieces[-1] if pieces else None
            if (
                last
                and glued
                and not (_wide(last.text[-1]) or _wide(part[0]))
                and last.columns + _columns(part) <= COLUMNS
            ):
                # Such as the second half of `rock-n-roll`: no line ends before it.
                pieces[-1] = _piece(last.text + part, last.start, max(last.end, word.end), glued=last.glued)
            else:
                pieces += [
                    _piece(cut, word.start, word.end, glued=glued or index > 0) for index, cut in enumerate(_cut(part))
                ]
            glued = False
    return pieces


def _by_share(text: str, start: float, end: float) -> list[_Piece]:
    parts = [(cut, index > 0) for token in text.split() for index, cut in enumerate(_cut(token))]
    total = sum(len(cut) for cut, _ in parts) or 1
    pieces, before, length = [], 0, max(0.0, end - start)
    for cut, glued in parts:
        after = before + len(cut)
        pieces.append(_piece(cut, start + length * before / total, start + length * after / total, glued=glued))
        before = after
    return pieces


def _cut(token: str) -> list[str]:
    """A token without spaces in parts that fit on a line: cut between wide characters, else where the line is full."""
    parts: list[str] = []
    for character in token:
        if parts and (_belongs(character, parts[-1]) or _fits(character, parts[-1])):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _belongs(character: str, before: str) -> bool:
    """Whether the two are one sign, such as a letter and its accent."""
    return _width(character) == 0 or before.endswith("\u200d")


def _fits(character: str, before: str) -> bool:
    return not _wide(character) and not _wide(before[0]) and _columns(before) < COLUMNS


def _piece(text: str, start: float, end: float, *, glued: bool) -> _Piece:
    return _Piece(text, start, end, glued, _columns(text))


def _groups(pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
    """The pieces of each cue."""
    group: list[_Piece] = []
    for piece in pieces:
        if group and _begins(group, piece):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _begins(group: list[_Piece], piece: _Piece) -> bool:
    """Whether a cue ends before this piece."""
    last = group[-1]
    if piece.end - group[0].start > LONGEST or piece.start - last.end > _PAUSE:
        return True
    if last.text.endswith(_ENDS) and _length(group) >= COLUMNS:
        return True
    return len(_filled([*group, piece])) > LINES


def _filled(group: Sequence[_Piece]) -> list[list[_Piece]]:
    """Lines filled one after the other."""
    lines: list[list[_Piece]] = []
    for piece in group:
        if lines and _length([*lines[-1], piece]) <= COLUMNS:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return lines


def _wrapped(group: Sequence[_Piece]) -> tuple[str, ...]:
    """One line where it fits, else two as even as can be."""
    if _length(group) <= COLUMNS or len(group) == 1:
        return (_text(group),)
    cut = min(range(1, len(group)), key=lambda at: max(_length(group[:at]), _length(group[at:])))
    return _text(group[:cut]), _text(group[cut:])


def _text(group: Sequence[_Piece]) -> str:
    return "".join(piece.text if piece.glued or not index else f" {piece.text}" for index, piece in enumerate(group))


def _length(group: Sequence[_Piece]) -> int:
    return sum(piece.columns + (not piece.glued and index > 0) for index, piece in enumerate(group))


def _columns(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_width, text))


@lru_cache(maxsize=4096)
def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if _wide(character) else 1


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in {"W", "F"}


def _time(seconds: float, point: str) -> str:
    milliseconds = round(max(0.0, seconds) * 1000)
    whole, rest = divmod(milliseconds, 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{rest:03}"
