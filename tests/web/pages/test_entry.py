"""The set-up and the log-in as a browser without scripts goes through them."""

import html
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from routstr.flows.house.actions import actions
from routstr.flows.house.setup import new_setup_link, setup_url
from tests.harness.house import PASSWORD, House, fresh_code, open_house
from tests.harness.shop import Shop, open_shop
from tests.harness.till import ON_SQLITE

pytestmark = ON_SQLITE

NEW = "a new long password"


@dataclass
class Browser:
    """A person's browser: it keeps cookies, says where a form came from, and follows nothing."""

    shop: Shop
    cookies: dict[str, str] = field(default_factory=dict)
    at: str = ""
    text: str = ""

    async def go(self, path: str) -> httpx.Response:
        self.at = path
        return await self._ask("GET", path)

    async def send(self, path: str, **form: Any) -> httpx.Response:
        """A form of the page that is open, with the hidden fields that the page gave it."""
        hidden = {
            name: html.unescape(value)
            for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', self.text)
        }
        origin = f"http://127.0.0.1:{self.shop.port}"
        headers = {"origin": origin, "referer": origin + self.at}
        return await self._ask("POST", path, headers=headers, data={**hidden, **form})

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {**more.pop("headers", {}), "accept": "text/html,*/*", "cookie": cookie}
        answer = await self.shop.http.request(method, path, headers=headers, **more)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value.strip('"')
            if re.search(r"max-age=0\b", line, re.IGNORECASE):
                del self.cookies[name]
        if answer.status_code != 303:
            self.text = answer.text
        return answer


def led(answer: httpx.Response) -> str:
    assert answer.status_code == 303, (answer.status_code, answer.text)
    return str(answer.headers["location"])


async def test_the_set_up_from_the_link_to_the_dashboard(database_url: str) -> None:
    async with open_shop(database_url) as shop:
        browser, late = Browser(shop), Browser(shop)
        token = await new_setup_link(shop.ctx, actor="node", is_first=True)
        url = urlsplit(setup_url(shop.ctx, token or "", host="::", port=8000))
        assert url.netloc == "[::1]:8000"
        link = f"{url.path}?{url.query}"
        assert led(await browser.go("/admin/account")) == "/admin/setup"
        assert "routstr admin setup-link" in (await browser.go("/admin/setup")).text
        assert (await browser.go(f"/admin/setup?token={'0' * 64}")).status_code == 403
        for person in (browser, late):
            answer = await person.go(link)
            assert answer.status_code == 200
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cache-control"] == "no-store"
        for password, again in (("short", "short"), (NEW, NEW + "x")):
            refused = await browser.send("/admin/setup", password=password, again=again)
            assert refused.status_code == 400
            assert (NEW in refused.text, browser.cookies) == (False, {})
        assert led(await browser.send("/admin/setup", password=NEW, again=NEW)) == "/admin/enrol"
        refused = await late.send("/admin/setup", password=NEW, again=NEW)
        assert (refused.status_code, late.cookies) == (403, {})
        first = dict(browser.cookies)

        # nothing opens but the enrolment
        assert led(await browser.go("/admin/account")) == "/admin/enrol"
        api = await shop.http.get("/admin/api/cli-tokens", headers={"cookie": _cookie(browser)})
        assert (api.status_code, api.json()["error"]["code"]) == (403, "enrolment_required")
        answer = await browser.go("/admin/enrol")
        secret = re.search(r'class="secret mono long" tabindex="0">([A-Z2-7]{32})<', answer.text)
        assert "<svg" in answer.text
        assert secret is not None
        wrong = await browser.send("/admin/enrol", totp="abc")
        assert wrong.status_code == 401
        code = await fresh_code(shop.ctx)
        shown = await browser.send("/admin/enrol", totp=code)
        codes = re.findall(r"\b[a-z2-7]{4}(?:-[a-z2-7]{4}){3}\b", shown.text.split("</pre>")[0])
        assert len(set(codes)) == 10
        assert browser.cookies["__Host-routstr_admin"] != first["__Host-routstr_admin"]
        assert led(await Browser(shop, cookies=first).go("/admin/enrol")) == "/admin/login"

        # the codes are shown once, and have to be saved
        assert led(await browser.go("/admin/account")) == "/admin/enrol"
        assert codes[0] not in (await browser.go("/admin/enrol")).text
        others = await browser.send("/admin/enrol/codes")
        assert codes[0] not in others.text
        assert led(await browser.send("/admin/enrol/saved")) == "/admin/enrol"
        assert led(await browser.send("/admin/enrol/saved", saved="1")) == "/admin"
        assert (await browser.go("/admin/account")).status_code == 200
        assert led(await browser.go("/admin/setup")) == "/admin/login"
        assert led(await browser.go(link)) == "/admin/login"


def _cookie(browser: Browser) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


