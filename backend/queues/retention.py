"""What grows, and how long it is kept: every table that `cleanup_celery_data` deletes from, its own and other domains' by name.

docs/operations/retention.md is this list for people; a test compares both with the tables that there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.config import Config


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of `table` are deleted once `age` is more than `days` days ago and `condition` holds; 0 days keep them for ever.

    `order` is the column that the oldest are found by. `before` are statements about the `doomed` rows, by whose `key` others refer
    to them. `label` counts deleted rows by a column. `batch` bounds a transaction further, where a row takes many others along.
    """

    table: str
    days: Callable[[Config], int]
    age: str
    order: str = ""
    key: str = "id"
    condition: str = "true"
    before: Sequence[str] = ()
    label: str = "''"
    batch: int = 1_000
    append_only: bool = False


# In an order in which what refers to others goes first.
RULES = (
    Rule("operation_log", lambda config: config.retention.operations, "at", append_only=True),
    Rule("login_log", lambda config: config.retention.logins, "at", append_only=True),
    Rule("dead_letters", lambda config: config.dead_letter_retention_days, "last_seen", label="state"),
    Rule("sent_tasks", lambda config: config.retention.sent_tasks, "expires_at", order="created_at"),
    Rule("worker_heartbeats", lambda config: config.retention.health, "last_seen", key="worker"),
    Rule("health_checks", lambda config: config.retention.health, "at"),
    Rule(
        "notifications",
        lambda config: config.notify.retention_days,
        "created_at",
        # What waits is kept, but for a bulk e-mail whose task was never sent.
        condition="not exists (select 1 from notification_deliveries d where d.notification_id = notifications.id"
        " and d.state in ('pending','held') and (not d.bulk or notifications.accepted_at is not null))",
        # A bulk e-mail has up to 10,000 deliveries, which go with it.
        batch=20,
    ),
    Rule("example_charges", lambda config: config.retention.sent_tasks, "charged_at", order="id"),
    Rule(
        "policy_imports",
        lambda config: config.retention.imports,
        "started_at",
        before=("delete from policy_import_errors where import_id in (select key from doomed)",),
        # An import has up to 10,000 errors.
        batch=5,
    ),
    Rule(
        "quota_reservations",
        lambda config: config.retention.quotas,
        "updated_at",
        key="key",
        # What is open is somebody's work.
        condition="state <> 'open'",
    ),
    Rule("quota_resets", lambda config: config.retention.quotas, "reset_at", key="day"),
    Rule("call_events", lambda config: config.retention.call_events, "received_at"),
    Rule(
        "calls",
        lambda config: config.retention.calls,
        "created_at",
        # The recording goes first: cleanup_recordings deletes its file, too.
        condition="ended_at is not null"
        " and not exists (select 1 from recordings r where r.kind = 'call' and r.subject_id = calls.id)",
        before=(
            "delete from call_events where call_id in (select key from doomed)",
            # A number that must not be called stays one.
            "update do_not_call set call_id = null where call_id in (select key from doomed)",
        ),
        batch=100,
    ),
    Rule(
        "scheduled_calls",
        lambda config: config.retention.calls,
        "created_at",
        # One whose policy can still be planned for would be planned anew.
        condition="status in ('completed','exhausted','skipped')"
        " and not exists (select 1 from calls k where k.scheduled_call_id = scheduled_calls.id)"
        " and not exists (select 1 from policies p where p.id = scheduled_calls.policy_id and p.expiry_date >= current_date - 2)",
    ),
)
