"""In the place of the package click-repl in the images: the `celery` command imports it for its prompts.

The package would load prompt_toolkit: 7 MB of every Beat's memory, and of each image, for a prompt that nobody can type at.
"""

from typing import Any


class ExitReplException(Exception):
    """Never raised."""


def register_repl(group: Any, name: str = "repl") -> None:
    """No prompt here."""
