"""What a file is that libav does not open: cut short, encrypted, protected, or no recording at all."""

import logging
from pathlib import Path

from backend.core.errors import Invalid
from backend.recordings.sound import signatures
from backend.recordings.sound.unreadable import (
    DrmAudio,
    EmptyAudio,
    EncryptedAudio,
    NotAudio,
    TruncatedAudio,
    UnreadableAudio,
)

log = logging.getLogger(__name__)

# Names of sample entries in MP4 whose sound is encrypted: iTunes, the common scheme (ISO 23001-7), Audible.
PROTECTED = frozenset({"drms", "enca", "aavd"})

# Of the formats that are read: FLAC, Ogg, Matroska and WebM, CAF, Sun audio, AMR; WAV and AIFF.
_BEGINNINGS = (b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"caff", b".snd", b"#!AMR")
_RIFF, _RIFF_KINDS = (b"RIFF", b"RF64", b"FORM"), {b"WAVE", b"AIFF", b"AIFC"}

# A file in fragments has two boxes a second at most; one of empty boxes alone must not keep a worker busy.
_MOST_BOXES = 100_000

_BY_CODE: dict[str, type[UnreadableAudio]] = {
    kind.code: kind for kind in (EmptyAudio, NotAudio, EncryptedAudio, DrmAudio)
}


def why_not(path: Path, reason: str) -> UnreadableAudio:
    """The error for a file that libav refuses for `reason`."""
    with path.open("rb") as file:
        head = file.read(signatures.HEAD)
    try:
        signatures.check(head)
    except Invalid as fault:
        return _BY_CODE.get(fault.problem, NotAudio)(fault.detail)
    if head[4:8] == b"ftyp" and _ends_early(path):
        return TruncatedAudio("the file ends before what its header promises")
    if head.startswith(_BEGINNINGS) or (head.startswith(_RIFF) and head[8:12] in _RIFF_KINDS):
        return TruncatedAudio("the file begins as a recording does, and is damaged or ends too early")
    log.info("not a recording: %s", reason)
    return NotAudio("the file is not a recording of a kind that can be read")


def wave_seconds(path: Path) -> float | None:
    """What the header of a WAV file promises, which libav holds against the file's size without a word; None for a stream."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return None
        file.seek(12)
        rate = 0
        for _ in range(_MOST_BOXES):
            if len(head := file.read(8)) < 8:
                return None
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name == b"data":
                # Who writes as the sound comes does not know the size.
                return size / rate if rate and 0 < size < 0x7FFF_0000 else None
            if name == b"fmt ":
                rate = int.from_bytes(file.read(16)[8:12], "little")
                size -= 16
            file.seek(size + size % 2, 1)
    return None


def _ends_early(path: Path) -> bool:
    """Whether an MP4 file lacks its index, or its last box is longer than what is left of the file (ISO 14496-12, 4.2)."""
    length, at, seen = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        for _ in range(_MOST_BOXES):
            if at + 8 > length:
                return at > length or b"moov" not in seen
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4])
            if size == 1:
                size = int.from_bytes(head[8:16])
            elif size == 0:
                size = length - at
            if size < 8:
                return False
            seen.add(head[4:8])
            at += size
    return False
