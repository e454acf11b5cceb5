"""What every page is made with: templates that escape, headers that forbid, files that are cached.

Laws: nothing a template shows is markup unless the template says so itself; no page may run a
script or take a style that is not a file of ours (CSP); an address of a static file names its
content, so a browser keeps it for ever and never an old one.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from routstr.errors import NotFound
from routstr.web.pages.words import FILTERS

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
FOR_EVER: Final = "public, max-age=31536000, immutable"
HASH_CHARS: Final = 12
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# No inline script or style, no other site, no frame, no form that leaves.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none a browser hides the Origin of its forms as well
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), clipboard-write=(self), geolocation=(), microphone=()",
}

router = APIRouter(include_in_schema=False)


def page(
    template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> Response:
    """The rendered template as an answer that no cache keeps."""
    return Response(
        rendered(template, **values),
        status_code=status,
        media_type="text/html; charset=utf-8",
        headers={**HEADERS, "Cache-Control": "no-store", **(headers or {})},
    )


def rendered(template: str, **values: Any) -> str:
    """The template's text, with everything that is shown escaped."""
    return _environment().get_template(template).render(values)


def fragment(template: str, **values: Any) -> Markup:
    """A part of a page, rendered by itself: what many pages show alike need not be made anew."""
    return Markup(_environment().get_template(template).render(values))  # noqa: S704 - it escapes


def static_path(name: str) -> str:
    """The address of a static file, with the beginning of its content's hash."""
    return f"/static/{_hash_of(name)}/{name}"


def module_path(name: str) -> str:
    """The address of a script that imports others: it has the hash of all files together.

    A module names its neighbours without a hash (`./wallet-dom.js`), so all have to be found under
    the one that its own address has.
    """
    return f"/static/{_hash_of_all()}/{name}"


@router.get("/static/{digest}/{name}")
async def static_file(digest: str, name: str) -> Response:
    """A file of ours, for ever; a wrong hash is not found. Raises NotFound."""
    if name not in _names() or digest not in (_hash_of(name), _hash_of_all()):
        raise NotFound
    return Response(
        _content_of(name),
        media_type=KINDS[Path(name).suffix],
        headers={"Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"},
    )


def compile_templates() -> None:
    """Make every template ready to be shown; each is, anyway, the first time it is shown."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_path
    environment.globals["module"] = module_path
    environment.filters.update(FILTERS)
    return environment


@cache
def _names() -> frozenset[str]:
    return frozenset(path.name for path in STATIC.iterdir() if path.suffix in KINDS)


@cache
def _content_of(name: str) -> bytes:
    return (STATIC / name).read_bytes()


@cache
def _hash_of(name: str) -> str:
    return hashlib.sha256(_content_of(name)).hexdigest()[:HASH_CHARS]


@cache
def _hash_of_all() -> str:
    together = "".join(f"{name} {_hash_of(name)}\n" for name in sorted(_names()))
    return hashlib.sha256(together.encode()).hexdigest()[:HASH_CHARS]
