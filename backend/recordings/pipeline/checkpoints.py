"""What has been done of a recording, so that whoever goes on with it need not do it again."""

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Protocol

from backend.recordings.models import Stage


class Checkpoints(Protocol):
    """JSON values of one recording by stage and part. Blocking. Losing the last ones costs time and nothing else."""

    def load(self, stage: Stage, part: int) -> Any | None:
        """None where there is none."""
        ...

    def save(self, stage: Stage, part: int, value: Any) -> None: ...


class FolderCheckpoints:
    """A file each, below `folder`: written under another name, then renamed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, stage: Stage, part: int) -> Any | None:
        try:
            return json.loads(self._path(stage, part).read_text())
        except (FileNotFoundError, ValueError):
            # One that cannot be read is one that is not there: the work is done again.
            return None

    def save(self, stage: Stage, part: int, value: Any) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=self._folder, delete=False) as file:
            try:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self._path(stage, part))
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def _path(self, stage: Stage, part: int) -> Path:
        return self._folder / f"{stage.value}-{part}.json"


class Kept:
    """Checkpoints of one way of doing it: those of another file, other options or another model are as good as none."""

    def __init__(self, checkpoints: Checkpoints, way: str) -> None:
        self._checkpoints, self._way = checkpoints, way

    def load(self, stage: Stage, part: int = 0) -> Any | None:
        found = self._checkpoints.load(stage, part)
        return found["value"] if isinstance(found, dict) and found.get("way") == self._way else None

    def save(self, stage: Stage, value: Any, part: int = 0) -> None:
        self._checkpoints.save(stage, part, {"way": self._way, "value": value})
