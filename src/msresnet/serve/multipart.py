"""The fields of a form that came as multipart/form-data, in memory; nothing is written to a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from msresnet.serve.failures import MALFORMED, Refusal

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM = "multipart/form-data"
MOST_PARTS, MOST_HEADER = 16, 8 << 10
"""Parts of a form, and bytes of the headers of one, or of the blanks behind its boundary."""


def fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """The content of each field by its name. Raises Refusal 400 for what is not a form, or has too many parts."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refusal(MALFORMED, "the form has no boundary", hint="let your client write the Content-Type of a form")
    _check_boundaries(body, boundary)
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Refusal(MALFORMED, "the form cannot be read") from error
    if not form.ended:
        raise Refusal(MALFORMED, "the form has no end")
    return {name: bytes(data) for name, data in form.found.items()}


def _check_boundaries(body: bytes, boundary: bytes) -> None:
    """Refuse what the parser would go through byte by byte, while nobody else is answered."""
    behind = body.split(b"\r\n--" + boundary, MOST_PARTS + 2)[1:]
    if len(behind) > MOST_PARTS + 1:  # the last one is the end
        raise _too_many_parts()
    if any(len(piece) > MOST_HEADER and not piece[:MOST_HEADER].strip(b" \t") for piece in behind):
        raise Refusal(MALFORMED, "a boundary of the form has too many blanks behind it")


def _too_many_parts() -> Refusal:
    return Refusal(MALFORMED, "the form has too many parts", why=f"more than {MOST_PARTS}")


class _Form:
    """What the parser calls."""

    def __init__(self) -> None:
        self.found: dict[str, bytearray] = {}
        self.parts, self.ended = 0, False
        self._name, self._value, self._header = bytearray(), bytearray(), 0
        self._field: str | None = None

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_name,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_end,
            "on_part_data": self.data,
            "on_end": self.end,
        }

    def begin(self) -> None:
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise _too_many_parts()
        self._field, self._header = None, 0
        self._name, self._value = bytearray(), bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def header_end(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"name")
            self._field = None if name is None else name.decode("utf-8", "replace")
        self._name, self._value = bytearray(), bytearray()

    def headers_end(self) -> None:
        if self._field is None:
            raise Refusal(
                MALFORMED, "a part of the form has no name", hint='Content-Disposition: form-data; name="image"'
            )
        if self._field in self.found:
            raise Refusal(MALFORMED, "a field of the form is there twice")
        self.found[self._field] = bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        assert self._field is not None
        self.found[self._field] += data[start:end]

    def end(self) -> None:
        self.ended = True

    def _count(self, size: int) -> None:
        self._header += size
        if self._header > MOST_HEADER:
            raise Refusal(MALFORMED, "a part of the form has too long headers")
