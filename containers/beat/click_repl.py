"""In Beat's image, in the place of the package click-repl, which the `celery` command imports for `celery amqp` and `celery shell`.

The package would load prompt_toolkit into every Beat: 7 MB of memory for a prompt that nobody can type at.
"""

from typing import Any


class ExitReplException(Exception):
    """Never raised."""


def register_repl(group: Any, name: str = "repl") -> None:
    """No prompt here."""
