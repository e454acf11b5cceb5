"""The operator with his browser: set up once for the run, by the link that the node printed."""

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from playwright.async_api import Browser, Page

from routstr.core.totp import code_at, step_at
from tests.browser.visiting import House, visiting

PASSWORD: Final = "correct horse battery staple"


@dataclass(slots=True, kw_only=True)
class Operator:
    """What he has after the set-up; `state` is his browser's, cookie included."""

    state: Any
    secret: bytes
    codes: list[str] = field(default_factory=list)

    def code(self) -> str:
        """Something that proves him once: a recovery code, because the app's are good for 30 s."""
        return self.codes.pop()


async def set_up(chromium: Browser, house: House) -> Operator:
    """The three steps, as a person takes them."""
    async with visiting(chromium, house) as visitor:
        page = visitor.page
        await page.goto(house.node.setup_link)
        await page.get_by_label("Choose a password").fill(PASSWORD)
        await page.get_by_label("The same again").fill(PASSWORD)
        await page.get_by_role("button", name="Go on").click()
        secret = await enrol(page)
        codes = (await page.locator("pre.secret").inner_text()).split()
        await page.get_by_role("button", name="Copy").click()  # or leaving asks whether one is sure
        await page.get_by_label("I have saved the recovery codes").check()
        await page.get_by_role("button", name="Open the dashboard").click()
        await page.wait_for_url("**/admin")
        return Operator(state=await visitor.context.storage_state(), secret=secret, codes=codes)


async def enrol(page: Page) -> bytes:
    """Connect an app that is a few lines of Python; its secret."""
    assert await page.locator(".qr svg").count() == 1
    await page.get_by_text("Type the secret instead").click()
    text = (await page.locator(".secret").inner_text()).replace(" ", "")
    secret = base64.b32decode(text + "=" * (-len(text) % 8))
    step = step_at(int(datetime.now(UTC).timestamp()))
    await page.get_by_label("The code it shows now").fill(code_at(secret, step))
    await page.get_by_role("button", name="Connect").click()
    return secret
