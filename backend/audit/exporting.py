"""The logs as text: CSV for spreadsheets, JSON lines for programs."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

from backend.audit.schemas import LoginRead, OperationRead

# A spreadsheet takes a cell that begins so for a formula, and strangers choose what stands in some cells.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# A terminal obeys escape sequences.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PIECE = 200


class Format(StrEnum):
    CSV = "csv"
    JSON_LINES = "jsonl"

    @property
    def media_type(self) -> str:
        return "text/csv; charset=utf-8" if self is Format.CSV else "application/jsonl"


async def as_text(
    entries: AsyncIterator[OperationRead] | AsyncIterator[LoginRead],
    kind: type[OperationRead] | type[LoginRead],
    wanted: Format,
) -> AsyncIterator[str]:
    """The entries in pieces of a few hundred lines; CSV begins with a line of names."""
    names = list(kind.model_fields)
    target = io.StringIO(newline="")
    rows = csv.writer(target)
    if wanted is Format.CSV:
        rows.writerow(names)
    lines = 0
    async for entry in entries:
        if wanted is Format.CSV:
            fields = entry.model_dump(mode="json")
            rows.writerow([_cell(fields[name]) for name in names])
        else:
            target.write(f"{entry.model_dump_json()}\n")
        lines += 1
        if lines % _PIECE == 0:
            yield _taken(target)
    if rest := _taken(target):
        yield rest


def _taken(target: io.StringIO) -> str:
    text = target.getvalue()
    target.seek(0)
    target.truncate()
    return text


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
