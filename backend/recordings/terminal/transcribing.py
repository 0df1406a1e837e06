"""One file after another at a terminal: progress, what was written, and how it ended."""

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from backend.config import Config
from backend.core.console import console, fail, warn
from backend.core.errors import PermanentError, TransientError
from backend.recordings.library import exporting
from backend.recordings.library.exporting import Abstract, Document, document_of
from backend.recordings.models import Stage
from backend.recordings.pipeline import Pace, Result, Tools, open_tools
from backend.recordings.schemas import ExportFormat as Format
from backend.recordings.speech.weights import WeightsMissing
from backend.recordings.summaries.base import Summary
from backend.recordings.terminal import files, targets
from backend.recordings.terminal.files import Busy, Stopped
from backend.recordings.terminal.targets import Ask, Job, missing

AWAY, FAILED = 1, 3

# What people call each stage.
_STAGES = {
    Stage.PROBE: "looking at the file",
    Stage.DECODE: "decoding",
    Stage.SPEECH: "finding speech",
    Stage.WORDS: "writing down what is said",
    Stage.SPEAKERS: "telling speakers apart",
    Stage.SUMMARY: "summing up",
    Stage.STORE: "finishing",
}


class Bar:
    """A line with the file, its stage, how much is done and how long the rest takes; nothing where there is no terminal."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        where = console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} % {task.fields[left]}", markup=False),
        )
        self._pace = Pace()
        self._name = name
        self._progress = Progress(
            *columns, console=where, transient=True, expand=True, disable=quiet or not where.is_terminal
        )
        self._task = self._progress.add_task(name, total=1.0, left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def seen(self, stage: Stage, share: float) -> None:
        self._pace.seen(stage, share)
        left = self._pace.seconds_left
        self._progress.update(
            self._task,
            completed=self._pace.share,
            description=f"{self._name}: {_STAGES.get(stage, stage.value)}",
            left="" if left is None else f"{clock(left)} left",
        )


def clock(seconds: float) -> str:
    """As m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def transcribe_all(config: Config, jobs: Sequence[Job], left: Sequence[Job], ask: Ask, *, quiet: bool) -> int:
    """The exit code. A file that cannot be transcribed never stops the others; a signal stops all."""
    told = _quiet if quiet else warn
    for job in jobs:
        if job not in left:
            told(f"{job.name}: {', '.join(map(str, job.done))} is there already; --overwrite replaces it")
    tools = open_tools(config)
    worst = 0
    for number, job in enumerate(left):
        try:
            said = _one(config, tools, job, ask, among=len(jobs), first=number == 0, quiet=quiet)
        except Stopped as stopped:
            warn("stopped; what is done is kept for a week, and the same command goes on from there")
            return 128 + stopped.number
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        except (TransientError, Busy) as fault:
            warn(f"{job.source}: {fault}; the same command goes on later")
            worst = worst or AWAY
        except (PermanentError, OSError) as fault:
            warn(f"{job.source}: {_words(fault).removeprefix(f'{job.name}: ')}")
            worst = FAILED
        except (ModuleNotFoundError, WeightsMissing) as fault:
            fail(missing(fault) if isinstance(fault, ModuleNotFoundError) else str(fault), 2)
        else:
            told(said)
    return worst


def _quiet(_: str) -> None:
    pass


def _words(fault: Exception) -> str:
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror + (f": {fault.filename}" if fault.filename else "")
    return str(fault)


def _one(config: Config, tools: Tools, job: Job, ask: Ask, *, among: int, first: bool, quiet: bool) -> str:
    """Transcribe a file and write it; what to tell about it."""
    began = time.monotonic()
    with Bar(job.name, quiet=quiet) as bar:
        result = files.transcribe(config, tools, job.source, ask, bar.seen)
    document = document_of(
        result.transcript,
        speakers=result.speakers,
        title=result.summary.title if result.summary else None,
        diarizer=result.diarizer,
        abstract=_abstract(result.summary),
    )
    for wanted, path in job.targets.items():
        text = as_text(document) if wanted is Format.TXT else exporting.export(document, wanted)
        if path is not None:
            targets.write(path, text)
            continue
        if among > 1:
            sys.stdout.write(f"{'' if first else chr(10)}==> {job.name} <==\n")
        sys.stdout.write(text)
        sys.stdout.flush()
    written = [str(path) for path in job.targets.values() if path is not None]
    told = f"{job.name}: {_facts(result)}; took {clock(time.monotonic() - began)}"
    return f"{told} -> {', '.join(written)}" if written else told


def _abstract(summary: Summary | None) -> Abstract | None:
    if summary is None:
        return None
    return Abstract(summary.title, summary.summary, summary.action_items, summary.backend, summary.model)


def as_text(document: Document) -> str:
    """The export, with what it says in short before it where that was asked for."""
    abstract = document.abstract
    said = exporting.as_txt(replace(document, title=None))
    if abstract is None:
        return said
    by = abstract.backend if abstract.model is None else f"{abstract.backend}, {abstract.model}"
    parts = [abstract.title, f"{abstract.summary} (summary: {by})"]
    parts += ["\n".join(f"- {item}" for item in abstract.action_items)] if abstract.action_items else []
    return "\n\n".join([*parts, said])


def _facts(result: Result) -> str:
    transcript = result.transcript
    facts = [clock(transcript.duration_seconds)]
    if not transcript.segments:
        return f"{facts[0]}, nobody speaks"
    if result.speakers:
        facts.append(f"{len(result.speakers)} speaker{'s' * (len(result.speakers) != 1)}")
    facts.append(f"{transcript.language or 'unknown language'} by {transcript.backend} {transcript.model}")
    return ", ".join(facts + ([f"{result.cost:.4f} US dollars"] if result.cost is not None else []))
