"""Runs inside the API container: uploads /tmp/note.wav, waits for its transcript and reads it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

API = "http://127.0.0.1:8000/api/recordings"
SAID = "not an ill disposed young man"


def ask(path: str = "", content: bytes | None = None) -> Any:
    headers = {"Authorization": f"Bearer {os.environ['BEATLINE_SERVICE_KEY']}", "Content-Type": "audio/wav"}
    with urlopen(Request(f"{API}{path}", data=content, headers=headers), timeout=30) as answer:
        return json.load(answer)


def main() -> None:
    made = ask("?filename=note.wav&language=en", Path("/tmp/note.wav").read_bytes())
    end = time.monotonic() + 240
    while (found := ask(f"/{made['id']}"))["state"] not in {"ready", "failed", "cancelled"} and time.monotonic() < end:
        time.sleep(1)
    said = " ".join(segment["text"] for segment in ask(f"/{made['id']}/segments")) if found["state"] == "ready" else ""
    sys.stdout.write(f"{found['state']} {found['error']} {said}\n")
    words = set(said.lower().replace("-", " ").replace(",", " ").replace(".", " ").split())
    sys.exit(len(words & set(SAID.split())) < 4)


main()
