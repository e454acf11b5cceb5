"""One-time codes: the vectors of RFC 6238, and when a code counts."""

import pytest

from routstr.core.totp import (
    code_at,
    enrolment_uri,
    matching_step,
    secret_text,
    step_at,
)

SECRET = b"12345678901234567890"
# RFC 6238, appendix B, the rows of SHA-1.
VECTORS = [
    (59, "94287082"),
    (1_111_111_109, "07081804"),
    (1_111_111_111, "14050471"),
    (1_234_567_890, "89005924"),
    (2_000_000_000, "69279037"),
    (20_000_000_000, "65353130"),
]


@pytest.mark.parametrize(("unix_s", "code"), VECTORS)
def test_vectors(unix_s: int, code: str) -> None:
    assert code_at(SECRET, step_at(unix_s), digits=8) == code
    assert code_at(SECRET, step_at(unix_s)) == code[-6:]
    assert matching_step(SECRET, code[-6:], unix_s=unix_s, after=None) == step_at(unix_s)


def test_the_window_is_one_step_either_way() -> None:
    now_s = 1_234_567_890
    step = step_at(now_s)
    found = [
        matching_step(SECRET, code_at(SECRET, step + off), unix_s=now_s, after=None)
        for off in (-2, -1, 0, 1, 2)
    ]
    assert found == [None, step - 1, step, step + 1, None]


def test_a_step_that_was_taken_or_passed_counts_no_more() -> None:
    step = step_at(59)
    code = code_at(SECRET, step)
    assert matching_step(SECRET, code, unix_s=59, after=step - 1) == step
    assert matching_step(SECRET, code, unix_s=59, after=step) is None
    assert matching_step(SECRET, code, unix_s=59, after=step + 1) is None


FULL_WIDTH = "".join(chr(ord(digit) + 0xFEE0) for digit in "287082")


@pytest.mark.parametrize("code", ["", "28708", "2870820", FULL_WIDTH, "é", "28708 2"])
def test_what_is_no_code_is_wrong(code: str) -> None:
    assert matching_step(SECRET, code, unix_s=59, after=None) is None


def test_the_uri_that_apps_scan() -> None:
    assert secret_text(b"\xff" * 20) == "7" * 32
    uri = enrolment_uri(b"\xff" * 20, issuer="My node: ö?", account="admin")
    assert uri == (
        f"otpauth://totp/My%20node%3A%20%C3%B6%3F:admin?secret={'7' * 32}"
        "&issuer=My%20node%3A%20%C3%B6%3F&algorithm=SHA1&digits=6&period=30"
    )
