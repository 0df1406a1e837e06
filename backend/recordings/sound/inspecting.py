"""A look at a file that takes seconds whatever its length: what it is, how long, and whether it can be read at all."""

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from av.audio.stream import AudioStream
from av.container.input import InputContainer

from backend.recordings.sound import decoding as audio
from backend.recordings.sound.unreadable import EmptyAudio, cut_short, too_long

# A file this short is decoded whole, so that its owner hears at once of silence and missing ends.
_WHOLE_SECONDS = 120.0
# Reading the packets of a file takes a second per gigabyte or so; after this long the header must do.
_LOOK_SECONDS = 60.0
_LONGEST_PACKET = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """`seconds` is exact, or what the header says of a file that took too long to read."""

    codec: str
    channels: int
    seconds: float


def inspect(path: Path, *, max_seconds: float, scratch: Path) -> Seen:
    """Raises UnreadableAudio."""
    with audio.opened(path) as (container, stream):
        header = audio.described(container, stream)
        seconds = _measured(container, stream)
    if seconds is None:
        seconds = header.duration_seconds or 0.0
    elif header.duration_seconds is not None and seconds < 0.98 * header.duration_seconds - 1.0:
        raise cut_short(seconds, header.duration_seconds)
    longest = max(seconds, header.duration_seconds or 0.0)
    if longest > max_seconds:
        raise too_long(longest, max_seconds)
    if seconds <= _WHOLE_SECONDS:
        with TemporaryDirectory(prefix="inspect-", dir=scratch, ignore_cleanup_errors=True) as folder:
            seconds = audio.decode(path, Path(folder), max_seconds=max_seconds, tick=lambda _: None).duration_seconds
    return Seen(header.codec, header.channels, seconds)


def _measured(container: InputContainer, stream: AudioStream) -> float | None:
    """The length of all packets together; None where that would take too long."""
    end, total, count = time.monotonic() + _LOOK_SECONDS, 0, 0
    longest = _LONGEST_PACKET / stream.time_base if stream.time_base else 0.0
    for packet in audio.packets(container, stream):
        # The last one of an Ogg file that was cut at its end is shorter than nothing: 2**32 less so many samples.
        total += packet.duration if packet.duration and packet.duration < longest else 0
        count += 1 if packet.size else 0
        if time.monotonic() > end:
            return None
    if not count:
        raise EmptyAudio("the file holds no sound that can be decoded")
    return float(total * stream.time_base) if total and stream.time_base else None
