"""What somebody says about a file that they upload: its name, a title, how to transcribe it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from backend.core.errors import Invalid
from backend.recordings.options import TranscribeOptions
from backend.recordings.schemas import Title

# Control characters, and what separates folders anywhere.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST_NAME = 255


class UploadWish(TranscribeOptions):
    """`sha256` is what the whole file must have, hexadecimal."""

    filename: Annotated[str, Field(max_length=4096)] | None = None
    title: Title | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    filename: str | None
    title: str | None
    sha256: str | None
    options: TranscribeOptions


def wish(asked: UploadWish) -> Wish:
    given = asked.model_dump(exclude={"filename", "title", "sha256"}, exclude_unset=True)
    return Wish(
        filename=_name(asked.filename or ""),
        title=asked.title or None,
        sha256=asked.sha256.lower() if asked.sha256 else None,
        options=TranscribeOptions(**given),
    )


def read_wish(fields: Mapping[str, Any], *, only_known: bool = True) -> Wish:
    """From texts by name; an empty one counts as none. Invalid (422); without `only_known` other names are passed over."""
    given = {name: value for name, value in fields.items() if value not in {"", None}}
    if not only_known:
        given = {name: value for name, value in given.items() if name in UploadWish.model_fields}
    try:
        return wish(UploadWish.model_validate(given))
    except ValidationError as fault:
        errors = [{"field": ".".join(map(str, each["loc"])), "problem": each["msg"]} for each in fault.errors()]
        raise Invalid(
            "; ".join(f"{each['field'] or 'options'}: {each['problem']}" for each in errors), errors=errors
        ) from fault


def _name(given: str) -> str | None:
    """The file's own name, without folders; its end where it is too long, since that says what it is."""
    name = _UNFIT.sub("", re.split(r"[/\\]", given)[-1]).strip()
    return name[-_LONGEST_NAME:] or None
