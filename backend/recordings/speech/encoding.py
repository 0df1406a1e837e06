"""Sound as MP3, which every service that speaks the protocol takes."""

from collections.abc import Iterable
from io import BytesIO

import av
import numpy as np
from av.audio.frame import AudioFrame

from backend.recordings.speech.samples import SAMPLE_RATE, Samples

_BITS_PER_SECOND = 64_000
_FRAME = SAMPLE_RATE * 10
# Services refuse what is shorter than 0.1 s.
_SHORTEST = SAMPLE_RATE


def encoded(pieces: Iterable[Samples]) -> bytes:
    """Pieces one after the other: 480 kB a minute, and never less than a second."""
    target = BytesIO()
    with av.open(target, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = _BITS_PER_SECOND
        written = 0
        for frame in _frames(pieces):
            written += frame.samples
            container.mux(stream.encode(frame))
        if written < _SHORTEST:
            container.mux(stream.encode(_frame(np.zeros(_SHORTEST - written, dtype=np.int16))))
        container.mux(stream.encode(None))
    return target.getvalue()


def _frames(pieces: Iterable[Samples]) -> Iterable[AudioFrame]:
    for piece in pieces:
        for start in range(0, len(piece), _FRAME):
            yield _frame(piece[start : start + _FRAME])


def _frame(samples: Samples) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, dtype=np.int16)[None, :], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    return frame
