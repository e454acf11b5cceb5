"""I-24: every route, and everybody who may knock there."""

from tests.harness.house import open_house
from tests.harness.matrix import try_every_door
from tests.harness.till import ON_SQLITE


@ON_SQLITE
async def test_every_door_lets_in_whom_it_is_for_and_nobody_else(database_url: str) -> None:
    async with open_house(database_url) as house:
        matrix = await try_every_door(house)
    assert matrix.cells > 300
    assert matrix.wrong == []
