"""What one cell, one row and one header of a policy import may say."""

import io
from datetime import date
from decimal import Decimal

import pytest

from backend.calls.csv_cells import (
    BadCell,
    read_date,
    read_flag,
    read_language,
    read_phone,
    read_premium,
    read_text,
    read_zone,
    zone_of,
)
from backend.calls.csv_columns import COLUMNS, REQUIRED, find_columns, recognised
from backend.calls.csv_files import MAX_LINE, MAX_RECORD_LINES, Layout, Record, find_layout, read_records
from backend.calls.csv_rows import Format, PolicyRow, Repeats, find_month_first, read_row
from backend.core.errors import Invalid

HEADER = ["customer_ref", "full_name", "phone", "policy_number", "expiry_date"]
FORM = Format({name: place for place, name in enumerate(HEADER)}, len(HEADER), "IN", "Asia/Kolkata")


def records_of(content: bytes) -> tuple[Layout, list[Record]]:
    source = io.BytesIO(content)
    layout = find_layout(source, lambda header: recognised(header, {}))
    return layout, list(read_records(source, layout))


def row_of(*cells: str) -> PolicyRow:
    row = read_row(Record(2, list(cells)), FORM)
    assert isinstance(row, PolicyRow), row
    return row


@pytest.mark.parametrize(
    "written",
    [
        "9876543210",
        "+91 98765 43210",
        "098765-43210",
        "0091 9876543210",
        "(+91) 9876543210",
        "919876543210",
        "९८७६५४३२१०",
        "\u202a+919876543210\u202c",
    ],
)
def test_a_phone_number_may_be_written_in_any_usual_way(written: str) -> None:
    assert row_of("C-1", "Asha", written, "P-1", "2026-12-31").phone == "+919876543210"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("9.87654E+09", "spreadsheet has shortened"),
        ("9876543210.0", "decimal"),
        ("12345", "not a number in use in IN"),
        ("+1 555 000", "not a number in use"),
        ("9876543210 ext 3", "characters that are not part"),
        ("9876543210 / 9876543211", "is not a phone number"),
        ("call me", "characters that are not part"),
        ("+999 123 4567", "is not a phone number"),
        ("---", "is not a phone number"),
    ],
)
def test_a_phone_number_that_cannot_be_dialed_is_refused(written: str, problem: str) -> None:
    with pytest.raises(BadCell) as bad:
        read_phone(written, "IN")
    assert problem in bad.value.problem
    assert "+919876543210" in bad.value.fix


@pytest.mark.parametrize(
    ("phone", "zone"),
    [
        ("+919876543210", "Asia/Kolkata"),
        ("+16502530000", "America/Los_Angeles"),
        ("+9779841234567", "Asia/Kathmandu"),
        ("+541123456789", "America/Argentina/Buenos_Aires"),
        ("+80012345678", "Europe/Berlin"),
    ],
)
def test_the_zone_of_a_number_is_a_name_that_the_zone_database_knows_today(phone: str, zone: str) -> None:
    assert zone_of(read_phone(phone, "IN"), "Europe/Berlin") == zone


@pytest.mark.parametrize(
    "written", ["2026-12-31", "31/12/2026", "31-12-2026", "31.12.2026", "2026-12-31 00:00:00", "2026-12-31T00:00"]
)
def test_a_date_is_iso_or_begins_with_the_day(written: str) -> None:
    assert read_date(written, "") == date(2026, 12, 31)


def test_the_day_comes_first_in_a_date_that_could_be_read_both_ways() -> None:
    assert read_date("03/04/2026", "") == date(2026, 4, 3)


