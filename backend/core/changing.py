"""Commands that change something: what each was told, and how it ended, goes to whoever keeps the log of operations."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer
from typer.core import TyperCommand

from backend.core.clock import utc_now

_BROKEN_OFF = 130


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended, such as `users set-role`: `arguments` are what it was done to, `options` what else was typed.

    Both are by name. `exit_code` is as console.py has it, 130 where it was broken off; `duration_ms` includes what somebody took
    to answer a question.
    """

    at: datetime
    command: str
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    exit_code: int
    duration_ms: float


# The context's `obj`: is told once the command has ended.
Keeper = Callable[[Ran], None]


class Changing(TyperCommand):
    """`@app.command(cls=Changing)`: however it ended, the root context's Keeper is told.

    A misspelt option, a question that nobody answered and a wrong configuration have changed nothing and are not told. Secrets
    are never arguments or options.
    """

    # Typer's own copy of click, which calls this, is private.
    def invoke(self, ctx: Any) -> Any:
        at, began = utc_now(), time.perf_counter()

        def tell(exit_code: int) -> None:
            keeper: Keeper = ctx.find_root().obj
            keeper(_ran(self, ctx, at, exit_code, (time.perf_counter() - began) * 1000))

        try:
            result = super().invoke(ctx)
        except (typer.Abort, typer.BadParameter, SystemExit):
            raise
        except typer.Exit as end:
            tell(end.exit_code)
            raise
        except BaseException:
            tell(_BROKEN_OFF)
            raise
        tell(0)
        return result


def _ran(command: TyperCommand, ctx: Any, at: datetime, exit_code: int, duration_ms: float) -> Ran:
    said: dict[str, dict[str, Any]] = {"argument": {}, "option": {}}
    for parameter in command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            said[parameter.param_type_name][name] = ctx.params[name]
    return Ran(at, _path(ctx), said["argument"], said["option"], exit_code, duration_ms)


def _path(ctx: Any) -> str:
    """Without the program, which may be `beatline` or `python -m backend.cli`."""
    return f"{_path(ctx.parent)} {ctx.info_name}".strip() if ctx.parent else ""
