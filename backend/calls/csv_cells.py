"""What one cell of a policy import says: a value, or BadCell with the problem and its fix."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cache
from zoneinfo import available_timezones

import phonenumbers
from phonenumbers.timezone import time_zones_for_number

# Names of phonenumbers' own data that the zone database keeps as aliases only.
_MODERN_ZONES = {
    "Africa/Asmera": "Africa/Asmara",
    "America/Buenos_Aires": "America/Argentina/Buenos_Aires",
    "America/Godthab": "America/Nuuk",
    "Asia/Calcutta": "Asia/Kolkata",
    "Asia/Choibalsan": "Asia/Ulaanbaatar",
    "Asia/Katmandu": "Asia/Kathmandu",
    "Asia/Rangoon": "Asia/Yangon",
    "Atlantic/Faeroe": "Atlantic/Faroe",
    "Pacific/Enderbury": "Pacific/Kanton",
    "Pacific/Ponape": "Pacific/Pohnpei",
    "Pacific/Truk": "Pacific/Chuuk",
}
_YES, _NO = {"yes", "y", "true", "1"}, {"no", "n", "false", "0"}
_PHONE = re.compile(r"[(\s]*\+?[\d\s().\-/\u2010-\u2015]+")
_ISO = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T]00:00(?::00(?:\.0+)?)?)?", re.ASCII)
_DAY_FIRST = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})", re.ASCII)
_AMOUNT = re.compile(
    r"(?:(?:₹|rs\.?|inr)\s*)?(\d+|\d{1,3}(?:,\d{2,3})*,\d{3})(\.\d{1,2})?(?:\s*/-)?", re.ASCII | re.IGNORECASE
)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z]{4})?([-_](?:[A-Za-z]{2}|[0-9]{3}))?")
_WRITE_DATE = "write it as 2026-12-31 or 31/12/2026"
_WRITE_PHONE = "write the whole number as text, such as +919876543210"


class BadCell(Exception):
    """What is wrong with a cell and what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


def read_text(value: str, longest: int) -> str:
    """One line of text: runs of white space become one space."""
    line = " ".join(value.split())
    if len(line) > longest:
        raise BadCell(f"has {len(line):,} characters; at most {longest} fit", "shorten it")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in line):
        raise BadCell("has control characters", "type the value again, without the invisible characters")
    return line


def read_phone(value: str, region: str) -> phonenumbers.PhoneNumber:
    """A number that can be dialed; without a country code it is one of `region`."""
    # Numbers copied from an address book carry invisible marks of the writing direction.
    value = "".join(char for char in value if unicodedata.category(char) != "Cf")
    if re.fullmatch(r"[\d.,]+[eE]\+?\d+", value):
        raise BadCell("a spreadsheet has shortened the number and lost digits", _WRITE_PHONE)
    if re.fullmatch(r"\d{6,}\.0+", value):
        raise BadCell("a spreadsheet has turned the number into a decimal", _WRITE_PHONE)
    if not _PHONE.fullmatch(value):
        raise BadCell("has characters that are not part of a phone number", f"{_WRITE_PHONE}; one number, no extension")
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException as fault:
        raise BadCell("is not a phone number", _WRITE_PHONE) from fault
    if not phonenumbers.is_valid_number(number):
        raise BadCell(f"is not a number in use in {_country(number)}", f"check the digits; {_WRITE_PHONE}")
    return number


def _country(number: phonenumbers.PhoneNumber) -> str:
    region = phonenumbers.region_code_for_country_code(number.country_code or 0)
    return "any country" if region == "ZZ" else f"{region} (+{number.country_code})"


def zone_of(number: phonenumbers.PhoneNumber, otherwise: str) -> str:
    """The IANA zone of a number; of several the first, and `otherwise` where the number tells none."""
    name = next(iter(time_zones_for_number(number)), otherwise)
    name = _MODERN_ZONES.get(name, name)
    return name if name in _zones() else otherwise


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def read_zone(value: str) -> str:
    name = _MODERN_ZONES.get(value, value)
    if name not in _zones():
        raise BadCell(
            "is not an IANA time zone", "write a name such as Asia/Kolkata, or nothing to go by the phone number"
        )
    return name


def read_language(value: str) -> str:
    """A BCP 47 tag in its usual case."""
    if not _LANGUAGE.fullmatch(value):
        raise BadCell("is not a language code", "write a code such as hi-IN")
    first, *rest = value.replace("_", "-").split("-")
    return "-".join([first.lower(), *(part.title() if len(part) == 4 else part.upper() for part in rest)])


def read_premium(value: str) -> Decimal:
    match = _AMOUNT.fullmatch(value)
    if match is None:
        raise BadCell("is not an amount", "write digits with a point before the paise, such as 12500.50")
    amount = Decimal(match[1].replace(",", "") + (match[2] or ""))
    if amount >= 10**12:
        raise BadCell("is more than any premium", "write digits with a point before the paise, such as 12500.50")
    return amount


def read_flag(value: str) -> bool:
    word = value.casefold()
    if word not in _YES | _NO:
        raise BadCell("is neither yes nor no", "write yes or no")
    return word in _YES


def read_date(value: str, month_first: str) -> date:
    """A date, the day before the month; where `month_first` tells of dates the other way round, only a clear one."""
    if match := _ISO.fullmatch(value):
        return _date(int(match[1]), int(match[2]), int(match[3]))
    match = _DAY_FIRST.fullmatch(value)
    if match is None:
        raise BadCell(_why_no_date(value), _WRITE_DATE)
    day, month, year = int(match[1]), int(match[3]), int(match[4])
    if day <= 12 < month <= 31:
        fix = f"write it as {year}-{day:02}-{month:02}"
        raise BadCell(f"there is no month {month}: the month seems to come first", fix)
    if month_first and day <= 12 and day != month:
        fix = f"write {year}-{month:02}-{day:02} or {year}-{day:02}-{month:02}"
        raise BadCell(f"may be day or month first: {month_first}", fix)
    return _date(year, month, day)


def _date(year: int, month: int, day: int) -> date:
    try:
        found = date(year, month, day)
    except ValueError as fault:
        raise BadCell("there is no such day", _WRITE_DATE) from fault
    if not 2000 <= year <= 2100:
        raise BadCell(f"the year {year} cannot be meant", _WRITE_DATE)
    return found


def _why_no_date(value: str) -> str:
    if re.fullmatch(r"\d{5}(\.\d+)?", value):
        return "is a spreadsheet's day number"
    if re.fullmatch(r"\d{1,2}[./-]\d{1,2}[./-]\d{2}", value):
        return "has a year of two digits"
    return "is not a date"


def date_order(value: str) -> str:
    """Which comes first in a date that shows it: "day" or "month"; otherwise nothing."""
    match = _DAY_FIRST.fullmatch(value.strip())
    if match is None:
        return ""
    first, second = int(match[1]), int(match[3])
    return "month" if first <= 12 < second <= 31 else "day" if second <= 12 < first <= 31 else ""


LONGEST: Mapping[str, int] = {
    "customer_ref": 100,
    "full_name": 200,
    "phone": 40,
    "timezone": 64,
    "language": 16,
    "policy_number": 100,
    "insurer": 200,
    "product": 200,
    "premium": 32,
    "expiry_date": 32,
    "do_not_call": 8,
}
