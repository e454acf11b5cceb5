"""The model mint: a small real mint on 127.0.0.1 with real BDHKE and DLEQ, which can misbehave.

    async with FakeMint(fee_ppk=100, units=("sat", "msat")) as mint:
        token = mint.issue(21)                       # cashuB, DLEQ included, out of nothing
        locked = mint.issue(21, lock_to=public_key)  # P2PK (NUT-11)
        mint.cut_next_answer()                       # the next POST is processed, its answer lost
        … point the node at mint.url …
        assert mint.state_of(ys)[y] == "SPENT"
        assert mint.unspent_total("sat") == 21       # signed and issued - redeemed

Serves /v1/info, keysets, keys, swap, restore, checkstate and mint quotes (`mint.quotes`, in a
module of their own); refusals carry nutshell's codes.
`mint.trouble(Trouble(...))` queues one misbehaviour; each takes the first call its `path` fits (""
fits every POST). `mint.gate`s instead of sleeps; `mint.calls` records what arrived. Keys, secrets
and scalars are the same in every run. Melt quotes (NUT-05) are the real mint's affair.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from routstr.ecash.token import Token, encode_token_v4
from tests.fakes.mint_ledger import JsonObject, MintLedger, Refused
from tests.fakes.mint_quotes import MintQuotes
from tests.fakes.upstream_script import Gate

WAIT_S: Final = 10.0
QUOTE: Final = "/v1/mint/quote/bolt11/"
NUTS: Final = (4, 7, 8, 9, 10, 11, 12, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One misbehaviour. Without any field set it is an ordinary answer.

    `processed` False: nothing happened at the mint. `gate` holds the call before processing,
    `answer_gate` after it. `status` answers with that status (`code` and `detail` as the mint's
    error, `retry_after` as header); `body` and `headers` replace the answer's; `tamper` changes
    the JSON. `cut` drops the connection instead of answering, `half` in the middle of the body.
    """

    path: str = ""
    processed: bool = True
    gate: Gate | None = None
    answer_gate: Gate | None = None
    status: int | None = None
    code: int | None = None
    detail: object = "scripted"
    retry_after: str | None = None
    body: bytes | None = None
    headers: Mapping[str, str] | None = None
    tamper: Callable[[JsonObject], object] | None = None
    cut: bool = False
    half: bool = False

    def fits(self, method: str, path: str) -> bool:
        return path.startswith(self.path) if self.path else method == "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class MintCall:
    """One request as the mint saw it."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> JsonObject:
        value = json.loads(self.body or b"{}")
        assert isinstance(value, dict)
        return value


class FakeMint:
    """The mint and its server."""

    def __init__(
        self,
        *,
        fee_ppk: int = 0,
        units: Sequence[str] = ("sat",),
        version: str = "01",
        orders: int = 32,
        nuts: Iterable[int] = NUTS,
    ) -> None:
        self.calls: list[MintCall] = []
        self.ledger = MintLedger(fee_ppk=fee_ppk, units=units, version=version, orders=orders)
        self.quotes = MintQuotes(self.ledger)
        self.nuts = tuple(nuts)
        self._troubles: list[Trouble] = []
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The canonical mint URL, `http://127.0.0.1:<port>`."""
        assert self._runner is not None
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    # ── money ─────────────────────────────────────────────────────────────────────────────────

    def issue(
        self,
        amount: int,
        unit: str = "sat",
        *,
        lock_to: str | None = None,
        tags: Sequence[Sequence[str]] = (),
        include_dleq: bool = True,
    ) -> str:
        """A cashuB token of that amount, fresh and unspent."""
        proofs = self.ledger.issue(amount, unit, lock_to=lock_to, tags=tags)
        token = Token(mint_url=self.url, unit=unit, proofs=proofs)
        return encode_token_v4(token, include_dleq=include_dleq)

    def state_of(self, ys: Iterable[str]) -> dict[str, str]:
        """UNSPENT, PENDING or SPENT by Y."""
        return {y: self.ledger.state(y) for y in ys}

    def set_pending(self, ys: Iterable[str]) -> None:
        """As if another operation held these proofs; `set_free` ends it."""
        self.ledger.pending.update(ys)

    def set_free(self, ys: Iterable[str]) -> None:
        self.ledger.pending.difference_update(ys)

    def set_spent(self, ys: Iterable[str]) -> None:
        """As if somebody else had spent these proofs (they stay in `unspent_total`)."""
        self.ledger.spent.update(ys)

    def unspent_total(self, unit: str = "sat") -> int:
        """What is signed or issued and not redeemed, in the unit."""
        return self.ledger.signed[unit] - self.ledger.redeemed[unit]

    def rotate(self, unit: str = "sat", *, fee_ppk: int = 0) -> str:
        """A new active keyset; returns its id."""
        return self.ledger.rotate(unit, fee_ppk=fee_ppk)

    # ── misbehaviour ──────────────────────────────────────────────────────────────────────────

    def trouble(self, *troubles: Trouble) -> None:
        """Queue misbehaviours."""
        self._troubles.extend(troubles)

    def cut_next_answer(self, path: str = "") -> None:
        """The next POST (to `path`) is processed, then the line drops."""
        self.trouble(Trouble(path=path, cut=True))

    def lose_next_request(self, path: str = "") -> None:
        """The next POST (to `path`) is not processed, and the line drops."""
        self.trouble(Trouble(path=path, processed=False, cut=True))

    def limit_next(self, path: str = "", *, retry_after: str | None = None) -> None:
        """The next POST (to `path`) gets a 429 and is not processed."""
        self.trouble(Trouble(path=path, processed=False, status=429, retry_after=retry_after))

    async def called(self, times: int = 1, path: str = "") -> MintCall:
        """Wait for the `times`-th call to `path` since the start (TimeoutError after 10 s)."""

        def fitting() -> list[MintCall]:
            return [call for call in self.calls if call.path.startswith(path)]

        async with asyncio.timeout(WAIT_S), self._arrived:
            await self._arrived.wait_for(lambda: len(fitting()) >= times)
        return fitting()[times - 1]

    # ── the server ────────────────────────────────────────────────────────────────────────────

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = MintCall(
            method=request.method,
            path=request.path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
        self.calls.append(call)
        async with self._arrived:
            self._arrived.notify_all()
        trouble = self._trouble_for(call)
        if trouble.gate is not None:
            await trouble.gate.passage()
        status, value = self._process(call) if trouble.processed else (200, {})
        if trouble.answer_gate is not None:
            await trouble.answer_gate.passage()
        return await self._send(request, trouble, status, value)

    def _trouble_for(self, call: MintCall) -> Trouble:
        for trouble in self._troubles:
            if trouble.fits(call.method, call.path):
                self._troubles.remove(trouble)
                return trouble
        return Trouble()

    async def _send(
        self, request: web.Request, trouble: Trouble, status: int, value: JsonObject
    ) -> web.StreamResponse:
        shown: object = value if trouble.tamper is None else trouble.tamper(value)
        if trouble.status is not None:
            status, shown = trouble.status, {"detail": trouble.detail}
            if trouble.code is not None:
                shown = {"detail": trouble.detail, "code": trouble.code}
        body = json.dumps(shown).encode() if trouble.body is None else trouble.body
        headers = {"Content-Type": "application/json", **(trouble.headers or {})}
        if trouble.retry_after is not None:
            headers["Retry-After"] = trouble.retry_after
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(body)
        assert request.transport is not None
        if trouble.cut:
            request.transport.close()
            raise asyncio.CancelledError
        await response.prepare(request)
        if trouble.half:
            await response.write(body[: len(body) // 2])
            request.transport.close()
            raise asyncio.CancelledError
        await response.write(body)
        await response.write_eof()
        return response

    def _process(self, call: MintCall) -> tuple[int, JsonObject]:
        try:
            match call.method, call.path:
                case "GET", "/v1/info":
                    return 200, self._info()
                case "GET", "/v1/keysets":
                    return 200, {"keysets": [self._listed(i) for i in self.ledger.keysets]}
                case "GET", path if path.startswith("/v1/keys/"):
                    return 200, {"keysets": [self._with_keys(path.removeprefix("/v1/keys/"))]}
                case "POST", "/v1/swap":
                    return 200, self.ledger.swap(call.json)
                case "POST", "/v1/mint/quote/bolt11":
                    return 200, self.quotes.request(call.json)
                case "GET", path if path.startswith(QUOTE):
                    return 200, self.quotes.show(path.removeprefix(QUOTE))
                case "POST", "/v1/mint/bolt11":
                    return 200, self.quotes.mint(call.json)
                case "POST", "/v1/restore":
                    return 200, self.ledger.restore(call.json)
                case "POST", "/v1/checkstate":
                    return 200, self.ledger.check_state(call.json)
                case _:
                    return 404, {"detail": "Not Found"}
        except Refused as refused:
            return 400, {"detail": refused.detail, "code": refused.code}
        except (KeyError, ValueError, AssertionError) as error:
            return 422, {"detail": [{"type": type(error).__name__, "input": "…"}]}

    def _info(self) -> JsonObject:
        nuts = {str(number): {"supported": True} for number in self.nuts}
        return {"name": "Model mint", "version": "model/1", "nuts": nuts}

    def _listed(self, keyset_id: str) -> JsonObject:
        each = self.ledger.keysets[keyset_id]
        return {
            "id": keyset_id,
            "unit": each.keyset.unit,
            "active": each.active,
            "input_fee_ppk": each.keyset.input_fee_ppk,
            "final_expiry": each.keyset.final_expiry,
        }

    def _with_keys(self, keyset_id: str) -> JsonObject:
        if keyset_id not in self.ledger.keysets:
            raise Refused(12001, "keyset not found")
        keys = self.ledger.keysets[keyset_id].keyset.keys
        return {**self._listed(keyset_id), "keys": {str(a): key for a, key in keys.items()}}
