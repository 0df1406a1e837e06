"""Imports through the door, on a real database."""

import asyncio
import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from sqlmodel import func, select, update

from backend.calls.importing import BATCH, KEPT_ERRORS, find_import, import_policies, list_errors
from backend.calls.models import Customer, DoNotCall, Policy, PolicyImport, PolicyImportError
from backend.config import Config, load
from backend.core.db import Database
from backend.core.errors import Invalid, NotFound

CONFIG: Config = load({})
HEADER = "customer_ref,full_name,phone,policy_number,expiry_date,timezone,language,insurer,product,premium,do_not_call"
ASHA = "C-1,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.50,"
RAVI = "C-2,Ravi Iyer,+16502530000,P-2,31/01/2027,,,,,,yes"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def import_text(db: Database, *rows: str, header: str = HEADER, **mapping: str) -> PolicyImport:
    source = io.BytesIO("\n".join([header, *rows, ""]).encode())
    return await import_policies(db, source, filename="book.csv", config=CONFIG, mapping=mapping)


def counts(done: PolicyImport) -> tuple[int, int, int, int]:
    return done.created, done.changed, done.unchanged, done.failed


async def customer(db: Database, ref: str) -> Customer:
    async with db.transaction() as session:
        return (await session.exec(select(Customer).where(Customer.external_ref == ref))).one()


async def policy(db: Database, number: str) -> Policy:
    async with db.transaction() as session:
        return (await session.exec(select(Policy).where(Policy.policy_number == number))).one()


async def errors_of(db: Database, done: PolicyImport) -> list[tuple[int, str, str, str, str]]:
    async with db.transaction() as session:
        found = await list_errors(session, done.id, 0, 100)
    return [(error.line, error.field, error.value, error.problem, error.fix) for error in found]


async def age_everything(db: Database) -> None:
    async with db.transaction() as session:
        await session.exec(update(Customer).values(updated_at=LONG_AGO))
        await session.exec(update(Policy).values(updated_at=LONG_AGO))


def many(number: int) -> Iterator[str]:
    """Rows of that many policies, three to a customer."""
    for index in range(number):
        owner = index // 3
        yield f"M-{owner},Customer {owner},98{owner:08d},Q-{index},2026-12-{1 + index % 28:02d},,,Acme,Motor,{index}.50,"


async def test_a_row_becomes_a_customer_and_a_policy(db: Database) -> None:
    done = await import_text(db, ASHA, RAVI)
    assert counts(done) == (2, 0, 0, 0)
    assert done.finished_at is not None
    asha, hers = await customer(db, "C-1"), await policy(db, "P-1")
    assert (asha.full_name, asha.phone_e164, asha.timezone, asha.language) == (
        "Asha Rao",
        "+919876543210",
        "Asia/Kolkata",
        "hi-IN",
    )
    assert (hers.customer_id, hers.insurer, hers.product, hers.premium, hers.expiry_date, hers.status) == (
        asha.id,
        "Acme",
        "Motor",
        Decimal("12500.50"),
        date(2026, 12, 31),
        "active",
    )
    ravi, his = await customer(db, "C-2"), await policy(db, "P-2")
    assert (ravi.timezone, ravi.language) == ("America/Los_Angeles", "en-IN")
    assert (his.insurer, his.premium, his.expiry_date) == ("", None, date(2027, 1, 31))


async def test_importing_a_file_again_changes_nothing(db: Database) -> None:
    await import_text(db, ASHA, RAVI, *many(10))
    await age_everything(db)
    again = await import_text(db, ASHA, RAVI, *many(10))
    assert counts(again) == (0, 0, 12, 0)
    async with db.transaction() as session:
        assert set((await session.exec(select(Customer.updated_at))).all()) == {LONG_AGO}
        assert set((await session.exec(select(Policy.updated_at))).all()) == {LONG_AGO}
        assert (await session.exec(select(func.count()).select_from(DoNotCall))).one() == 1


