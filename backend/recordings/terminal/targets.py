"""Where `beatline transcribe` writes what: decided and checked before the first file, which may take hours."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile

from backend.recordings.options import TranscribeOptions
from backend.recordings.schemas import ExportFormat as Format

STDIN = Path("-")


class Backend(StrEnum):
    LOCAL = "local"
    OPENAI = "openai"


class WrongUse(Exception):
    """What was asked for cannot be done; the message says what can."""


@dataclass(frozen=True, slots=True)
class Ask:
    """How files are to be transcribed; `channel_speakers` names the parties by channel."""

    options: TranscribeOptions
    channel_speakers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A file to transcribe, and the files to write: by format, None for standard output. `named`: as one file, by hand."""

    source: Path
    targets: dict[Format, Path | None]
    named: bool = False

    @property
    def name(self) -> str:
        return "standard input" if self.source == STDIN else self.source.name

    @property
    def done(self) -> list[Path]:
        """Files that are there already."""
        return [path for path in self.targets.values() if path is not None and path.exists()]


def jobs(sources: Sequence[Path], formats: Sequence[Format], output: Path | None) -> list[Job]:
    """One job for each file. Raises WrongUse; makes the output's folder and nothing else."""
    for source in sources:
        _check_readable(source)
    wanted = list(dict.fromkeys(formats or [_format_of(output)]))
    if output is None or output == Path("-"):
        return _on_standard_output(sources, wanted)
    if output.is_dir() or len(sources) > 1 or len(wanted) > 1 or not output.suffix:
        return _in_folder(sources, wanted, output)
    _check_writable(output.parent)
    return [Job(sources[0], {wanted[0]: output}, named=True)]


def left_to_do(jobs: Sequence[Job], *, overwrite: bool) -> list[Job]:
    """Without those whose files are there already; WrongUse where the one file that was named is."""
    if overwrite:
        return list(jobs)
    for job in jobs:
        if job.named and job.done:
            raise WrongUse(f"{job.done[0]} is there already; --overwrite replaces it")
    return [job for job in jobs if len(job.done) < len(job.targets)]


def _format_of(output: Path | None) -> Format:
    ending = output.suffix.lower().removeprefix(".") if output is not None and not output.is_dir() else ""
    if not ending:
        return Format.TXT
    if ending not in set(Format):
        raise WrongUse(f"{output} does not end in .txt, .srt, .vtt or .json: name the format by --format")
    return Format(ending)


def _check_readable(source: Path) -> None:
    if source == STDIN:
        return
    if source.is_dir():
        raise WrongUse(f"{source} is a folder; name the files in it, such as {source}/*")
    if not source.exists():
        raise WrongUse(f"{source} does not exist")
    if not os.access(source, os.R_OK):
        raise WrongUse(f"{source} cannot be read: no permission")


def _on_standard_output(sources: Sequence[Path], wanted: list[Format]) -> list[Job]:
    if len(wanted) > 1:
        raise WrongUse("several formats need --output FOLDER")
    if len(sources) > 1 and wanted != [Format.TXT]:
        raise WrongUse(f"several files as {wanted[0]} need --output FOLDER")
    return [Job(source, {wanted[0]: None}) for source in sources]


def _in_folder(sources: Sequence[Path], wanted: list[Format], folder: Path) -> list[Job]:
    if folder.exists() and not folder.is_dir():
        raise WrongUse(f"{folder} is a file; several files or formats need a folder")
    stems = [_stem(source) for source in sources]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise WrongUse(f"several files are called {twice[0]}; transcribe them into folders of their own")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise WrongUse(f"{folder} cannot be made: {fault.strerror}") from fault
    _check_writable(folder)
    return [
        Job(source, {each: folder / f"{stem}.{each}" for each in wanted})
        for source, stem in zip(sources, stems, strict=True)
    ]


def _stem(source: Path) -> str:
    return "stdin" if source == STDIN else source.stem


def _check_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise WrongUse(f"{folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise WrongUse(f"{folder} cannot be written to: no permission")


def write(path: Path, text: str) -> None:
    """As a whole or not at all. Raises OSError."""
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8") as made:
        written = Path(made.name)
        try:
            made.write(text)
            made.flush()
            os.fsync(made.fileno())
            # As the shell would have made it: a temporary file is for its owner alone.
            written.chmod(0o666 & ~_umask())
            written.replace(path)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def missing(fault: ModuleNotFoundError) -> str:
    return (
        f"{fault.name} is not installed here. Transcribing needs the worker's libraries, which `make venv` installs and the"
        " worker's image has: podman compose run --rm --no-deps -T worker-audio python -m backend.cli transcribe - < FILE"
    )
