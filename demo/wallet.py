"""A user's wallet at one mint, in memory: what a person with ecash does, in as few lines as can be.

It is the customer of the demo and of the tests, written on the node's own `ecash` rooms. It keeps
no file and recovers from nothing: the node's recovery is what is under test, not the customer's.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import httpx

from demo.process import NO_TLS
from routstr.ecash import bdhke, keyset, outputs, selection
from routstr.ecash.amounts import split
from routstr.ecash.outputs import Output
from routstr.ecash.p2pk import lock_secret
from routstr.ecash.proof import Keyset, Proof
from routstr.ecash.token import BODY_BYTES_MAX, Token, decode_token, encode_token_v4, resolve_ids

INVOICE_TIMEOUT_S: Final = 20
POLL_S: Final = 0.1
ANSWER_TIMEOUT_S: Final = 30

Answer = dict[str, Any]  # the real mint's JSON, which the demo takes at its word


class MintRefused(Exception):
    """The mint said no; `code` is its own (11001: already spent)."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class NotEnough(Exception):
    """The wallet holds less than was asked of it."""


class Wallet:
    """Proofs of one unit at one mint; amounts are in that unit. One call at a time, in turn."""

    def __init__(self, mint_url: str, *, seed: bytes, unit: str = "sat") -> None:
        self.mint_url = mint_url
        self.unit = unit
        self.proofs: list[Proof] = []
        self._seed = seed
        self._counters: Counter[str] = Counter()
        self._keysets: dict[str, Keyset] = {}
        self._turn = asyncio.Lock()
        self._http = httpx.AsyncClient(
            verify=NO_TLS, base_url=mint_url, timeout=ANSWER_TIMEOUT_S, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    @property
    def balance(self) -> int:
        """What the wallet holds, before the mint's fees."""
        return sum(proof.amount for proof in self.proofs)

    async def mint(self, amount: int) -> None:
        """Pay an invoice and take its ecash; the demo mint's invoices pay themselves."""
        async with self._turn:
            quote = await self._call("POST", "mint/quote/bolt11", amount=amount, unit=self.unit)
            name = quote["quote"]
            async with asyncio.timeout(INVOICE_TIMEOUT_S):
                while quote["state"] != "PAID":
                    await asyncio.sleep(POLL_S)
                    quote = await self._call("GET", f"mint/quote/bolt11/{name}")
            wanted = await self._outputs(split(amount))
            self.proofs += await self._signed("mint/bolt11", wanted, quote=name)

    async def send(self, amount: int, *, lock: str | None = None) -> str:
        """A token worth exactly `amount`; the mint's fee for making change is the wallet's.

        With `lock`, a public key, only its owner can spend it (NUT-11). Raises NotEnough,
        MintRefused.
        """
        async with self._turn:
            chosen = None if lock is not None else self._choose_exact(amount)
            if chosen is None:
                chosen = await self._change(amount, lock)
            return self._token(chosen)

    async def receive(self, token: str) -> int:
        """Swap a token for proofs that only this wallet knows; what it was worth after the fee.

        Raises MintRefused, and the errors of a malformed token.
        """
        async with self._turn:
            known = await self._load_keysets()
            decoded = resolve_ids(decode_token(token, bytes_max=BODY_BYTES_MAX), known)
            assert (decoded.mint_url, decoded.unit) == (self.mint_url, self.unit), "another mint"
            net = decoded.amount - self._fee(decoded.proofs)
            self.proofs += await self._swap(decoded.proofs, split(net))
            return net

    async def states(self, proofs: Iterable[Proof]) -> list[str]:
        """What the mint says of each proof: UNSPENT, PENDING or SPENT (NUT-07)."""
        ys = [bdhke.y_of(proof.secret) for proof in proofs]
        answer = await self._call("POST", "checkstate", Ys=ys)
        states = {each["Y"]: str(each["state"]) for each in answer["states"]}
        return [states[y] for y in ys]

    async def token_states(self, token: str) -> set[str]:
        """The states of a token's proofs."""
        return set(await self.states(decode_token(token, bytes_max=BODY_BYTES_MAX).proofs))

    def _choose_exact(self, amount: int) -> list[Proof] | None:
        purse = Counter(proof.amount for proof in self.proofs)
        counts = selection.choose_exact(purse, amount, proofs_max=len(self.proofs))
        return None if counts is None else self._take(counts)

    async def _change(self, amount: int, lock: str | None = None) -> list[Proof]:
        """Swap for exact coins; the rest comes back."""
        purse = Counter(proof.amount for proof in self.proofs)
        highest = max(each.input_fee_ppk for each in await self._load_keysets())
        counts = selection.choose_cover(purse, amount, fee_ppk=highest)
        if counts is None:
            raise NotEnough(f"{self.balance} {self.unit} cannot pay {amount} and the mint's fee")
        inputs = self._take(counts)
        rest = sum(proof.amount for proof in inputs) - self._fee(inputs) - amount
        to_send = split(amount)
        try:
            made = await self._swap(inputs, [*to_send, *split(rest)], len(to_send), lock)
        except MintRefused:
            self.proofs += inputs
            raise
        self.proofs += made[len(to_send) :]
        return made[: len(to_send)]

    def _take(self, counts: selection.Purse) -> list[Proof]:
        """Remove and return that many proofs of each amount."""
        wanted = Counter(counts)
        taken: list[Proof] = []
        kept: list[Proof] = []
        for proof in self.proofs:
            is_wanted = wanted[proof.amount] > 0
            wanted[proof.amount] -= is_wanted
            (taken if is_wanted else kept).append(proof)
        self.proofs = kept
        return taken

    def _token(self, proofs: Sequence[Proof]) -> str:
        token = Token(mint_url=self.mint_url, unit=self.unit, proofs=tuple(proofs))
        return encode_token_v4(token, include_dleq=True)

    def _fee(self, proofs: Iterable[Proof]) -> int:
        return keyset.fee(self._keysets[proof.keyset_id].input_fee_ppk for proof in proofs)

    async def _swap(
        self,
        inputs: Sequence[Proof],
        amounts: Sequence[int],
        locked: int = 0,
        lock: str | None = None,
    ) -> list[Proof]:
        wanted = await self._outputs(amounts)
        if lock is not None:
            wanted = (*(_locked(each, lock) for each in wanted[:locked]), *wanted[locked:])
        return await self._signed("swap", wanted, inputs=outputs.proofs_json(inputs))

    async def _outputs(self, amounts: Sequence[int]) -> tuple[Output, ...]:
        active = await self._active_keyset()
        first = self._counters[active.id]
        self._counters[active.id] += len(amounts)
        return outputs.make_outputs(self._seed, active.id, first, amounts)

    async def _signed(self, path: str, wanted: Sequence[Output], **fields: object) -> list[Proof]:
        answer = await self._call(
            "POST", path, **fields, outputs=outputs.blinded_messages_json(wanted)
        )
        signatures = outputs.signatures_from_json(answer["signatures"])
        active = await self._active_keyset()
        return list(outputs.unblind_all(wanted, signatures, active, require_dleq=True))

    async def _active_keyset(self) -> Keyset:
        """The active keyset of the unit that costs least."""
        active = [each for each in await self._load_keysets() if each.active]
        return min(active, key=lambda each: each.input_fee_ppk)

    async def _load_keysets(self) -> list[Keyset]:
        """All keysets of the unit, asked for once; their ids are recomputed."""
        if not self._keysets:
            listed = (await self._call("GET", "keysets"))["keysets"]
            for entry in listed:
                if entry["unit"] == self.unit:
                    self._keysets[entry["id"]] = await self._load_keyset(entry)
        return list(self._keysets.values())

    async def _load_keyset(self, entry: Answer) -> Keyset:
        keys = (await self._call("GET", f"keys/{entry['id']}"))["keysets"][0]["keys"]
        loaded = Keyset(
            id=entry["id"],
            unit=self.unit,
            active=entry["active"],
            input_fee_ppk=entry.get("input_fee_ppk") or 0,
            final_expiry=entry.get("final_expiry"),
            keys={int(amount): key for amount, key in keys.items()},
        )
        assert keyset.id_matches(loaded), "the mint's keys are not those of its keyset id"
        return loaded

    async def _call(self, method: str, path: str, **fields: object) -> Answer:
        response = await self._http.request(method, f"/v1/{path}", json=fields or None)
        answer: Answer = response.json()
        if response.status_code != httpx.codes.OK:
            raise MintRefused(answer.get("code"), str(answer.get("detail")))
        return answer


def _locked(output: Output, key: str) -> Output:
    """The same output under a lock; what would have been its secret makes the lock unique."""
    secret = lock_secret(key, nonce=output.secret)
    return replace(output, secret=secret, b_=bdhke.blind(secret, output.r))
