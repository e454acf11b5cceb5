"""Every template: nothing inline that the browser's policy would refuse, whatever it shows."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from routstr.web.pages.kit import HERE

TEMPLATES = sorted((HERE / "templates").rglob("*.html"))


def inline(text: str) -> Iterator[str]:
    """What the Content-Security-Policy forbids: scripts, styles and handlers inside the page."""
    markup = re.sub(r"{#.*?#}", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(markup.splitlines(), start=1):
        scripts = re.findall(r"<script\b[^>]*>", line, re.IGNORECASE)
        allowed = re.compile(r'type="application/json"|\bsrc="{{ (?:static|module)\(')
        if any(not allowed.search(each) for each in scripts):
            yield f"{number}: a script of its own"
        if re.search(r"<style\b|[\s\"']style\s*=", line, re.IGNORECASE):
            yield f"{number}: a style of its own"
        if re.search(r"[\s\"']on[a-z]+\s*=|hx-on|javascript:", line, re.IGNORECASE):
            yield f"{number}: a handler of its own"
        if re.search(r"(?:src|href|action)=[\"']?(?:https?:)?//", line, re.IGNORECASE):
            yield f"{number}: another site"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(HERE)))
def test_a_template_has_nothing_inline(path: Path) -> None:
    assert list(inline(path.read_text())) == []


@pytest.mark.parametrize(
    "bad",
    [
        "<script>alert(1)</script>",
        "<script\nsrc='x.js'></script>".replace("\n", " "),
        '<p style="color: red">',
        "<style>p {}</style>",
        '<a href="/x" onclick="go()">',
        '<a href="javascript:go()">',
        '<div hx-on:click="go()">',
        '<img src="https://example.com/a.png">',
    ],
)
def test_what_is_inline_is_found(bad: str) -> None:
    assert list(inline(bad))


def test_what_a_page_may_have_is_left_alone() -> None:
    good = """<script src="{{ static('app.js') }}" defer></script>
{# <style> in a comment #}<script type="application/json">{}</script>
<p class="style" data-once>on = off</p>"""
    assert list(inline(good.replace("on = off", "off"))) == []
