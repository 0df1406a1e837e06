"""Texts from templates: the files of `templates/`, in a sandbox, with every variable given.

A template is NAME.subject.txt, NAME.txt and, where it has one, NAME.html, whose values are escaped.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, meta
from jinja2.exceptions import SecurityError, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from backend.core.errors import Invalid, NotFound
from backend.core.redaction import storable

FOLDER = Path(__file__).parent / "templates"
LONGEST_SUBJECT = 200
LONGEST_TEXT = 100_000
_LONGEST_VALUE = 60_000

# What each is for. Those that the product fills by itself are not for people to send.
_TEMPLATES = {
    "message": "A message in a person's own words, below a subject.",
    "announcement": "An announcement with a title, and a link where one is given.",
    "recording_ended": "That a recording is transcribed, or cannot be.",
    "job_alert": "An incident of a schedule, or its end.",
    "digest": "What came together since the last digest.",
}
OWN = frozenset({"job_alert", "digest", "recording_ended"})


@dataclass(frozen=True, slots=True)
class Content:
    """A rendered template. The subject is one line."""

    subject: str
    text: str
    html: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """`variables` are the names it asks for; those of `optional` may be left out."""

    name: str
    description: str
    variables: tuple[str, ...]
    has_html: bool


def _escapes(name: str | None) -> bool:
    return name is not None and name.endswith(".html")


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(FOLDER),
        autoescape=_escapes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


_JINJA = _environment()


def every_template() -> list[Template]:
    return [_template(name) for name in sorted(_TEMPLATES)]


@functools.cache
def _template(name: str) -> Template:
    asked: set[str] = set()
    for part in ("subject.txt", "txt", "html"):
        path = FOLDER / f"{name}.{part}"
        if path.exists():
            asked |= meta.find_undeclared_variables(_JINJA.parse(path.read_text(encoding="utf-8")))
    return Template(name, _TEMPLATES[name], tuple(sorted(asked)), (FOLDER / f"{name}.html").exists())


def render(name: str, context: Mapping[str, Any]) -> Content:
    """NotFound (404, `unknown_template`); Invalid (422) for a variable that is missing, unknown or of the wrong kind, a subject of
    more than one line, a text that is too long."""
    if name not in _TEMPLATES:
        raise NotFound(f"no template {name!r}; there are {', '.join(sorted(_TEMPLATES))}", code="unknown_template")
    try:
        _check_context(name, context)
        subject = _JINJA.get_template(f"{name}.subject.txt").render(context)
        text = _JINJA.get_template(f"{name}.txt").render(context)
        html = _JINJA.get_template(f"{name}.html").render(context) if _template(name).has_html else None
    except UndefinedError as fault:
        raise Invalid(f"template {name}: {fault.message}", code="template") from fault
    except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError, LookupError) as fault:
        raise Invalid(f"template {name}: {type(fault).__name__}: {fault}", code="template") from fault
    return Content(one_line(subject), _bounded(text), None if html is None else _bounded(html))


def one_line(subject: str) -> str:
    """The subject, checked: a line break in it would begin a header of its own. Invalid (422)."""
    if not subject.strip():
        raise Invalid("subject: must not be empty", code="subject")
    if len(subject) > LONGEST_SUBJECT:
        raise Invalid(f"subject: must have at most {LONGEST_SUBJECT} characters", code="subject")
    if not subject.isprintable():
        raise Invalid("subject: must be one line without control characters", code="subject")
    return subject


def _check_context(name: str, context: Mapping[str, Any]) -> None:
    unknown = sorted(set(context) - set(_template(name).variables))
    if unknown:
        known = ", ".join(_template(name).variables)
        raise Invalid(f"template {name}: it has no {', '.join(unknown)}; it has {known}", code="template")
    for key, value in context.items():
        if len(str(value)) > _LONGEST_VALUE:
            raise Invalid(f"template {name}: {key} must have at most {_LONGEST_VALUE} characters", code="template")


def _bounded(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise Invalid(f"text: must have at most {LONGEST_TEXT} characters", code="text")
    if text != storable(text):
        raise Invalid("text: must not hold U+0000 or half of a surrogate pair", code="text")
    return text
