"""The operator's rooms in a real browser: each page, and what he does there most."""

import re

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.browser.operator import Operator
from tests.browser.visiting import House, Visitor, visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_set_up_leads_to_the_dashboard(
    chromium: Browser, house: House, operator: Operator
) -> None:
    assert len(operator.codes) >= 8
    async with visiting(chromium, house, state=operator.state) as visitor:
        await visitor.page.goto("/admin")
        await expect(visitor.page.get_by_role("heading", level=1)).to_have_text("Overview")


async def test_the_set_up_link_is_good_once(
    visitor: Visitor, house: House, operator: Operator
) -> None:
    await visitor.page.goto(house.node.setup_link)
    await expect(visitor.page).to_have_url(re.compile("/admin/login"))


async def test_nobody_else_gets_in(visitor: Visitor, operator: Operator) -> None:
    await visitor.page.goto("/admin/keys")
    await expect(visitor.page).to_have_url(re.compile("/admin/login"))


async def test_a_key_that_is_revoked_buys_nothing(
    chromium: Browser, house: House, operator: Operator
) -> None:
    key = await house.key(100)
    async with visiting(chromium, house, state=operator.state) as visitor:
        page = visitor.page
        await page.goto(f"/admin/keys/{key.key_id}")
        await page.get_by_role("button", name="Revoke this key").click()
        await page.get_by_role("button", name="Revoke", exact=True).click()
        await expect(page.get_by_text("This key is revoked")).to_be_visible()
    async with httpx.AsyncClient(base_url=house.node.url, trust_env=False) as http:
        order = {"model": "demo/small", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await http.post("/v1/chat/completions", headers=key.headers, json=order)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "key_revoked")


async def test_a_job_runs_when_it_is_asked_for(
    chromium: Browser, house: House, operator: Operator
) -> None:
    async with visiting(chromium, house, state=operator.state) as visitor:
        page = visitor.page
        await page.goto("/admin/jobs/prune")
        await page.get_by_role("button", name="Run now").click()
        await expect(page.get_by_text("done").first).to_be_visible()
