"""Transcribes a file with everything real, in a process of its own: FILE FOLDER. Says how it went as JSON."""

import json
import resource
import sys
import time
from pathlib import Path

from backend.celery_app import settings
from backend.recordings.models import Stage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import FolderCheckpoints, Pace, open_tools, run


def listen(path: Path, folder: Path) -> dict[str, object]:
    pace, longest, seen, peaks = Pace(), 0.0, time.monotonic(), {}

    def observe(stage: Stage, share: float) -> None:
        nonlocal longest, seen
        now = time.monotonic()
        longest, seen = max(longest, now - seen), now
        pace.seen(stage, share)
        peaks[stage.value] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        (folder / "progress").write_text(f"{stage.value} {pace.percent}")

    began, busy = time.monotonic(), time.process_time()
    done = run(
        path,
        open_tools(settings),
        options=TranscribeOptions(language="en"),
        work=folder / "work",
        checkpoints=FolderCheckpoints(folder / "checkpoints"),
        observe=observe,
    )
    return {
        "seconds": round(done.transcript.duration_seconds),
        "segments": len(done.transcript.segments),
        "text": done.transcript.text[:300],
        "last": done.transcript.segments[-1].end,
        "speakers": len(done.speakers),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peaks_mb": peaks,
        "wall": round(time.monotonic() - began),
        "cpu": round(time.process_time() - busy),
        "longest_silence": round(longest, 1),
    }


if __name__ == "__main__":
    print(json.dumps(listen(Path(sys.argv[1]), Path(sys.argv[2]))))  # noqa: T201 - what the test reads
