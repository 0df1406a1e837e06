"""docs/coverage-of-requirements.md: every line of the documents is there once, and what it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "coverage-of-requirements.md"
# How many lines each document has.
LINES = {"S1": 50, "S2": 33, "S4": 54}

_ROW = re.compile(r"^\| (S\d-\d\d) \| (.+) \| (.*) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_SCRIPT = re.compile(r"`(tests/[\w/]+)`")
_LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)(?:#[^)]*)?\)")
ROWS: list[tuple[str, str, str]] = _ROW.findall(PAGE.read_text(encoding="utf-8"))


@cache
def named_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")}


def test_every_line_of_the_documents_is_there_once() -> None:
    expected = [f"{name}-{number:02d}" for name, count in LINES.items() for number in range(1, count + 1)]
    assert [row[0] for row in ROWS] == expected


def test_no_row_of_the_page_has_another_form() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| S")]
    assert len(rows) == len(ROWS)


@pytest.mark.parametrize(("line", "shown"), [(row[0], row[2]) for row in ROWS])
def test_what_shows_a_line_exists(line: str, shown: str) -> None:
    tests, scripts, pages = _TEST.findall(shown), _SCRIPT.findall(shown), _LINK.findall(shown)
    assert tests or scripts or pages, line
    missing = [f"{file}::{name}" for file, name in tests if not (ROOT / file).exists() or name not in named_in(file)]
    missing += [script for script in scripts if not (ROOT / script).exists()]
    missing += [page for page in pages if not (PAGE.parent / page).exists()]
    assert missing == []


@pytest.mark.parametrize("line", [row[0] for row in ROWS])
def test_nothing_but_tests_scripts_and_pages_shows_a_line(line: str) -> None:
    shown = next(row[2] for row in ROWS if row[0] == line)
    for pattern in (_TEST, _SCRIPT, _LINK):
        shown = pattern.sub("", shown)
    assert shown.strip() == ""
