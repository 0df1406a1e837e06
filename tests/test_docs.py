"""The pages against the code: variables and links."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from backend.config import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATION = ROOT / "docs" / "operations" / "configuration.md"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


class Recording(Mapping[str, str]):
    """An empty environment that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def read_by_the_product() -> set[str]:
    environment = Recording()
    load(environment)
    return environment.asked


def read_by_the_simulator() -> set[str]:
    code = (ROOT / "backend" / "simulator" / "config.py").read_text(encoding="utf-8")
    return set(re.findall(r'"((?:SIM|LIVEKIT|EGRESS|BEATLINE)_[A-Z_]+)"', code))


def read_by_compose() -> set[str]:
    return set(re.findall(r"\$\{([A-Z][A-Z0-9_]+)", (ROOT / "compose.yaml").read_text(encoding="utf-8")))


def known() -> set[str]:
    return read_by_the_product() | read_by_the_simulator() | read_by_compose()


def in_tables() -> set[str]:
    return set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    found = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(f"{page.relative_to(ROOT)}: {link}")
    return found


def test_every_variable_that_is_read_is_documented() -> None:
    assert known() - in_tables() == set()


def test_every_documented_variable_is_read() -> None:
    assert in_tables() - known() == set()


def test_the_readers_find_variables_of_product_and_simulator() -> None:
    assert {"SIM_SPEED", "SIM_ALLOW_NETWORK"} <= read_by_the_simulator()
    assert {"DATABASE_URL", "CELERY_RABBITMQ_VHOST", "LOG_LEVEL"} <= read_by_the_product()


def test_the_example_environment_names_known_variables_only() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    named = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))
    assert named
    assert named - known() == set()


def test_every_relative_link_resolves() -> None:
    assert [link for page in PAGES for link in broken(page)] == []
