"""The API against its own OpenAPI document: schemathesis makes up requests, sensible and not, for every operation.

No answer is a 5xx, and each has a status, a media type, headers and a body that the document names.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.schema, pytest.mark.timeout(240)]

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
SERVICE_KEY = os.environ["BEATLINE_SERVICE_KEY"]
# Left out: no schema says everything that a service checks; pydantic reads numbers as instants, on purpose; and `/preview` and
# `/{id}` share their URLs.
NOT_CHECKED = "positive_data_acceptance,negative_data_rejection,unsupported_method,allow_header_conformance"
# What can end the session that the requests are made with.
ENDING = "^/api/(auth/(logout|refresh|password|sessions)|users/)"


# One worker: the parser of CPython 3.11, which Hypothesis uses, is not made for several threads.
def run(url: str, folder: Path, examples: int, *options: str) -> None:
    done = subprocess.run(
        [
            *(str(SCHEMATHESIS), "--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *(
                "run",
                f"{url}/openapi.json",
                "--max-examples",
                str(examples),
                "--phases",
                "examples,coverage,fuzzing,stateful",
            ),
            *("--checks", "all", "--exclude-checks", NOT_CHECKED, "--generation-allow-x00", "true"),
            *("--generation-database", "none", "--request-timeout", "20", "--workers", "1", "--no-shrink"),
            *("--warnings", "off", "--no-color", *options),
        ],
        capture_output=True,
        text=True,
        timeout=220,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    generated = re.search(r"([\d,]+) generated", done.stdout)
    assert generated
    assert int(generated[1].replace(",", "")) > 200


def test_nobody_gets_anything_but_refusals_that_the_document_names(url: str, tmp_path: Path) -> None:
    run(url, tmp_path, 3)


def test_with_the_service_key_every_answer_is_as_described(url: str, tmp_path: Path) -> None:
    run(url, tmp_path, 10, "--header", f"Authorization: Bearer {SERVICE_KEY}")


def test_with_an_administrators_token_every_answer_is_as_described(url: str, tokens: list[str], tmp_path: Path) -> None:
    bearer = f"Bearer {tokens[0]}"
    run(url, tmp_path, 20, "--header", f"Authorization: {bearer}", "--exclude-path-regex", ENDING)
    assert httpx.get(f"{url}/api/auth/me", headers={"Authorization": bearer}, verify=False).status_code == 200


def test_so_are_those_that_may_end_his_session(url: str, tokens: list[str], tmp_path: Path) -> None:
    run(url, tmp_path, 10, "--header", f"Authorization: Bearer {tokens[1]}", "--include-path-regex", ENDING)
