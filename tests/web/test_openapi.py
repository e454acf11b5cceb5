"""The document says what the node does: no answer that it does not know, whoever asks for what."""

import asyncio

import pytest

from routstr.core.dialects import DIALECTS
from tests.harness.fuzz import fuzz, parts_of
from tests.harness.house import open_house
from tests.harness.shop import open_shop
from tests.harness.till import ON_SQLITE


@ON_SQLITE
@pytest.mark.parametrize("part", ["public", "admin"])
async def test_no_answer_is_undocumented(part: str, database_url: str) -> None:
    async with open_house(database_url) as house:
        who = house.bearer if part == "admin" else (await house.shop.key()).headers
        document = parts_of(house.shop.app.openapi(), aliases=False)[part]
        found = await asyncio.to_thread(
            fuzz, document, house.origin, who, examples=1, by_turns=True
        )
    assert found.requests > len(document["paths"]) // 2 > 3
    assert found.failed == set()
    assert found.undocumented == set()


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