async def test_a_log_in_leads_back_to_where_somebody_wanted_to_go(database_url: str) -> None:
    async with open_house(database_url) as house:
        browser = Browser(house.shop)
        login = led(await browser.go("/admin/account?x=1"))
        assert parse_qs(urlsplit(login).query) == {"next": ["/admin/account?x=1"]}
        await browser.go(login)
        said = []
        for password, totp in (("wrong", "123456"), (PASSWORD, "12"), (PASSWORD, "")):
            answer = await browser.send("/admin/login", password=password, totp=totp)
            assert answer.status_code == 401
            assert PASSWORD not in answer.text
            said.append(answer.text)
        assert len(set(said)) == 1
        totp = await house.totp()
        evil = await browser.send("/admin/login", password=PASSWORD, totp=totp, next="//evil.com")
        assert led(evil) == "/admin"
        browser.cookies.clear()
        await browser.go(login)
        answer = await browser.send("/admin/login", password=PASSWORD, totp=house.recovery_codes[0])
        assert led(answer) == "/admin/account?x=1"
        assert led(await browser.go("/admin/login")) == "/admin"
        assert (await browser.go("/admin/account")).status_code == 200
        stolen = dict(browser.cookies)
        assert led(await browser.send("/admin/logout")) == "/admin/login"
        assert "__Host-routstr_admin" not in browser.cookies
        assert led(await Browser(house.shop, cookies=stolen).go("/admin/account")).startswith(
            "/admin/login"
        )


@pytest.mark.parametrize(
    ("origin", "host", "said"),
    [
        ("https://evil.example", None, "did not come from the node&#39;s own page"),
        (None, None, "did not come from the node&#39;s own page"),
        ("http://192.0.2.1:8000", "192.0.2.1:8000", "SSH tunnel"),
    ],
)
async def test_no_other_site_logs_somebody_in(
    database_url: str, origin: str | None, host: str | None, said: str
) -> None:
    async with open_house(database_url) as house:
        headers = {name: text for name, text in (("origin", origin), ("host", host)) if text}
        form = {"password": PASSWORD, "totp": await house.totp()}
        answer = await house.http.post("/admin/login", data=form, headers=headers)
        assert (answer.status_code, said in answer.text) == (403, True)
        assert "set-cookie" not in answer.headers


async def browse(house: House) -> Browser:
    browser = Browser(house.shop, cookies={"__Host-routstr_admin": house.opened.token})
    assert (await browser.go("/admin/account")).status_code == 200
    return browser


async def test_the_account_page(database_url: str) -> None:
    async with open_house(database_url) as house:
        browser, here = await browse(house), "/admin/account"
        assert "10 of 10 recovery codes" in browser.text
        assert house.token not in browser.text
        # what is refused comes back as a sentence on the page
        wish = {"name": "<b>cron", "scopes": ["read"], "days": "7"}
        assert led(await browser.send(f"{here}/tokens", **wish, totp="000")) == here
        assert "Wrong password or code" in (await browser.go(here)).text
        assert "Wrong password or code" not in (await browser.go(here)).text
        made = await browser.send(f"{here}/tokens", **wish, totp=await house.totp())
        token = re.search(r"\brst_[0-9a-f]{64}\b", made.text)
        assert token is not None
        assert ("&lt;b&gt;cron" in made.text, "<b>cron" in made.text) == (True, False)
        bearer = {"authorization": f"Bearer {token[0]}"}
        tokens = (await house.http.get("/admin/api/cli-tokens", headers=bearer)).json()["tokens"]
        await browser.go(here)
        assert token[0] not in browser.text
        assert led(await browser.send(f"{here}/tokens/{tokens[0]['id']}/revoke")) == here
        assert (await house.http.get(f"{here}", headers=bearer)).status_code == 403
        # recovery codes, sessions, password
        codes = await browser.send(f"{here}/codes", totp=house.recovery_codes[0])
        assert codes.text.count("<pre") == 1
        await browser.go(here)
        wrong = await browser.send(f"{here}/codes", totp=house.recovery_codes[1])
        assert led(wrong) == here
        form = {"current": PASSWORD, "new": NEW, "again": NEW, "totp": await house.totp()}
        assert led(await browser.send(f"{here}/password", **form)) == "/admin/login"
        assert led(await browser.go(here)).startswith("/admin/login")
        done = [each.action for each in await actions(house.ctx, limit=6)]
        assert done[0] == "password.change"
        assert {"token.make", "token.revoke", "codes.make"} <= set(done)


async def test_sessions_end_and_another_app_is_connected(database_url: str) -> None:
    async with open_house(database_url) as house:
        browser, other, here = await browse(house), Browser(house.shop), "/admin/account"
        await other.go("/admin/login")
        login = await other.send("/admin/login", password=PASSWORD, totp=await house.totp())
        assert led(login) == "/admin"
        await browser.go(here)
        ends = set(re.findall(r"/sessions/(ses_\w+)/end", browser.text)) - {house.opened.session_id}
        assert len(ends) == 1
        assert led(await browser.send(f"{here}/sessions/{ends.pop()}/end")) == here
        assert led(await other.go(here)).startswith("/admin/login")
        await browser.go(here)
        answer = await browser.send(f"{here}/app", totp=house.recovery_codes[0])
        assert led(answer) == "/admin/enrol"
        secret = re.search(r">([A-Z2-7]{32})<", (await browser.go("/admin/enrol")).text)
        assert secret is not None
        shown = await browser.send("/admin/enrol", totp=await fresh_code(house.ctx))
        assert shown.status_code == 200
        assert led(await browser.send("/admin/enrol/saved", saved="1")) == "/admin"
        await browser.go(here)
        assert led(await browser.send(f"{here}/sessions/end")) == "/admin/login"
        assert led(await browser.go(here)).startswith("/admin/login")


async def test_a_refusal_is_told_in_words(database_url: str) -> None:
    async with open_house(database_url) as house:
        browser = await browse(house)
        answer = await browser._ask("POST", f"/admin/account/tokens/{'x' * 9}/revoke")
        assert (answer.status_code, answer.headers["content-type"][:9]) == (403, "text/html")
