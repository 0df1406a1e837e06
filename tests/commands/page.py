"""docs/operations/commands.md as a list of commands.

As a program it prints those for containers, one a line, with what they are to say after a tab: tests/containers/run runs them.
Standard library only: that script knows no virtual environment.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "commands.md"
KINDS = ("setup", "serve", "here", "containers")

_BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_IDS = re.compile(r"\b(?:S[0-4]|DC)-\d\d\b")
_SAYS = "  #>"


class Malformed(Exception):
    """The page holds what no test would run."""


@dataclass(frozen=True, slots=True)
class Command:
    """A line of the shell, where it runs, a part of what it says, and the lines of the checklist that it answers."""

    kind: str
    line: str
    says: str
    ids: tuple[str, ...]


def read(text: str) -> list[Command]:
    """Every command of the page, in its order. Raises Malformed for a block of no known kind, or a command that says nothing."""
    found = []
    for info, body in _BLOCK.findall(text):
        language, _, kind = info.partition(" ")
        if language != "sh" or kind not in KINDS:
            raise Malformed(f"a block of the kind {info!r}; known are: {', '.join(f'sh {known}' for known in KINDS)}")
        found += _block(kind, body)
    return found


def _block(kind: str, body: str) -> list[Command]:
    found, ids = [], list[str]()
    for line in body.splitlines():
        if not line.strip():
            ids = []
        elif line.startswith("#"):
            ids += _IDS.findall(line)
        else:
            command, marker, says = line.partition(_SAYS)
            if kind != "setup" and not marker:
                raise Malformed(f"what does it say? {line}")
            found.append(Command(kind, command.strip(), says.strip(), tuple(ids)))
    return found


def main() -> None:
    for command in read(PAGE.read_text(encoding="utf-8")):
        if command.kind == "containers":
            sys.stdout.write(f"{command.line}\t{command.says}\n")


if __name__ == "__main__":
    main()
