"""Where a recording's file comes from: our storage, or the egress folder at the first attempt."""

import asyncio
import re
import stat
from datetime import datetime
from pathlib import Path
from uuid import UUID

from backend.core.errors import PermanentError, TransientError
from backend.core.storage import Blob, Storage
from backend.recordings.models import Recording, RecordingKind
from backend.recordings.options import MOST_SPEAKERS

# Of folders in the work folder, one for each look at an upload.
PROBE_FOLDER = ".probe-"


class SourceRefused(PermanentError):
    """The recording's path is not one that may be read."""

    code = "source_refused"


def blob_key(kind: str, recording_id: UUID, created_at: datetime, source_path: str) -> str:
    """Where a recording lies in the storage, such as `calls/2026/11/ID.ogg`."""
    suffix = Path(source_path).suffix.lower()
    return f"{kind}s/{created_at:%Y/%m}/{recording_id}{suffix if re.fullmatch(r'[.][a-z0-9]{1,5}', suffix) else ''}"


def voice_key(recording: Recording, number: int, *, other: bool = False) -> str:
    """Where the sample of a speaker's voice lies, such as `calls/2026/11/ID-voice-0.wav`.

    `other`: beside those of the transcript that is there, until a new one takes its place.
    """
    name = "again" if other else "voice"
    return f"{recording.kind}s/{recording.created_at:%Y/%m}/{recording.id}-{name}-{number}.wav"


def voice_keys(recording: Recording, *, other: bool = False) -> list[str]:
    """All that there may be."""
    return [voice_key(recording, number, other=other) for number in range(MOST_SPEAKERS)]


async def stored(storage: Storage, recording: Recording, egress_dir: Path) -> Blob | None:
    """Copy a call's file into the storage where it is not there yet; None where it was.

    Raises TransientError while there is no file, SourceRefused for a path that leads out of the egress folder.
    """
    if recording.blob_key is not None and await storage.size(recording.blob_key) is not None:
        return None
    if recording.kind != RecordingKind.CALL:
        raise TransientError(f"the audio is not in the storage: {recording.blob_key}")
    key = blob_key(recording.kind, recording.id, recording.created_at, recording.source_path)
    return await _copied(storage, key, recording.source_path, egress_dir)


async def _copied(storage: Storage, key: str, source_path: str, egress_dir: Path) -> Blob:
    # Resolved first: neither `..` nor a link may lead out of the folder.
    source = await asyncio.to_thread((egress_dir / source_path).resolve)
    if not source.is_relative_to(await asyncio.to_thread(egress_dir.resolve)):
        raise SourceRefused(f"{source_path} is not in the egress folder")
    try:
        # On a shared folder a file can show up before its content.
        found = await asyncio.to_thread(source.stat)
        if stat.S_ISDIR(found.st_mode):
            raise SourceRefused(f"{source_path} is a folder")
        if found.st_size == 0:
            raise TransientError(f"{source_path} is empty")
        return await storage.put(key, source)
    except FileNotFoundError as fault:
        raise TransientError(f"{source_path} is not there") from fault
    except OSError as fault:
        raise TransientError(f"{source_path} cannot be copied: {fault.strerror or fault}") from fault
