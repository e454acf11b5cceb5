from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.form import FormFile, form_bytes, form_type, parse_form
from routstr.errors import InvalidParameter, RoutstrError, UnsupportedParameter
from tests.core.forms import BOUNDARY, FORM_TYPE, form

TEXTS, FILES = ("model", "prompt", "include[]"), ("file", "image[]")


def parsed(body: bytes, content_type: str = FORM_TYPE) -> dict[str, object]:
    return parse_form(body, content_type=content_type, texts=TEXTS, files=FILES)


def part(head: str, data: bytes = b"m") -> bytes:
    start, end = f"--{BOUNDARY}\r\n{head}\r\n\r\n", f"\r\n--{BOUNDARY}--\r\n"
    return start.encode() + data + end.encode()


def test_texts_files_and_lists() -> None:
    body = form(
        ("model", "m"), ("prompt", "grüß\r\ndich"), ("file", b"\0\r\n--\xff"), ("image[]", b"1"),
        ("image[]", b"2"), ("include[]", "logprobs"),
    )  # fmt: skip
    kind = "application/x-any"
    assert parsed(body) == {
        "model": "m",
        "prompt": "grüß\r\ndich",
        "file": FormFile(name="file.bin", type=kind, data=b"\0\r\n--\xff"),
        "image[]": [
            FormFile(name="image.bin", type=kind, data=b"1"),
            FormFile(name="image.bin", type=kind, data=b"2"),
        ],
        "include[]": ["logprobs"],
    }


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    data=st.binary() | st.just(b"\r\n--routstr-"),
)
def test_what_is_sent_is_what_was_judged(text: str, data: bytes) -> None:
    body = form(("model", text), ("file", data), ("image[]", data))
    given_form = parsed(body)
    content_type = form_type(body)
    assert parsed(form_bytes(given_form, content_type), content_type) == given_form


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("speech.mp3", "speech.mp3"),
        ("../../etc/passwd", "passwd"),
        ("a b\u20ac;c.wav", "a_b_c.wav"),
        ("....", "file"),
        ("", "file"),
        ("x" * 300 + ".flac", "x" * 95 + ".flac"),
        ('a\\".mp3', "a_.mp3"),
    ],
)
def test_file_names_are_made_safe(said: str, name: str) -> None:
    head = f'Content-Disposition: form-data; name="file"; filename="{said}"'
    file = parsed(part(head))["file"]
    assert isinstance(file, FormFile)
    assert (file.name, file.type) == (name, "application/octet-stream")


def test_a_type_that_could_break_a_header_is_any_type() -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: a/b\rX: y'
    try:
        file = parsed(part(head))["file"]
    except InvalidParameter:
        return
    assert isinstance(file, FormFile)
    assert file.type == "application/octet-stream"


NAMED = 'Content-Disposition: form-data; name="model"'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        form(("model", "m"))[:-4],  # no last boundary
        form(("model", "m"), ("model", "n")),
        form(("file", b"1"), ("file", b"2")),
        form(("file", "text")),
        form(("model", b"file")),
        part(NAMED, b"\xff"),
        part("Content-Disposition: form-data"),
        part("Content-Disposition: attachment; name=model"),
        part("Content-Disposition: form-data; name=model"),
        part(f'{NAMED}; name="prompt"'),
        part(f"{NAMED}; what"),
        part(f"{NAMED}\r\n{NAMED}"),
        part(f"{NAMED}\r\nContent-Transfer-Encoding: base64"),
        part(f"{NAMED}\r\nX-Any: {'x' * 2_000}"),
        form(*[("include[]", "x")] * 65),
        form(("model", "m")) + form(("model", "other")),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidParameter):
        parsed(body)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={BOUNDARY}; boundary=x",
        f"multipart/form-data; boundary=x; Boundary ={BOUNDARY}",
        f"multipart/form-data; boundary={'x' * 71}",
        'multipart/form-data; boundary="a\r\nb"',
    ],
)
def test_the_boundary_is_one(content_type: str) -> None:
    with pytest.raises(InvalidParameter, match="boundary"):
        parsed(form(("model", "m")), content_type)


def test_names_that_nobody_reads_are_refused() -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        parsed(form(("model", "m"), ("api base", "x")))
    assert refusal.value.param == "api_base"


@given(st.binary())
def test_nothing_but_our_errors_comes_out(body: bytes) -> None:
    whole = part(NAMED, body)
    for tried in (body, whole, whole[: -len(body) or None], whole[:20] + body):
        with suppress(RoutstrError):
            parsed(tried)
