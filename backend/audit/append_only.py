"""The logs' own lock: PostgreSQL refuses to change or to delete what stands in them.

Only a transaction that has said `set local beatline.retention = 'on'` may delete; none may update. docs/decisions/0017 says whom
this does not stop.
"""

from sqlalchemy import DDL, Table, event

ALLOW_DELETION = "select set_config('beatline.retention', 'on', true)"

REFUSAL = """
create or replace function refuse_change_of_log() returns trigger language plpgsql as $$
begin
    if tg_op in ('DELETE', 'TRUNCATE') and current_setting('beatline.retention', true) = 'on' then
        return null;
    end if;
    raise exception using
        errcode = 'insufficient_privilege',
        message = 'table ' || tg_table_name || ' is append-only: ' || tg_op || ' refused',
        hint = 'docs/operations/audit.md says how entries leave the log';
end
$$
"""

TRIGGER = """
create trigger {table}_append_only before update or delete or truncate on {table}
for each statement execute function refuse_change_of_log()
"""


def protect(table: Table) -> None:
    """Give the table its trigger when it is made. A migration that makes the table runs the same two statements."""
    for statement in (REFUSAL, TRIGGER.format(table=table.name)):
        made = DDL(statement)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        event.listen(table, "after_create", made.execute_if(dialect="postgresql"))
