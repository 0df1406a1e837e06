"""A sample of forty customers, as an agency would export them: who is due, who is not, who must not be called.

The last three digits of a number decide what the simulated phone does, see PHONES.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

TALKS, BUSY, DECLINES, WRONG, AWAY, CARRIER = "200", "486", "603", "404", "480", "503"
RINGS_OUT, VOICEMAIL, HANGS_UP, OPTS_OUT = "000", "777", "111", "666"

PHONES = {
    TALKS: "answers and talks",
    BUSY: "is busy",
    DECLINES: "declines",
    WRONG: "is not a working number",
    AWAY: "is switched off",
    CARRIER: "fails at the carrier",
    RINGS_OUT: "rings out",
    VOICEMAIL: "goes to voicemail",
    HANGS_UP: "answers and hangs up",
    OPTS_OUT: "asks not to be called again",
}

FIELDS = (
    "customer_ref",
    "full_name",
    "phone",
    "timezone",
    "language",
    "policy_number",
    "insurer",
    "product",
    "premium",
    "expiry_date",
    "do_not_call",
)

# Number without its last three digits, zone, language. Numbers set aside for fiction, where a country has them.
_PLACES = {
    "pune": ("+919876501", "Asia/Kolkata", "en-IN"),
    "delhi": ("+919876502", "Asia/Kolkata", "hi-IN"),
    "mumbai": ("+919876503", "Asia/Kolkata", "en-IN"),
    "chennai": ("+919876504", "Asia/Kolkata", "en-IN"),
    "new york": ("+12125550", "America/New_York", "en-US"),
    "chicago": ("+13125550", "America/Chicago", "en-US"),
    "san francisco": ("+14155550", "America/Los_Angeles", "en-US"),
    "london": ("+442079460", "Europe/London", "en-GB"),
    "leeds": ("+441134960", "Europe/London", "en-GB"),
    "dubai": ("+971501234", "Asia/Dubai", "en-AE"),
    "singapore": ("+6581234", "Asia/Singapore", "en-SG"),
    "sydney": ("+61255501", "Australia/Sydney", "en-AU"),
}
_PRODUCTS = ("Car", "Home", "Health", "Travel", "Two-wheeler", "Shop")
_INSURERS = ("Aravalli General", "Harbour Mutual", "Northwind Insurance", "Sagar Life")


@dataclass(frozen=True, slots=True)
class Person:
    """`days` from the day of the sample until the policy expires."""

    name: str
    place: str
    suffix: str
    days: int
    do_not_call: bool = False


PEOPLE = (
    Person("Asha Rao", "pune", TALKS, 3),
    Person("Vikram Mehta", "mumbai", TALKS, 5),
    Person("Grace Miller", "new york", TALKS, 7),
    Person("Oliver Bennett", "london", TALKS, 8),
    Person("Fatima Al Suwaidi", "dubai", TALKS, 10),
    Person("Tan Wei Ling", "singapore", TALKS, 12),
    Person("Jack Thompson", "sydney", TALKS, 14),
    Person("Neha Kulkarni", "chennai", "345", 16),
    Person("Daniel Ortiz", "san francisco", "518", 18),
    Person("Harriet Shaw", "leeds", "627", 20),
    Person("Rohan Iyer", "delhi", "731", 22),
    Person("Emily Carter", "chicago", "842", 25),
    Person("Priya Nair", "chennai", "953", 6),
    Person("Samuel Okafor", "london", OPTS_OUT, 9),
    Person("Arjun Patel", "pune", BUSY, 4),
    Person("Linda Johnson", "chicago", BUSY, 11),
    Person("Meera Joshi", "mumbai", DECLINES, 13),
    Person("George Hughes", "leeds", DECLINES, 15),
    Person("Kavya Reddy", "delhi", WRONG, 17),
    Person("Robert Kim", "san francisco", WRONG, 19),
    Person("Omar Haddad", "dubai", AWAY, 21),
    Person("Chloe Martin", "sydney", CARRIER, 23),
    Person("Sanjay Gupta", "pune", RINGS_OUT, 24),
    Person("Patricia Moore", "new york", RINGS_OUT, 26),
    Person("Lim Jia Hui", "singapore", VOICEMAIL, 27),
    Person("Ananya Das", "mumbai", VOICEMAIL, 28),
    Person("Thomas Walker", "london", HANGS_UP, 2),
    Person("Ishaan Verma", "delhi", TALKS, 5, do_not_call=True),
    Person("Karen White", "chicago", TALKS, 9, do_not_call=True),
    Person("Charlotte Green", "leeds", TALKS, 14, do_not_call=True),
    Person("Noah Wilson", "sydney", "455", 20, do_not_call=True),
    Person("Deepa Menon", "chennai", TALKS, 60),
    Person("Michael Brown", "san francisco", TALKS, 75),
    Person("Isla Campbell", "london", "913", 90),
    Person("Yusuf Rahman", "dubai", "364", 110),
    Person("Goh Mei Xin", "singapore", "285", 130),
    Person("Ruby Anderson", "sydney", "976", 160),
    Person("Aditya Singh", "pune", "158", 200),
    Person("Laura Davis", "new york", "693", -4),
    Person("Suresh Pillai", "chennai", "279", -12),
)

HORIZON_DAYS = 30


def phone_of(person: Person) -> str:
    """The number in E.164 form."""
    return _PLACES[person.place][0] + person.suffix


def policy_number_of(index: int) -> str:
    return f"{_PRODUCTS[index % len(_PRODUCTS)][:2].upper()}-{2026001 + index}"


def row_of(index: int, person: Person, today: date) -> dict[str, str]:
    """The person's line of the export."""
    _, timezone, language = _PLACES[person.place]
    return {
        "customer_ref": f"C-{1001 + index}",
        "full_name": person.name,
        "phone": phone_of(person),
        "timezone": timezone,
        "language": language,
        "policy_number": policy_number_of(index),
        "insurer": _INSURERS[index % len(_INSURERS)],
        "product": _PRODUCTS[index % len(_PRODUCTS)],
        "premium": f"{4200 + index * 137}.00",
        "expiry_date": (today + timedelta(days=person.days)).isoformat(),
        "do_not_call": "yes" if person.do_not_call else "no",
    }


def due() -> tuple[Person, ...]:
    """Those with a policy that expires within the horizon, do-not-call numbers included."""
    return tuple(person for person in PEOPLE if 0 <= person.days <= HORIZON_DAYS)


def do_not_call_phones() -> frozenset[str]:
    return frozenset(phone_of(person) for person in PEOPLE if person.do_not_call)


def write_once(path: Path, today: date) -> bool:
    """Write the sample with dates relative to `today`, unless it is there: the same people then keep the same dates."""
    if path.exists():
        return False
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(row_of(index, person, today) for index, person in enumerate(PEOPLE))
    partial.rename(path)
    return True
