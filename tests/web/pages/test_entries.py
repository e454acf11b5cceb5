"""What people type: read as they mean it, or refused at its field."""

from datetime import UTC, datetime

import pytest

from routstr.errors import InvalidParameter
from routstr.web.pages.entries import Form
from routstr.web.pages.words import bare_sats, dollars, host


def typed(text: str) -> Form:
    return Form(values={"it": text})


@pytest.mark.parametrize(
    ("text", "msat"),
    [("21", 21_000), ("0.5", 500), ("1 234,001", 1_234_001), (".25", 250), ("", None)],
)
def test_an_amount_in_sats_is_exact(text: str, msat: int | None) -> None:
    assert typed(text).msat("it") == msat
    if msat is not None:
        assert typed(bare_sats(msat)).msat("it") == msat


@pytest.mark.parametrize("text", ["-1", "1.0001", "1e3", "²", "1.2.3", ".", "x", "9" * 16])
def test_what_is_no_amount_is_refused_at_its_field(text: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        typed(text).msat("it")
    assert refused.value.param == "it"


@pytest.mark.parametrize("text", ["-1", "1.5", "²", "9" * 20, "many"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        typed(text).whole("it")


def test_other_entries_are_read_as_they_are_meant() -> None:
    assert typed("1 000").whole("it") == 1_000
    assert str(typed("2,5 %").percent("it")) == "2.5"
    assert typed("a, b\n a").words("it") == ("a", "b")
    assert typed("2030-12-31T10:00").moment("it") == datetime(2030, 12, 31, 10, tzinfo=UTC)
    for wrong in ("soon", "2030-13-01"):
        with pytest.raises(InvalidParameter):
            typed(wrong).moment("it")
    with pytest.raises(InvalidParameter):
        typed("some").percent("it")


def test_secrets_are_never_told_again() -> None:
    form = Form(values={"totp": "123456", "csrf": "c", "key": "sk", "token": "t", "name": "n"})
    assert form.told == {"name": "n"}
    assert "123456" not in repr(form)


def test_prices_and_urls_are_written_for_people() -> None:
    assert dollars("97250.5") == "97\u2009250.5"
    assert host("https://mint.example.com/path/") == "mint.example.com/path"