@pytest.mark.parametrize(
    ("written", "problem", "fix"),
    [
        ("12/31/2026", "the month seems to come first", "2026-12-31"),
        ("31/12/26", "two digits", "31/12/2026"),
        ("31/02/2026", "no such day", "2026-12-31"),
        ("31/12-2026", "is not a date", "2026-12-31"),
        ("05/45/2026", "no such day", "2026-12-31"),
        ("2026-13-01", "no such day", "2026-12-31"),
        ("2026-12-31 18:30:00", "is not a date", "2026-12-31"),
        ("46387", "spreadsheet's day number", "2026-12-31"),
        ("0206-12-31", "cannot be meant", "2026-12-31"),
        ("tomorrow", "is not a date", "2026-12-31"),
    ],
)
def test_a_date_that_may_be_misread_is_refused_with_its_fix(written: str, problem: str, fix: str) -> None:
    with pytest.raises(BadCell) as bad:
        read_date(written, "")
    assert problem in bad.value.problem
    assert fix in bad.value.fix


def test_in_a_file_with_the_month_first_only_clear_dates_are_taken() -> None:
    shown = find_month_first([Record(2, ["03/04/2026"]), Record(3, ["12/31/2026"])], 0)
    assert shown == "12/31/2026 on line 3 has the month first"
    with pytest.raises(BadCell, match="day or month first") as bad:
        read_date("03/04/2026", shown)
    assert bad.value.fix == "write 2026-04-03 or 2026-03-04"
    assert read_date("04/04/2026", shown) == date(2026, 4, 4)
    assert read_date("31/12/2026", shown) == date(2026, 12, 31)


def test_one_slip_among_many_dates_does_not_make_a_file_month_first() -> None:
    records = [Record(line, ["25/12/2026"]) for line in range(2, 42)]
    assert find_month_first([*records, Record(42, ["12/25/2026"]), Record(43, [])], 0) == ""


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("12500", "12500"),
        ("12500.5", "12500.5"),
        ("12,500.50", "12500.50"),
        ("1,23,456.00", "123456.00"),
        ("₹ 12,500", "12500"),
        ("Rs. 900/-", "900"),
        ("0", "0"),
    ],
)
def test_a_premium_may_carry_grouping_and_the_sign_of_the_rupee(written: str, amount: str) -> None:
    assert read_premium(written) == Decimal(amount)


@pytest.mark.parametrize("written", ["-5", "12,50", "12.500,50", "1.999", "$5", "free", "9" * 13, "NaN", "1e5"])
def test_a_premium_that_may_be_misread_is_refused(written: str) -> None:
    with pytest.raises(BadCell):
        read_premium(written)


