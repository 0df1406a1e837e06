"""SQL of policy imports: batches of rows, set-based, and what was wrong with the others.

Each statement orders its rows by key, so that two imports at once wait for each other instead of deadlocking.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import insert, text, update
from sqlmodel import col, select

from backend.calls.models import PolicyImport, PolicyImportError
from backend.core.db import Session

_ROWS = """
with r as (
    select * from json_to_recordset(cast(:rows as json)) as r(
        customer_ref text, full_name text, phone text, phone_zone text, timezone text, language text, policy_number text,
        insurer text, product text, premium numeric(14, 2), expiry_date date, do_not_call bool, line int)
),
person as (
    select distinct on (customer_ref) customer_ref, full_name, phone, phone_zone,
           max(timezone) over same as timezone, max(language) over same as language
    from r window same as (partition by customer_ref) order by customer_ref, line
)
"""

# Inserting first waits for whoever inserts the same key; the update then sees their row.
_NEW_CUSTOMERS = """
insert into customers (id, external_ref, full_name, phone_e164, phone_status, timezone, language, created_at, updated_at)
select gen_random_uuid(), customer_ref, full_name, phone, 'ok', coalesce(timezone, phone_zone), coalesce(language, :language),
       now(), now()
from person order by customer_ref
on conflict (external_ref) do nothing
returning external_ref
"""

# The zone of a number counts only when the number is new: somebody may have set another since.
_CHANGED_CUSTOMERS = """,
said as (
    select c.id, n.full_name, n.phone, coalesce(n.language, c.language) as language,
           coalesce(n.timezone, case when c.phone_e164 = n.phone then c.timezone else n.phone_zone end) as timezone
    from person n join customers c on c.external_ref = n.customer_ref
),
changed as (
    select said.* from said join customers c on c.id = said.id
    where (c.full_name, c.phone_e164, c.timezone, c.language)
          is distinct from (said.full_name, said.phone, said.timezone, said.language)
    order by c.external_ref for no key update of c
)
update customers c set full_name = n.full_name, phone_e164 = n.phone, timezone = n.timezone, language = n.language,
    phone_status = case when c.phone_e164 = n.phone then c.phone_status else 'ok' end, updated_at = now()
from changed n where c.id = n.id
returning c.external_ref
"""

_NEW_POLICIES = """
insert into policies (id, customer_id, policy_number, insurer, product, premium, expiry_date, status, created_at, updated_at)
select gen_random_uuid(), c.id, r.policy_number, coalesce(r.insurer, ''), coalesce(r.product, ''), r.premium, r.expiry_date,
       'active', now(), now()
from r join customers c on c.external_ref = r.customer_ref order by r.policy_number
on conflict (policy_number) do nothing
returning policy_number
"""

# A later expiry is a new term: a policy that was renewed or has lapsed asks for calls again.
_CHANGED_POLICIES = """,
said as (
    select p.id, c.id as customer_id, r.expiry_date, coalesce(r.insurer, p.insurer) as insurer,
           coalesce(r.product, p.product) as product, coalesce(r.premium, p.premium) as premium
    from r join customers c on c.external_ref = r.customer_ref join policies p on p.policy_number = r.policy_number
),
changed as (
    select said.* from said join policies p on p.id = said.id
    where (p.customer_id, p.insurer, p.product, p.premium, p.expiry_date)
          is distinct from (said.customer_id, said.insurer, said.product, said.premium, said.expiry_date)
    order by p.policy_number for no key update of p
)
update policies p set customer_id = n.customer_id, insurer = n.insurer, product = n.product, premium = n.premium,
    status = case when n.expiry_date > p.expiry_date and p.status in ('renewed', 'lapsed') then 'active' else p.status end,
    expiry_date = n.expiry_date, updated_at = now()
from changed n where p.id = n.id
returning p.policy_number
"""

_NEW_DO_NOT_CALL = """
insert into do_not_call (id, phone_e164, source, reason, created_at)
select gen_random_uuid(), phone, 'import', '', now()
from (select distinct phone from r where do_not_call) as refused order by phone
on conflict (phone_e164) where revoked_at is null do nothing
returning phone_e164
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a batch did, by key: references of customers, numbers of policies, phone numbers."""

    customers: set[str]
    new_policies: set[str]
    changed_policies: set[str]
    refused: set[str]


class ImportRepository:
    """Imports, their rows and their errors."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, filename: str) -> PolicyImport:
        row = PolicyImport(filename=filename)
        self._session.add(row)
        await self._session.flush()
        return row

    async def find(self, import_id: UUID) -> PolicyImport | None:
        return await self._session.get(PolicyImport, import_id)

    async def save(self, rows: Sequence[Mapping[str, Any]], language: str) -> Saved:
        """Insert or update customers, their policies, and the do-not-call list; `language` is that of new customers."""
        values = {"rows": json.dumps(rows, default=str)}
        new_customers = await self._keys(_NEW_CUSTOMERS, values | {"language": language})
        return Saved(
            customers=new_customers | await self._keys(_CHANGED_CUSTOMERS, values),
            new_policies=await self._keys(_NEW_POLICIES, values),
            changed_policies=await self._keys(_CHANGED_POLICIES, values),
            refused=await self._keys(_NEW_DO_NOT_CALL, values),
        )

    async def add_errors(self, import_id: UUID, errors: Sequence[Mapping[str, Any]]) -> None:
        if errors:
            connection = await self._session.connection()
            await connection.execute(insert(PolicyImportError), [{"import_id": import_id, **error} for error in errors])

    async def count(self, import_id: UUID, *, created: int, changed: int, unchanged: int, failed: int) -> None:
        """Add to the counts of an import."""
        connection = await self._session.connection()
        await connection.execute(
            update(PolicyImport)
            .where(col(PolicyImport.id) == import_id)
            .values(
                created=PolicyImport.created + created,
                changed=PolicyImport.changed + changed,
                unchanged=PolicyImport.unchanged + unchanged,
                failed=PolicyImport.failed + failed,
            )
        )

    async def errors(self, import_id: UUID, after: int, limit: int) -> list[PolicyImportError]:
        """Errors in the order of the file, without the first `after`."""
        query = (
            select(PolicyImportError)
            .where(PolicyImportError.import_id == import_id)
            .order_by(col(PolicyImportError.id))
            .offset(after)
            .limit(limit)
        )
        return list((await self._session.exec(query)).all())

    async def _keys(self, statement: str, values: dict[str, Any]) -> set[str]:
        connection = await self._session.connection()
        return set((await connection.execute(text(_ROWS + statement), values)).scalars())
