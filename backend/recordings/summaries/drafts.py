"""What a text model writes, checked field by field: it has read what strangers said."""

import json
import re
import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.recordings.summaries.base import MAX_ITEM, MAX_ITEMS, MAX_SUMMARY, MAX_TITLE, shortened

# Addresses that nobody said are the model's invention, or somebody's who spoke to it.
_ADDRESS = re.compile(
    r"(?:https?://|www\.)[^\s<>\"']+|[\w.+-]+@[\w-]+\.[\w.-]+|\b(?:[a-z0-9-]+\.)+[a-z]{2,}(?:/\S*)?", re.IGNORECASE
)
_SCHEME = re.compile(r"^(?:https?://)?(?:www\.)?")
_SPELLED = re.compile(r"\s+(dot|at|slash)\s+")
_MARKUP = re.compile(r"<[^<>]{0,200}>|!?\[([^\]]{0,200})\]\([^)]{0,500}\)")
_LISTED = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "description": "At most ten words."},
        "summary": {"type": "string", "description": "Two to six sentences of plain text."},
        "action_items": {"type": "array", "items": {"type": "string"}, "description": "Who does what until when."},
    },
    "required": ["title", "summary", "action_items"],
    "additionalProperties": False,
}


class Unusable(Exception):
    """The model's answer is not a summary; the message says why, for people."""


class Draft(BaseModel):
    """As the model must write it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    title: Annotated[str, Field(min_length=1, max_length=1000)]
    summary: Annotated[str, Field(min_length=1, max_length=20_000)]
    action_items: Annotated[list[Annotated[str, Field(max_length=2000)]], Field(max_length=100)]


def read_draft(written: str, source: str) -> Draft:
    """Plain text within the limits of what is shown. Raises Unusable. `source` is all that the model has read of the transcript."""
    try:
        draft = Draft.model_validate_json(_object(written))
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise Unusable(f"the model's answer is not of the form asked for ({where}: {first['msg']})") from fault
    title, summary = _plain(draft.title, MAX_TITLE), _plain(draft.summary, MAX_SUMMARY)
    items = [_LISTED.sub("", _plain(item, MAX_ITEM)) for item in draft.action_items]
    if not title or not summary:
        raise Unusable("the model's answer has no title or no summary")
    if any(not _was_said(address, source) for text in (title, summary, *items) for address in _ADDRESS.findall(text)):
        raise Unusable("the model's answer names an address that nobody said")
    return Draft(
        title=title, summary=summary, action_items=list(dict.fromkeys(item for item in items if item))[:MAX_ITEMS]
    )


def _was_said(address: str, source: str) -> bool:
    """As it stands, or spelled out: "anna at example dot com"."""
    bare = _SCHEME.sub("", address.casefold().rstrip("./,;:!?"))
    spoken = _SPELLED.sub(lambda found: {"dot": ".", "at": "@", "slash": "/"}[found[1]], source.casefold())
    return bare in source.casefold() or bare in spoken


def _object(written: str) -> str:
    """The JSON object in it: small models think aloud before it and fence it in."""
    text = written.rpartition("</think>")[2]
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


def _plain(text: str, limit: int) -> str:
    """One line without markup, and without signs that are not seen or turn the line around."""
    bare = _MARKUP.sub(lambda found: found[1] or "", text)
    kept = (mark if unicodedata.category(mark)[0] != "C" or mark in "\u200c\u200d" else " " for mark in bare)
    return shortened(" ".join("".join(kept).split()), limit)


def as_json(draft: Draft) -> str:
    return json.dumps(draft.model_dump(), ensure_ascii=False)
