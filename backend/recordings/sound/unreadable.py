"""Why a file cannot be transcribed. `code` is for programs and never changes.

The text is for whoever has uploaded it, and for admins who may not know its name: it says "the file". What lies in the storage has
a name that nobody knows.
"""

from typing import ClassVar

from backend.core.durations import span
from backend.core.errors import PermanentError


class UnreadableAudio(PermanentError):
    """The file cannot be transcribed, now or later; each subclass says why."""

    code: ClassVar[str] = "unreadable_audio"


class EmptyAudio(UnreadableAudio):
    """No bytes, or a container without a single sample."""

    code = "empty_audio"


class NotAudio(UnreadableAudio):
    """Not a media file, or one of a kind that is not accepted."""

    code = "not_audio"


class NoAudioStream(UnreadableAudio):
    """A media file without sound."""

    code = "no_audio_stream"


class TruncatedAudio(UnreadableAudio):
    """The file ends before what its header promises, or is damaged beyond that point."""

    code = "truncated_audio"


class AudioTooLong(UnreadableAudio):
    """Longer than the limit."""

    code = "too_long"


class SilentAudio(UnreadableAudio):
    """Digital silence from beginning to end: the microphone was off."""

    code = "silent_audio"


class DrmAudio(UnreadableAudio):
    """Protected by its seller."""

    code = "drm_audio"


class EncryptedAudio(UnreadableAudio):
    """Encrypted by whoever made it."""

    code = "encrypted_audio"


def too_long(seconds: float, limit: float) -> AudioTooLong:
    """Of a file of `seconds`."""
    length, most = span(seconds), span(limit)
    # A second more would read as if it were no more.
    return AudioTooLong(
        f"the file is longer than the limit of {most}"
        if length == most
        else f"the file is {length} long, over the limit of {most}"
    )


def cut_short(seconds: float, promised: float) -> TruncatedAudio:
    """Of a file that holds `seconds` alone."""
    return TruncatedAudio(f"the file holds {span(seconds)} of the {span(promised)} that its header promises")
