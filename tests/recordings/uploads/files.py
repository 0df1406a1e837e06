"""Files that people upload, made up."""

import random
import struct


def wav(seconds: float = 3, *, seed: int = 1, rate: int = 8000) -> bytes:
    """A WAV file of noise: 16 bit, mono."""
    data = random.Random(seed).randbytes(int(seconds * rate) * 2)
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + fmt + b"data" + struct.pack("<I", len(data)) + data


def mp4(*, brand: bytes = b"M4A ", entry: bytes = b"mp4a") -> bytes:
    """The beginning of an MP4 file whose one track's samples are called `entry`."""
    sample = _box(entry, b"\0" * 28)
    stsd = _box(b"stsd", struct.pack(">II", 0, 1) + sample)
    track = _box(b"trak", _box(b"mdia", _box(b"minf", _box(b"stbl", stsd))))
    return _box(b"ftyp", brand + b"\0\0\0\0" + brand) + _box(b"moov", track) + _box(b"mdat", b"\x01" * 600)


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def wma(*, encrypted: bool) -> bytes:
    mark = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e") if encrypted else b"\0" * 16
    return bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\0" * 20 + mark + b"\1" * 600


def encrypted_zip() -> bytes:
    return b"PK\x03\x04\x14\x00\x01\x00" + b"\0" * 22 + b"\x93" * 600
