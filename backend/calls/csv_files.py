"""A CSV file as records: encoding, lines, quoting. Read as a stream, its memory bounded by one record."""

import codecs
import csv
import io
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Self

from backend.core.errors import Invalid

MAX_LINE = 65_536
MAX_RECORD_LINES = 50
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}

_CHUNK = 1 << 20
_LOST = "\ufffd"
_HOW = "save it as CSV UTF-8 (comma delimited)"
_OVERLONG = "\0"
_SIGNATURES = {
    b"PK\x03\x04": "an Excel workbook or another ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive",
}


@dataclass(frozen=True, slots=True)
class Record:
    """The cells of one row; `line` is where it begins, from 1. With a `problem` there are none."""

    line: int
    cells: list[str]
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read a file. Bytes that are not of the encoding become U+FFFD."""

    encoding: str
    delimiter: str
    header: list[str]


class _Lines:
    """Physical lines, numbered from 1, that can be given back when a record turns out not to be one."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._back: deque[str] = deque()
        self._taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if len(self._taken) == MAX_RECORD_LINES:
            raise csv.Error("quotation marks")
        line = self._back.popleft() if self._back else self._read()
        if not line:
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        if line == _OVERLONG:
            raise csv.Error(_OVERLONG)
        return line

    def _read(self) -> str:
        line = part = self._text.readline(MAX_LINE)
        while len(part) == MAX_LINE and part[-1] not in "\r\n":
            part, line = self._text.readline(MAX_LINE), _OVERLONG
        return line

    def begin(self) -> int:
        """Start a record; its line."""
        self._taken.clear()
        return self.number + 1

    def give_back(self) -> None:
        """Keep the first line of the record, read the others again."""
        self._back.extendleft(reversed(self._taken[1:]))
        self.number -= max(0, len(self._taken) - 1)


def find_layout(source: BinaryIO, recognise: Callable[[list[str]], int]) -> Layout:
    """Look through the whole file once for its encoding, then at its header for the delimiter.

    `recognise` says how many of a header's names have a meaning: the delimiter that gives the most is the file's.
    Raises Invalid (422) for an empty file and for what is not a text file.
    """
    encoding = _find_encoding(source)
    best, problem = Layout(encoding, ",", []), ""
    for delimiter in DELIMITERS:
        with closing(_read(source, encoding, delimiter)) as records:
            header = next(records, Record(1, []))
        problem = problem or header.problem
        if (recognise(header.cells), len(header.cells)) > (recognise(best.header), len(best.header)):
            best = Layout(encoding, delimiter, header.cells)
    if not best.header and problem:
        raise Invalid(f"the header line cannot be read: {problem}", code="not_csv")
    if not best.header:
        raise Invalid("the file is empty: it needs a header line and one line for each policy", code="empty_file")
    return best


def read_records(source: BinaryIO, layout: Layout) -> Generator[Record, None, None]:
    """The rows after the header, blank ones left out. A row that cannot be split is a record with a problem."""
    records = _read(source, layout.encoding, layout.delimiter)
    next(records, None)
    return records


def is_lost(value: str) -> bool:
    """Whether characters of the value could not be decoded."""
    return _LOST in value


def _read(source: BinaryIO, encoding: str, delimiter: str) -> Generator[Record, None, None]:
    source.seek(0)
    text = io.TextIOWrapper(source, encoding=encoding, errors="replace", newline="")
    try:
        yield from _split(_Lines(text), delimiter)
    finally:
        # The wrapper would close what is the caller's.
        text.detach()


def _split(lines: _Lines, delimiter: str) -> Generator[Record, None, None]:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        start = lines.begin()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as fault:
            # One stray quotation mark would swallow the rows that follow it.
            lines.give_back()
            yield _unreadable(start, fault)
            continue
        if any(cell.strip() for cell in cells):
            yield Record(start, cells)


def _unreadable(line: int, fault: csv.Error) -> Record:
    if str(fault) == _OVERLONG:
        return Record(line, [], f"the line has more than {MAX_LINE:,} characters", "write one line for each policy")
    return Record(line, [], "the quotation marks do not pair up", 'write a quotation mark inside a value as ""')


def _find_encoding(source: BinaryIO) -> str:
    source.seek(0)
    head = source.read(1024)
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            raise Invalid(f"the file is {name}, not CSV: open it in a spreadsheet and {_HOW}", code="not_csv")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    controls = sum(byte < 32 and byte not in b"\t\r\n\f" for byte in head)
    if controls > max(2, len(head) // 50):
        raise Invalid(f"the file is not text, so it cannot be CSV: open it in a spreadsheet and {_HOW}", code="not_csv")
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return "cp1252" if _is_foreign(source) else "utf-8"


def _is_foreign(source: BinaryIO) -> bool:
    """Whether the bytes make no sense as UTF-8.

    A UTF-8 file with a few broken bytes stays UTF-8, so that one bad row does not spoil every name in the file.
    """
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    lost = understood = 0
    source.seek(0)
    while chunk := source.read(_CHUNK):
        text = decode(chunk)
        if not text.isascii():
            broken = text.count(_LOST)
            lost += broken
            understood += len(text) - len(text.encode("ascii", "ignore")) - broken
    lost += decode(b"", final=True).count(_LOST)
    return lost > understood
