"""What the first bytes of an upload give away: what is surely no recording is refused before the rest is sent.

Whatever is not known here is let through; the probe has the last word.
"""

import codecs
import io
import math

from tinytag import TinyTag, TinyTagException

from backend.core.errors import Invalid
from backend.recordings.sound.unreadable import DrmAudio, EmptyAudio, EncryptedAudio, NotAudio

# As much as is looked at; a header that is longer is the probe's.
HEAD = 256 * 1024

_ENCRYPTED = {
    b"-----BEGIN PGP MESSAGE": "PGP",
    b"age-encryption.org/": "age",
    b"Salted__": "OpenSSL",
    b"LUKS\xba\xbe": "LUKS",
    b"aescrypt": "AES Crypt",
    b"AES\x02": "AES Crypt",
}
_MEDIA = (
    *(
        b"fLaC",
        b"OggS",
        b"ID3",
        b"#!AMR",
        b"\x1aE\xdf\xa3",
        b".snd",
        b"caff",
        b"FLV\x01",
        b"wvpk",
        b"MAC ",
        b"DSD ",
        b"\x0bw",
    ),
    *(b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"TTA1"),
)
_RIFF, _RIFF_KINDS = (b"RIFF", b"RF64", b"RIFX", b"FORM"), (b"WAVE", b"AVI ", b"AIFF", b"AIFC")
_WMA = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
# Content encryption and extended content encryption objects (Advanced Systems Format, 3.14 and 3.15).
_WMA_ENCRYPTION = (
    b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e",
    b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c",
)
# Audible's brands; sample entries of iTunes, of Audible and of common encryption (ISO 23001-7).
_DRM_BRANDS, _DRM_ENTRIES = (b"aax ", b"aaxc"), (b"drms", b"enca", b"encv", b"aavd")
_OTHERS = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip archive or an office document",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
    b"II*\x00": "a picture (TIFF)",
    b"MM\x00*": "a picture (TIFF)",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x7fELF": "a program (ELF)",
    b"MZ": "a program (Windows)",
    b"SQLite format 3": "a SQLite database",
    b"MThd": "a list of notes (MIDI)",
}
_ZIP = b"PK\x03\x04"


class Refused(Invalid):
    """The file will never do."""


def check(head: bytes) -> None:
    """Raise Refused (422) with the code of the probe's error: empty_audio, encrypted_audio, drm_audio, not_audio."""
    if not head:
        raise refused(EmptyAudio.code, "the file is empty")
    for mark, name in _ENCRYPTED.items():
        if head.startswith(mark):
            raise refused(EncryptedAudio.code, f"the file is encrypted ({name}); upload what it holds")
    # Bit 0 of an entry's flags: its content is encrypted.
    if head.startswith(_ZIP) and len(head) > 6 and head[6] & 1:
        raise refused(EncryptedAudio.code, "the file is an encrypted archive; upload what it holds")
    if _is_protected(head):
        raise refused(
            DrmAudio.code, "the file is protected against copying and can be played by its seller's programs alone"
        )
    if not _is_media(head) and (other := _other(head)):
        raise refused(NotAudio.code, f"the file is no recording but {other}")


def refused(code: str, why: str) -> Refused:
    return Refused(why, code=code)


def seconds(head: bytes, size: int) -> float:
    """How long the recording is as far as its header says, 0 where it does not. What it says is no more than what fits its size."""
    try:
        tag = TinyTag.get(file_obj=io.BytesIO(head), tags=False)
    except (TinyTagException, ValueError, ArithmeticError, IndexError):
        return 0.0
    length = tag.duration or 0.0
    if not (tag.bitrate and length > 0 and math.isfinite(length)):
        return 0.0
    # A header that a recorder left unfinished says the longest there is.
    return float(min(length, size * 8 / (tag.bitrate * 1000)))


def _is_protected(head: bytes) -> bool:
    if head.startswith(_WMA):
        return any(mark in head[:8192] for mark in _WMA_ENCRYPTION)
    if head[4:8] != b"ftyp":
        return False
    index = head.find(b"moov")
    if head[8:12] in _DRM_BRANDS:
        return True
    entries = head[index : index + HEAD] if index > 0 else b""
    at = entries.find(b"stsd")
    # Behind the name: version, number of entries, and the first entry's size.
    while at >= 0:
        if entries[at + 16 : at + 20] in _DRM_ENTRIES:
            return True
        at = entries.find(b"stsd", at + 4)
    return False


def _is_media(head: bytes) -> bool:
    if head.startswith((*_MEDIA, _WMA)) or head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free"}:
        return True
    if head.startswith(_RIFF):
        return head[8:12] in _RIFF_KINDS
    # Frames of MPEG audio (ADTS among them), packets of an MPEG transport stream.
    return (head[0] == 0xFF and len(head) > 1 and head[1] >= 0xE0) or (head[0] == 0x47 and head[188:189] == b"\x47")


def _other(head: bytes) -> str | None:
    """What it is instead, in words; None where nobody knows."""
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            return name
    start = head[:4096]
    try:
        # A character may be cut in two at the end.
        text = start.decode() if len(head) < 4096 else codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return None
    return "text" if all(letter.isprintable() or letter in "\r\n\t\f" for letter in text) else None
