"""SQL of retention: one batch of one rule."""

from collections import Counter

from sqlalchemy import text

from backend.audit.append_only import ALLOW_DELETION
from backend.core.db import Session
from backend.queues.retention import Rule


def _statement(rule: Rule) -> str:
    # ruff: noqa: S608 - put together from the rules, which are constants
    before = "".join(f"also_{number} as ({statement}), " for number, statement in enumerate(rule.before))
    return f"""
    with doomed as materialized (
        select {rule.key} as key from {rule.table}
        where {rule.age} < now() - make_interval(days => :days) and {rule.condition}
        order by {rule.order or rule.age} limit :limit for update of {rule.table} skip locked
    ), {before}gone as (
        delete from {rule.table} where {rule.key} in (select key from doomed) returning {rule.label} as label
    )
    select label, count(*) from gone group by label
    """


async def purge(session: Session, rule: Rule, days: int, limit: int) -> Counter[str]:
    """Delete the oldest rows that the rule lets go of; how many, by the rule's label."""
    connection = await session.connection()
    if rule.append_only:
        await connection.execute(text(ALLOW_DELETION))
    rows = await connection.execute(text(_statement(rule)), {"days": days, "limit": limit})
    return Counter({row[0]: row[1] for row in rows.all()})
