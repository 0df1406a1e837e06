"""Import of customers and policies from a CSV file: a stream in, batches of rows into the database, every bad row explained."""

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

from backend.calls.csv_columns import find_columns, recognised
from backend.calls.csv_files import Layout, find_layout, read_records
from backend.calls.csv_rows import Format, PolicyRow, Repeats, RowError, find_month_first, read_row
from backend.calls.models import PolicyImport, PolicyImportError
from backend.calls.repository.imports import ImportRepository, Saved
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import NotFound

BATCH = 1_000
KEPT_ERRORS = 10_000
LANGUAGE = "en-IN"

_Outcome = PolicyRow | list[RowError]
_FIELDS = [member.name for member in fields(PolicyRow)]


@dataclass(slots=True)
class _Batch:
    """Some rows of the file, read; `failed` counts rows, of which one may have several errors."""

    rows: list[PolicyRow] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    failed: int = 0

    def add(self, outcome: _Outcome) -> None:
        if isinstance(outcome, PolicyRow):
            self.rows.append(outcome)
        else:
            self.errors += outcome
            self.failed += 1


async def import_policies(
    db: Database,
    source: BinaryIO,
    *,
    filename: str,
    config: Config,
    mapping: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> PolicyImport:
    """Insert or update what the CSV file `source` says; a bad row never stops the good ones.

    `source` must be seekable; it is read from its start, twice, and stays open. `mapping` names columns by header;
    `progress` is given the bytes read so far. A policy is known by its number, a customer by its reference, and an empty cell
    or a missing column leaves what is stored. Importing a file again changes nothing, so an import that was cut short (its
    `finished_at` stays empty) is simply made again.

    Raises Invalid (422) when the file as a whole cannot be read: nothing is stored then.
    """
    layout, form = await asyncio.to_thread(_open, source, config, mapping or {})
    async with db.transaction() as session:
        started = await ImportRepository(session).add(_storable(filename))
    room = KEPT_ERRORS
    outcomes = _outcomes(source, layout, form)
    while batch := await asyncio.to_thread(_next_batch, outcomes):
        async with db.transaction() as session:
            await _store(session, started.id, batch, room)
        room = max(0, room - len(batch.errors))
        if progress is not None:
            progress(source.tell())
    async with db.transaction() as session:
        finished = await find_import(session, started.id)
        finished.finished_at = utc_now()
    return finished


async def find_import(session: Session, import_id: UUID) -> PolicyImport:
    """An import with its counts of data rows. NotFound (404) for an unknown id."""
    found = await ImportRepository(session).find(import_id)
    if found is None:
        raise NotFound(f"import {import_id} does not exist")
    return found


async def list_errors(session: Session, import_id: UUID, after: int, limit: int) -> list[PolicyImportError]:
    """What was wrong, in the order of the file, without the first `after`; the first KEPT_ERRORS are kept.

    NotFound (404) for an unknown import.
    """
    await find_import(session, import_id)
    return await ImportRepository(session).errors(import_id, after, limit)


def _open(source: BinaryIO, config: Config, mapping: Mapping[str, str]) -> tuple[Layout, Format]:
    layout = find_layout(source, lambda header: recognised(header, mapping))
    columns = find_columns(layout.header, mapping)
    with closing(read_records(source, layout)) as records:
        month_first = find_month_first(records, columns["expiry_date"])
    return layout, Format(columns, len(layout.header), config.default_region, config.timezone, month_first)


def _storable(filename: str) -> str:
    """A file's name may hold NUL (an upload) or bytes that are no text (a file system), which PostgreSQL refuses."""
    return filename.replace("\0", "").encode("utf-8", "replace").decode()[:255]


def _outcomes(source: BinaryIO, layout: Layout, form: Format) -> Generator[_Outcome, None, None]:
    repeats = Repeats()
    with closing(read_records(source, layout)) as records:
        for record in records:
            outcome = read_row(record, form)
            repeated = repeats.check(outcome) if isinstance(outcome, PolicyRow) else None
            yield [repeated] if repeated else outcome


def _next_batch(outcomes: Iterable[_Outcome]) -> _Batch | None:
    batch = _Batch()
    for outcome in islice(outcomes, BATCH):
        batch.add(outcome)
    return batch if batch.rows or batch.failed else None


async def _store(session: Session, import_id: UUID, batch: _Batch, room: int) -> None:
    imports = ImportRepository(session)
    rows = [_values(row) for row in batch.rows]
    saved = await imports.save(rows, LANGUAGE)
    changed = _count_changed(batch.rows, saved)
    await imports.add_errors(import_id, [asdict(error) for error in batch.errors[:room]])
    await imports.count(
        import_id,
        created=len(saved.new_policies),
        changed=changed,
        unchanged=len(rows) - len(saved.new_policies) - changed,
        failed=batch.failed,
    )


def _values(row: PolicyRow) -> dict[str, Any]:
    # dataclasses.asdict copies every value deeply, which takes longer than reading the row.
    return {name: getattr(row, name) for name in _FIELDS}


def _count_changed(rows: Sequence[PolicyRow], saved: Saved) -> int:
    """The rows that changed something and created no policy; of a customer's rows only the first changes the customer."""
    changed = 0
    customers, refused = set(saved.customers), set(saved.refused)
    for row in rows:
        did = row.policy_number in saved.changed_policies
        if row.customer_ref in customers:
            customers.discard(row.customer_ref)
            did = True
        if row.do_not_call and row.phone in refused:
            refused.discard(row.phone)
            did = True
        changed += did and row.policy_number not in saved.new_policies
    return changed
