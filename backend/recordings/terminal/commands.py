"""`beatline transcribe FILE…`: what people do with a recording and no server.

Exit codes: 0 done; 1 a service is away, or another process is at the file (the same command goes on later); 2 usage, configuration
or a missing library; 3 a file could not be transcribed; 130 and 143 stopped by Ctrl-C or SIGTERM (the same command goes on from
there).
"""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
from pydantic import ValidationError

from backend.core.console import configuration, fail
from backend.recordings.options import TranscribeOptions
from backend.recordings.schemas import ExportFormat as Format
from backend.recordings.terminal import targets
from backend.recordings.terminal.targets import Backend, WrongUse, missing

Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="Sound, or video with sound; - is standard input.", allow_dash=True),
]
Formats = Annotated[
    list[Format] | None,
    typer.Option("-f", "--format", help="May be repeated. Without it, what --output ends in, or txt."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="PATH", help="A file; or a folder, for NAME.FORMAT of each. Else standard output."
    ),
]
Language = Annotated[
    str | None, typer.Option("-l", "--language", metavar="CODE", help="Such as en. Without it, it is found out.")
]
Exact = Annotated[int | None, typer.Option(min=1, max=20, metavar="N", help="How many people speak, where you know.")]
Least = Annotated[int | None, typer.Option(min=1, max=20, metavar="N", help="At least so many people speak.")]
Most = Annotated[int | None, typer.Option(min=1, max=20, metavar="N", help="At most so many people speak.")]
Tell = Annotated[bool, typer.Option("--diarization/--no-diarization", help="Tell who spoke when.")]
Channels = Annotated[
    str | None,
    typer.Option(metavar="NAME,NAME", help="Who is on which channel, where each has one: such as agent,customer."),
]
By = Annotated[Backend | None, typer.Option(help="Who turns sound into words. Without it, TRANSCRIPTION_BACKEND.")]
Hints = Annotated[str | None, typer.Option(metavar="TEXT", help="Names and words to expect.")]
Summary = Annotated[
    bool | None,
    typer.Option("--summary/--no-summary", help="Title, summary and action items. Without it, with json alone."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what was written before, instead of leaving it.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but what goes wrong.")]


def transcribe(
    files: Files,
    formats: Formats = None,
    output: Output = None,
    language: Language = None,
    speakers: Exact = None,
    min_speakers: Least = None,
    max_speakers: Most = None,
    diarization: Tell = True,
    channels: Channels = None,
    backend: By = None,
    hints: Hints = None,
    summary: Summary = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write down who said what in files of this machine; needs no server and no database.

    What was stopped goes on where it was when the same command is given again.
    """
    wish = {
        "language": language,
        "speakers": speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "diarization": diarization,
        "backend": backend,
        "hints": hints,
    }
    try:
        jobs = targets.jobs(files, formats or [], output)
        wish["summary"] = any(Format.JSON in job.targets for job in jobs) if summary is None else summary
        options = TranscribeOptions.model_validate(wish)
        left = targets.left_to_do(jobs, overwrite=overwrite)
    except ValidationError as fault:
        fail("; ".join(_of_validation(fault)), 2)
    except WrongUse as fault:
        fail(str(fault), 2)
    config = configuration()
    ask = targets.Ask(options, tuple(name.strip() for name in channels.split(",")) if channels else ())
    raise typer.Exit(_worker_side().transcribe_all(config, jobs, left, ask, quiet=quiet))


def _of_validation(fault: ValidationError) -> list[str]:
    said = []
    for error in fault.errors():
        where = f"--{'-'.join(str(error['loc'][0]).split('_'))}: " if error["loc"] else ""
        what = "must be a code of two or three letters such as en" if error["type"] == "string_pattern_mismatch" else ""
        said.append(where + (what or error["msg"].removeprefix("Value error, ")))
    return said


def _worker_side() -> ModuleType:
    """What only the worker's libraries can do."""
    try:
        from backend.recordings.terminal import transcribing  # noqa: PLC0415 - the API's image has this command, and no numpy
    except ModuleNotFoundError as fault:
        fail(missing(fault), 2)
    return transcribing
