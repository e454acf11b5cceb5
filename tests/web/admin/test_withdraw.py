"""Profit leaves over HTTP: with a fresh code or a token of that scope, once per Idempotency-Key."""

from pathlib import Path

from routstr.flows.bring import bring
from routstr.flows.payout import profit_msat
from tests.fakes.mint import FakeMint
from tests.harness.desk import open_desk
from tests.harness.house import fresh_code, move_in, session_headers
from tests.harness.till import ON_SQLITE, worth

BODY = {"amount": 20}


@ON_SQLITE
async def test_profit_is_taken_once_and_only_with_a_code(database_url: str, tmp_path: Path) -> None:
    async with (
        FakeMint() as mint,
        open_desk(database_url, mint, tmp_path / "data", payout_keep_sats=0) as desk,
    ):
        await desk.create(50)
        await bring(desk.ctx, mint.issue(40))
        opened, _ = await move_in(desk.ctx)
        browser = {**session_headers(desk.ctx, opened, "https://node"), "idempotency-key": "k"}
        path = "/admin/api/withdraw"
        refused = await desk.http.post(path, headers=browser, json=BODY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "totp_required")
        sent = []
        for each in (path, "/admin/withdraw"):
            code = {"x-admin-totp": await fresh_code(desk.ctx)}
            sent.append(await desk.http.post(each, headers=browser | code, json=BODY))
        first, again = sent
        assert (first.status_code, worth(first.json()["token"])) == (200, 20), first.text
        assert first.headers["cache-control"] == "no-store"
        assert again.json() == first.json()
        assert "idempotent-replayed" not in first.headers
        assert again.headers["idempotent-replayed"] == "true"
        assert await profit_msat(desk.ctx) == 20_000
        for body, code_ in (({"amount": 10**15}, 400), ({"amount": 0}, 400), ({"to": "me"}, 400)):
            code = {"x-admin-totp": await fresh_code(desk.ctx), "idempotency-key": str(body)}
            answer = await desk.http.post(path, headers=browser | code, json=body)
            assert answer.status_code == code_, answer.text
        assert await profit_msat(desk.ctx) == 20_000