@pytest.mark.parametrize(
    "row",
    [
        "C-1,Asha Rao,9876543210,P-1,2027-12-31,,hi-IN,Acme,Motor,12500.50,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.51,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Acme,Home,12500.50,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Other,Motor,12500.50,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,,en-IN,Acme,Motor,12500.50,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,Asia/Dubai,hi-IN,Acme,Motor,12500.50,",
        "C-1,Asha Iyer,9876543210,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.50,",
        "C-1,Asha Rao,9876543211,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.50,",
        "C-9,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.50,",
        "C-1,Asha Rao,9876543210,P-1,2026-12-31,,hi-IN,Acme,Motor,12500.50,yes",
    ],
)
async def test_whatever_a_row_says_anew_is_one_change(db: Database, row: str) -> None:
    await import_text(db, ASHA, RAVI)
    assert counts(await import_text(db, row, RAVI)) == (0, 1, 1, 0)
    assert counts(await import_text(db, row, RAVI)) == (0, 0, 2, 0)


async def test_an_empty_cell_or_a_missing_column_leaves_what_is_stored(db: Database) -> None:
    await import_text(db, "C-1,Asha,9876543210,P-1,2026-12-31,Asia/Dubai,hi-IN,Acme,Motor,100,")
    short = "customer_ref,full_name,phone,policy_number,expiry_date"
    done = await import_text(db, "C-1,Asha,9876543210,P-1,2026-12-31", header=short)
    empty = await import_text(db, "C-1,Asha,9876543210,P-1,2026-12-31,,,,,,")
    assert [counts(done), counts(empty)] == [(0, 0, 1, 0), (0, 0, 1, 0)]
    asha, hers = await customer(db, "C-1"), await policy(db, "P-1")
    assert (asha.timezone, asha.language, hers.insurer, hers.premium) == ("Asia/Dubai", "hi-IN", "Acme", Decimal(100))


async def test_a_new_number_is_tried_again_in_its_own_zone(db: Database) -> None:
    await import_text(db, ASHA)
    async with db.transaction() as session:
        await session.exec(update(Customer).values(phone_status="invalid"))
    await import_text(db, ASHA)
    assert (await customer(db, "C-1")).phone_status == "invalid"
    await import_text(db, ASHA.replace("9876543210", "+16502530000"))
    asha = await customer(db, "C-1")
    assert (asha.phone_status, asha.phone_e164, asha.timezone) == ("ok", "+16502530000", "America/Los_Angeles")


@pytest.mark.parametrize(("status", "then"), [("renewed", "active"), ("lapsed", "active"), ("cancelled", "cancelled")])
async def test_a_later_expiry_opens_a_renewed_policy_again_but_not_a_cancelled_one(
    db: Database, status: str, then: str
) -> None:
    await import_text(db, ASHA)
    async with db.transaction() as session:
        await session.exec(update(Policy).values(status=status))
    await import_text(db, ASHA)
    assert (await policy(db, "P-1")).status == status
    await import_text(db, ASHA.replace("2026-12-31", "2027-12-31"))
    assert (await policy(db, "P-1")).status == then


async def test_a_number_gets_on_the_do_not_call_list_once_and_never_off_it(db: Database) -> None:
    rows = [ASHA + "yes", "C-1,Asha Rao,9876543210,P-9,2026-12-31,,,,,,yes"]
    assert counts(await import_text(db, *rows)) == (2, 0, 0, 0)
    assert counts(await import_text(db, ASHA + "no")) == (0, 0, 1, 0)
    async with db.transaction() as session:
        entries = (await session.exec(select(DoNotCall))).all()
    assert [(entry.phone_e164, entry.source, entry.revoked_at) for entry in entries] == [
        ("+919876543210", "import", None)
    ]


