"""The wallet page in a real browser: a token becomes a key that buys, and the rest goes home."""

import json
import re
import secrets
import time
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Dialog, Page, Request, Route, expect

from demo.process import NO_TLS
from demo.wallet import Wallet
from routstr.ecash.request import decode_request
from routstr.ecash.token import decode_token, encode_token_v3
from tests.browser.visiting import PHONE, House, Visitor, visiting
from tests.fakes.invoices import invoice

pytestmark = pytest.mark.asyncio(loop_scope="session")

MSAT = 1_000
BALANCE = "#w-amount .amount"


async def begin(visitor: Visitor, house: House, amount_sat: int = 500) -> Page:
    """A page with a key of that much."""
    page = visitor.page
    await page.goto("/")
    await page.fill("#w-paste", await house.token(amount_sat))
    await page.click("#w-start [data-panel=token] [type=submit]")
    await expect(page.locator(BALANCE)).to_have_text(f"{amount_sat}\u00a0sat")
    return page


async def key_of(page: Page) -> str:
    key: str = await page.evaluate("JSON.parse(localStorage.getItem('routstr.key')).text")
    return key


async def balance_msat(house: House, key: str) -> int:
    async with httpx.AsyncClient(base_url=house.node.api_url, verify=NO_TLS) as http:
        answer = await http.get("/balance/info", headers={"authorization": f"Bearer {key}"})
        balance: int = answer.json()["balance"]
        return balance


# ── a key ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_token_is_read_before_anything_is_sent(visitor: Visitor, house: House) -> None:
    page, sent = visitor.page, list[Request]()
    await page.goto("/")
    await expect(page.locator("#w-online")).to_contain_text("Online")
    page.on("request", lambda request: sent.append(request))
    await page.fill("#w-paste", await house.token(21))
    says = page.locator("#w-paste-says")
    await expect(says).to_contain_text(house.mint.url)
    await expect(says).to_contain_text("0\u00a0sat → 21\u00a0sat")
    await expect(page.get_by_role("button", name="Create a key with 21 sat")).to_be_enabled()
    for wrong, word in (
        ("cashuBnothing", "damaged"),
        ("sk-123", "64 digits"),
        (foreign(await house.token(2)), "does not take ecash of that mint"),
    ):
        await page.fill("#w-paste", wrong)
        await expect(says).to_contain_text(word)
        await expect(page.locator("#w-start [data-panel=token] [type=submit]")).to_be_disabled()
    assert sent == []


def foreign(token: str) -> str:
    """The same ecash, as if of another mint."""
    decoded = decode_token(token, bytes_max=100_000)
    return encode_token_v3(replace(decoded, mint_url="https://mint.example"))


async def test_the_key_stays_in_this_browser_until_it_is_forgotten(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 40)
    key = await key_of(page)
    assert re.fullmatch(r"sk-[0-9a-f]{64}", key)
    await page.reload()
    await expect(page.locator(BALANCE)).to_have_text("40\u00a0sat")
    await page.click("#w-copy-key")
    assert await page.evaluate("navigator.clipboard.readText()") == key
    await page.click("#w-forget")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator("#w-balance")).to_be_visible()
    await page.click("#w-forget")
    await page.locator("dialog").get_by_role("button", name="Forget key").click()
    await expect(page.locator("#w-start")).to_be_visible()
    assert key not in await page.evaluate("JSON.stringify({...localStorage})")
    await page.fill("#w-paste", key)
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.locator(BALANCE)).to_have_text("40\u00a0sat")


async def test_a_key_that_nobody_knows_is_not_kept(visitor: Visitor) -> None:
    page = visitor.page
    await page.goto("/")
    await page.fill("#w-paste", f"sk-{secrets.token_hex(32)}")
    await page.get_by_role("button", name="Use this key").click()
    await expect(page.locator("#w-start .fault")).to_contain_text("Nothing was charged.")
    assert await page.evaluate("localStorage.getItem('routstr.key')") is None
    visitor.errors.clear()  # the browser notes the 401


# ── lost answers ──────────────────────────────────────────────────────────────────────────────


