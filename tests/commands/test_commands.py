"""docs/operations/commands.md: every command on it is run, and says what the page says."""

import signal
import subprocess
import sys
import time

import pytest

from tests.commands import page
from tests.commands.conftest import COMMANDS, PORTS, Shell, of_kind
from tests.commands.page import Command, Malformed, read

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]

# The lines of the checklist that name a command.
NAMED = {
    *("S0-10", "S0-14", "S0-28", "S0-29", "S1-21", "S1-34", "S1-35", "S1-36", "S1-40", "S1-41", "S2-16", "S2-17"),
    "S2-25",
    *("S2-26", "S2-27", "S2-28", "S2-29", "S3-04", "S3-27", "S3-33", "S3-34", "S3-35", "S3-37", "S4-02", "S4-03"),
    *("S4-05", "S4-06", "S4-07", "S4-38", "S4-39", "S4-44", "S4-45", "S4-47", "S4-48", "S4-49", "S4-50", "S4-51"),
}


def told(command: Command) -> str:
    return f"{command.ids[0] if command.ids else command.kind} {command.line}"[:60]


@pytest.mark.parametrize("command", of_kind("here"), ids=told)
def test_a_command_ends_well_and_says_what_the_page_says(shell: Shell, command: Command) -> None:
    # What the stack has just begun may not be in its logs yet.
    until = time.monotonic() + 15
    while True:
        done = shell.start(command.line)
        code = done.end()
        if code == 0 and command.says in done.output:
            return
        assert time.monotonic() < until, f"exit code {code}:\n{done.output}"
        time.sleep(1)


@pytest.mark.parametrize("command", of_kind("serve"), ids=told)
def test_a_process_starts_says_what_the_page_says_and_stops_when_asked(shell: Shell, command: Command) -> None:
    process = shell.serve(command.line)
    try:
        process.wait_for(command.says.replace("8555", str(process.port)))
        if PORTS.search(command.line):
            process.wait_for_answers()
    finally:
        code = process.stop()
    # uvicorn ends by the very signal, once it has stopped.
    assert code in {0, -signal.SIGTERM}, process.output


def test_every_documented_command_is_on_the_page() -> None:
    assert NAMED - {one for command in COMMANDS for one in command.ids} == set()


def test_every_kind_of_command_is_run_by_somebody() -> None:
    assert {command.kind for command in COMMANDS} == set(page.KINDS)
    listed = subprocess.run([sys.executable, page.__file__], capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == [one.line for one in of_kind("containers")]


@pytest.mark.parametrize("block", ["```sh\nls\n```\n", "```\nls\n```\n", "```sh here\nls\n```\n"])
def test_a_command_that_nobody_would_run_is_refused(block: str) -> None:
    with pytest.raises(Malformed):
        read(block)
