import csv
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import phonenumbers
import pytest
from phonenumbers import timezone as phone_zones

from devstack.sample import (
    FIELDS,
    HORIZON_DAYS,
    PEOPLE,
    PHONES,
    TALKS,
    Person,
    do_not_call_phones,
    due,
    phone_of,
    write_once,
)

TODAY = date(2026, 11, 21)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def sample(tmp_path: Path) -> list[dict[str, str]]:
    path = tmp_path / "sample.csv"
    assert write_once(path, TODAY)
    return rows(path)


@pytest.mark.parametrize("person", PEOPLE, ids=lambda person: person.name)
def test_every_phone_is_a_valid_number_in_e164_form(person: Person) -> None:
    number = phonenumbers.parse(phone_of(person), None)
    assert phonenumbers.is_valid_number(number)
    assert phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) == phone_of(person)


def test_there_are_forty_customers_each_with_a_number_a_policy_and_a_reference_of_their_own(
    sample: list[dict[str, str]],
) -> None:
    assert len(sample) == 40
    for field in ("customer_ref", "full_name", "phone", "policy_number"):
        assert len({row[field] for row in sample}) == 40, field
    assert tuple(sample[0]) == FIELDS


def test_every_behaviour_of_the_simulated_phone_is_among_those_to_be_called() -> None:
    called = Counter(person.suffix for person in due() if not person.do_not_call)
    assert set(PHONES) <= set(called)
    talking = called[TALKS] + sum(count for suffix, count in called.items() if suffix not in PHONES)
    assert talking == 13


def test_the_sample_has_people_due_later_expired_and_not_to_be_called() -> None:
    assert len(due()) == 31
    assert sum(person.do_not_call for person in due()) == 4
    assert sum(person.days > HORIZON_DAYS for person in PEOPLE) == 7
    assert sum(person.days < 0 for person in PEOPLE) == 2
    assert len(do_not_call_phones()) == 4


def test_expiry_dates_keep_a_day_from_the_edges_so_that_no_time_zone_changes_who_is_due() -> None:
    assert all(2 <= person.days <= HORIZON_DAYS - 2 for person in due())


def test_zones_are_known_and_those_of_the_numbers(sample: list[dict[str, str]]) -> None:
    assert len({row["timezone"] for row in sample}) >= 6
    for row in sample:
        known = phone_zones.time_zones_for_number(phonenumbers.parse(row["phone"], None))
        here = ZoneInfo(row["timezone"])
        assert any(_same_offset(here, ZoneInfo(zone)) for zone in known), row


def _same_offset(one: ZoneInfo, other: ZoneInfo) -> bool:
    instant = datetime(2026, 11, 21, 12, tzinfo=ZoneInfo("UTC"))
    return instant.astimezone(one).utcoffset() == instant.astimezone(other).utcoffset()


def test_a_sample_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sample.csv"
    assert write_once(path, TODAY)
    before = path.read_bytes()
    assert not write_once(path, TODAY + timedelta(days=3))
    assert path.read_bytes() == before