async def lose_first(page: Page, path: str) -> list[str]:
    """Let the node do what is asked, and lose its first answer; the Idempotency-Keys it saw."""
    keys: list[str] = []

    async def handle(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > 1:
            await route.continue_()
            return
        answer = await route.fetch()
        assert answer.ok
        await route.abort()

    await page.route(f"**{path}", handle)
    return keys


async def test_a_key_whose_answer_was_lost_is_asked_for_again(
    visitor: Visitor, house: House
) -> None:
    page = visitor.page
    await page.goto("/")
    keys = await lose_first(page, "/v1/balance/create")
    await page.fill("#w-paste", await house.token(30))
    await page.click("#w-start [data-panel=token] [type=submit]")
    await expect(page.locator("#w-resume")).to_contain_text("under way")
    await page.reload()
    await expect(page.locator(BALANCE)).to_have_text("30\u00a0sat")
    assert len(set(keys)) == 1
    assert await page.evaluate("localStorage.getItem('routstr.pending')") is None
    visitor.errors.clear()


async def test_a_withdrawal_whose_answer_was_lost_leaves_once(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 30)
    keys = await lose_first(page, "/v1/balance/refund")
    await page.click("[data-open=withdraw]")
    await page.fill("#w-out-sat", "12")
    await page.get_by_role("button", name="Withdraw 12 sat").click()
    await expect(page.locator("#w-resume")).to_contain_text("under way")
    await page.get_by_role("button", name="Ask now").click()
    token = await page.locator("#w-tokens .secret").inner_text()
    assert decode_token(token, bytes_max=100_000).amount == 12
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert await balance_msat(house, await key_of(page)) == 18 * MSAT
    visitor.errors.clear()


async def test_a_token_that_is_refused_later_is_given_back(visitor: Visitor, house: House) -> None:
    """It was sent, no answer came, the page was loaded anew, and then the node said no."""
    page, token = visitor.page, await house.token(5)
    await page.goto("/")
    answers: list[str] = []

    async def handle(route: Route) -> None:
        answers.append(route.request.headers["idempotency-key"])
        if len(answers) == 1:
            await route.abort()
        else:
            error = {"code": "untrusted_mint", "type": "untrusted_mint", "message": "No."}
            await route.fulfill(status=400, json={"error": error})

    await page.route("**/v1/balance/create", handle)
    await page.fill("#w-paste", token)
    await page.click("#w-start [data-panel=token] [type=submit]")
    await expect(page.locator("#w-resume")).to_contain_text("under way")
    await page.reload()
    await expect(page.locator("#w-tokens .secret")).to_have_text(token)
    assert await page.evaluate("localStorage.getItem('routstr.pending')") is None
    visitor.errors.clear()


# ── money in ──────────────────────────────────────────────────────────────────────────────────


async def test_top_up_by_token_says_before_and_after(visitor: Visitor, house: House) -> None:
    page = await begin(visitor, house, 40)
    await page.click("[data-open=topup]")
    await page.fill("#w-add", await house.token(9))
    await expect(page.locator("#w-add-says")).to_contain_text("40\u00a0sat → 49\u00a0sat")
    await page.get_by_role("button", name="Top up with 9 sat").dblclick()
    await expect(page.locator(BALANCE)).to_have_text("49\u00a0sat")
    assert await balance_msat(house, await key_of(page)) == 49 * MSAT


async def test_an_invoice_opens_a_key_and_another_fills_it(visitor: Visitor) -> None:
    page = visitor.page
    await page.goto("/")
    await page.click("#w-start [data-tab=lightning]")
    await page.fill("#w-buy", "1 000")
    await page.click("#w-start [data-panel=lightning] [type=submit]")
    await expect(page.locator(BALANCE)).to_have_text("1\u2009000\u00a0sat")
    await page.click("[data-open=topup]")
    await page.click("#w-topup [data-tab=lightning]")
    await page.click("#w-topup [data-sat='500']")
    await page.click("#w-topup [data-panel=lightning] [type=submit]")
    await expect(page.locator(BALANCE)).to_have_text("1\u2009500\u00a0sat")


async def test_a_wallet_pays_what_the_page_requests(visitor: Visitor, house: House) -> None:
    page = await begin(visitor, house, 40)
    await page.click("[data-open=topup]")
    await page.click("#w-topup [data-tab=request]")
    await page.fill("#w-request-sat", "7")
    await page.click("#w-request [type=submit]")
    await expect(page.locator("#w-request-bill img")).to_be_visible()
    request = decode_request(await page.locator("#w-request-bill code").inner_text())
    await page.get_by_role("button", name="creqB").click()
    shown = await page.locator("#w-request-bill code").inner_text()
    assert decode_request(shown) == request
    assert (request.amount, request.mints) == (7, (house.mint.url,))
    [transport] = request.transports
    token = decode_token(await house.token(7), bytes_max=100_000)
    proofs = [
        {"id": each.keyset_id, "amount": each.amount, "secret": each.secret, "C": each.c}
        for each in token.proofs
    ]
    payment = {"id": request.id, "mint": token.mint_url, "unit": "sat", "proofs": proofs}
    assert urlsplit(transport.target).netloc == urlsplit(house.node.url).netloc
    async with httpx.AsyncClient(verify=NO_TLS) as http:
        assert (await http.post(transport.target, json=payment)).status_code == 200
    await expect(page.locator("#w-request-bill")).to_contain_text("received")
    await expect(page.locator(BALANCE)).to_have_text("47\u00a0sat")


# ── a chat and its price ──────────────────────────────────────────────────────────────────────


async def test_a_message_streams_and_says_what_it_cost(visitor: Visitor, house: House) -> None:
    page = await begin(visitor, house, 40)
    await expect(page.locator("#w-model-says")).to_contain_text("usual messages left")
    await page.fill("#w-prompt", "<img src=x onerror=alert(1)> Hello there")
    await page.press("#w-prompt", "Enter")
    await expect(page.locator(".bubble.theirs")).to_contain_text("Ecash pays for this answer")
    assert await page.locator(".talk img").count() == 0
    bill = page.locator(".bill-line")
    await expect(bill).to_contain_text("5 in · 24 out")
    await expect(bill).to_contain_text("0.016\u00a0sat")
    await expect(bill).to_contain_text("complete")
    await expect(page.locator(BALANCE)).to_have_text("39.984\u00a0sat")
    await bill.get_by_role("button", name="Receipt").click()
    await expect(page.locator("dialog")).to_contain_text("Charged")
    await page.keyboard.press("Escape")
    row = page.locator("#w-rows tr").first
    for said in ("demo/small", "5, 24", "complete", "\u22120.016", "39.984"):
        await expect(row).to_contain_text(said)
    await page.get_by_role("button", name="In", exact=True).click()
    await expect(page.locator("#w-rows tr")).to_have_count(1)
    await page.get_by_role("button", name="All", exact=True).click()
    async with page.expect_download() as downloading:
        await page.click("#w-csv")
    lines = (await (await downloading.value).path()).read_text().splitlines()
    assert ",usage,demo/small,5,24,completed,-16,39984,req_" in lines[1]


async def test_what_cannot_be_paid_says_so_and_keeps_the_message(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 1)
    await page.select_option("#w-model", "demo/large")
    await page.fill("#w-prompt", "Hello")
    await page.press("#w-prompt", "Enter")
    fault = page.locator(".talk .fault")
    await expect(fault).to_contain_text("Nothing was charged.")
    await expect(fault).to_contain_text("Top up")
    await expect(page.locator("#w-prompt")).to_have_value("Hello")
    visitor.errors.clear()


async def test_what_is_copied_has_the_key_and_the_model_in_it(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 40)
    await page.select_option("#w-model", "demo/large")
    await page.click("#w-use [data-tab=curl]")
    await page.locator("#w-use [data-panel=curl] button").click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert f"Bearer {await key_of(page)}" in copied
    assert f"curl {house.node.url}/v1/chat/completions" in copied
    assert json.loads(copied.split("-d '")[1].rstrip("'"))["model"] == "demo/large"


# ── money out ─────────────────────────────────────────────────────────────────────────────────


async def test_a_withdrawn_token_is_kept_until_it_is_saved_and_redeemed(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 40)
    await page.click("[data-open=withdraw]")
    await page.fill("#w-out-sat", "13")
    await expect(page.locator("#w-out .reading")).to_contain_text("40\u00a0sat → 27\u00a0sat")
    await page.get_by_role("button", name="Withdraw 13 sat").click()
    box = page.locator("#w-tokens .once")
    await expect(box).to_be_visible()
    await expect(page.locator(BALANCE)).to_have_text("27\u00a0sat")
    await box.get_by_role("button", name="Done").click()
    await expect(page.locator("dialog")).to_contain_text("not copied or saved")
    await page.get_by_role("button", name="Keep it here").click()
    asked: list[str] = []

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.accept()

    page.on("dialog", answer)
    await page.reload()
    assert asked == ["beforeunload"]
    await box.get_by_role("button", name="Copy token").click()
    token = await page.evaluate("navigator.clipboard.readText()")
    async with Wallet(house.mint.url, seed=secrets.token_bytes(64)) as wallet:
        assert await wallet.receive(token) == 13
    await box.get_by_role("button", name="Done").click()
    await expect(box).to_have_count(0)
    await page.click("[data-open=withdraw]")
    await page.click("#w-withdraw [data-tab=past]")
    await expect(page.locator("#w-past li")).to_contain_text("13\u00a0sat")


async def test_a_lightning_payment_says_its_fee_before_it_leaves(
    visitor: Visitor, house: House
) -> None:
    page = await begin(visitor, house, 100)
    bill = invoice(
        20 * MSAT,
        payment_hash=secrets.token_bytes(32),
        created_at=int(time.time()),
        expiry_s=3_600,
    )
    await page.click("[data-open=withdraw]")
    await page.click("#w-withdraw [data-tab=lightning]")
    await page.fill("#w-send-to", bill)
    await expect(page.locator("#w-send-sat")).to_be_hidden()
    await page.get_by_role("button", name="See the fee").click()
    says = page.locator("#w-send .reading")
    await expect(says).to_contain_text("Fee, at most")
    await expect(page.locator(BALANCE)).to_have_text("100\u00a0sat")
    await page.get_by_role("button", name="Send 20 sat").click()
    # The mint's Lightning is make-believe and takes 1 sat for it.
    await expect(page.locator("#w-send [data-went]")).to_contain_text("sent fee 1\u00a0sat")
    await expect(page.locator(BALANCE)).to_have_text("79\u00a0sat")
    await page.click("#w-withdraw [data-tab=past]")
    await expect(page.locator("#w-past li")).to_contain_text("over Lightning")
    await expect(page.locator("#w-past li")).to_contain_text("sent")


# ── a phone, and no script ────────────────────────────────────────────────────────────────────


async def test_nothing_is_wider_than_a_phone(chromium: Browser, house: House) -> None:
    async with visiting(chromium, house, theme="light", size=PHONE) as visitor:
        page = await begin(visitor, house, 40)
        await page.click("[data-open=topup]")
        await page.click("#w-topup [data-tab=request]")
        await page.click("#w-request [type=submit]")
        await expect(page.locator("#w-request-bill img")).to_be_visible()
        await page.fill("#w-prompt", "word" * 60)
        await page.press("#w-prompt", "Enter")
        await expect(page.locator(".bill-line")).to_contain_text("complete")
        await page.click("[data-open=withdraw]")
        await page.get_by_role("button", name=re.compile("Withdraw 39 sat")).click()
        await expect(page.locator("#w-tokens .once")).to_be_visible()
        fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert await page.evaluate(fits)
        await page.get_by_role("button", name="Copy token").click()


async def test_without_a_script_the_page_still_says_everything(
    visitor: Visitor, house: House
) -> None:
    assert visitor.context.browser is not None
    context = await visitor.context.browser.new_context(
        base_url=house.node.url, java_script_enabled=False
    )
    page = await context.new_page()
    await page.goto("/")
    seen = await page.locator("main").inner_text()
    for said in ("demo/small", "Python", "Open WebUI", "needs JavaScript", "Mints accepted"):
        assert said in seen
    for empty in ("#w-start", "#w-balance", "#w-chat", "#w-history"):
        await expect(page.locator(empty)).to_be_hidden()
    await context.close()
