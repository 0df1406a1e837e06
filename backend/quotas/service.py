"""The door of the quotas domain: what everybody may have transcribed a day."""

from backend.quotas.allowance import STANDARD, QuotaExceeded, Standing, refusal
from backend.quotas.managing import (
    delete_plan,
    find_plan,
    list_plans,
    list_quotas,
    list_resets,
    read_quota,
    set_plan,
    set_quota,
)
from backend.quotas.resetting import reset, sweep
from backend.quotas.spending import adjust, check_left, release, reserve, settle, standing

__all__ = [
    "STANDARD",
    "QuotaExceeded",
    "Standing",
    "adjust",
    "check_left",
    "delete_plan",
    "find_plan",
    "list_plans",
    "list_quotas",
    "list_resets",
    "read_quota",
    "refusal",
    "release",
    "reserve",
    "reset",
    "set_plan",
    "set_quota",
    "settle",
    "standing",
    "sweep",
]
