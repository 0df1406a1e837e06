"""The door of the quotas domain: what everybody may have transcribed a day."""

from backend.quotas.allowance import QuotaExceeded, Standing
from backend.quotas.managing import (
    delete_plan,
    list_plans,
    list_quotas,
    list_resets,
    read_quota,
    set_plan,
    set_quota,
)
from backend.quotas.resetting import reset, sweep
from backend.quotas.spending import adjust, release, reserve, settle, standing

__all__ = [
    "QuotaExceeded",
    "Standing",
    "adjust",
    "delete_plan",
    "list_plans",
    "list_quotas",
    "list_resets",
    "read_quota",
    "release",
    "reserve",
    "reset",
    "set_plan",
    "set_quota",
    "settle",
    "standing",
    "sweep",
]
