"""What a browser finds at the node's front door."""

import pytest

from tests.browser.visiting import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_front_page_says_who_this_is(visitor: Visitor) -> None:
    await visitor.page.goto("/")
    assert await visitor.page.locator("h1").count() == 1
