"""The document says what the node does: no answer that it does not know, whoever asks for what."""

import asyncio

from routstr.core.dialects import DIALECTS
from tests.harness.fuzz import fuzz
from tests.harness.shop import open_shop
from tests.harness.till import ON_SQLITE

ALIASES = ("/v1/wallet", "/v1/balance/lightning", "/v2/", "/models")  # the same behind other names


@ON_SQLITE
async def test_no_answer_is_undocumented(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        key = await shop.key()
        document = shop.app.openapi()
        paths = {name: each for name, each in document["paths"].items() if not is_alias(name)}
        url = f"http://127.0.0.1:{shop.port}"
        asked = {**document, "paths": paths}
        found = await asyncio.to_thread(fuzz, asked, url, key.headers, examples=1)
        assert found.requests > 50
        assert found.failed == set()
        assert found.undocumented == set()


def is_alias(path: str) -> bool:
    return path.startswith(ALIASES)


@ON_SQLITE
async def test_the_document_names_every_paid_path_and_speaks_in_sentences(
    database_url: str,
) -> None:
    async with open_shop(database_url) as shop:
        answer = await shop.http.get("/openapi.json")
        paths = answer.json()["paths"]
    assert {f"/v1{path}" for path in DIALECTS} <= set(paths)
    for path in paths.values():
        for operation in path.values():
            assert " " in operation["summary"]
            assert "422" not in operation["responses"] or "Error" in str(operation["responses"])
