"""Rows of a policy import: a record becomes a PolicyRow, or the list of what is wrong with it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TypeVar

import phonenumbers

from backend.calls.csv_cells import (
    LONGEST,
    BadCell,
    date_order,
    read_date,
    read_flag,
    read_language,
    read_phone,
    read_premium,
    read_text,
    read_zone,
    zone_of,
)
from backend.calls.csv_columns import REQUIRED
from backend.calls.csv_files import Record, is_lost

T = TypeVar("T")

_SHOWN = 200
# A file with more month-first dates than this share of those that show their order is no slip of the pen.
_SLIPS = 0.05


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A good row. None means that the file says nothing about it, so what is stored stays."""

    line: int
    customer_ref: str
    full_name: str
    phone: str
    phone_zone: str
    timezone: str | None
    language: str | None
    policy_number: str
    insurer: str | None
    product: str | None
    premium: Decimal | None
    expiry_date: date
    do_not_call: bool


@dataclass(frozen=True, slots=True)
class RowError:
    line: int
    field: str
    value: str
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class Format:
    """How the cells of a file are to be read: `columns` is the place of each, `width` the number of headers."""

    columns: Mapping[str, int]
    width: int
    region: str
    zone: str
    month_first: str = ""


@dataclass(slots=True)
class _Cells:
    """The cells of one record by column, and what is wrong with them."""

    record: Record
    columns: Mapping[str, int]
    errors: list[RowError] = field(default_factory=list)

    def read(self, column: str, parse: Callable[[str], T]) -> T | None:
        """The parsed value; None when the file has no such column, the cell is empty, or it is wrong."""
        place = self.columns.get(column)
        value = self.record.cells[place].strip() if place is not None else ""
        try:
            _check_cell(column, value)
            return parse(value) if value else None
        except BadCell as fault:
            self.errors.append(RowError(self.record.line, column, _shown(value), fault.problem, fault.fix))
            return None


def read_row(record: Record, form: Format) -> PolicyRow | list[RowError]:
    """A good row, or everything that is wrong with it."""
    if record.problem:
        return [RowError(record.line, "row", "", record.problem, record.fix)]
    surplus = record.cells[form.width :]
    if len(record.cells) < form.width or any(cell.strip() for cell in surplus):
        return [_wrong_width(record, form.width)]
    cells = _Cells(record, form.columns)
    number = cells.read("phone", lambda value: read_phone(value, form.region))
    row = PolicyRow(
        line=record.line,
        customer_ref=_text(cells, "customer_ref") or "",
        full_name=_text(cells, "full_name") or "",
        phone=phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if number else "",
        phone_zone=zone_of(number, form.zone) if number else "",
        timezone=cells.read("timezone", read_zone),
        language=cells.read("language", read_language),
        policy_number=_text(cells, "policy_number") or "",
        insurer=_text(cells, "insurer"),
        product=_text(cells, "product"),
        premium=cells.read("premium", read_premium),
        expiry_date=cells.read("expiry_date", lambda value: read_date(value, form.month_first)) or date.max,
        do_not_call=cells.read("do_not_call", read_flag) or False,
    )
    return cells.errors or row


def find_month_first(records: Iterable[Record], place: int) -> str:
    """Whether the dates at `place` seem to have the month first: where that shows, or nothing."""
    days = months = 0
    example = ""
    for record in records:
        order = date_order(record.cells[place]) if place < len(record.cells) else ""
        days += order == "day"
        if order == "month":
            months += 1
            example = example or f"{record.cells[place].strip()} on line {record.line} has the month first"
    return example if months > _SLIPS * (days + months) else ""


class Repeats:
    """What a file has said so far, so that it does not say two things of one policy or one customer.

    The first row of each wins; some 300 bytes per row are kept.
    """

    def __init__(self) -> None:
        self._policies: dict[int, int] = {}
        self._customers: dict[int, tuple[int, int, str | None, str | None]] = {}

    def check(self, row: PolicyRow) -> RowError | None:
        """What the row repeats or contradicts, if anything."""
        first = self._policies.get(hash(row.policy_number))
        if first is not None:
            problem = f"this policy stands on line {first} already"
            return RowError(row.line, "policy_number", row.policy_number, problem, "keep one of the two rows")
        key, person = hash(row.customer_ref), hash((row.full_name, row.phone))
        line, known, zone, language = self._customers.get(key, (row.line, person, row.timezone, row.language))
        if known != person or _differ(zone, row.timezone) or _differ(language, row.language):
            problem = f"this customer has another name, phone, time zone or language on line {line}"
            fix = "give all rows of a customer the same details, or different people different references"
            return RowError(row.line, "customer_ref", row.customer_ref, problem, fix)
        self._policies[hash(row.policy_number)] = row.line
        self._customers[key] = (line, person, zone or row.timezone, language or row.language)
        return None


def _text(cells: _Cells, column: str) -> str | None:
    return cells.read(column, lambda value: read_text(value, LONGEST[column]))


def _differ(known: str | None, said: str | None) -> bool:
    return known is not None and said is not None and known != said


def _check_cell(column: str, value: str) -> None:
    if not value and column in REQUIRED:
        raise BadCell("is empty", "fill it in")
    if "\0" in value:
        raise BadCell("has NUL bytes", "type the value again; the file may be damaged")
    if is_lost(value):
        raise BadCell("has characters that cannot be read", "save the file as CSV UTF-8 and import it again")
    # A name may be spread over lines; what is far too long is not worth a parse.
    if len(value) > 4 * LONGEST[column]:
        raise BadCell(f"has {len(value):,} characters; at most {LONGEST[column]} fit", "shorten it")


def _wrong_width(record: Record, width: int) -> RowError:
    problem = f"the row has {len(record.cells)} columns, the header {width}"
    fix = "put a value that holds the delimiter into quotation marks"
    return RowError(record.line, "row", _shown(" | ".join(record.cells)), problem, fix)


def _shown(value: str) -> str:
    value = value.replace("\0", "\u2400")
    return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 1]}…"
