"""The columns of a policy import and the headers under which they are known."""

from collections.abc import Mapping, Sequence

from backend.core.errors import Invalid

# The first name of each column is its own; case, spaces and punctuation of a header do not matter.
COLUMNS: dict[str, tuple[str, ...]] = {
    "customer_ref": (
        "Customer ref", "Customer reference", "Customer ID", "Customer no", "Customer number", "Customer code",
        "Client ref", "Client ID", "Client no", "Client code", "External ref", "CRM ID",
    ),
    "full_name": (
        "Full name", "Name", "Customer name", "Client name", "Insured name", "Name of insured", "Policy holder",
        "Policy holder name", "Proposer name",
    ),
    "phone": (
        "Phone", "Phone no", "Phone number", "Mobile", "Mobile no", "Mobile number", "Mobile phone", "Contact no",
        "Contact number", "Telephone", "Tel", "Cell", "Cell phone", "Phone E164",
    ),
    "timezone": ("Time zone", "TZ"),
    "language": ("Language", "Lang", "Preferred language", "Locale"),
    "policy_number": ("Policy number", "Policy no", "Policy", "Policy num", "Policy ID", "Policy ref"),
    "insurer": ("Insurer", "Insurance company", "Carrier", "Underwriter"),
    "product": ("Product", "Product name", "Plan", "Plan name", "Policy type", "Line of business", "LOB"),
    "premium": ("Premium", "Premium amount", "Annual premium", "Renewal premium", "Gross premium"),
    "expiry_date": (
        "Expiry date", "Expiry", "Expires", "Expires on", "Expiration date", "Expiration", "Policy expiry date",
        "Policy expiry", "Renewal date", "Renewal due", "Renewal due date", "Valid until", "Valid to", "End date",
        "Policy end date",
    ),
    "do_not_call": ("Do not call", "DNC", "DND", "Do not disturb", "Opt out", "Opted out", "No calls"),
}  # fmt: skip
REQUIRED = ("customer_ref", "full_name", "phone", "policy_number", "expiry_date")


def _plain(header: str) -> str:
    return "".join(filter(str.isalnum, header.casefold()))


_COLUMN_OF = {_plain(name): column for column, names in COLUMNS.items() for name in names}


def recognised(header: Sequence[str], mapping: Mapping[str, str]) -> int:
    """How many of these headers are known."""
    known = {_plain(name) for name in mapping} | _COLUMN_OF.keys()
    return sum(_plain(name) in known for name in header)


def find_columns(header: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    """The place of each column in the file: by `mapping` (header to column) first, then by the known headers.

    Raises Invalid (422) for a mapping that fits neither, a column two headers claim, a required one that is missing.
    """
    found = _mapped(header, mapping)
    claimed = set(found.values())
    claims: dict[str, list[int]] = {}
    for place, name in enumerate(header):
        column = _COLUMN_OF.get(_plain(name))
        if column is not None and column not in found and place not in claimed:
            claims.setdefault(column, []).append(place)
    for column, places in claims.items():
        if len(places) > 1:
            raise Invalid(
                f"{column}: several headers stand for it ({_quoted([header[place] for place in places])}); "
                f"map the right one, such as {header[places[0]].strip()}={column}",
                code="ambiguous_column",
            )
    found |= {column: places[0] for column, places in claims.items()}
    _check_required(header, found)
    return found


def _mapped(header: Sequence[str], mapping: Mapping[str, str]) -> dict[str, int]:
    places = {_plain(name): place for place, name in reversed(list(enumerate(header)))}
    found: dict[str, int] = {}
    for name, column in mapping.items():
        if column not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise Invalid(f"{name}={column}: {column!r} is no column; the columns are {known}", code="mapping")
        if _plain(name) not in places:
            raise Invalid(f"{name}={column}: the file has no header {name!r}; it has {_quoted(header)}", code="mapping")
        if column in found:
            raise Invalid(f"{name}={column}: {column} is mapped twice", code="mapping")
        found[column] = places[_plain(name)]
    return found


def _check_required(header: Sequence[str], found: Mapping[str, int]) -> None:
    missing = [column for column in REQUIRED if column not in found]
    if missing:
        wanted = "; ".join(f"{column} (accepted headers: {', '.join(COLUMNS[column])})" for column in missing)
        raise Invalid(
            f"the file has no column for {wanted}. Its headers are {_quoted(header)}: rename one, or map it, "
            f"such as {header[0].strip()[:40]}={missing[0]}",
            code="missing_column",
            missing=missing,
        )


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name.strip()[:40]) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
