"""The dial log: one entry for each CreateSIPParticipant, in a file that survives a restart."""

import json
import logging
from collections import deque
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

logger = logging.getLogger("simulator")

_TAIL = 2000


@dataclass(slots=True)
class Dial:
    """`outcome` is filled in when the leg ends, after the line was written to the file; instants are ISO 8601, UTC."""

    number: str
    room: str
    call_id: str | None
    trunk: str
    caller_id: str
    sip_call_id: str
    behaviour: str
    clip: str | None
    dialed_at: str
    answered_at: str | None = None
    ended_at: str | None = None
    outcome: str | None = None


_FIELDS = {field.name for field in fields(Dial)}


def now() -> str:
    return datetime.now(UTC).isoformat()


class DialLog:
    """Memory holds the newest entries, the file all of them."""

    def __init__(self, folder: Path | None) -> None:
        self.entries: deque[Dial] = deque(maxlen=_TAIL)
        self._folder = folder
        self._file: TextIO | None = None

    def open(self) -> None:
        """Take over what the file holds, and write on behind it. Without a folder only memory is used."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "dials.jsonl"
        if path.exists():
            self._load(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def _load(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                entry = json.loads(line)
                self.entries.append(Dial(**{name: value for name, value in entry.items() if name in _FIELDS}))
            except (ValueError, TypeError, AttributeError):
                logger.warning("%s, line %d is not a dial and is left out", path, number)
        if text and not text.endswith("\n"):
            # Cut off in the middle of a line, which must not swallow the next one.
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, dial: Dial) -> None:
        self.entries.append(dial)
        if self._file is not None:
            self._file.write(json.dumps(asdict(dial)) + "\n")

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(dial) for dial in self.entries]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