async def test_a_bad_row_never_stops_the_good_ones_and_tells_every_fault(db: Database) -> None:
    done = await import_text(
        db,
        ASHA,
        ",,12,P-3,12/31/2026,Mars,Klingon,,,free,maybe",
        '"C-4\nx","Split\nName",9876543212,P-4,2026-12-31,,,,,,',
        "C-5,too,few",
        "C-6,Nul\0,9876543213,P-6,2026-12-31,,,,,,",
        f"C-7,{'x' * 201},9876543214,P-7,2026-12-31,,,,,,",
        "C-8,Second,9876543215,P-1,2026-12-31,,,,,,",
        'C-9,"Open,9876543216,P-9,2026-12-31,,,,,,',
        RAVI,
    )
    assert counts(done) == (3, 0, 0, 6)
    found = await errors_of(db, done)
    assert [(line, field) for line, field, *_ in found] == [
        (3, "phone"),
        (3, "customer_ref"),
        (3, "full_name"),
        (3, "timezone"),
        (3, "language"),
        (3, "premium"),
        (3, "expiry_date"),
        (3, "do_not_call"),
        (7, "row"),
        (8, "full_name"),
        (9, "full_name"),
        (10, "policy_number"),
        (11, "row"),
    ]
    assert (
        3,
        "expiry_date",
        "12/31/2026",
        "there is no month 31: the month seems to come first",
        "write it as 2026-12-31",
    ) in found
    assert all(problem and fix for *_, problem, fix in found)
    assert (await customer(db, "C-4 x")).full_name == "Split Name"


async def test_dates_of_a_month_first_file_are_refused_where_they_may_be_misread(db: Database) -> None:
    header = "customer_ref,full_name,phone,policy_number,expiry_date"
    rows = [f"C-{n},Asha,9876543210,P-{n},{when}" for n, when in enumerate(["03/04/2026", "12/31/2026", "04/04/2026"])]
    done = await import_text(db, *rows, header=header)
    assert counts(done) == (1, 0, 0, 2)
    assert (await errors_of(db, done))[0][3:] == (
        "may be day or month first: 12/31/2026 on line 3 has the month first",
        "write 2026-04-03 or 2026-03-04",
    )


async def test_a_customer_who_contradicts_an_earlier_row_is_an_error_in_every_import(db: Database) -> None:
    rows = [ASHA, "C-1,Asha Rao,9876543299,P-5,2026-12-31,,,,,,", "C-1,Asha Rao,9876543210,P-6,2026-12-31,,,,,,"]
    assert counts(await import_text(db, *rows)) == (2, 0, 0, 1)
    assert counts(await import_text(db, *rows)) == (0, 0, 2, 1)


async def test_explicit_columns_are_taken_over_the_known_headers(db: Database) -> None:
    header = "Kunde,Name,Phone,Handy,Policy,Ende"
    done = await import_text(
        db,
        "C-1,Asha,1,9876543210,P-1,2026-12-31",
        header=header,
        Kunde="customer_ref",
        Handy="phone",
        Ende="expiry_date",
    )
    assert counts(done) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\n\n", "empty_file"),
        (b"PK\x03\x04" + bytes(100), "not_csv"),
        (bytes(range(256)) * 50, "not_csv"),
        (b"just a sentence", "missing_column"),
        (b"customer_ref,full_name,phone,mobile,policy_number,expiry_date\n", "ambiguous_column"),
    ],
)
async def test_a_file_that_cannot_be_read_as_a_whole_stores_nothing(db: Database, content: bytes, code: str) -> None:
    with pytest.raises(Invalid) as bad:
        await import_policies(db, io.BytesIO(content), filename="x", config=CONFIG)
    assert bad.value.problem == code
    async with db.transaction() as session:
        assert (await session.exec(select(PolicyImport))).all() == []


async def test_a_file_with_a_header_alone_imports_nothing(db: Database) -> None:
    done = await import_text(db)
    assert counts(done) == (0, 0, 0, 0)
    assert done.finished_at is not None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
