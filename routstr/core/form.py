"""`multipart/form-data` that every parser reads the same (RFC 7578), or none at all.

Law: what is forwarded is our serialisation of what was judged: our boundary, the names that we
know, each once, and file names that mean nothing to a shell, a path or a header.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from routstr.errors import InvalidParameter, UnsupportedParameter

PARTS_MAX: Final = 64
PART_HEADERS_MAX: Final = 4
PART_HEADER_BYTES_MAX: Final = 1_024
FILE_NAME_CHARS_MAX: Final = 100
ANY_TYPE: Final = "application/octet-stream"

_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}")  # RFC 2046 5.1.1, without blanks
_BOUNDARIES: Final = re.compile(r";[ \t]*boundary[ \t]*=", re.IGNORECASE)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}")
_PART_HEADERS: Final = frozenset({"content-disposition", "content-type", "content-length"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFile:
    """A file in a form; name and type are safe to write into a header."""

    name: str
    type: str
    data: bytes = field(repr=False)


Part = str | FormFile


def parse_form(
    body: bytes, *, content_type: str, texts: Iterable[str], files: Iterable[str]
) -> dict[str, object]:
    """The parts by name: text or a FormFile, or a list of them where the name ends in `[]`.

    Raises InvalidParameter for what is no form of UTF-8 text and files, for a name that is given
    twice, and for a file where text belongs or the other way round; UnsupportedParameter for a
    name that is in neither `texts` nor `files`.
    """
    known = {**dict.fromkeys(texts, False), **dict.fromkeys(files, True)}
    found: dict[str, object] = {}
    for name, part in _parts(body, _boundary_in(content_type)):
        is_file = known.get(name)
        if is_file is None:
            shown = _UNSAFE.sub("_", name)[:FILE_NAME_CHARS_MAX]
            raise UnsupportedParameter(f"{shown} is not supported here.", param=shown)
        if isinstance(part, FormFile) is not is_file:
            raise InvalidParameter(f"{name} must be {'a file' if is_file else 'text'}.", param=name)
        if name.endswith("[]"):
            many = found.setdefault(name, [])
            assert isinstance(many, list)
            many.append(part)
        elif name in found:
            raise InvalidParameter(f"{name} is given twice.", param=name)
        else:
            found[name] = part
    return found


def form_type(body: bytes) -> str:
    """The content type to forward a form under; its boundary cannot occur in `body`.

    It is taken from the hash of the body, which nobody can write into that body.
    """
    return f"multipart/form-data; boundary=routstr-{sha256(body).hexdigest()[:40]}"


def form_bytes(form: Mapping[str, object], content_type: str) -> bytes:
    """`form` as it is sent under `content_type`, which is from `form_type`."""
    boundary = content_type.rpartition("boundary=")[2].encode()
    pieces: list[bytes] = []
    for name, given in form.items():
        for part in given if isinstance(given, list) else [given]:
            pieces += [b"--", boundary, b"\r\n", _head(name, part), b"\r\n\r\n", _data(part)]
            pieces.append(b"\r\n")
    return b"".join([*pieces, b"--", boundary, b"--\r\n"])


def _head(name: str, part: object) -> bytes:
    said = f'Content-Disposition: form-data; name="{name}"'
    if isinstance(part, FormFile):
        said += f'; filename="{part.name}"\r\nContent-Type: {part.type}'
    return said.encode()


def _data(part: object) -> bytes:
    return part.data if isinstance(part, FormFile) else str(part).encode()


# ── reading ───────────────────────────────────────────────────────────────────────────────────


class _Broken(InvalidParameter):
    """The request body is not valid multipart/form-data."""


def _boundary_in(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if len(_BOUNDARIES.findall(content_type)) != 1 or not _BOUNDARY.fullmatch(boundary):
        raise _Broken("The multipart boundary is missing or malformed.")
    return boundary


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[str, Part]]:
    reader = _Reader(body)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reader.begin,
            "on_part_data": reader.data,
            "on_part_end": reader.end_part,
            "on_header_field": reader.header_name,
            "on_header_value": reader.header_value,
            "on_header_end": reader.header_end,
            "on_end": reader.end,
        },
        max_header_count=PART_HEADERS_MAX,
        max_header_size=PART_HEADER_BYTES_MAX,
    )
    try:
        parser.write(body)
    except FormParserError as error:
        raise _Broken from error
    last = b"\r\n--" + boundary + b"--"
    behind = body.find(last) + len(last)
    if not reader.parts or not reader.is_whole or body[behind:] not in (b"", b"\r\n"):
        raise _Broken
    for headers, data in reader.parts:
        yield _part(headers, data)


class _Reader:
    """Gathers the parts that the parser finds, within `PARTS_MAX`."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.parts: list[tuple[dict[str, str], bytes]] = []
        self.is_whole = False
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._data: list[bytes] = []

    def begin(self) -> None:
        if len(self.parts) == PARTS_MAX:
            raise _Broken(f"A form has at most {PARTS_MAX} parts.")
        self._headers, self._data = {}, []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        name = self._name.decode("latin-1").lower()
        if name in self._headers or name not in _PART_HEADERS:
            raise _Broken("A part has a header that is given twice, or not known here.")
        try:
            self._headers[name] = self._value.decode()
        except UnicodeDecodeError as error:
            raise _Broken from error
        self._name.clear()
        self._value.clear()

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def end_part(self) -> None:
        self.parts.append((self._headers, b"".join(self._data)))

    def end(self) -> None:
        self.is_whole = True


_PARAMETER: Final = re.compile(r';[ \t]*([A-Za-z*]+)="((?:[^"\\\r\n]|\\["\\])*)"[ \t]*')


def _part(headers: Mapping[str, str], data: bytes) -> tuple[str, Part]:
    given = _disposition(headers.get("content-disposition", ""))
    name, file_name = given.get("name", ""), given.get("filename")
    if not name:
        raise _Broken("A part has no name.")
    if file_name is not None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        return name, FormFile(
            name=_safe_name(file_name), type=kind if _TYPE.fullmatch(kind) else ANY_TYPE, data=data
        )
    try:
        return name, data.decode()
    except UnicodeDecodeError as error:
        raise _Broken("A part is no UTF-8 text.") from error


def _disposition(header: str) -> dict[str, str]:
    """The parameters of `form-data; name="…"`, each once; `filename*` is a second name: ignored."""
    kind, _, rest = header.partition(";")
    if kind.strip().lower() != "form-data":
        raise _Broken("A part is no form-data.")
    rest = f";{rest}"
    pairs = _PARAMETER.findall(rest)
    names = [name.lower() for name, _ in pairs]
    left = _PARAMETER.sub("", rest).strip()
    if (left and not _EXTENDED.fullmatch(left)) or len(set(names)) != len(names):
        raise _Broken("A part's Content-Disposition is malformed.")
    return {name.lower(): re.sub(r"\\(.)", r"\1", value) for name, value in pairs}


_EXTENDED: Final = re.compile(r";[ \t]*filename\*=[!-:<-~]*")


def _safe_name(name: str) -> str:
    """The end of a file name, where its kind stands, without anything but letters and digits."""
    tail = re.split(r"[/\\]", name)[-1]
    return _UNSAFE.sub("_", tail)[-FILE_NAME_CHARS_MAX:].lstrip(".") or "file"
