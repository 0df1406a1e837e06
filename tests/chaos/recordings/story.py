"""What is said in the recording that workers are killed at, and who hears it: in a file, so that it outlives them."""

from pathlib import Path
from typing import Any

from backend.recordings.speech.base import HeardPart, Part, Turn, Word, said
from tests.recordings.desk import Scripted

SECONDS = 8
SAID = [said([Word(at, at + 0.5, f" Part {at}.", 0.9)]) for at in range(SECONDS)]
TOLD = (Turn(0.0, 4.0, 0), Turn(4.0, 8.0, 1))


class Ledger(Scripted):
    """Writes down each part that it has heard to the end."""

    def hear(self, samples: Any, part: Part, runs: Any, **how: Any) -> HeardPart:
        heard = super().hear(samples, part, runs, **how)
        with (self.folder / "heard").open("a") as file:
            file.write(f"{part.start:.0f}\n")
        return heard

    folder: Path


def scripted(folder: Path) -> Ledger:
    made = Ledger(script=[SAID], told=TOLD, length=1.0)
    made.folder = folder
    return made


def heard(folder: Path) -> list[int]:
    """Where the parts begin that were heard to the end, by any worker."""
    path = folder / "heard"
    return [int(line) for line in path.read_text().split()] if path.exists() else []
