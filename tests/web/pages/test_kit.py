"""Static files: what there is, for ever, and nothing else."""

import re

import pytest

from routstr.web.pages.kit import STATIC, static_path
from tests.harness.shop import open_shop
from tests.harness.till import ON_SQLITE

ASSETS_GZIP_BYTES_MAX = 150_000


@ON_SQLITE
async def test_a_file_is_kept_for_ever_by_its_content(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        path = static_path("htmx.min.js")
        assert re.fullmatch(r"/static/[0-9a-f]{12}/htmx\.min\.js", path)
        answer = await shop.http.get(path)
        assert answer.content == (STATIC / "htmx.min.js").read_bytes()
        assert answer.headers["cache-control"].endswith("immutable")
        for wrong in ("/static/000000000000/htmx.min.js", f"{path}/../kit.py", "/static/x/kit.py"):
            assert (await shop.http.get(wrong)).status_code == 404


@pytest.mark.parametrize("name", ["htmx.min.js", "uplot.min.js"])
def test_what_is_vendored_comes_with_its_licence(name: str) -> None:
    assert name in (STATIC / "LICENSES.txt").read_text()