async def test_names_survive_every_encoding(db: Database, encoding: str) -> None:
    text = f"{HEADER}\nC-1,José Müller,9876543210,P-1,2026-12-31,,,,,,\n".replace(",", ";")
    source = io.BytesIO(text.encode(encoding))
    await import_policies(db, source, filename="x", config=CONFIG)
    assert (await customer(db, "C-1")).full_name == "José Müller"
    assert not source.closed


async def test_any_file_name_can_be_stored(db: Database) -> None:
    source = io.BytesIO(f"{HEADER}\n".encode())
    done = await import_policies(db, source, filename="nul\0 and \udce9 " + "x" * 300, config=CONFIG)
    assert done.filename == "nul and ? " + "x" * 245


async def test_batches_count_as_one_file(db: Database) -> None:
    rows = list(many(2 * BATCH + 7))
    first = await import_text(db, *rows)
    assert counts(first) == (2 * BATCH + 7, 0, 0, 0)
    # The three policies of customer 333 stand on both sides of a border between batches.
    moved = [row.replace("Customer 333,", "Renamed,") for row in rows]
    assert counts(await import_text(db, *moved)) == (0, 1, 2 * BATCH + 6, 0)


async def test_errors_are_kept_up_to_a_bound_and_counted_beyond(db: Database) -> None:
    wrong = [f"C-{n},Asha,1,P-{n},never,,,,,," for n in range(KEPT_ERRORS // 2 + 600)]
    done = await import_text(db, *wrong, ASHA)
    assert counts(done) == (1, 0, 0, KEPT_ERRORS // 2 + 600)
    async with db.transaction() as session:
        assert (await session.exec(select(func.count()).select_from(PolicyImportError))).one() == KEPT_ERRORS
        last = await list_errors(session, done.id, KEPT_ERRORS - 1, 10)
    assert [(error.line, error.field) for error in last] == [(KEPT_ERRORS // 2 + 1, "expiry_date")]


async def test_an_import_cut_short_stays_unfinished_and_is_made_good_by_the_next(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text("\n".join([HEADER, *many(BATCH + 500)]))

    class PowerCut(Exception):
        pass

    def cut(_: int) -> None:
        raise PowerCut

    with path.open("rb") as source, pytest.raises(PowerCut):
        await import_policies(db, source, filename="book.csv", config=CONFIG, progress=cut)
    async with db.transaction() as session:
        half = (await session.exec(select(PolicyImport))).one()
    assert (counts(half), half.finished_at) == ((BATCH, 0, 0, 0), None)
    seen: list[int] = []
    with path.open("rb") as source:
        done = await import_policies(db, source, filename="book.csv", config=CONFIG, progress=seen.append)
    assert counts(done) == (500, 0, BATCH, 0)
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size


async def test_two_imports_of_one_file_at_once_add_each_policy_once(db: Database) -> None:
    rows = list(many(BATCH + 200))
    backwards = list(reversed(rows))
    done = await asyncio.gather(import_text(db, *rows), import_text(db, *backwards), import_text(db, *rows))
    assert sum(one.created for one in done) == BATCH + 200
    assert [sum(counts(one)) for one in done] == [BATCH + 200] * 3
    async with db.transaction() as session:
        assert (await session.exec(select(func.count()).select_from(Policy))).one() == BATCH + 200


async def test_memory_does_not_grow_with_the_file(db: Database, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("\n".join([HEADER, *many(20_000)]))
    await import_text(db, ASHA)
    tracemalloc.start()
    try:
        with path.open("rb") as source:
            done = await import_policies(db, source, filename="large.csv", config=CONFIG)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts(done) == (20_000, 0, 0, 0)
    # A batch in its several forms, and 300 bytes for each row so far.
    assert peak < 16_000_000


async def test_an_unknown_import_is_not_found(db: Database) -> None:
    async with db.transaction() as session:
        with pytest.raises(NotFound):
            await find_import(session, uuid4())
        with pytest.raises(NotFound):
            await list_errors(session, uuid4(), 0, 10)
