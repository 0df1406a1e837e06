"""The simulator's dial log: one JSON object per line, one line per number that it was told to dial."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Dial:
    """One number dialed, in the room of one call."""

    number: str
    room: str
    clip: str | None


def read_dials(log: Path) -> list[Dial]:
    """Every dial since the state was made."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [_dial(json.loads(line)) for line in lines if line.strip()]


def _dial(entry: dict[str, Any]) -> Dial:
    return Dial(entry["number"], entry["room"], entry.get("clip"))
