"""A text as a QR code, drawn as SVG inside the page: nothing of it leaves the browser."""

from typing import Final

import segno
from markupsafe import Markup

QUIET_MODULES: Final = 2


def qr(text: str) -> Markup:
    """The drawing, dark on nothing; `.qr` of app.css gives it its white ground. Raises
    segno.DataOverflowError for a text beyond 2 900 bytes."""
    code = segno.make(text, micro=False, error="l", boost_error=False)
    drawn = code.svg_inline(
        border=QUIET_MODULES, omitsize=True, svgclass=None, lineclass=None, dark="#000"
    )
    return Markup(drawn)  # noqa: S704 - made of modules alone, no text of anybody is in it
