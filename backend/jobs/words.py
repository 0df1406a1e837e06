"""Reasons of runs and occurrences in words. Codes without words here are shown with spaces for their underscores."""

from uuid import UUID

from backend.jobs.states import RunState

_WORDS = {
    "too_late": "missed: it could not be dispatched within the misfire grace",
    "misfire_skip": "missed: the misfire policy runs the newest occurrence alone",
    "catch_up_limit": "missed: more occurrences were due than max_catchup allows",
    "expired": "missed: no worker took it before it expired",
    "overlap_queue_full": "skipped: a run of this schedule was already waiting",
    "concurrency_key": "waits until its concurrency key has room",
    "retry": "waits for its next attempt",
    "attempts_used_up": "every attempt failed",
    "permanent": "failed in a way that no further attempt can help",
    "timed_out": "not done within its time",
    "error": "failed with an error",
    "worker_lost": "its worker stopped renewing its lease",
    "republished": "sent again: no worker had taken it",
    "lost_in_broker": "sent several times, and no worker ever got it",
    "cancelled_by_next": "cancelled by the run after it",
    "cancelled": "cancelled",
    "schedule_edited": "cancelled: the schedule was edited before it was sent",
    "schedule_deleted": "cancelled: the schedule was deleted",
}
_BY_STATE = {
    ("overlap", RunState.SKIPPED): "skipped: the run before it had not ended",
    ("overlap", RunState.WAITING): "waits for the run before it to end",
    ("merged", RunState.COALESCED): "merged into a later run of the same backlog",
}


def reason_in_words(code: str | None, state: str, blocked_by: UUID | None) -> str | None:
    """Why a run is in its state; names the run that it is about, where there is one."""
    if code is None:
        return None
    text = _BY_STATE.get((code, RunState(state))) or _WORDS.get(code) or code.replace("_", " ")
    return f"{text} (run {blocked_by})" if blocked_by is not None else text
