"""Transcribing files on this machine: no server, no database, and nothing done twice after a stop.

What is done of a file is kept below the cache folder under a name that its content and every option give, until all of it is done.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from backend.config import Config
from backend.core.errors import PermanentError
from backend.recordings.models import Stage
from backend.recordings.pipeline import FolderCheckpoints, Observe, Result, Tools, run
from backend.recordings.speech.base import Cancelled
from backend.recordings.speech.weights import default_cache
from backend.recordings.terminal.targets import STDIN, Ask

T = TypeVar("T")

_CHUNK = 1 << 20
# Nobody goes on with what was stopped longer ago; the sound alone takes 115 MB an hour and channel.
_KEPT_SECONDS = 7 * 86_400
_POLL_SECONDS = 0.2


class Stopped(Exception):
    """By a signal; what is done so far is kept."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Busy(Exception):
    """Another process is at the same file with the same options."""


def transcribe(config: Config, tools: Tools, source: Path, ask: Ask, observe: Observe) -> Result:
    """Blocking, minutes long. Goes on where a stopped one has left off.

    Raises Busy, Stopped, and what the pipeline raises. `observe` is called with the stage and how much of it is done, 0 to 1.
    """
    root = _root(config)
    _forget_old(root)
    with _readable(source, root) as path, _held(root / _key(config, path, ask)) as folder:
        try:
            done = stoppable(partial(_run, path, tools, ask, folder), observe)
        except PermanentError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return done


def _run(path: Path, tools: Tools, ask: Ask, folder: Path, observe: Observe) -> Result:
    return run(
        path,
        tools,
        options=ask.options,
        channel_speakers=ask.channel_speakers,
        work=folder / "work",
        checkpoints=FolderCheckpoints(folder / "checkpoints"),
        observe=observe,
    )


def _root(config: Config) -> Path:
    """A folder of this user's; the cache of an image holds weights and cannot be written to."""
    for cache in (config.cache_dir, default_cache()):
        if cache is None:
            continue
        root = cache / "transcribe"
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as fault:
            # An image's file system is read-only, whoever asks.
            if fault.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
                raise
            continue
        owner = root.stat()
        # The temporary folder is everybody's: nobody else may lay a transcript there for us to find.
        if owner.st_uid == os.geteuid() and not owner.st_mode & stat.S_IWOTH and os.access(root, os.W_OK):
            return root
    raise PermissionError(errno.EACCES, "no folder to work in; set BEATLINE_CACHE_DIR to one of this user's")


def _key(config: Config, path: Path, ask: Ask) -> str:
    speech, model = config.recordings.speech, config.recordings.openai.transcription_model
    asked = [
        ask.options.model_dump(),
        ask.channel_speakers,
        speech.backend,
        speech.language,
        str(speech.model_dir),
        model,
    ]
    digest = hashlib.sha256(json.dumps(asked).encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:32]


@contextmanager
def _readable(source: Path, root: Path) -> Iterator[Path]:
    """The file; standard input is written to one first."""
    if source != STDIN:
        yield source
        return
    copied = root / f"stdin-{os.getpid()}"
    try:
        with copied.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, _CHUNK)
        yield copied
    finally:
        copied.unlink(missing_ok=True)


@contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """The folder of one file, for this process alone. The lock lies beside it, since the folder goes."""
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise Busy("another beatline is at this file") from fault
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "work").mkdir(exist_ok=True)
        os.utime(folder)
        yield folder


def _forget_old(root: Path) -> None:
    """Remove what nobody has gone on with for a week."""
    for path in root.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def stoppable(work: Callable[[Observe], T], observe: Observe) -> T:
    """Run `work` in a thread, so that Ctrl-C and SIGTERM are heard at once; raises Stopped after its next step.

    A second signal ends the process on the spot.
    """
    stopping: list[int] = []
    values: list[T] = []
    faults: list[BaseException] = []
    ended = threading.Event()

    def watched(stage: Stage, share: float) -> None:
        if stopping:
            raise Cancelled
        observe(stage, share)

    def target() -> None:
        try:
            values.append(work(watched))
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread that waits
            faults.append(fault)
        finally:
            ended.set()

    def stop(number: int, _: FrameType | None) -> None:
        if stopping:
            os._exit(128 + number)
        stopping.append(number)
        sys.stderr.write("\nstopping; once more stops at once\n")

    with _signals(stop):
        threading.Thread(target=target, name="transcribing", daemon=True).start()
        while not ended.wait(_POLL_SECONDS):
            pass
    if faults and not (stopping and isinstance(faults[0], Cancelled)):
        raise faults[0]
    if stopping:
        raise Stopped(stopping[0])
    return values[0]


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
