"""A worker that comes as far as a stage, and stays there until it is killed: DATABASE RECORDING STAGE FOLDER."""

import asyncio
import sys
import time
from pathlib import Path
from uuid import UUID

from backend.core.db import Database
from backend.core.storage import Blob, FolderStorage
from backend.recordings.work import running
from backend.recordings.work.running import Place
from tests.chaos.recordings.story import scripted


class StuckStorage(FolderStorage):
    """Stays for ever where it is to copy what the stage copies."""

    def __init__(self, root: Path, mark: str, reached: Path) -> None:
        super().__init__(root)
        self._mark, self._reached = mark, reached

    async def put(self, key: str, source: Path) -> Blob:
        if self._mark and self._mark in key:
            self._reached.touch()
            await asyncio.sleep(600)
        return await super().put(key, source)


def work(url: str, recording: UUID, stage: str, folder: Path) -> None:
    reached, parts = folder / "reached", [0]

    def stay(_: object) -> None:
        parts[0] += 1
        # Of the words, three parts are done before.
        if stage != "words" or parts[0] == 4:
            reached.touch()
            time.sleep(600)

    mark = {"fetch": "calls/", "store": "voice"}.get(stage, "")
    tools = scripted(folder)
    if stage in {"speech", "words", "speakers", "summary"}:
        tools.acting(stage, stay)
    place = Place(StuckStorage(folder / "recordings", mark, reached), folder / "egress", folder / "work")

    async def run() -> None:
        await running.transcribe(Database(url), tools.tools(voice_samples=voices), place, recording_id=recording)

    asyncio.run(run())


def voices(_samples: object, turns: object, folder: Path) -> dict[int, Path]:
    (folder / "0.wav").write_bytes(b"a voice")
    return {0: folder / "0.wav"}


if __name__ == "__main__":
    work(sys.argv[1], UUID(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
