"""The sheet that every page has: text that can be read on every ground, and little to load."""

import gzip
import re
from itertools import product
from typing import Final

import pytest

from routstr.web.pages.kit import STATIC

SHEET: Final = (STATIC / "app.css").read_text()
ASSETS_GZIP_BYTES_MAX: Final = 150_000
TEXT: Final = 4.5  # WCAG 2.2, 1.4.3
SHAPE: Final = 3.0  # 1.4.11: lines of charts, borders of inputs, the ring of the focus

GROUNDS: Final = ("page", "surface", "sunken")
TEXTS: Final = ("text", "text-soft", "muted", "accent-text", "red", "green", "blue")
TINTS: Final = {
    "accent-tint": ("accent-text", "text", "text-soft"),
    "red-tint": ("red", "text", "text-soft"),
    "green-tint": ("green", "text", "text-soft"),
    "blue-tint": ("blue", "text", "text-soft"),
    "accent-fill": ("on-accent",),
    "accent-fill-hover": ("on-accent",),
    "red-fill": ("on-red",),
    "text": ("page",),
}
PAIRS: Final = [
    *product(GROUNDS, TEXTS),
    *((ground, text) for ground, texts in TINTS.items() for text in texts),
]


def tokens(sheet: str) -> dict[str, tuple[str, str]]:
    """Each colour of the sheet by name: on light, on dark."""
    found = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", sheet)
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_reckoned_as_everybody_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(("ground", "text"), PAIRS)
def test_text_can_be_read_in_both_themes(ground: str, text: str) -> None:
    colours = tokens(SHEET)
    for theme, on, above in zip(("light", "dark"), colours[ground], colours[text], strict=True):
        assert contrast(on, above) >= TEXT, theme


@pytest.mark.parametrize(("ground", "shape"), list(product(GROUNDS, ("accent", "grey-8", "green"))))
def test_a_shape_can_be_seen_in_both_themes(ground: str, shape: str) -> None:
    for on, above in zip(tokens(SHEET)[ground], tokens(SHEET)[shape], strict=True):
        assert contrast(on, above) >= SHAPE


def test_the_sheet_uses_no_token_it_has_not() -> None:
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", SHEET)) <= set(
        re.findall(r"^\s*--([a-z0-9-]+):", SHEET, re.MULTILINE)
    )


def test_colours_are_tokens() -> None:
    rules = SHEET[SHEET.index("/* ── elements") :]
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", rules)) <= {"#ffffff"}  # the ground of a QR code


def test_a_page_loads_little() -> None:
    files = [path for path in STATIC.iterdir() if path.suffix in {".css", ".js", ".svg"}]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < ASSETS_GZIP_BYTES_MAX


def test_a_script_fits_a_head() -> None:
    for path in STATIC.glob("*.js"):
        assert path.name.endswith(".min.js") or len(path.read_text().splitlines()) <= 400
