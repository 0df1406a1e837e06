"""What is said of a file that may not be fetched."""

from pathlib import Path
from uuid import uuid4

import pytest

from backend.core.storage import FolderStorage
from backend.recordings import fetching
from backend.recordings.models import Recording


async def test_a_path_that_leads_out_is_refused_without_naming_the_folder(tmp_path: Path) -> None:
    egress = tmp_path / "egress"
    egress.mkdir()
    recording = Recording(kind="call", subject_id=uuid4(), source_path="../elsewhere.ogg")
    with pytest.raises(fetching.SourceRefused) as refused:
        await fetching.stored(FolderStorage(tmp_path / "store"), recording, egress)
    assert str(tmp_path) not in str(refused.value)
