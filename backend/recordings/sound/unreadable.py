"""Why a file cannot be transcribed. `code` is for programs and never changes."""

from typing import ClassVar

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
