"""multipart/form-data as a stream: its fields, and the one file among them, of which no more than a chunk is held."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from backend.core.errors import Invalid

# Of fields and of headers, in bytes: a form is small, only its file is not.
_MOST_FIELDS, _LONGEST_FIELD, _LONGEST_HEADER = 40, 20_000, 8_000
FILE = "file"


@dataclass
class _Part:
    name: str = ""
    filename: str | None = None
    value: bytearray = field(default_factory=bytearray)


class Form:
    """A form that is read once: `async for` gives the file's bytes, `fields` fills on the way.

    Fields before the file are there with its first byte (`begin`), those behind it at the end. Invalid (422) for a broken form, one
    without a file or with two.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Invalid("Content-Type: send multipart/form-data with a boundary", code="bad_form")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self._chunks = chunks
        self._ready: list[bytes] = []
        self._files = 0
        self._ended = False
        self._part = _Part()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[str, str] = {}
        self._parser = self._made(boundary)

    def _made(self, boundary: bytes) -> MultipartParser:
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as fault:
            raise Invalid("Content-Type: the boundary of a form has 256 bytes at most", code="bad_form") from fault

    async def begin(self) -> None:
        """Read up to the file: `filename` and the fields before it are known then."""
        while not self._files:
            if not await self._more():
                raise Invalid(f"the form holds no file: name it `{FILE}`", code="bad_form")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await self.begin()
        going = True
        while going:
            ready, self._ready = b"".join(self._ready), []
            if ready:
                yield ready
            going = await self._more()
        if not self._ended:
            raise Invalid("the form ends before its last boundary", code="bad_form")

    async def _more(self) -> bool:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            return bool(self._ready)
        try:
            self._parser.write(chunk)
        except FormParserError as fault:
            raise Invalid(f"the form cannot be read: {fault}", code="bad_form") from fault
        return True

    def _on_part_begin(self) -> None:
        self._part, self._headers = _Part(), {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._extend(self._header[0], data[start:end], _LONGEST_HEADER)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._extend(self._header[1], data[start:end], _LONGEST_HEADER)

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[name.decode("latin-1").lower()] = value.decode("utf-8", errors="replace")
        name.clear()
        value.clear()

    def _on_headers_finished(self) -> None:
        # RFC 7578 wants names as browsers write them, in UTF-8; some programs write filename* all the same.
        message = Message()
        message["Content-Disposition"] = self._headers.get("content-disposition", "")
        try:
            self._part.name = str(message.get_param("name", "", "Content-Disposition"))
            self._part.filename = message.get_filename()
        except (ValueError, LookupError, TypeError) as fault:
            # RFC 2231 lets a name bring its character set, and come in numbered pieces.
            raise Invalid("a part's Content-Disposition cannot be read", code="bad_form") from fault
        if self._part.name == FILE and self._part.filename is not None:
            self._files += 1
            self.filename = self._part.filename
            if self._files > 1:
                raise Invalid("one file a request: the form holds two", code="bad_form")
        elif len(self.fields) >= _MOST_FIELDS:
            raise Invalid(f"the form holds more than {_MOST_FIELDS} fields", code="bad_form")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file():
            self._ready.append(data[start:end])
        else:
            self._extend(self._part.value, data[start:end], _LONGEST_FIELD)

    def _on_part_end(self) -> None:
        if not self._is_file():
            self.fields[self._part.name] = self._part.value.decode("utf-8", errors="replace")

    def _on_end(self) -> None:
        self._ended = True

    def _is_file(self) -> bool:
        return self._part.name == FILE and self._part.filename is not None

    @staticmethod
    def _extend(held: bytearray, more: bytes, most: int) -> None:
        if len(held) + len(more) > most:
            raise Invalid(f"a field of the form is longer than {most} bytes", code="bad_form")
        held += more
