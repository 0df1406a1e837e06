"""The door of the audit domain."""

from backend.audit.exporting import Format, as_text
from backend.audit.logins import record_login
from backend.audit.moving import move, sweep
from backend.audit.ran import record_command
from backend.audit.reading import allow_deletion, every_login, every_operation, list_logins, list_operations
from backend.audit.recorder import Recorder

__all__ = [
    "Format",
    "Recorder",
    "allow_deletion",
    "as_text",
    "every_login",
    "every_operation",
    "list_logins",
    "list_operations",
    "move",
    "record_command",
    "record_login",
    "sweep",
]
