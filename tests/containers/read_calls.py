"""Runs inside the API container: prints the count of calls by status, and of completed ones with a transcript."""

import json
import os
import sys
from collections import Counter
from typing import Any
from urllib.request import Request, urlopen

API = "http://127.0.0.1:8000/api"


def get(path: str) -> dict[str, Any]:
    request = Request(f"{API}{path}", headers={"Authorization": f"Bearer {os.environ['BEATLINE_SERVICE_KEY']}"})
    with urlopen(request, timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
    return body


def main() -> None:
    calls = get("/calls?limit=200")["items"]
    counts = Counter(call["status"] for call in calls)
    transcripts = [get(f"/calls/{call['id']}")["transcript"] for call in calls if call["status"] == "completed"]
    counts["transcripts"] = sum(1 for transcript in transcripts if transcript and transcript["segments"])
    sys.stdout.write(" ".join(f"{name}={count}" for name, count in sorted(counts.items())) + "\n")


main()
