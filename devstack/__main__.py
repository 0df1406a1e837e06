"""`python -m devstack`: Beatline on this machine, without containers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from devstack import stack as stacks
from devstack.demo import Demo, JobFailed
from devstack.environment import ROOT
from devstack.interrupts import Interrupted, interrupts
from devstack.processes import ProcessError
from devstack.stack import InUse, Stack
from devstack.unprivileged import AccountError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

State = Annotated[Path, typer.Option(help="Where data, keys, logs and pid files are kept.")]
ApiPort = Annotated[int, typer.Option(help="The API's port; 0: any free one.")]
Settings = Annotated[
    list[str], typer.Option("--set", help="A setting for the stack, as NAME=VALUE; may be given often.")
]
DEFAULT_STATE = ROOT / ".beatline"
DEFAULT_PORT = 8000


def _stack(console: Console, state: Path, api_port: int, settings: list[str]) -> Stack:
    if malformed := [setting for setting in settings if "=" not in setting]:
        raise typer.BadParameter(f"{malformed[0]}: write NAME=VALUE", param_hint="--set")
    overrides = dict(setting.split("=", 1) for setting in settings)
    return Stack(state.resolve(), lambda line: console.print(line, highlight=False), api_port, overrides)


def _console(*, stderr: bool = False) -> Console:
    found = Console(stderr=stderr)
    # Without a terminal nobody sees where a line would have to wrap.
    return found if found.is_terminal else Console(stderr=stderr, width=200)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON; progress goes to stderr.")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds until calls that are not final count as failed.")] = 600,
    state: State = DEFAULT_STATE,
    api_port: ApiPort = DEFAULT_PORT,
    settings: Settings = [],  # noqa: B006 - typer's way to say "none"
) -> None:
    """Call forty sample customers over a simulated telephone network."""
    console = _console(stderr=as_json)
    stack = _stack(console, state, api_port, settings)
    code = 1
    try:
        code = Demo(stack, console, keep, as_json, deadline).run()
        if keep and not stack.attached:
            stack.leave()
    finally:
        if stack.supervisor.running:
            console.print("Stopping", highlight=False)
        stack.stop()
    if keep or stack.attached:
        _say_how_to_sign_in(stack, console)
        console.print("Left running; `make down` stops it.", highlight=False)
    raise typer.Exit(code)


@app.command()
def up(state: State = DEFAULT_STATE, api_port: ApiPort = DEFAULT_PORT, settings: Settings = []) -> None:  # noqa: B006
    """Start everything in the background."""
    console = _console()
    stack = _stack(console, state, api_port, settings)
    try:
        stack.start()
        stack.leave()
    finally:
        stack.stop()
    console.print(f"API docs  {stack.ports.api_url}/docs", highlight=False)
    console.print(f"Pages     {stack.ports.api_url}/ops", highlight=False)
    console.print(f"Logs      {stack.logs}", highlight=False)
    console.print(f"Settings  {stack.state}/stack.env (with the keys)", highlight=False)
    _say_how_to_sign_in(stack, console)
    console.print("`make down` stops it.", highlight=False)


@app.command()
def down(state: State = DEFAULT_STATE) -> None:
    """Stop what runs in the background."""
    stopped = stacks.down(state.resolve())
    _console().print(f"Stopped: {', '.join(stopped)}" if stopped else "Nothing was running.", highlight=False)


@app.command()
def reset(state: State = DEFAULT_STATE) -> None:
    """Stop everything and remove its data."""
    stacks.reset(state.resolve())
    _console().print(f"Removed {state}", highlight=False)


@app.command()
def status(state: State = DEFAULT_STATE) -> None:
    """Show the processes and their logs; exit code 1 when one of them is not alive."""
    found = stacks.status(state.resolve())
    shown = Table("Process", "Pid", "State", "Log", pad_edge=False)
    for one in found:
        shown.add_row(one.name, str(one.pid), "[green]running" if one.alive else "[red]ended", str(one.log))
    _console().print(shown if found else "Nothing is running.")
    raise typer.Exit(0 if all(one.alive for one in found) else 1)


def _say_how_to_sign_in(stack: Stack, console: Console) -> None:
    """Lines that can be copied: wrapped by the shell's window alone."""
    beatline = Path(sys.executable).with_name("beatline")
    for line in (
        f"Sign in   any name, with BEATLINE_SERVICE_KEY of {stack.state}/stack.env as the password",
        "Account   of your own, which recordings and quotas are about:",
        f"          (set -a; . {stack.state}/stack.env; {beatline} users create-admin ada)",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def _explain(fault: ProcessError, console: Console) -> None:
    """What failed, the end of its log and where the rest is."""
    what = "LiveKit (the simulator) is unreachable: its process " if fault.name == "simulator" else ""
    console.print(f"\n{what}{fault}. The last lines of its log:", style="bold red", highlight=False)
    for line in fault.tail:
        console.print(f"  {line}", markup=False, highlight=False, style="dim")
    console.print(f"The whole log: {fault.log}", highlight=False)


def main() -> int:
    """Run a command; the exit code."""
    interrupts.install()
    errors = _console(stderr=True)
    try:
        app()
    except ProcessError as fault:
        _explain(fault, errors)
    except (InUse, AccountError, JobFailed) as fault:
        errors.print(f"{fault}", style="bold red", highlight=False)
    except Interrupted as stopped:
        errors.print("\nInterrupted: what this command started has been stopped.", highlight=False)
        return 128 + stopped.signum
    return 1


if __name__ == "__main__":
    sys.exit(main())