def test_zones_languages_and_flags_are_read_in_their_usual_spellings() -> None:
    assert [read_zone(name) for name in ("Asia/Calcutta", "Europe/Berlin")] == ["Asia/Kolkata", "Europe/Berlin"]
    assert [read_language(tag) for tag in ("HI", "hi_in", "zh-hant-TW")] == ["hi", "hi-IN", "zh-Hant-TW"]
    assert [read_flag(word) for word in ("YES", "true", "1", "no", "False", "0")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_zones_languages_and_flags_that_mean_nothing_are_refused() -> None:
    for read, value in (
        (read_zone, "IST+5"),
        (read_zone, "../etc/passwd"),
        (read_language, "Hindi"),
        (read_flag, "maybe"),
    ):
        with pytest.raises(BadCell):
            read(value)


def test_text_becomes_one_line_and_is_never_cut() -> None:
    assert read_text("  Asha\n  Rao ", 20) == "Asha Rao"
    with pytest.raises(BadCell, match="21 characters; at most 20"):
        read_text("x" * 21, 20)
    with pytest.raises(BadCell, match="control characters"):
        read_text("Asha\x07", 20)


def test_a_row_tells_everything_that_is_wrong_with_it() -> None:
    errors = read_row(Record(7, ["", "x" * 300, "12", "P\0", "soon"]), FORM)
    assert isinstance(errors, list)
    assert [(error.line, error.field, error.problem) for error in errors] == [
        (7, "phone", "is not a number in use in IN (+91)"),
        (7, "customer_ref", "is empty"),
        (7, "full_name", "has 300 characters; at most 200 fit"),
        (7, "policy_number", "has NUL bytes"),
        (7, "expiry_date", "is not a date"),
    ]
    assert all(error.fix for error in errors)
    assert max(len(error.value) for error in errors) <= 200
    assert not any("\0" in error.value for error in errors)


def test_a_huge_value_is_refused_unread() -> None:
    errors = read_row(Record(2, ["C", "A", "9" * 100_000, "P", "2026-12-31"]), FORM)
    assert isinstance(errors, list)
    assert errors[0].problem == "has 100,000 characters; at most 40 fit"


def test_a_row_of_another_width_is_refused_unless_the_surplus_is_blank() -> None:
    assert row_of("C-1", "Asha", "9876543210", "P-1", "2026-12-31", "", " ").policy_number == "P-1"
    for cells in (["C-1", "Asha"], ["C-1", "Rao", "Asha", "9876543210", "P-1", "2026-12-31"]):
        errors = read_row(Record(2, cells), FORM)
        assert isinstance(errors, list)
        assert errors[0].problem == f"the row has {len(cells)} columns, the header 5"


def test_a_file_may_name_a_policy_once_and_must_not_contradict_itself_on_a_customer() -> None:
    repeats = Repeats()
    first = row_of("C-1", "Asha", "9876543210", "P-1", "2026-12-31")
    assert repeats.check(first) is None
    assert repeats.check(row_of("C-1", "Asha", "9876543210", "P-2", "2026-12-31")) is None
    again = repeats.check(row_of("C-2", "Ravi", "9876543211", "P-1", "2026-12-31"))
    assert again is not None
    assert (again.field, again.problem) == ("policy_number", "this policy stands on line 2 already")
    other = repeats.check(row_of("C-1", "Asha", "9876543219", "P-3", "2026-12-31"))
    assert other is not None
    assert (other.field, "on line 2" in other.problem) == ("customer_ref", True)


def test_every_column_is_found_by_its_own_name_and_by_each_of_its_headers() -> None:
    for column, names in COLUMNS.items():
        for name in (column, *names, names[0].upper(), names[0].replace(" ", "_"), f" {names[0]}. "):
            others = [required for required in REQUIRED if required != column]
            assert find_columns([*others, name], {})[column] == len(others), name


def test_no_header_stands_for_two_columns() -> None:
    headers = ["".join(filter(str.isalnum, name.lower())) for names in COLUMNS.values() for name in names]
    assert len(set(headers)) == len(headers)


def test_an_explicit_mapping_wins_over_the_known_headers() -> None:
    header = ["Customer ID", "Name", "Phone", "Handy", "Policy", "Expiry"]
    assert find_columns(header, {"handy": "phone"})["phone"] == 3
    assert find_columns(header, {"Name": "customer_ref", "Customer ID": "full_name"})["customer_ref"] == 1


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"Handy": "mobile"}, "'mobile' is no column; the columns are customer_ref"),
        ({"Fax": "phone"}, "the file has no header 'Fax'; it has 'Customer ID'"),
        ({"Handy": "phone", "Phone": "phone"}, "phone is mapped twice"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping: dict[str, str], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        find_columns(["Customer ID", "Name", "Phone", "Handy", "Policy", "Expiry"], mapping)


def test_two_headers_for_one_column_are_refused_rather_than_guessed() -> None:
    with pytest.raises(Invalid, match="'Phone', 'Mobile'.*map the right one, such as Phone=phone"):
        find_columns(["Customer ID", "Name", "Phone", "Mobile", "Policy", "Expiry"], {})


def test_a_missing_column_is_named_with_the_headers_it_may_have() -> None:
    with pytest.raises(Invalid) as bad:
        find_columns(["Customer ID", "Name", "Handy", "Policy", "Expiry"], {})
    assert "no column for phone (accepted headers: Phone, Phone no," in bad.value.detail
    assert "Handy" in bad.value.detail
    assert (bad.value.status, bad.value.problem, bad.value.extra) == (422, "missing_column", {"missing": ["phone"]})


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_delimiter_encoding_and_line_ends_are_found_out(delimiter: str, encoding: str, ending: str) -> None:
    rows = [["Customer ID", "Full name", "Phone"], ["C-1", "José, né Müller; x", "1"], ["C-2", "", "2"]]
    text = ending.join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    layout, records = records_of(text.encode(encoding))
    assert (layout.delimiter, layout.encoding) == (delimiter, encoding)
    assert layout.header == rows[0]
    assert [(record.line, record.cells) for record in records] == [(2, rows[1]), (3, rows[2])]


def test_the_delimiter_is_the_one_that_gives_known_headers() -> None:
    layout, _ = records_of(b'"Name, first, last, and more";Phone;Expiry;Policy no\n')
    assert layout.delimiter == ";"


def test_a_few_broken_bytes_do_not_spoil_the_names_of_a_utf8_file() -> None:
    layout, records = records_of("Name,Phone\nआशा,1\n".encode() + b"Jos\xe9,2\n")
    assert layout.encoding == "utf-8"
    assert [record.cells[0] for record in records] == ["आशा", "Jos\ufffd"]
    errors = read_row(Record(3, ["C", "Jos\ufffd", "9876543210", "P", "2026-12-31"]), FORM)
    assert isinstance(errors, list)
    assert errors[0].problem == "has characters that cannot be read"


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    _, records = records_of(b'\nName,Phone\n\n"Asha\nRao",1\n , \nRavi,2\n')
    assert [(record.line, record.cells) for record in records] == [(4, ["Asha\nRao", "1"]), (7, ["Ravi", "2"])]


def test_a_stray_quotation_mark_costs_its_own_row_only() -> None:
    rows = b"".join(b"Name %d,%d\n" % (number, number) for number in range(200))
    _, records = records_of(b'Name,Phone\n"Asha,1\n' + rows + b'"Ravi" Rao,3\nEnd,"4\n')
    assert [record.line for record in records if record.problem] == [2, 203, 204]
    assert len([record for record in records if not record.problem]) == 200
    assert records[1] == Record(3, ["Name 0", "0"])


def test_quoted_line_breaks_are_kept_up_to_a_bound() -> None:
    inside = b"x\n" * (MAX_RECORD_LINES - 1)
    _, records = records_of(b'Name,Phone\n"' + inside + b'",1\nEnd,2\n')
    assert [record.line for record in records] == [2, MAX_RECORD_LINES + 2]


def test_an_endless_line_is_refused_and_the_next_one_is_read() -> None:
    _, records = records_of(b"Name,Phone\n" + b"x" * (3 * MAX_LINE) + b",1\nEnd,2\n")
    assert [(record.line, bool(record.problem)) for record in records] == [(2, True), (3, False)]
    assert "65,536 characters" in records[0].problem


@pytest.mark.parametrize(
    ("content", "code", "problem"),
    [
        (b"", "empty_file", "the file is empty"),
        (b"\xef\xbb\xbf", "empty_file", "the file is empty"),
        (b"\n \r\n\n", "empty_file", "the file is empty"),
        (b"PK\x03\x04\x14\x00", "not_csv", "an Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "not_csv", "an old Excel workbook"),
        (b"%PDF-1.7\n", "not_csv", "a PDF document"),
        (b"\x1f\x8b\x08\x00", "not_csv", "a gzip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, "not_csv", "is not text"),
        ("Name,Phone\n".encode("utf-16-le"), "not_csv", "is not text"),
        (b"x" * (MAX_LINE + 1), "not_csv", "the header line cannot be read: the line has more than 65,536 characters"),
    ],
)
def test_what_is_not_csv_is_refused_as_a_whole(content: bytes, code: str, problem: str) -> None:
    with pytest.raises(Invalid) as bad:
        records_of(content)
    assert bad.value.problem == code
    assert problem in bad.value.detail
